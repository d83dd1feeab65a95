"""Worker pools, partitions mode and stores of one's own, with threads and a real broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ksim.consumer.config import Acknowledge, Config, ConsumerMode
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.consumer.partitions import PartitionConsumer
from tests.consumer.test_offsets import FencingStore
from tests.kafka_server import KafkaServer

PARTITIONS = 3
RECORDS = 60
LIMIT_S = 60.0
pytestmark = pytest.mark.kafka
Place = tuple[int, int]


@pytest.fixture
def topic(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> str:
    name = fresh_name("topic")
    kafka.create_topic(name, PARTITIONS)
    from kafka import KafkaProducer

    producer: Any = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for number in range(RECORDS):
        producer.send(name, value=str(number).encode(), partition=number % PARTITIONS)
    producer.flush(LIMIT_S)
    producer.close(LIMIT_S)
    return name


def config(kafka: KafkaServer, topic: str, group: str, **options: Any) -> Config:
    return Config(
        bootstrap_servers=(kafka.bootstrap,),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
        **options,
    )


class Seen:
    """Places of records, from any thread; `full` when all are there."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.full = threading.Event()
        self._lock = threading.Lock()

    def add(self, message: Message) -> None:
        with self._lock:
            self.places.append((message.partition, message.offset))
            if len(self.places) == RECORDS:
                self.full.set()


def committed_of(kafka: KafkaServer, topic: str, group: str) -> list[int]:
    """What the group has committed, by a member that joins after all others have left."""
    with Consumer(config(kafka, topic, group)) as consumer:
        assert list(consumer.messages(timeout_ms=1_000)) == []
        found = [consumer.committed(topic, partition) for partition in range(PARTITIONS)]
    return [-1 if each is None else each.offset for each in found]


def test_a_pool_of_threads_handles_all_and_commits_it(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    seen, group = Seen(), fresh_name("group")
    threads: set[str] = set()

    def handler(message: Message) -> None:
        threads.add(threading.current_thread().name)
        seen.add(message)

    with Consumer(config(kafka, topic, group, acknowledge=Acknowledge.EACH)) as consumer:
        stopper = threading.Thread(target=lambda: (seen.full.wait(LIMIT_S), consumer.stop()))
        stopper.start()
        consumer.run(handler, workers=4)
        stopper.join()
    assert sorted(seen.places) == [(p, o) for p in range(PARTITIONS) for o in range(20)]
    assert threads == {"ksim-worker"}
    assert committed_of(kafka, topic, group) == [20, 20, 20]


def test_a_handler_that_raises_in_a_thread_is_raised_to_the_user(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    def handler(message: Message) -> None:
        raise ValueError(f"poisoned {message.offset}")

    with (
        pytest.raises(ValueError, match="poisoned"),
        Consumer(
            config(kafka, topic, fresh_name("group"), acknowledge=Acknowledge.EACH)
        ) as consumer,
    ):
        consumer.run(handler, workers=2)


def test_a_thread_for_each_partition(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    seen, group = Seen(), fresh_name("group")
    threads: list[threading.Thread] = []

    def read(consumer: Consumer, partition: PartitionConsumer) -> None:
        for message in partition:
            assert message.partition == partition.partition
            consumer.mark_offset(message)
            seen.add(message)

    with Consumer(config(kafka, topic, group, mode=ConsumerMode.PARTITIONS)) as consumer:
        stopper = threading.Thread(target=lambda: (seen.full.wait(LIMIT_S), consumer.stop()))
        stopper.start()
        for partition in consumer.partitions():
            threads.append(threading.Thread(target=read, args=(consumer, partition)))
            threads[-1].start()
    for thread in (*threads, stopper):
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert len(threads) == PARTITIONS
    assert sorted(seen.places) == [(p, o) for p in range(PARTITIONS) for o in range(20)]
    assert committed_of(kafka, topic, group) == [20, 20, 20]


def test_offsets_in_a_store_of_ones_own(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    store, group, seen = FencingStore(), fresh_name("group"), Seen()
    for stop_after in (25, RECORDS):
        wanted = config(kafka, topic, group)
        with Consumer(wanted, offset_store_factory=store) as consumer:
            for message in consumer.messages(timeout_ms=20_000):
                seen.add(message)
                consumer.mark_offset(message)
                if len(seen.places) >= stop_after:
                    break
    assert sorted(seen.places) == [(p, o) for p in range(PARTITIONS) for o in range(20)]
    assert sorted(offset for offset, _ in store.offsets.values()) == [20, 20, 20]
    assert store.closed == 2
    assert committed_of_none(kafka, topic, group)


def committed_of_none(kafka: KafkaServer, topic: str, group: str) -> bool:
    with Consumer(config(kafka, topic, group)) as consumer:
        next(iter(consumer))  # nothing was committed to the broker: it begins again
        return all(consumer.committed(topic, each) is None for each in range(PARTITIONS))
