"""The checks that the kit has beside those of scenarios: what applications promise, or forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ksim import observations as o
from ksim.checks import Checker, seconds
from ksim.core import events as e
from ksim.core.values import TopicPartition
from ksim.scenario import GroupSpec
from ksim.seen import reads
from ksim.truth import LATEST, Place, Truth


class OnceOnly(Checker):
    """No effect of a record happens twice; for applications that promise it."""

    name = "X1"
    looks_at = (o.Handled,)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source, orders
        if not isinstance(fact, o.Handled):
            return
        self.judged += 1
        place = self.truth.place(fact.member, fact.topic, fact.partition)
        times = self.truth.handled.get(place, {}).get(fact.offset, 0)
        if times > 1:
            self.accuse(
                now_ms,
                f"{fact.member} handled offset {fact.offset} of {place[1]} at {seconds(now_ms)}, "
                f"time {times} in {place[0]}: its effect must happen once.",
                (fact.member,),
                place[1],
                (fact.offset,),
            )


class NotLeftBehind(Checker):
    """A group that reads from the end on goes on where it was, once it has begun.

    With `auto_offset_reset` latest whoever finds nothing committed begins at the end. That is where
    a group wants to begin; but it loses what was written since where a member ends before its first
    commit, and what stands in a partition before it is noticed (KIP-842). `counts` has the
    partitions of each topic at the beginning.
    """

    name = "X2"
    looks_at = (e.AssignPartitions, o.TopicIs)

    def __init__(
        self, truth: Truth, counts: Mapping[str, int], groups: Sequence[GroupSpec]
    ) -> None:
        super().__init__(truth)
        self._counts = dict(counts)
        self._groups = groups
        self._begun: set[Place] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, o.TopicIs):
            self._grown(fact)
        for order in orders:
            for item in order.partitions if isinstance(order, e.AssignPartitions) else ():
                self._begins(source, now_ms, self.truth.place(source, item.topic, item.partition))

    def _grown(self, fact: o.TopicIs) -> None:
        """All of a new partition is for the groups that are at work and read its topic."""
        new = range(self._counts.get(fact.topic, 0), fact.partitions)
        at_work = {group for group, _ in self._begun}
        for group in self._groups:
            if group.id in at_work and reads(group, fact.topic):
                self._begun.update((group.id, TopicPartition(fact.topic, number)) for number in new)
        self._counts[fact.topic] = fact.partitions

    def _begins(self, source: str, now_ms: int, place: Place) -> None:
        low, end = self.truth.left_behind.pop(place, (0, 0))
        if place in self._begun and self.truth.resets.get(place[0]) == LATEST:
            self.judged += 1
            if low < end:
                self.accuse(
                    now_ms,
                    f"{source} began {place[1]} at its end {end} at {seconds(now_ms)}: nothing "
                    f"was committed, and auto_offset_reset is latest. {place[0]} was at work "
                    f"before, and nobody has handled what was written since, from offset {low} "
                    "on. Commit where you begin, or use earliest.",
                    (source,),
                    place[1],
                    (low,),
                )
        self._begun.add(place)
