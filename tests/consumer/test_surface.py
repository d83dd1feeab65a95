"""What sarama-cluster documents, on both arms: names, defaults, topics, notifications, errors."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest

import ksim
from ksim.consumer.client import Client
from ksim.consumer.config import Config, ConsumerMode, Strategy
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import NotificationType
from ksim.consumer.news import UNMARKED_LIMIT, Bounded
from ksim.consumer.offsets import OffsetStash
from ksim.consumer.partitions import PartitionConsumer
from ksim.consumer.stream import QUEUE_LIMIT
from ksim.core.errors import ClientInUseError, KafkaError, MisuseError, RefusedError
from ksim.core.values import TopicPartition
from tests.consumer.arms import Arm

SOON_MS = 20_000


def test_every_exported_name_is_there() -> None:
    assert all(getattr(ksim, name).__name__ == name for name in ksim.__all__)
    assert {"Client", "BrokerOffsetStore", "OffsetStash", "NotificationType"} <= {*ksim.__all__}
    with pytest.raises(AttributeError, match="Konsumer"):
        _ = ksim.Konsumer


def test_defaults_are_the_documented_ones() -> None:
    config = Config(group_id="g", topics=("t",))
    assert config.partition_strategy == Strategy.RANGE
    assert config.mode == ConsumerMode.MULTIPLEX
    assert config.commit_retry_max == 3
    assert (config.session_timeout_ms, config.heartbeat_interval_ms) == (30_000, 3_000)
    assert (config.return_notifications, config.return_errors) == (False, False)
    assert config.member_config().rebalance_timeout_ms == config.session_timeout_ms
    names = {"UNKNOWN", "REBALANCE_START", "REBALANCE_OK", "REBALANCE_ERROR"}
    assert {kind.name for kind in NotificationType} == names
    assert str(NotificationType.REBALANCE_OK) == "rebalance OK"


def test_a_client_serves_one_consumer_after_the_other(arm: Arm) -> None:
    seen: list[int] = []

    def application() -> None:
        client = Client(arm.config(group_id="another", topics=("another",)))
        assert client.config.group_id == "another"
        with Consumer.from_client(client, arm.group, [arm.topic]) as first:
            assert (first.config.group_id, first.config.topics) == (arm.group, (arm.topic,))
            with pytest.raises(ClientInUseError, match="'ksim' has a consumer"):
                Consumer.from_client(client, arm.group, [arm.topic])
            message = next(first.messages())
            first.mark_offset(message)
            seen.append(message.offset)
        with Consumer.from_client(client, arm.group, [arm.topic]) as second:
            seen.append(next(second.messages()).offset)

    arm.produce(0, 2)
    arm.start(application)
    arm.finish()
    assert seen == [0, 1]


def test_a_client_is_free_again_when_its_consumer_cannot_begin() -> None:
    client = Client(Config(group_id="g", topics=("t",)))
    for _ in range(2):
        with pytest.raises(ksim.ConfigError, match="bootstrap_servers"):
            Consumer.from_client(client, "g", ["t"])


@pytest.mark.parametrize("topics", ["orders", b"orders", None, 3, ["orders", 3]])
def test_topics_of_a_client_are_those_that_a_configuration_takes(topics: Any) -> None:
    client = Client(Config(group_id="g", topics=("t",)))
    for _ in range(2):  # and the client stays free
        with pytest.raises(ksim.ConfigError, match=r"topics = .*(a text is|several texts are)"):
            Consumer.from_client(client, "g", topics)


def test_the_blacklist_goes_first_and_never_strikes_what_is_named(arm: Arm) -> None:
    names = {kind: f"{arm.topic}-{kind}" for kind in ("live", "dead", "later", "later-dead")}
    stages: list[set[str]] = []
    for kind in ("live", "dead"):
        arm.create_topic(names[kind], 1)

    def application() -> None:
        config = arm.config(
            topics=(arm.topic,),
            topics_whitelist=f"^{arm.topic}",
            topics_blacklist=f"dead$|^{arm.topic}$",
            metadata_max_age_ms=300,
        )
        with Consumer(config) as consumer:
            for wanted in ({arm.topic, names["live"]}, {arm.topic, names["live"], names["later"]}):
                for _ in consumer.messages(timeout_ms=SOON_MS):
                    if {*consumer.subscriptions()} == wanted:
                        break
                stages.append({*consumer.subscriptions()})

    arm.produce(0, 1)
    arm.start(application)
    arm.until(lambda: len(stages) == 1, "the first topics")
    for kind in ("later", "later-dead"):
        arm.create_topic(names[kind], 1)
        arm.produce(0, 1, topic=names[kind])
    arm.finish()
    first = {arm.topic, names["live"]}
    assert stages == [first, first | {names["later"]}]


def listen(arm: Arm, consumers: list[Consumer]) -> None:
    """A member with notifications that reads until it is stopped."""
    with Consumer(arm.config(return_notifications=True)) as consumer:
        consumers.append(consumer)
        for _ in consumer:
            pass


def test_notifications_tell_net_differences(arm: Arm) -> None:
    tp0, tp1 = (TopicPartition(arm.topic, number) for number in range(2))
    consumers: list[Consumer] = []
    member = partial(listen, arm, consumers)

    arm.start(member)
    arm.until(lambda: bool(consumers) and consumers[0].subscriptions() == {arm.topic: [0, 1]})
    arm.start(member)
    arm.until(lambda: [len(each.subscriptions()) for each in consumers] == [1, 1], "both share")
    arm.until(lambda: [sum(map(len, c.subscriptions().values())) for c in consumers] == [1, 1])
    halves = [TopicPartition(arm.topic, *consumers[at].subscriptions()[arm.topic]) for at in (0, 1)]
    told = [
        [(n.type, n.claimed, n.released, n.current) for n in c.notifications()] for c in consumers
    ]
    start, done = NotificationType.REBALANCE_START, NotificationType.REBALANCE_OK
    assert told[0] == [
        (start, (), (), ()),
        (done, (tp0, tp1), (), (tp0, tp1)),
        (start, (), (), (tp0, tp1)),
        (done, (), (halves[1],), (halves[0],)),
    ]
    assert told[1] == [(start, (), (), ()), (done, (halves[1],), (), (halves[1],))]
    consumers[1].stop()
    arm.until(lambda: consumers[0].subscriptions() == {arm.topic: [0, 1]}, "the rest comes back")
    assert [n.claimed for n in consumers[0].notifications()] == [(), (halves[1],)]
    consumers[0].stop()
    arm.finish()
    assert consumers[0].notifications() == []


def test_a_member_that_is_removed_is_told_of_its_loss(arm: Arm) -> None:
    both = tuple(TopicPartition(arm.topic, number) for number in range(2))
    consumers: list[Consumer] = []
    member = partial(listen, arm, consumers)

    def owned() -> dict[str, list[int]]:
        return consumers[0].subscriptions() if consumers else {}

    arm.start(member)
    arm.until(lambda: owned() == {arm.topic: [0, 1]}, "both partitions")
    before = consumers[0].generation_id
    assert len(consumers[0].notifications()) == 2
    arm.evict()
    arm.until(lambda: consumers[0].generation_id > before, "another generation")
    told = [(n.type, n.claimed, n.released, n.current) for n in consumers[0].notifications()]
    consumers[0].stop()
    arm.finish()
    assert told == [
        (NotificationType.REBALANCE_ERROR, (), both, ()),
        (NotificationType.REBALANCE_START, (), (), ()),
        (NotificationType.REBALANCE_OK, both, (), both),
    ]


def test_by_default_nothing_is_returned_and_errors_are_logged(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    def application() -> None:
        missing = f"{arm.topic}-missing"
        with Consumer(arm.config(topics=(arm.topic, missing))) as consumer:
            next(consumer.messages())
            arm.until(lambda: missing in caplog.text, "the error in the log")
            assert (consumer.errors(), consumer.notifications()) == ([], [])
            assert consumer.dropped == (0, 0)

    arm.produce(0, 1)
    with caplog.at_level(logging.ERROR, "ksim.consumer"):
        arm.start(application)
        arm.finish()
    assert f"{arm.topic}-missing: UNKNOWN_TOPIC_OR_PARTITION (3)" in caplog.text


def test_an_unknown_topic_is_an_error_with_context_and_waited_for(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    later, ready = f"{arm.topic}-later", []
    seen: list[str] = []

    def application() -> None:
        with Consumer(arm.config(topics=(later,), return_errors=True)) as consumer:
            assert list(consumer.messages(timeout_ms=500)) == []
            (error,) = consumer.errors()
            assert (error.context, error.error_code) == (f"topic {later}", 3)
            assert isinstance(error.cause, RefusedError)
            assert error.cause.error_code == KafkaError.UNKNOWN_TOPIC_OR_PARTITION
            assert (error.cause.topic, error.cause.partition) == (later, -1)
            ready.append(True)
            seen.append(next(consumer.messages(timeout_ms=SOON_MS)).topic)
            assert consumer.errors() == []

    arm.start(application)
    arm.until(lambda: bool(ready), "the error")
    arm.create_topic(later, 1)
    arm.produce(0, 1, topic=later)
    arm.finish()
    assert seen == [later]
    assert later not in caplog.text


def test_what_nobody_reads_is_dropped_oldest_first_and_counted() -> None:
    queue: Bounded[int] = Bounded()
    for number in range(QUEUE_LIMIT + 5):
        queue.add(number)
    assert queue.dropped == 5
    assert queue.take() == list(range(5, QUEUE_LIMIT + 5))
    assert (queue.take(), queue.dropped) == ([], 5)


def test_the_wrong_one_for_the_mode_raises(arm: Arm) -> None:
    def application() -> None:
        with Consumer(arm.config()) as multiplex:
            with pytest.raises(MisuseError, match="needs mode = 'partitions'"):
                next(multiplex.partitions())
            next(multiplex.messages())
        with Consumer(arm.config(mode=ConsumerMode.PARTITIONS)) as apart:
            for wrong in (apart.messages, apart.batches, apart.__iter__):
                with pytest.raises(MisuseError, match="needs mode = 'multiplex'"):
                    next(iter(wrong()))

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()


def test_user_data_is_read_by_describe_groups(arm: Arm) -> None:
    consumers: list[Consumer] = []

    def member(data: bytes | None) -> None:
        with Consumer(arm.config(user_data=data)) as consumer:
            consumers.append(consumer)
            for _ in consumer:
                pass

    arm.start(lambda: member(b"rack 7"))
    arm.start(lambda: member(None))
    arm.until(lambda: [len(c.subscriptions()) for c in consumers] == [1, 1], "a share for both")
    assert sorted(arm.user_data(), key=str) == [None, b"rack 7"]
    for consumer in consumers:
        consumer.stop()
    arm.finish()


def test_a_stash_marks_in_bulk_and_what_is_absent_stays_absent(arm: Arm) -> None:
    def application() -> None:
        stash = OffsetStash()
        with Consumer(arm.config()) as consumer:
            first, second = (next(consumer.messages()) for _ in range(2))
            stash.mark_offset(second, "two")
            stash.mark_offset(first, "lower, so ignored")
            assert stash.offsets() == {f"{arm.topic}-0": 1}
            stash.mark_partition_offset(arm.topic, 0, 2, "three")
            consumer.mark_offsets(stash)
            consumer.mark_offsets(OffsetStash())
            consumer.commit_offsets()

    arm.produce(0, 3)
    arm.start(application)
    arm.finish()
    assert arm.committed() == {TopicPartition(arm.topic, 0): (3, "three")}


def test_who_never_marks_is_told_after_a_thousand_records(
    arm: Arm, caplog: pytest.LogCaptureFixture
) -> None:
    warned: list[int] = []

    def application(mark: bool) -> None:
        with Consumer(arm.config(group_id=f"{arm.group}-{mark}")) as consumer:
            for count, message in enumerate(consumer.messages(timeout_ms=SOON_MS), 1):
                if mark:
                    consumer.mark_offset(message)
                if "none was marked" in caplog.text and not warned:
                    warned.append(count)
                if count == UNMARKED_LIMIT + 2:
                    break

    arm.produce(0, UNMARKED_LIMIT + 2)
    arm.start(lambda: application(True))
    arm.finish()
    assert not warned
    arm.start(lambda: application(False))
    arm.finish()
    assert warned == [UNMARKED_LIMIT]
    assert caplog.text.count("none was marked") == 1


def test_a_partition_closed_by_its_reader_comes_back_as_another_object(arm: Arm) -> None:
    made: list[PartitionConsumer] = []
    seen: list[tuple[int, int]] = []
    ended: list[str] = []

    def read(consumer: Consumer, partition: PartitionConsumer) -> None:
        for message in partition:
            seen.append((message.partition, message.offset))
            if message.partition == 0 and partition is made[0]:
                assert partition.high_water_mark_offset() == 3
                assert partition.close() == []
                assert list(partition) == []
            else:
                consumer.mark_offset(message)

    def application() -> None:
        with Consumer(arm.config(mode=ConsumerMode.PARTITIONS)) as consumer:
            for partition in consumer.partitions():
                assert (partition.topic, partition.partition in (0, 1)) == (arm.topic, True)
                if partition.partition == 0:
                    made.append(partition)
                arm.spawn(lambda each=partition: read(consumer, each))  # type: ignore[misc]
                if len(made) == 2:
                    arm.until(lambda: len(seen) == 4, "all of the partition")
                    consumer.stop()
            ended.append("with the consumer")

    arm.produce(0, 3)
    arm.start(application)
    arm.finish()
    assert made[0] is not made[1]
    assert seen == [(0, 0), (0, 0), (0, 1), (0, 2)]
    assert ended == ["with the consumer"]
    assert arm.committed()[TopicPartition(arm.topic, 0)][0] == 3


def test_lag_is_what_is_not_marked(arm: Arm) -> None:
    tp0, tp1 = (TopicPartition(arm.topic, number) for number in range(2))
    found: list[dict[TopicPartition, int]] = []

    def application() -> None:
        with Consumer(arm.config()) as consumer:
            assert consumer.lag() == {}
            messages = list(consumer.messages(timeout_ms=1_500))
            found.append(consumer.lag())
            assert consumer.high_water_marks() == {tp0: 5, tp1: 0}
            consumer.mark_offset(messages[3])
            found.append(consumer.lag())
            consumer.seek(arm.topic, 0, 1)
            found.append(consumer.lag())

    arm.produce(0, 5)
    arm.start(application)
    arm.finish()
    assert found == [{tp0: 5, tp1: 0}, {tp0: 1, tp1: 0}, {tp0: 4, tp1: 0}]


class Refuses:
    """A listener whose application cannot give back what it holds."""

    def on_partitions_assigned(self, partitions: object) -> None: ...

    def on_partitions_revoked(self, partitions: object) -> None:
        raise ValueError(f"cannot flush {partitions}")

    def on_partitions_lost(self, partitions: object) -> None: ...


def test_a_callback_that_raises_at_the_end_keeps_nothing_open(arm: Arm) -> None:
    told: list[str] = []

    def application() -> None:
        consumer = Consumer(arm.config(), listener=Refuses())
        consumer.mark_offset(next(consumer.messages()))
        with pytest.raises(ValueError, match="cannot flush"):
            consumer.close()
        told.append("closed" if consumer.closed else "open")
        consumer.close()
        told.append("again")

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()
    assert told == ["closed", "again"]
    assert arm.committed()[TopicPartition(arm.topic, 0)][0] == 1
