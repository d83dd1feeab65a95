"""Commits and ends on both arms: retries, dwell time, metadata, exceptions, stores."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from ksim.consumer.config import Acknowledge, Config
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.consumer.offsets import BrokerOffsetStore, Committed, OffsetStore
from ksim.core import messages as m
from ksim.core.errors import CommitFailedError, KafkaError, MisuseError
from ksim.core.values import TopicPartition
from ksim.real.driver import OWNER_NAME, RealDriver
from tests.consumer.arms import Arm, SimArm
from tests.consumer.test_consumer import Told
from tests.serve.served import Served

SOON_MS = 20_000
LOADING = KafkaError.COORDINATOR_LOAD_IN_PROGRESS


class Wrapped:
    """A store of the user's over the broker's; it refuses so many commits first."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.commits = 0
        self.inner: OffsetStore | None = None

    def gen_offset_store(self, consumer: Consumer) -> Wrapped:
        self.inner = BrokerOffsetStore(consumer)
        return self

    def commit_offset(self, request: m.OffsetCommitRequest) -> m.OffsetCommitResponse:
        self.commits += 1
        assert self.inner is not None
        if self.commits <= self.refusals:
            errors = (m.PartitionError(o.topic, o.partition, LOADING) for o in request.offsets)
            return m.OffsetCommitResponse(tuple(errors))
        return self.inner.commit_offset(request)

    def fetch_offset(self, request: m.OffsetFetchRequest) -> m.OffsetFetchResponse:
        assert self.inner is not None
        return self.inner.fetch_offset(request)

    def close(self) -> None:
        assert self.inner is not None
        self.inner.close()


@pytest.mark.parametrize("refusals", [3, 4])
def test_a_commit_is_tried_again_three_times(arm: Arm, refusals: int) -> None:
    store = Wrapped(refusals)

    def application() -> None:
        config = arm.config(commit_interval_ms=60_000)
        with Consumer(config, offset_store_factory=store) as consumer:
            consumer.mark_offset(next(consumer.messages()))
            if refusals == 3:
                consumer.commit_offsets()
            else:
                with pytest.raises(CommitFailedError, match="COORDINATOR_LOAD_IN_PROGRESS"):
                    consumer.commit_offsets()
            assert store.commits == 4

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()
    assert arm.committed() == {TopicPartition(arm.topic, 0): (1, "")}  # by close, at the latest


def test_the_brokers_store_can_be_called_by_the_user(arm: Arm) -> None:
    tp = TopicPartition(arm.topic, 1)

    def application() -> None:
        consumer = Consumer(arm.config())
        store = consumer.offset_store
        assert isinstance(store, BrokerOffsetStore)
        next(consumer.messages())
        asked = m.OffsetFetchRequest(arm.group, (tp,))
        (nothing,) = store.fetch_offset(asked).partitions
        assert (nothing.offset, nothing.error_code) == (-1, 0)
        offsets = (m.OffsetAndMetadata(*tp, 7, -1, "seven"),)
        refused = store.commit_offset(m.OffsetCommitRequest(arm.group, -1, "", None, offsets))
        assert refused == m.OffsetCommitResponse((m.PartitionError(*tp, 25),))
        with pytest.raises(MisuseError, match="offsets of group 'other'"):
            store.fetch_offset(m.OffsetFetchRequest("other", (tp,)))
        consumer.mark_partition_offset(arm.topic, 1, 6, "seven")
        consumer.commit_offsets()
        (kept,) = store.fetch_offset(asked).partitions
        assert (kept.offset, kept.metadata) == (7, "seven")
        assert store.fetch_offset(m.OffsetFetchRequest(arm.group, None)).partitions == (kept,)
        consumer.close()
        with pytest.raises(MisuseError, match="after close"):
            store.fetch_offset(asked)

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()


def test_the_next_owner_reads_the_metadata_of_a_mark(arm: Arm) -> None:
    def first() -> None:
        with Consumer(arm.config()) as consumer:
            consumer.mark_offset(next(consumer.messages()), "sum=7")

    def second() -> None:
        with Consumer(arm.config()) as consumer:
            assert next(consumer.messages()).offset == 1
            assert consumer.committed(arm.topic, 0) == Committed(1, "sum=7")
            assert consumer.committed(arm.topic, 1) is None

    arm.produce(0, 2)
    for application in (first, second):
        arm.start(application)
        arm.finish()


def test_who_dwells_longer_than_allowed_is_left_behind(arm: Arm) -> None:
    told = Told()
    other: list[Consumer] = []
    seen: list[int] = []

    def slow() -> None:
        config = arm.config(dwell_time_ms=500)
        with Consumer(config, listener=told) as consumer:
            message = next(consumer.messages())
            seen.append(message.offset)
            arm.until(lambda: bool(other) and bool(other[0].subscriptions()), "the other's share")
            consumer.mark_offset(message)
            assert consumer.stale_marks == 1
            next(consumer.messages(timeout_ms=0), None)  # a safe point
            assert [kind for kind, _ in told.calls][:2] == ["assigned", "lost"]

    def quick() -> None:
        with Consumer(arm.config()) as consumer:
            other.append(consumer)
            arm.until(lambda: bool(seen), "the slow one's record")
            for _ in consumer:
                pass

    arm.produce(0, 1)
    arm.start(slow)
    arm.until(lambda: bool(seen), "the record")
    arm.start(quick)
    arm.until(lambda: any(kind == "lost" for kind, _ in told.calls), "the loss")
    other[0].stop()
    arm.finish()
    assert arm.committed().get(TopicPartition(arm.topic, 0)) is None


def test_leaving_by_an_exception_commits_marks_and_leaves(arm: Arm) -> None:
    def fails() -> None:
        with Consumer(arm.config(commit_interval_ms=60_000)) as consumer:
            for message in consumer:
                if message.offset == 2:
                    raise ValueError(f"poisoned {message.offset}")
                consumer.mark_offset(message)

    def guarded() -> None:
        with pytest.raises(ValueError, match="poisoned 2"):
            fails()

    arm.produce(0, 4)
    arm.start(guarded)
    arm.finish()
    assert arm.committed() == {TopicPartition(arm.topic, 0): (2, "")}
    assert arm.user_data() == []


def test_a_handler_that_raises_ends_all_committed_up_to_its_record(arm: Arm) -> None:
    handled: list[int] = []

    def handler(message: Message) -> None:
        if message.offset == 3:
            raise ValueError(f"poisoned {message.offset}")
        handled.append(message.offset)

    def application() -> None:
        config = arm.config(acknowledge=Acknowledge.EACH)
        with pytest.raises(ValueError, match="poisoned 3"), Consumer(config) as consumer:
            consumer.run(handler, workers=2)

    arm.produce(0, 50)
    arm.start(application)
    arm.finish()
    assert {0, 1, 2} <= {*handled}
    assert len(handled) < 49
    assert arm.committed() == {TopicPartition(arm.topic, 0): (3, "")}


@pytest.mark.parametrize("leave", [None, True])
def test_a_static_member_stays_unless_told_to_leave(arm: Arm, leave: bool | None) -> None:
    def application() -> None:
        consumer = Consumer(arm.config(group_instance_id="one"))
        next(consumer.messages())
        consumer.close(leave_group=leave)

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()
    assert len(arm.user_data()) == (0 if leave else 1)


def test_close_is_bounded_where_no_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(bootstrap_servers=("127.0.0.1:1",), group_id="g", topics=("t",))
    driver = RealDriver(config)
    transport: Any = driver._transport
    monkeypatch.setattr(transport, "bootstrap", lambda _: None)
    consumer = Consumer(config, driver=driver)
    asked = m.OffsetFetchRequest("g", (TopicPartition("t", 0),))
    assert list(consumer.messages(timeout_ms=100)) == []
    consumer.close(timeout_ms=200)
    assert consumer.ended
    with pytest.raises(MisuseError, match="after close"):
        consumer.offset_store.fetch_offset(asked)


def test_close_is_bounded_where_a_process_falls_silent(tmp_path: Path) -> None:
    with Served(tmp_path / "serve.log", "--topic", "t:1") as served:
        config = Config(
            bootstrap_servers=(served.bootstrap,),
            group_id="g",
            topics=("t",),
            commit_interval_ms=60_000,
        )
        consumer = Consumer(config)
        limit_ms = consumer._driver.now_ms() + SOON_MS
        while not consumer.subscriptions():
            assert list(consumer.messages(timeout_ms=50)) == []
            assert consumer._driver.now_ms() < limit_ms
        consumer.mark_partition_offset("t", 0, 4)
        served.process.send_signal(signal.SIGSTOP)
        try:
            consumer.close(timeout_ms=500)
            assert consumer.ended
            assert not any(thread.name == OWNER_NAME for thread in threading.enumerate())
        finally:
            served.process.send_signal(signal.SIGCONT)


def test_close_is_bounded_where_the_broker_falls_silent() -> None:
    arm = SimArm()
    took_ms: list[int] = []

    def application() -> None:
        consumer = Consumer(arm.config(commit_interval_ms=60_000))
        consumer.mark_offset(next(consumer.messages()))
        arm.cluster.nodes[1].gate.pause()
        began_ms = arm.world.now_ms
        consumer.close(timeout_ms=700)
        took_ms.append(arm.world.now_ms - began_ms)

    arm.produce(0, 1)
    arm.start(application)
    arm.finish()
    arm.end()
    assert took_ms == [700]
    assert arm.committed() == {}
