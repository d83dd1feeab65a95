"""Steps as they were recorded, and where two recordings of one process show the same ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, cast

from ksim import recording_hiding as hiding
from ksim.core.trace import MalformedTraceError, Plain

LONGEST_TOLD: Final = 60


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought of one partition: the offsets of its first and its last record."""

    topic: str
    partition: int
    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the member, by its own clock.

    `fetched` is there where payloads are kept, which a file may do and a ring of the same process
    may not.
    """

    at_ms: int
    fact: Any
    orders: tuple[Any, ...]
    fetched: tuple[Fetched, ...] = field(default=(), compare=False)


# What stands beside a step, as `recording.schema.json` has it.
NEEDED: Final[dict[str, type]] = {
    "topic": str, "partition": int, "first": int, "last": int, "count": int,
}  # fmt: skip
ALLOWED: Final[dict[str, type]] = NEEDED | {"bytes": int, "digest": str, "records": list}


def fetched_of(payload: Plain) -> tuple[Fetched, ...]:
    """Raises MalformedTraceError for what is no payload."""
    if payload is None:
        return ()
    if not isinstance(payload, list):
        raise MalformedTraceError(f"payload is {_short(payload)}, not a list")
    return tuple(_fetched(part) for part in payload)


def _fetched(part: Plain) -> Fetched:
    if not isinstance(part, dict):
        raise MalformedTraceError(f"payload has {_short(part)}, not an object")
    if not NEEDED.keys() <= part.keys() <= ALLOWED.keys():
        raise MalformedTraceError(f"a payload has {', '.join(ALLOWED)}; got {sorted(part)}")
    for name, value in part.items():
        if type(value) is not ALLOWED[name]:
            wanted = ALLOWED[name].__name__
            raise MalformedTraceError(f"{name} of a payload is {_short(value)}, not {wanted}")
    found = Fetched(*(cast("Any", part[name]) for name in NEEDED))
    if not (0 <= found.first <= found.last and 1 <= found.count <= found.last - found.first + 1):
        raise MalformedTraceError(
            f"a payload of {found.count} records from {found.first} to {found.last}"
        )
    return found


def _short(value: Plain) -> str:
    told = repr(value)
    return told if len(told) <= LONGEST_TOLD else f"{told[:LONGEST_TOLD]}..."


def place_of(later: Sequence[Step], earlier: Sequence[Step]) -> int | None:
    """Which step of the earlier recording the later one begins with; None: they share none.

    From there on both show the same, as far as both go.
    """
    if not later:
        return None
    begin_ms = later[0].at_ms
    at = bisect_left(earlier, begin_ms, key=lambda step: step.at_ms)
    while at < len(earlier) and earlier[at].at_ms == begin_ms:
        if all(map(_is_same, islice(earlier, at, None), later)):
            return at
        at += 1
    return None


def both(one: Step, other: Step) -> Step:
    """The same step, with what either of two recordings has kept of it."""
    return one if one.fetched else other


def _is_same(one: Step, other: Step) -> bool:
    """What one of two recordings has starred, the other one may show."""
    if one == other:
        return True
    shown, starred = (one, other), (_starred(one), _starred(other))
    return starred[0] == shown[1] or shown[0] == starred[1] or starred[0] == starred[1]


def _starred(step: Step) -> Step:
    found = hiding.hidden(hiding.Step(step.at_ms, step.fact, step.orders, None))
    return Step(found.now_ms, found.fact, tuple(found.orders))
