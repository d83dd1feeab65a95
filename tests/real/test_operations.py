"""What an operator relies on, on a real broker and on a served one through the same body."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ksim.consumer.config import Acknowledge, Config
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.core.values import TopicPartition
from ksim.real import clock
from tests.serve.served import Served

RECORDS = 30
BREAKS_AT = 7
CALLBACK_MS = 8_000
Place = tuple[int, int]


@pytest.fixture(params=["serve", pytest.param("kafka", marks=pytest.mark.kafka)])
def bootstrap(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "kafka":
        yield request.getfixturevalue("kafka").bootstrap
        return
    delay = ("-X", "group.initial.rebalance.delay.ms=0")
    with Served(tmp_path / "serve.log", *delay) as served:
        yield served.bootstrap


@pytest.fixture
def topic(bootstrap: str, fresh_name: Callable[[str], str]) -> str:
    """Two partitions, the records of each numbered by their offsets."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    name = fresh_name("topic")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, 2, 1)]).values():
        future.result(60)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(RECORDS):
        producer.produce(name, str(number).encode(), partition=number % 2)
    assert producer.flush(60) == 0
    return name


@pytest.fixture
def config(bootstrap: str, topic: str, fresh_name: Callable[[str], str]) -> Callable[..., Config]:
    group = fresh_name("group")

    def made(**options: Any) -> Config:
        return Config(
            bootstrap_servers=(bootstrap,),
            group_id=group,
            topics=(topic,),
            auto_offset_reset="earliest",
            commit_interval_ms=60_000,
            **options,
        )

    return made


def handled(config: Config) -> list[Place]:
    with Consumer(config) as consumer:
        found = []
        for message in consumer.messages(timeout_ms=1_000):
            found.append((message.partition, message.offset))
            consumer.mark_offset(message)
        return found


def all_places() -> list[Place]:
    return sorted((number % 2, number // 2) for number in range(RECORDS))


def test_a_handler_that_raises_leaves_what_it_did_and_nothing_more(
    config: Callable[..., Config],
) -> None:
    done: list[Place] = []

    def handle(message: Message) -> None:
        if len(done) == BREAKS_AT:
            raise ValueError(f"cannot handle {message}")
        done.append((message.partition, message.offset))

    consumer = Consumer(config())

    def work() -> None:
        with consumer:
            for message in consumer:
                handle(message)
                consumer.mark_offset(message)

    with pytest.raises(ValueError, match="cannot handle"):
        work()
    assert next(consumer.messages(), None) is None, "it is closed"
    rest = handled(config())
    assert len(done) == BREAKS_AT
    assert sorted(done + rest) == all_places(), "committed up to the record before it"


def test_a_worker_that_raises_does_so_too(config: Callable[..., Config]) -> None:
    done: list[Place] = []

    def handle(message: Message) -> None:
        if len(done) == BREAKS_AT:
            raise ValueError(f"cannot handle {message}")
        done.append((message.partition, message.offset))

    with (
        pytest.raises(ValueError, match="cannot handle"),
        Consumer(config(acknowledge=Acknowledge.EACH)) as consumer,
    ):
        consumer.run(handle, workers=1)
    assert sorted(done + handled(config())) == all_places()


def test_health_and_statistics_of_a_consumer(config: Callable[..., Config], topic: str) -> None:
    with Consumer(config()) as consumer:
        seen = []
        for message in consumer.messages(timeout_ms=1_000):
            seen.append(consumer.health())
            consumer.mark_offset(message)
        consumer.commit_offsets()
        done, found = consumer.health(), consumer.statistics()
    assert len(seen) == RECORDS
    assert done.alive
    assert done.ready
    assert done.state == "STABLE"
    assert done.loop_age_ms < 30_000
    assert done.heartbeat_age_ms is not None
    lags = [sum(each.lag or 0 for each in health.partitions) for health in seen]
    assert lags == sorted(lags, reverse=True)
    assert lags[-1] == 1, "the last one is not marked yet"
    half = RECORDS // 2
    assert [
        (each.topic, each.partition, each.position, each.marked, each.committed, each.lag)
        for each in done.partitions
    ] == [(topic, 0, half, half, half, 0), (topic, 1, half, half, half, 0)]
    assert [each.records for each in found.partitions] == [half, half]
    assert all(each.bytes > half for each in found.partitions)
    after = consumer.health()
    assert (after.alive, after.ready, after.state) == (False, False, "CLOSED")


class Slow:
    """Its callbacks take longer than a session, and ask how things are meanwhile."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ages_ms: list[int] = []
        self.consumer: Consumer | None = None

    def _busy(self, what: str) -> None:
        self.calls.append(what)
        assert self.consumer is not None
        began_ms = clock.now_ms()
        pause = threading.Event()
        while clock.now_ms() < began_ms + CALLBACK_MS:
            pause.wait(0.1)
            self.ages_ms.append(self.consumer.health().heartbeat_age_ms or 0)

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._busy(f"assigned {len(partitions)}")

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._busy(f"revoked {len(partitions)}")

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(f"lost {len(partitions)}")


def test_heartbeats_go_on_while_a_callback_takes_its_time(config: Callable[..., Config]) -> None:
    slow = Slow()
    timeouts = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500}
    with Consumer(config(**timeouts), listener=slow) as consumer:
        slow.consumer = consumer
        messages = consumer.messages(timeout_ms=2 * CALLBACK_MS)
        assert len([next(messages) for _ in range(RECORDS)]) == RECORDS
        assert consumer.generation_id == 1
    assert slow.calls == ["assigned 2", "revoked 2"]
    assert max(slow.ages_ms) < 6_000
