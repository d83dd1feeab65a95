"""The ring: it is the end of the whole at every moment, and is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ksim.core import events as e
from ksim.core.member import Member
from ksim.core.trace import plain
from ksim.recorder import FlightRecorder
from ksim.recording import read_recording
from tests.recordings_live import ENTRIES, SOURCE, WHOLE, header, live, whole

HOUR_MS = 3_600_000


def dumped(recorder: FlightRecorder, path: Path) -> list[tuple[int, Any, Any]]:
    recorder.flight(7, "a test").write(path)
    assert read_recording(path).header["why"] == "a test"
    return whole(path)


def test_a_ring_is_the_end_of_the_whole_at_every_moment(tmp_path: Path) -> None:
    recorder = FlightRecorder(header(), most_bytes=50_000, most_ms=10**9)
    lengths = []
    for at in live(recorder):
        if at % 7 == 0:
            steps = dumped(recorder, tmp_path / "ring.ksim")
            assert steps == WHOLE[at - len(steps) : at]
            lengths.append(len(steps))
    assert lengths[0] == 7
    assert 10 < lengths[-1] < ENTRIES // 2
    assert [path.name for path in tmp_path.iterdir()] == ["ring.ksim"]


@pytest.mark.parametrize("most_ms", [1, 500, 1_000, 10**9])
def test_a_ring_ends_by_time_too(tmp_path: Path, most_ms: int) -> None:
    recorder = FlightRecorder(header(), most_bytes=2**30, most_ms=most_ms)
    for at in live(recorder):
        if at % 10 == 0:
            last_ms = WHOLE[at - 1][0]
            recent = [step for step in WHOLE[:at] if step[0] >= last_ms - most_ms]
            assert dumped(recorder, tmp_path / "ring.ksim") == recent


def idle(recorder: FlightRecorder) -> list[tuple[int, Any, Any]]:
    """Two steps, an hour of nothing, and one more."""
    machine = Member.restore(SOURCE.snapshot)
    tap = recorder(machine.snapshot)
    for now_ms in (0, 1_000, HOUR_MS):
        tap.on_step(now_ms, e.TimerFired(), machine.step(e.TimerFired(), now_ms=now_ms))
    return [(HOUR_MS, plain(e.TimerFired()), [])]


def test_after_an_idle_hour_a_ring_has_the_last_step_and_none_from_before(tmp_path: Path) -> None:
    recorder = FlightRecorder(header(), most_bytes=2**30, most_ms=300_000)
    last = idle(recorder)
    assert dumped(recorder, tmp_path / "ring.ksim") == last


def test_a_ring_whose_past_cannot_be_made_again_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = FlightRecorder(header(), most_bytes=2**30, most_ms=300_000)
    idle(recorder)
    with monkeypatch.context() as patched:
        patched.setattr(Member, "step", lambda *_, **__: 1 // 0)
        recorder.flight(7, "a test").write(tmp_path / "ring.ksim")
    assert len(whole(tmp_path / "ring.ksim")) == 3


def test_a_ring_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    recorder = FlightRecorder(header(), most_bytes=100_000, most_ms=1_000)
    assert [*live(recorder)][-1] == ENTRIES
    with pytest.raises(OSError, match="No such file"):
        recorder.flight(7, "").write(tmp_path / "absent" / "x.ksim")
    assert not list(tmp_path.iterdir())


def test_a_ring_that_several_write_to_one_place_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = FlightRecorder(header(), most_bytes=2**30, most_ms=10**9)
    assert [*live(recorder)][-1] == ENTRIES
    path = tmp_path / "ring.ksim"
    honest = Path.replace
    others = iter([recorder.flight(7, "a test"), None])

    def replace(self: Path, target: Path) -> Path:
        if (other := next(others)) is not None:
            other.write(path)  # another thread, at the worst moment
        return honest(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert dumped(recorder, path) == WHOLE
    assert [each.name for each in tmp_path.iterdir()] == ["ring.ksim"]
