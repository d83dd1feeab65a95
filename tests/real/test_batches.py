"""What stands in real logs: transactions, codecs, headers and times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from ksim.consumer.consumer import Consumer
from ksim.consumer.message import ConsumerError, Message
from ksim.core.errors import UnreadableBatchError
from ksim.core.values import TopicPartition
from tests.consumer.arms import RealArm
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka
READ_MS = 20_000
IDLE_MS = 1_500


@pytest.fixture
def arm(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> Iterator[RealArm]:
    made = RealArm(kafka, fresh_name)
    yield made
    made.end()


def producer_of(arm: RealArm, **options: str) -> Any:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    settings = {key.replace("_", "."): text for key, text in options.items()}
    return confluent_kafka.Producer({"bootstrap.servers": arm.kafka.bootstrap, **settings})


def produce(producer: Any, topic: str, *values: str) -> None:
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(60) == 0


def take(consumer: Consumer, count: int) -> list[Message]:
    found: list[Message] = []
    for message in consumer.messages(timeout_ms=READ_MS):
        found.append(message)
        consumer.mark_offset(message)
        if len(found) == count:
            break
    return found


def values_of(messages: list[Message]) -> list[bytes | None]:
    return [message.value for message in messages]


def test_only_committed_transactions_are_read_and_an_open_one_holds_back(arm: RealArm) -> None:
    writer = producer_of(arm, transactional_id=f"{arm.topic}-writer")
    plain = producer_of(arm)
    tp = TopicPartition(arm.topic, 0)
    writer.init_transactions()
    writer.begin_transaction()
    produce(writer, arm.topic, "c0", "c1")
    writer.commit_transaction()
    writer.begin_transaction()
    produce(writer, arm.topic, "a0", "a1")
    writer.abort_transaction()
    writer.begin_transaction()
    produce(writer, arm.topic, "o0")
    produce(plain, arm.topic, "p0")
    with Consumer(arm.config(isolation_level="read_committed")) as consumer:
        assert values_of(take(consumer, 2)) == [b"c0", b"c1"]
        assert list(consumer.messages(timeout_ms=IDLE_MS)) == []
        # c0 c1 commit a0 a1 abort: the last stable offset is where the open one begins, at 6.
        assert consumer.high_water_marks()[tp] == 8
        assert consumer.lag()[tp] == 4
        writer.commit_transaction()
        assert values_of(take(consumer, 2)) == [b"o0", b"p0"]
    with Consumer(arm.config(group_id=f"{arm.group}-all")) as consumer:
        everything = [b"c0", b"c1", b"a0", b"a1", b"o0", b"p0"]
        assert values_of(take(consumer, 6)) == everything


def test_the_latest_offset_of_who_reads_committed_is_the_last_stable_one(arm: RealArm) -> None:
    writer = producer_of(arm, transactional_id=f"{arm.topic}-writer")
    writer.init_transactions()
    writer.begin_transaction()
    produce(writer, arm.topic, "open")
    config = arm.config(isolation_level="read_committed", auto_offset_reset="latest")
    with Consumer(config) as consumer:
        assert list(consumer.messages(timeout_ms=IDLE_MS)) == []
        writer.commit_transaction()
        assert values_of(take(consumer, 1)) == [b"open"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(arm: RealArm, codec: str) -> None:
    values = [f"{codec} {number} ".encode() * 30 for number in range(200)]
    producer = producer_of(arm, compression_codec=codec, linger_ms="200")
    for value in values:
        producer.produce(arm.topic, value, partition=0)
    assert producer.flush(60) == 0
    with Consumer(arm.config()) as consumer:
        assert values_of(take(consumer, 200)) == values


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_a_codec_that_is_missing_stops_its_partition_with_its_place(
    arm: RealArm, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka import codec as kafka_codec

    arm.produce(0, 1)
    arm.produce(1, 1)
    produce(producer_of(arm, compression_codec=codec), arm.topic, codec * 100)
    with monkeypatch.context() as missing, Consumer(arm.config(return_errors=True)) as consumer:
        missing.setattr(kafka_codec, f"has_{codec}", lambda: False)
        assert {(m.partition, m.offset) for m in take(consumer, 2)} == {(0, 0), (1, 0)}
        assert list(consumer.messages(timeout_ms=IDLE_MS)) == []
        (error,) = consumer.errors()
        cause = error.cause
        assert (cause.topic, cause.partition, cause.offset) == (arm.topic, 0, 1)
        assert error.error_code == 76
        assert f"kafka-ksim[{codec}]" in str(error)
        arm.produce(1, 1)
        assert [(m.partition, m.offset) for m in take(consumer, 1)] == [(1, 1)]
    assert arm.committed()[TopicPartition(arm.topic, 0)][0] == 1
    with Consumer(arm.config()) as consumer:  # its position has not moved
        assert values_of(take(consumer, 1)) == [codec.encode() * 100]


def test_headers_and_times_are_those_of_the_log(arm: RealArm) -> None:
    from kafka import KafkaAdminClient

    appended = f"{arm.topic}-appended"
    make_admin: Any = KafkaAdminClient
    with closing(make_admin(bootstrap_servers=arm.kafka.bootstrap)) as admin:
        configs = {"message.timestamp.type": "LogAppendTime"}
        options = {"num_partitions": 1, "replication_factor": -1, "configs": configs}
        admin.create_topics({appended: options}, wait_for_metadata=True)
    producer = producer_of(arm)
    headers = [("trace", b"1"), ("empty", None), ("trace", b"2")]
    for topic in (arm.topic, appended):
        producer.produce(topic, None, b"key", partition=0, timestamp=1_234_567, headers=headers)
    assert producer.flush(60) == 0
    with Consumer(arm.config(topics=(arm.topic, appended))) as consumer:
        found = {message.topic: message for message in take(consumer, 2)}
    created = found[arm.topic]
    assert (created.key, created.value, created.timestamp_ms) == (b"key", None, 1_234_567)
    assert created.headers == (("trace", b"1"), ("empty", None), ("trace", b"2"))
    assert found[appended].timestamp_ms > 1_600_000_000_000


def test_a_batch_that_is_damaged_on_disk_stops_its_partition_alone(arm: RealArm) -> None:
    """A broker sends what stands in its log, unread."""
    producer = producer_of(arm)
    for value in ("before", "to be damaged", "behind"):
        produce(producer, arm.topic, value)
    (segment,) = arm.kafka.folder.glob(f"data-1/{arm.topic}-0/*.log")
    log = segment.read_bytes()
    with segment.open("r+b") as file:
        file.seek(log.index(b"to be damaged"))
        file.write(b"T")
    arm.produce(1, 3)
    consumer = Consumer(arm.config(return_errors=True))
    found = take(consumer, 4)
    errors: list[ConsumerError] = []
    arm.until(lambda: bool(errors.extend(consumer.errors()) or errors), "the damage is told")
    (cause,) = [each.cause for each in errors]
    assert isinstance(cause, UnreadableBatchError)
    assert (cause.topic, cause.partition, cause.offset) == (arm.topic, 0, 1)
    assert sorted((m.partition, m.offset) for m in found) == [(0, 0), (1, 0), (1, 1), (1, 2)]
    consumer.close()
    tp, committed = TopicPartition(arm.topic, 0), arm.committed()
    assert committed[tp][0] == 1
