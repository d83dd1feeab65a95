"""Beginnings: where a tenure starts to read when its group has nothing committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.values import TopicPartition
from ksim.truth import LATEST, Truth


class Beginnings:
    """Which tenures of groups with `latest` began before the end of a log they had nothing in.

    The end is that of when the coordinator said that nothing is committed: a leader that is asked
    after that knows no lower one, unless the log was cut or its topic deleted meanwhile. Too late
    a beginning needs no judging here: what lies before it is lost, which S1 and L2 see.
    """

    looks_at = (o.Truncated, o.TopicIs, e.ResponseReceived, e.AssignPartitions)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._ends: dict[tuple[str, TopicPartition], int] = {}

    def early(
        self, source: str, fact: Any, orders: Sequence[Any]
    ) -> Iterator[tuple[TopicPartition, int, int]]:
        """Partition, offset and the end before which a tenure begins here."""
        match fact:
            case o.Truncated():
                self._cut(fact.topic, fact.partition)
            case o.TopicIs(partitions=0):
                self._cut(fact.topic, None)
            case e.ResponseReceived(response=m.OffsetFetchResponse() as response):
                self._told(source, response)
            case _:
                pass
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    end = self._ends.pop((source, tp), 0)
                    if 0 <= item.offset < end:
                        yield tp, item.offset, end

    def _cut(self, topic: str, partition: int | None) -> None:
        for at in [at for at in self._ends if at[1].topic == topic]:
            if partition in (None, at[1].partition):
                del self._ends[at]

    def _told(self, source: str, response: m.OffsetFetchResponse) -> None:
        if self._truth.resets.get(self._truth.groups.get(source, "")) != LATEST:
            return
        for found in response.partitions:
            tp = TopicPartition(found.topic, found.partition)
            self._ends.pop((source, tp), None)
            if not found.error_code and found.offset < 0:
                self._ends[source, tp] = self._truth.ends.get(tp, 0)
