"""What producers write: records at their times, straight into the logs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ksim import observations as o
from ksim.core.values import TopicPartition
from ksim.scenario import ProduceSpec
from ksim.sim.brokers import SimCluster
from ksim.sim.world import US_PER_MS, World

TICK_US = 10_000
KeyAndValue = tuple[bytes | None, bytes | None]


def numbered(number: int) -> KeyAndValue:
    """The usual record: its number is its key and its value."""
    text = str(number).encode()
    return text, text


class Production:
    """All that is produced in one run; `records` counts what was written.

    `over_ms`: when the last record is written that is scheduled by now.
    """

    def __init__(
        self, world: World, cluster: SimCluster, observe: Callable[[str, o.Observation], None]
    ) -> None:
        self.records = 0
        self.over_ms = 0
        self._world = world
        self._cluster = cluster
        self._observe = observe

    def schedule(self, spec: ProduceSpec, record: Callable[[int], KeyAndValue] = numbered) -> None:
        """Write what the spec says; `record` makes the one of each number."""
        ticks = -(-spec.count * 1_000_000 // (max(1, spec.per_second) * _every_us(spec)))
        over_us = spec.start_ms * US_PER_MS + max(0, ticks - 1) * _every_us(spec)
        self.over_ms = max(self.over_ms, over_us // US_PER_MS)
        write = partial(self._write, spec, record, 0, 0)
        self._world.call_at(spec.start_ms * US_PER_MS, write)

    def _write(
        self, spec: ProduceSpec, record: Callable[[int], KeyAndValue], tick: int, done: int
    ) -> None:
        """Write what is due; the next records come with the next tick."""
        every_us = _every_us(spec)
        by_now = max(tick + 1, spec.per_second * (tick + 1) * every_us // 1_000_000)
        due = min(spec.count, by_now)
        partitions = self._cluster.state.counts.get(spec.topic, 0)
        by_partition: dict[int, list[tuple[bytes | None, bytes | None, tuple[()]]]] = {}
        for number in range(done, due if partitions else done):
            by_partition.setdefault(number % partitions, []).append((*record(number), ()))
        for partition, records in by_partition.items():
            end = self._cluster.append(TopicPartition(spec.topic, partition), records)
            self._observe("producer", o.Produced(spec.topic, partition, end))
            self.records += len(records)
        if due < spec.count:
            self._world.call_after(every_us, self._write, spec, record, tick + 1, due)


def _every_us(spec: ProduceSpec) -> int:
    """Between two ticks: one record each, or several where they come faster than that."""
    return max(TICK_US, 1_000_000 // spec.per_second)
