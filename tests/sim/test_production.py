"""What producers write, and when."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.kit import SimulatedCluster
from ksim.scenario import ProduceSpec
from ksim.sim.production import Production


def produced(spec: ProduceSpec, until: str) -> tuple[Production, list[tuple[int, int, int]]]:
    """Time, partition and end of each write to a topic of two partitions."""
    cluster = SimulatedCluster(1)
    cluster.topic("t", 2)
    seen: list[tuple[int, int, int]] = []

    def see(source: str, fact: o.Observation) -> None:
        assert source == "producer"
        assert isinstance(fact, o.Produced)
        seen.append((cluster.now_ms, fact.partition, fact.end_offset))

    production = Production(cluster.world, cluster.cluster, see)
    production.schedule(spec)
    cluster.run(until)
    return production, seen


def test_records_come_at_their_rate_round_and_round() -> None:
    production, seen = produced(ProduceSpec("t", 10, 4, 1_000), "5s")
    assert seen == [(1_000, 0, 1), (1_100, 1, 1), (1_200, 0, 2), (1_300, 1, 2)]
    assert production.records == 4


def test_many_come_in_one_tick() -> None:
    _, seen = produced(ProduceSpec("t", 1_000, 15), "5s")
    assert seen == [(0, 0, 5), (0, 1, 5), (10, 0, 8), (10, 1, 7)]


@pytest.mark.parametrize(
    ("per_second", "count", "last_ms"),
    [(1, 5, 4_000), (20, 100, 4_950), (100, 50, 490), (150, 300, 1_990), (250, 1_000, 3_990)],
)
def test_the_last_record_comes_when_its_rate_says(
    per_second: int, count: int, last_ms: int
) -> None:
    production, seen = produced(ProduceSpec("t", per_second, count), "10s")
    assert production.records == count
    assert seen[-1][0] == production.over_ms == last_ms


def test_without_the_topic_they_are_dropped() -> None:
    production, seen = produced(ProduceSpec("gone", 1_000, 15), "5s")
    assert (production.records, seen) == (0, [])
