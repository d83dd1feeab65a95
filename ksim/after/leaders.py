"""Whether two members were told to lead one generation: that is wrong in whatever order it was.

Answers to one round come at once, so which of both came first says nothing. What excuses two of
them is a coordinator that began anew between both and made the generation a second time, which it
can only while nobody has heard of its share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from ksim.after.between import signs_of
from ksim.after.clocks import Clocks
from ksim.after.lives import Joined, Life, joins_of, round_of, syncs_of
from ksim.after.witness import node_name
from ksim.checks import Violation, seconds
from ksim.core.errors import KafkaError

# Whoever is answered so by the coordinator of its round may be unknown to it since it began anew.
FORGOTTEN: Final = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION)

# A generation, whoever leads it: group, broker and number.
Made = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class _Led:
    """Who was told to lead; `shared`: it was told its share after that; `forgotten`: no more."""

    life: int
    joined: Joined
    shared: bool
    forgotten: bool


@dataclass(frozen=True, slots=True)
class _Sign:
    """Between these times of a life the coordinator of a group there may have begun anew."""

    life: int
    since_ms: int
    by_ms: int


# By group and broker.
Signs = dict[tuple[str, int], list[_Sign]]


def two_leaders(lives: Sequence[Life], clocks: Clocks) -> tuple[list[Violation], list[Violation]]:
    """Those that are certain, and those that nobody can decide."""
    signs = _signs(lives)
    sure: list[Violation] = []
    open_: list[Violation] = []
    for made, led in sorted(_led(lives).items()):
        accused: set[tuple[str, str]] = set()
        for one, other in combinations(led, 2):
            names = one.joined.response.member_id, other.joined.response.member_id
            if names[0] == names[1] or names in accused:
                continue
            seen = _Pair(one, other, clocks).beside(signs.get(made[:2], []))
            if seen is not None:
                accused.add(names)
                (sure if seen else open_).append(_violation(made, (one, other), clocks))
    return sure, open_


def _led(lives: Sequence[Life]) -> dict[Made, list[_Led]]:
    """A static leader that came back is told its members, and to share out nothing."""
    found: dict[Made, list[_Led]] = defaultdict(list)
    for at, life in enumerate(lives):
        codes = {made: set[int]() for made, _ in syncs_of(life)}
        for made, each in syncs_of(life):
            codes[made].add(each.error_code)
        for joined in joins_of(life):
            if joined.leads and not joined.response.skip_assignment:
                told = codes.get(round_of(joined), set())
                led = _Led(at, joined, KafkaError.NONE in told, not told.isdisjoint(FORGOTTEN))
                found[joined.group_id, joined.node_id, joined.generation_id].append(led)
    return found


def _signs(lives: Sequence[Life]) -> Signs:
    """For each coordinator of a group; another one that made a generation was its successor."""
    found: Signs = defaultdict(list)
    seats = sorted({(each.group_id, each.node_id) for life in lives for each in joins_of(life)})
    for at, life in enumerate(lives):
        for sign in signs_of(life):
            new = _Sign(at, sign.earliest_ms, sign.latest_ms)
            for seat in seats:
                if sign.source == node_name(seat[1]):
                    found[seat].append(new)
        for joined in joins_of(life):
            new = _Sign(at, joined.sent_ms, joined.told_ms)
            for seat in seats:
                if seat[0] == joined.group_id and seat[1] != joined.node_id:
                    found[seat].append(new)
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two that led one generation, beside each other as their clocks can stand."""

    one: _Led
    other: _Led
    clocks: Clocks

    def beside(self, signs: Sequence[_Sign]) -> bool | None:
        """Whether it is certain that both were wrong; None: the coordinator had begun anew."""
        frames = [
            frame
            for led in (self.one, self.other)
            for frame in (self.clocks.earliest(led.life), self.clocks.latest(led.life))
        ]
        excused = [self._excused(frame, signs) for frame in frames]
        if all(excused):
            return None
        forgotten = self.one.forgotten or self.other.forgotten
        return not any(excused) and not forgotten and all(map(self._is_kept, frames))

    def _times(self, led: _Led, frame: Sequence[int]) -> tuple[int, int]:
        by_ms = frame[led.life]
        return led.joined.sent_ms + by_ms, led.joined.told_ms + by_ms

    def _is_kept(self, frame: Sequence[int]) -> bool:
        """Whoever told the second one knew of the first one.

        It was stored, or both waited at once: who begins anew answers nobody who had asked before.
        """
        one, other = self._times(self.one, frame), self._times(self.other, frame)
        at_once = one[0] < other[1] and other[0] < one[1]
        return at_once or (self.one if one[1] < other[1] else self.other).shared

    def _excused(self, frame: Sequence[int], signs: Sequence[_Sign]) -> bool:
        one, other = self._times(self.one, frame), self._times(self.other, frame)
        since_ms, by_ms = min(one[0], other[0]), max(one[1], other[1])
        return any(
            sign.since_ms + frame[sign.life] < by_ms and sign.by_ms + frame[sign.life] > since_ms
            for sign in signs
        )


def _violation(made: Made, pair: tuple[_Led, _Led], clocks: Clocks) -> Violation:
    at_ms = max(each.joined.told_ms + clocks.likely(0, each.life) for each in pair)
    one, other = (each.joined.response.member_id for each in pair)
    sentence = f"generation {made[2]} has two leaders at {seconds(at_ms)}: {one} and {other}."
    return Violation("S12", at_ms, (one, other), (), (), sentence)
