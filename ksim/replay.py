"""Feed a recording to today's machine and compare each decision."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ksim.core.coordinator import Coordinator
from ksim.core.errors import DamagedRecordingError
from ksim.core.member import Member
from ksim.core.session import Machine
from ksim.core.trace import MalformedTraceError, Plain, plain, value_of
from ksim.recording import Recording

RESTORERS: dict[str, Callable[[Plain], Machine]] = {
    "member": Member.restore,
    "coordinator": Coordinator.restore,
}


class ReplayVerdict(StrEnum):
    """SAME; INCOMPLETE: the same up to a torn tail; DIVERGED: another decision."""

    SAME = "SAME"
    INCOMPLETE = "INCOMPLETE"
    DIVERGED = "DIVERGED"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step whose orders differ: where, after which fact, and both sides."""

    entry: int
    line: int
    now_ms: int
    fact: Plain
    recorded: list[Plain]
    decided: list[Plain]

    def sentence(self) -> str:
        """Where the two part, for people."""
        at = next(
            (
                n
                for n, pair in enumerate(zip(self.recorded, self.decided, strict=False))
                if pair[0] != pair[1]
            ),
            min(len(self.recorded), len(self.decided)),
        )
        was = self.recorded[at] if at < len(self.recorded) else "nothing"
        now = self.decided[at] if at < len(self.decided) else "nothing"
        path, was, now = _difference(was, now)
        return (
            f"entry {self.entry} (line {self.line}) at {self.now_ms} ms, "
            f"after {_short(self.fact)}: order {at + 1}{path} was {_short(was)}, "
            f"is now {_short(now)}"
        )


def _difference(was: Plain, now: Plain) -> tuple[str, Plain, Plain]:
    """The first place inside where two orders differ, and both sides of it."""
    if isinstance(was, dict) and isinstance(now, dict) and list(was) == list(now):
        pairs = [(f".{key}", was[key], now[key]) for key in was]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = [(f"[{at}]", *pair) for at, pair in enumerate(zip(was, now, strict=True))]
    else:
        return "", was, now
    path, one, other = next(pair for pair in pairs if pair[1] != pair[2])
    inner, one, other = _difference(one, other)
    return path.replace("._", " kind") + inner, one, other


def _short(data: Plain) -> str:
    text = json.dumps(data, separators=(",", ":"))
    return text if len(text) <= 200 else text[:197] + "..."


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What a replay found."""

    verdict: ReplayVerdict
    entries: int
    divergence: Divergence | None


def replay(recording: Recording) -> ReplayOutcome:
    """Step the machine that the recording began with through all of its facts."""
    vantage = recording.header.get("vantage")
    restore = RESTORERS.get(str(vantage))
    if restore is None:
        known = ", ".join(sorted(RESTORERS))
        raise DamagedRecordingError(f"line 1: vantage {vantage!r}; this replays {known}")
    try:
        machine = restore(recording.snapshot)
    except (MalformedTraceError, AssertionError) as error:
        raise DamagedRecordingError(f"line 2: {error}") from error
    for number, entry in enumerate(recording.entries, 1):
        fact = _fact(entry.line, entry.fact)
        decided: list[Any] = [plain(order) for order in machine.step(fact, now_ms=entry.now_ms)]
        if decided != entry.orders:
            found = Divergence(number, entry.line, entry.now_ms, entry.fact, entry.orders, decided)
            return ReplayOutcome(ReplayVerdict.DIVERGED, number, found)
    verdict = ReplayVerdict.SAME if recording.complete else ReplayVerdict.INCOMPLETE
    return ReplayOutcome(verdict, len(recording.entries), None)


def _fact(line: int, data: Plain) -> Any:
    try:
        return value_of(data)
    except MalformedTraceError as error:
        raise DamagedRecordingError(f"line {line}: {error}") from error
