"""A consumer's metrics for Prometheus: the extra `prometheus`.

Nothing is counted here. A scrape reads one value under the driver's lock and puts it into families.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ksim.consumer.consumer import Consumer
from ksim.consumer.health import (
    PartitionCounts,
    PartitionHealth,
    Statistics,
    Timing,
    continued,
)
from ksim.core.errors import MisuseError

PREFIX: Final = "ksim_consumer_"
MEMBER: Final = ("group", "client_id")
PARTITION: Final = ("group", "client_id", "topic", "partition")
# The value of the gauge `state`.
STATES: Final = ("UNJOINED", "PREPARING_REBALANCE", "COMPLETING_REBALANCE", "STABLE", "CLOSED")

CLOSED: Final = STATES[-1]

Labels = tuple[str, str]
Samples = Iterable[tuple[tuple[str, ...], Any]]
Read = Callable[[Statistics], Samples]


class _Family(NamedTuple):
    """One metric: its samples are the labels after `group` and `client_id`, and the value."""

    make: Callable[..., Any]
    name: str
    help: str
    labels: tuple[str, ...]
    read: Read


def _of_owned(value: Callable[[PartitionHealth], int | None]) -> Read:
    """Of the partitions that are owned now, where it is known."""

    def read(found: Statistics) -> Samples:
        for each in found.health.partitions:
            number = value(each)
            if number is not None:
                yield (each.topic, str(each.partition)), number

    return read


def _of_all(value: Callable[[PartitionCounts], Any]) -> Read:
    """Of every partition that was ever owned: counters never go back."""
    return lambda found: (
        ((each.topic, str(each.partition)), value(each)) for each in found.partitions
    )


def _of_member(value: Callable[[Statistics], float | Timing | None]) -> Read:
    def read(found: Statistics) -> Samples:
        number = value(found)
        if number is not None:
            yield (), number

    return read


def _by_name(counts: Callable[[Statistics], dict[str, int]]) -> Read:
    return lambda found: (((name,), count) for name, count in sorted(counts(found).items()))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1_000


_GAUGE, _COUNTER = GaugeMetricFamily, CounterMetricFamily
FAMILIES: Final = (
    _Family(_GAUGE, "lag_records", "Offsets up to the end that are not marked as done",
            PARTITION, _of_owned(lambda p: p.lag)),
    _Family(_GAUGE, "marked_offset", "The next offset after what is marked as done",
            PARTITION, _of_owned(lambda p: p.marked)),
    _Family(_GAUGE, "committed_offset", "The last offset whose commit was acknowledged",
            PARTITION, _of_owned(lambda p: p.committed)),
    _Family(_GAUGE, "highwater_offset", "The end of the partition as the last fetch saw it",
            PARTITION, _of_owned(lambda p: p.high_watermark)),
    _Family(_GAUGE, "buffered_records", "Records that are fetched and not handed out yet",
            PARTITION, _of_owned(lambda p: p.buffered)),
    _Family(_GAUGE, "assigned_partitions", "Partitions that this member owns",
            MEMBER, _of_member(lambda s: len(s.health.partitions))),
    _Family(_GAUGE, "state", ", ".join(f"{at} {name}" for at, name in enumerate(STATES)),
            MEMBER, _of_member(lambda s: STATES.index(s.health.state))),
    _Family(_GAUGE, "generation", "The generation of the group that this member is in",
            MEMBER, _of_member(lambda s: s.health.generation_id)),
    _Family(_GAUGE, "heartbeat_age_seconds", "Since the coordinator last answered a heartbeat",
            MEMBER, _of_member(lambda s: _seconds(s.health.heartbeat_age_ms))),
    _Family(_GAUGE, "poll_age_seconds", "Since the application last asked; 0 while it waits",
            MEMBER, _of_member(lambda s: _seconds(s.health.poll_age_ms))),
    _Family(_COUNTER, "rebalances", "Rebalances of this member, by what began them",
            (*MEMBER, "reason"), _by_name(lambda s: s.rebalances)),
    _Family(HistogramMetricFamily, "rebalance_duration_seconds",
            "From giving up partitions, or joining, to the new assignment",
            MEMBER, _of_member(lambda s: s.rebalance_times)),
    _Family(SummaryMetricFamily, "partition_unowned_seconds",
            "How long a partition was nobody's before it came back to this member",
            PARTITION, _of_all(lambda p: (p.returns, p.unowned_ms / 1_000))),
    _Family(_COUNTER, "commits", "Commits that were answered or failed, by how",
            (*MEMBER, "result"), _by_name(lambda s: s.commits)),
    _Family(HistogramMetricFamily, "commit_duration_seconds", "From a commit to its answer",
            MEMBER, _of_member(lambda s: s.commit_times)),
    _Family(_COUNTER, "records", "Records that were fetched",
            PARTITION, _of_all(lambda p: p.records)),
    _Family(_COUNTER, "bytes", "Bytes of record batches that were fetched",
            PARTITION, _of_all(lambda p: p.bytes)),
    _Family(_COUNTER, "backpressure_seconds",
            "How long a partition was not fetched because its buffer was not empty",
            PARTITION, _of_all(lambda p: p.backpressure_ms / 1_000)),
    _Family(_COUNTER, "errors", "Errors that were reported, and requests without an answer",
            (*MEMBER, "kind"), _by_name(lambda s: s.errors)),
    _Family(_COUNTER, "recorder_bytes", "Bytes written to recordings",
            MEMBER, _of_member(lambda s: s.recorded_bytes)),
    _Family(_COUNTER, "recorder_dropped", "Steps that a recording lacks: its disk was full or slow",
            MEMBER, _of_member(lambda s: s.recording_dropped)),
)  # fmt: skip


class ConsumerCollector(Collector):
    """All consumers of a process, in one collector: `REGISTRY.register(ConsumerCollector(c))`.

    Series are told apart by `group` and `client_id`, so that of consumers which have both in common
    only one may be open at a time. Raises MisuseError.
    """

    def __init__(self, *consumers: Consumer) -> None:
        self._lock = threading.Lock()
        self._consumers: dict[Labels, Consumer] = {}
        self._ended: dict[Labels, Statistics] = {}
        for consumer in consumers:
            self.add(consumer)

    def add(self, consumer: Consumer) -> None:
        """One more; one that is closed goes on telling what it has counted.

        A consumer that takes the place of a closed one, with its group and `client_id`, goes on
        with its counters. Raises MisuseError where that one is open.
        """
        labels = _labels(consumer.statistics())
        with self._lock:
            before = self._consumers.get(labels)
            if before is consumer:
                return
            if before is not None:
                ended = before.statistics()
                if ended.health.alive and ended.health.state != CLOSED:
                    raise MisuseError(
                        f"group = {labels[0]!r} and client_id = {labels[1]!r} are those of a "
                        "consumer that is open: give each a client_id of its own, or close that "
                        "one first"
                    )
                self._ended[labels] = self._continued(labels, ended)
            self._consumers[labels] = consumer

    def _continued(self, labels: Labels, found: Statistics) -> Statistics:
        ended = self._ended.get(labels)
        return found if ended is None else continued(ended, found)

    def describe(self) -> Iterator[Metric]:
        """The families without samples: registering asks nobody."""
        for family in FAMILIES:
            yield family.make(PREFIX + family.name, family.help, labels=family.labels)

    def collect(self) -> Iterator[Metric]:
        """By the registry, at each scrape."""
        with self._lock:
            found = [
                self._continued(labels, consumer.statistics())
                for labels, consumer in self._consumers.items()
            ]
        for family in FAMILIES:
            metric = family.make(PREFIX + family.name, family.help, labels=family.labels)
            for each in found:
                for labels, value in family.read(each):
                    _add(metric, (*_labels(each), *labels), value)
            yield metric


def _labels(found: Statistics) -> Labels:
    return found.group_id, found.client_id


def _add(metric: Any, labels: tuple[str, ...], value: Any) -> None:
    match value:
        case Timing():
            bounds = [*(str(most / 1_000) for most in value.bounds_ms), "+Inf"]
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            metric.add_metric(labels, buckets, value.sum_ms / 1_000)
        case (count, total):
            metric.add_metric(labels, count, total)
        case _:
            metric.add_metric(labels, value)


def page(consumer: Consumer, accept: str) -> tuple[bytes, str]:
    """The answer to a scrape and its content type: OpenMetrics for who accepts it."""
    encoder, content_type = choose_encoder(accept)
    return encoder(ConsumerCollector(consumer)), content_type
