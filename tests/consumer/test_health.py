"""`health` and `statistics`, in a simulated world where everything has its time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ksim.consumer.consumer import Consumer
from ksim.consumer.health import Health, PartitionHealth, Statistics
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.worlds import TinyWorld

RECORDS = 10


@pytest.fixture
def tiny() -> Iterator[TinyWorld]:
    found = TinyWorld()
    yield found
    found.end()


def busy(driver: SimDriver, for_ms: int) -> None:
    """As a handler that takes so long."""
    until_ms = driver.now_ms() + for_ms
    while driver.now_ms() < until_ms:
        driver.wait(until_ms)


def test_health_before_during_and_after(tiny: TinyWorld) -> None:
    tiny.produce(0, RECORDS)
    seen: list[Health] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        seen.append(consumer.health())
        for message in consumer.messages(timeout_ms=1_000):
            if message.offset == 3:
                busy(driver, 700)
                seen.append(consumer.health())
            consumer.mark_offset(message)
        consumer.commit_offsets()
        seen.append(consumer.health())
        consumer.close()
        seen.append(consumer.health())

    tiny.play(application, 8_000)
    before, during, done, closed = seen
    assert (before.ready, before.state, before.heartbeat_age_ms) == (False, "UNJOINED", None)
    assert before.partitions == ()
    assert (during.ready, during.state, during.reason) == (True, "STABLE", "start")
    assert during.generation_id == 1
    assert during.member_id
    assert during.poll_age_ms >= 700
    assert during.heartbeat_age_ms is not None
    assert during.heartbeat_age_ms <= 600, "heartbeats go on while a handler is busy"
    first, second = during.partitions
    assert first == PartitionHealth(
        topic="t", partition=0, position=4, marked=3, committed=first.committed,
        high_watermark=RECORDS, lag=RECORDS - 3, unmoved_ms=first.unmoved_ms, buffered=RECORDS - 4,
    )  # fmt: skip
    assert first.unmoved_ms >= 700
    assert (second.position, second.marked, second.lag, second.buffered) == (0, None, 0, 0)
    assert (done.partitions[0].committed, done.partitions[0].lag) == (RECORDS, 0)
    assert (closed.ready, closed.state, closed.partitions) == (False, "CLOSED", ())


def test_a_member_without_partitions_stands_by_and_is_ready(tiny: TinyWorld) -> None:
    seen: list[Health] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for _ in range(3):
                list(consumer.messages(timeout_ms=1_000))
            seen.append(consumer.health())
            list(consumer.messages(timeout_ms=5_000))

    for name in ("a", "b", "c"):
        tiny.start(application, name)
    tiny.world.run_until(12_000_000)
    assert [health.ready for health in seen] == [True] * 3
    assert sorted(len(health.partitions) for health in seen) == [0, 1, 1]


def test_statistics_are_a_copy(tiny: TinyWorld) -> None:
    tiny.produce(1, RECORDS)
    seen: list[Statistics] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(client_id="c")) as consumer:
            for message in consumer.messages(timeout_ms=1_000):
                consumer.mark_offset(message)
            seen.append(consumer.statistics())
        seen.append(consumer.statistics())

    tiny.play(application, 8_000)
    during, after = seen
    assert (during.group_id, during.client_id) == ("g", "c")
    assert during.rebalances == {"start": 1}
    assert after.rebalances == {"start": 1, "close": 1}
    assert sum(during.rebalance_times.counts) == 1
    (counts,) = [each for each in during.partitions if each.partition == 1]
    assert (TopicPartition(counts.topic, counts.partition), counts.records) == (("t", 1), RECORDS)
    assert after.commits["ok"] == sum(after.commit_times.counts) >= 1
