"""Steps as they were recorded, and where two recordings of one process show the same ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, cast

from ksim import recording_hiding as hiding
from ksim.core.trace import MalformedTraceError, Plain


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


# Of what stands beside a step; `recording_shape.check_payload` has seen that each is of its type.
PARTS: Final = ("topic", "partition", "first", "last", "count")


def fetched_of(payload: Plain) -> tuple[Fetched, ...]:
    """Raises MalformedTraceError for records that no fetch can have brought."""
    return () if payload is None else tuple(map(_fetched, cast("list[dict[str, Any]]", payload)))


def _fetched(part: dict[str, Any]) -> Fetched:
    found = Fetched(*(part[name] for name in PARTS))
    if not (0 <= found.first <= found.last and 1 <= found.count <= found.last - found.first + 1):
        raise MalformedTraceError(
            f"a payload of {found.count} records from {found.first} to {found.last}"
        )
    return found


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
