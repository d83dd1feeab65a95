"""Steps as they were recorded, and where two recordings of one process show the same ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ksim import recording_hiding as hiding


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the member, by its own clock."""

    at_ms: int
    fact: Any
    orders: tuple[Any, ...]


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


def _is_same(one: Step, other: Step) -> bool:
    """What one of two recordings has starred, the other one may show."""
    if one == other:
        return True
    shown, starred = (one, other), (_starred(one), _starred(other))
    return starred[0] == shown[1] or shown[0] == starred[1] or starred[0] == starred[1]


def _starred(step: Step) -> Step:
    found = hiding.hidden(hiding.Step(step.at_ms, step.fact, step.orders, None))
    return Step(found.now_ms, found.fact, tuple(found.orders))
