"""What an application has paused, and what it was handed out of it all the same.

What it does is told in its order, and each of it at its time or later. So a record was handed out
of a paused partition for certain where it came after the pause was told, and the record was told
before the end of the pause. Where that end was told before, nobody knows which came first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ksim import observations as o
from ksim.after.lives import Life, Step
from ksim.after.witness import Event
from ksim.checks import Violation, seconds
from ksim.core import events as e
from ksim.core.values import TopicPartition


@dataclass(slots=True)
class _Tenure:
    """`paused_ms`: since when; `over` is the last pause, from when to when it was told."""

    number: int
    paused_ms: int | None = None
    filled_ms: int = -1
    over: tuple[int, int] | None = None


class Pauses:
    """The partitions of one life, while its steps are read."""

    def __init__(self, life: Life, doubts: list[Violation]) -> None:
        self._name = life.name
        self._doubts = doubts
        self._tenures = {
            tp: _Tenure(each.tenure, life.first_ms if each.paused else None)
            for tp, each in life.state.owned.items()
        }

    def see(self, step: Step) -> None:
        """What this step pauses, resumes, begins and fills."""
        fact, at_ms = step.fact, step.at_ms
        if isinstance(fact, e.Paused | e.Resumed):
            for tp in fact.partitions:
                self._turn(tp, at_ms, paused=isinstance(fact, e.Paused))
        for order in step.orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    self._tenures[TopicPartition(item.topic, item.partition)] = _Tenure(item.tenure)
            elif isinstance(order, e.BufferRecords):
                for item in order.partitions:
                    filled = self._tenures.get(TopicPartition(item.topic, item.partition))
                    if filled is not None:
                        filled.filled_ms = at_ms

    def _turn(self, tp: TopicPartition, at_ms: int, *, paused: bool) -> None:
        tenure = self._tenures.get(tp)
        if tenure is None or paused == (tenure.paused_ms is not None):
            return
        if tenure.paused_ms is not None:
            tenure.over = tenure.paused_ms, at_ms
        tenure.paused_ms = at_ms if paused else None

    def around(self, out: Event, fact: e.RecordsHandedOut) -> Iterator[Event]:
        """The last record that this tells of, and round it the pause in which that was handed out.

        Where it was in none, a pause is nothing to this record.
        """
        tp = TopicPartition(fact.topic, fact.partition)
        tenure = self._tenures.get(tp)
        if tenure is None or tenure.number != fact.tenure:
            yield out
            return
        since_ms, at_ms = tenure.paused_ms, max(fact.at_ms, tenure.filled_ms)
        if since_ms is None or at_ms <= since_ms:
            if tenure.over is not None and tenure.over[0] < fact.at_ms < tenure.over[1]:
                self._doubt(tp, fact, tenure.over)
            yield out
            return
        for when_ms, seen in (
            (since_ms, o.PartitionsPaused(self._name, (tp,), True)),
            (at_ms, out.fact),
            (at_ms, o.PartitionsPaused(self._name, (tp,), False)),
        ):
            yield Event(when_ms, when_ms, out.number, self._name, seen)

    def _doubt(self, tp: TopicPartition, fact: e.RecordsHandedOut, over: tuple[int, int]) -> None:
        begin, end = map(seconds, over)
        sentence = (
            f"{self._name} handed out offset {fact.last} of {tp} at {seconds(fact.at_ms)}, which "
            f"was paused by {begin}, and resumed by {end}: nobody knows which came first."
        )
        members, places, offsets = (self._name,), (str(tp),), (fact.last,)
        self._doubts.append(Violation("S8", fact.at_ms, members, places, offsets, sentence))
