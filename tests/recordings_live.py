"""The life of a member that the corpus knows, once more for recorders to see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ksim.core.member import Member
from ksim.core.trace import plain, value_of
from ksim.recorder import FileRecorder, FlightRecorder, header_of
from ksim.recording import read_recording
from ksim.recording_payload import PayloadMode
from ksim.replay import ReplayVerdict, replay_file
from tests.recordings_here import CORPUS

SOURCE = read_recording(CORPUS / "1.0" / "static.ksim")
ENTRIES = len(SOURCE.entries)


def header(payload: PayloadMode = PayloadMode.DIGEST) -> dict[str, Any]:
    return header_of("member", "m", {}, payload)


def live(*listeners: FileRecorder | FlightRecorder) -> Iterator[int]:
    """The life of the member that the corpus knows, entry by entry, with these taps."""
    machine = Member.restore(SOURCE.snapshot)
    tapped = [listener(machine.snapshot) for listener in listeners]
    for at, entry in enumerate(SOURCE.entries, 1):
        fact = value_of(entry.fact)
        orders = machine.step(fact, now_ms=entry.now_ms)
        for each in tapped:
            each.on_step(entry.now_ms, fact, orders)
        yield at


def whole(found: Path) -> list[tuple[int, Any, Any]]:
    """Its steps; it replays the same."""
    assert replay_file(found).verdict == ReplayVerdict.SAME, replay_file(found)
    return [(entry.now_ms, entry.fact, entry.orders) for entry in read_recording(found).entries]


def of_today(found: Any) -> Any:
    """As today's release writes it: older ones did not know all of its fields."""
    return plain(value_of(found))


WHOLE = [
    (entry.now_ms, of_today(entry.fact), [of_today(order) for order in entry.orders])
    for entry in SOURCE.entries
]
