"""The families that Prometheus sees, read back by Prometheus's own parser."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from ksim.consumer.consumer import Consumer
from ksim.consumer.health import Health, PartitionCounts, PartitionHealth, Statistics, Timing
from ksim.core.errors import MisuseError
from ksim.real.metrics import PREFIX, ConsumerCollector, page

LABELS = {"group", "client_id", "topic", "partition", "reason", "result", "kind", "le"}
NAMES = {
    "lag_records", "marked_offset", "committed_offset", "highwater_offset", "assigned_partitions",
    "state", "generation", "rebalances_total", "rebalance_duration_seconds",
    "partition_unowned_seconds", "heartbeat_age_seconds", "poll_age_seconds", "commits_total",
    "commit_duration_seconds", "records_total", "bytes_total", "buffered_records",
    "backpressure_seconds_total", "errors_total", "recorder_bytes_total", "recorder_dropped_total",
}  # fmt: skip
HEALTH = Health(
    True, 10, True, "STABLE", "m-1", 7, "start", 1_500, 250,
    (PartitionHealth("t", 0, 20, 15, 10, 30, 15, 0, 5),
     PartitionHealth("t", 1, None, None, None, None, None, 0, 0)),
)  # fmt: skip
STATISTICS = Statistics(
    "g", "c", HEALTH,
    (PartitionCounts("t", 0, 100, 5_000, 2_500, 2, 750),),
    {"start": 1, "rebalance_in_progress": 3},
    Timing((100, 1_000), (1, 2, 1), 3_300),
    {"ok": 9, "request_failed": 1},
    Timing((1, 5), (4, 5, 0), 12),
    {"request_failed": 2},
    4_096,
    3,
)  # fmt: skip


class Fixed:
    """Stands for a consumer."""

    def __init__(self, found: Statistics = STATISTICS) -> None:
        self.found = found

    def statistics(self) -> Statistics:
        return self.found


def consumer(found: Statistics = STATISTICS) -> Consumer:
    return cast(Consumer, Fixed(found))


def samples(text: str, parse: Any = text_string_to_metric_families) -> dict[tuple[str, str], float]:
    """(name without prefix, labels but group and client) to value."""
    found: dict[tuple[str, str], float] = {}
    for family in parse(text):
        for sample in family.samples:
            assert set(sample.labels) <= LABELS
            assert (sample.labels["group"], sample.labels["client_id"]) == ("g", "c")
            rest = [f"{k}={v}" for k, v in sorted(sample.labels.items()) if k not in MEMBER]
            found[sample.name.removeprefix(PREFIX), ",".join(rest)] = sample.value
    return found


MEMBER = ("group", "client_id")
P0 = "partition=0,topic=t"
EXPECTED = {
    ("lag_records", P0): 15, ("marked_offset", P0): 15, ("committed_offset", P0): 10,
    ("highwater_offset", P0): 30, ("buffered_records", P0): 5,
    ("buffered_records", "partition=1,topic=t"): 0,
    ("assigned_partitions", ""): 2, ("state", ""): 3, ("generation", ""): 7,
    ("heartbeat_age_seconds", ""): 1.5, ("poll_age_seconds", ""): 0.25,
    ("rebalances_total", "reason=start"): 1,
    ("rebalances_total", "reason=rebalance_in_progress"): 3,
    ("rebalance_duration_seconds_bucket", "le=0.1"): 1,
    ("rebalance_duration_seconds_bucket", "le=1.0"): 3,
    ("rebalance_duration_seconds_bucket", "le=+Inf"): 4,
    ("rebalance_duration_seconds_count", ""): 4, ("rebalance_duration_seconds_sum", ""): 3.3,
    ("partition_unowned_seconds_count", P0): 2, ("partition_unowned_seconds_sum", P0): 0.75,
    ("commits_total", "result=ok"): 9, ("commits_total", "result=request_failed"): 1,
    ("commit_duration_seconds_bucket", "le=0.001"): 4,
    ("commit_duration_seconds_bucket", "le=0.005"): 9,
    ("commit_duration_seconds_bucket", "le=+Inf"): 9,
    ("commit_duration_seconds_count", ""): 9, ("commit_duration_seconds_sum", ""): 0.012,
    ("records_total", P0): 100, ("bytes_total", P0): 5_000,
    ("backpressure_seconds_total", P0): 2.5, ("errors_total", "kind=request_failed"): 2,
    ("recorder_bytes_total", ""): 4_096, ("recorder_dropped_total", ""): 3,
}  # fmt: skip


def test_every_sample_in_both_formats() -> None:
    text, content_type = page(consumer(), "text/plain")
    assert samples(text.decode()) == EXPECTED
    assert content_type.startswith("text/plain")
    accepted = "application/openmetrics-text; version=1.0.0"
    text, content_type = page(consumer(), accepted)
    assert samples(text.decode(), open_metrics) == EXPECTED
    assert content_type.startswith("application/openmetrics-text")


def test_the_names_are_the_documented_ones() -> None:
    ends = re.compile("_(bucket|count|sum)$")
    assert {ends.sub("", name) for name, _ in EXPECTED} == NAMES
    described = {family.name.removeprefix(PREFIX) for family in ConsumerCollector().describe()}
    assert described == {name.removesuffix("_total") for name in NAMES}


def test_consumers_of_a_process_share_one_collector() -> None:
    other = Statistics(**{**_fields(STATISTICS), "client_id": "d"})
    registry = CollectorRegistry(auto_describe=True)
    collector = ConsumerCollector(consumer())
    registry.register(collector)
    collector.add(consumer(other))
    text = generate_latest(registry).decode()
    assert text.count("# TYPE ksim_consumer_state gauge") == 1
    assert text.count("ksim_consumer_state{") == 2
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ConsumerCollector(consumer(other)))


def test_no_series_is_told_twice() -> None:
    first, second = consumer(), consumer()
    collector = ConsumerCollector(first)
    collector.add(first)
    for wrong in (lambda: collector.add(second), lambda: ConsumerCollector(first, second)):
        with pytest.raises(MisuseError, match=r"'g' and client_id = 'c' are .* of its own"):
            wrong()
    registry = CollectorRegistry()
    registry.register(collector)
    assert samples(generate_latest(registry).decode()) == EXPECTED


def test_counters_go_on_in_the_next_consumer_of_the_name() -> None:
    gone = PartitionHealth("t", 0, 20, 15, 10, 30, 15, 0, 5)
    health = replace(HEALTH, state="CLOSED", partitions=(gone,))
    other = PartitionCounts("t", 5, 1, 2, 3, 4, 5)
    closed = replace(STATISTICS, health=health, partitions=(*STATISTICS.partitions, other))
    died = replace(closed, health=replace(health, state="STABLE", alive=False))
    collector = ConsumerCollector(consumer(closed), consumer(died), consumer())
    registry = CollectorRegistry()
    registry.register(collector)
    found = samples(generate_latest(registry).decode())
    counted = ("_total", "_bucket", "_count", "_sum")
    for (name, rest), value in EXPECTED.items():
        times = 3 if name.endswith(counted) else 1
        assert found.pop((name, rest)) == pytest.approx(times * value), name
    assert found.pop(("records_total", "partition=5,topic=t")) == 2
    assert {rest for _, rest in found} == {"partition=5,topic=t"}


def _fields(found: Statistics) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Statistics.__slots__}
