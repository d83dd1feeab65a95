"""Errors as the user sees them: places, causes, and a position that does not move by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksim.broker.broker import Broker
from ksim.consumer.config import Config, ConsumerMode
from ksim.consumer.consumer import Consumer
from ksim.consumer.news import News, consumer_error
from ksim.consumer.offsets import Committed
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError, RefusedError, UnreadableBatchError
from ksim.core.values import Payload, TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.worlds import TinyWorld

DAMAGED = 2
TP0 = TopicPartition("t", 0)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyWorld]:
    """The record at offset 2 of t-0 cannot be read."""
    fetched = Broker._fetched

    def damaged(self: Broker, asked: m.FetchPartition, payload: Payload) -> m.FetchedPartition:
        found = fetched(self, asked, payload)
        tp = TopicPartition(asked.topic, asked.partition)
        if tp != TP0 or not asked.fetch_offset <= DAMAGED < found.next_offset:
            return found
        good = tuple(record for record in payload.pop(tp) if record.offset < DAMAGED)
        if good:
            payload[tp] = good
            return replace(found, next_offset=DAMAGED, record_count=len(good))
        code = int(KafkaError.CORRUPT_MESSAGE)
        return replace(
            found,
            next_offset=DAMAGED,
            record_count=0,
            error_code=code,
            detail="checksum of a batch",
        )

    monkeypatch.setattr(Broker, "_fetched", damaged)
    made = TinyWorld()
    yield made
    made.end()


def test_a_damaged_batch_stops_its_partition_and_nothing_skips_it(tiny: TinyWorld) -> None:
    seen: list[tuple[int, int]] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for message in consumer.messages(timeout_ms=1_000):
                seen.append((message.partition, message.offset))
                consumer.mark_offset(message)
            (error,) = consumer.errors()
            cause = error.cause
            assert isinstance(cause, UnreadableBatchError)
            assert (cause.topic, cause.partition, cause.offset) == ("t", 0, DAMAGED)
            assert str(error) == "t-0 at offset 2: CORRUPT_MESSAGE (2): checksum of a batch"

    def past_it(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            assert list(consumer.messages(timeout_ms=1_000)) == []
            consumer.seek("t", 0, DAMAGED + 1)
            seen.extend((m.partition, m.offset) for m in consumer.messages(timeout_ms=1_000))

    tiny.produce(0, 5)
    tiny.produce(1, 1)
    for number in range(2):
        tiny.start(application, f"m{number}")
        tiny.run(4_000)
    tiny.start(past_it, "n")
    tiny.run(5_000)
    assert not tiny.failures
    assert sorted(seen) == [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0)]


def test_the_reader_of_a_partition_gets_its_errors_back_when_it_closes(tiny: TinyWorld) -> None:
    codes: list[int] = []

    def application(driver: SimDriver) -> None:
        with Consumer(tiny.config(mode=ConsumerMode.PARTITIONS)) as consumer:
            for partition in consumer.partitions():
                if partition.partition == 0 and not codes:
                    assert len(list(partition.messages(timeout_ms=1_000))) == 2
                    codes.extend(error.error_code for error in partition.close())
                    consumer.stop()
            assert consumer.errors() == []
            assert driver.now_ms() > 1_000

    tiny.produce(0, 5)
    tiny.start(application)
    tiny.run(6_000)
    assert not tiny.failures
    assert codes == [KafkaError.CORRUPT_MESSAGE]


def test_a_refusal_that_is_about_no_place_says_so() -> None:
    error = consumer_error(e.ReportError(14, "commit, 4 tries", fatal=False))
    assert type(error.cause) is RefusedError
    assert (error.cause.topic, error.cause.partition, error.cause.offset) == ("", -1, -1)
    assert str(error) == "commit, 4 tries: COORDINATOR_LOAD_IN_PROGRESS (14)"


@pytest.mark.parametrize(("error_code", "left"), [(0, {}), (14, {TP0: Committed(50, "m")})])
def test_what_is_committed_no_more_is_not_told(
    error_code: int, left: dict[TopicPartition, Committed]
) -> None:
    """Somebody deleted it, or its topic; an answer that says nothing takes nothing away."""
    news = News(Config(group_id="g", topics=("t",)))
    for answer in (
        m.CommittedOffset("t", 0, 50, -1, "m", 0),
        m.CommittedOffset("t", 0, -1, -1, "", error_code),
    ):
        news.learn(e.ResponseReceived(1, m.OffsetFetchResponse(0, (answer,))))
    assert news.committed == left
