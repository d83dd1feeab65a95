"""Who closes a consumer, and when: reading ends, what is in flight is waited for; on both arms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from ksim.consumer.client import Client
from ksim.consumer.config import ConsumerMode
from ksim.consumer.consumer import Consumer
from ksim.consumer.partitions import PartitionConsumer
from ksim.consumer.port import is_over
from ksim.consumer.stream import Stream, let_go
from ksim.core.errors import MisuseError
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.arms import Arm
from tests.consumer.test_consumer import TP0, Told, committed
from tests.consumer.test_offsets import FencingStore
from tests.consumer.worlds import TinyWorld

PARTITIONS = {"mode": ConsumerMode.PARTITIONS}


def offsets(arm: Arm) -> dict[TopicPartition, int]:
    return {tp: offset for tp, (offset, _) in arm.committed().items()}


@pytest.mark.parametrize("way", ["iteration", "batches"])
def test_close_inside_the_loop_ends_it(arm: Arm, way: str) -> None:
    seen: list[int] = []

    def application() -> None:
        consumer = Consumer(arm.config(commit_interval_ms=60_000))
        reading = consumer.batches(1) if way == "batches" else ([each] for each in consumer)
        for (message,) in reading:
            seen.append(message.offset)
            consumer.mark_offset(message)
            if message.offset == 2:
                consumer.close()
        assert next(iter(reading), None) is None

    arm.produce(0, 5)
    arm.start(application)
    arm.finish()
    assert seen == [0, 1, 2]
    assert offsets(arm) == {TopicPartition(arm.topic, 0): 3}


def test_a_closed_consumer_has_no_more_messages(arm: Arm) -> None:
    """Whoever begins to read it cannot know that another thread has closed it just now."""

    def application() -> None:
        consumer = Consumer(arm.config())
        begun = consumer.messages()
        next(begun)
        consumer.close()
        assert [*begun, *begun, *consumer, *consumer.batches(), *consumer.messages(1)] == []
        apart = Consumer(arm.config(**PARTITIONS))
        partitions = apart.partitions()
        next(partitions)
        apart.close()
        assert [*partitions, *partitions, *apart.partitions()] == []
        apart.run(print)

    arm.produce(0, 2)
    arm.start(application)
    arm.finish()


def test_close_in_another_thread_waits_for_what_is_being_handled(arm: Arm) -> None:
    steps: list[str] = []
    made: list[Consumer] = []

    def application() -> None:
        made.append(consumer := Consumer(arm.config(commit_interval_ms=60_000)))
        for message in consumer:
            steps.append(f"handles {message.offset}")
            arm.until(lambda: consumer.ended, "close is called")
            consumer.mark_offset(message)
            assert consumer.stale_marks == 0
        steps.append("reading ended")

    def closer() -> None:
        arm.until(lambda: steps == ["handles 0"], "it is being handled")
        made[0].close()
        steps.append("closed")

    arm.produce(0, 5)
    arm.start(application)
    arm.start(closer)
    arm.finish()
    assert sorted(steps) == ["closed", "handles 0", "reading ended"]
    assert offsets(arm) == {TopicPartition(arm.topic, 0): 1}


def test_close_in_another_thread_waits_for_each_reader_of_a_partition(arm: Arm) -> None:
    steps: list[str] = []
    made: list[Consumer] = []

    def read(partition: PartitionConsumer) -> None:
        for message in partition:
            steps.append(f"handles {message.partition}")
            arm.until(lambda: made[0].ended, "close is called")
            made[0].mark_offset(message)
        steps.append("reading ended")

    def application() -> None:
        made.append(consumer := Consumer(arm.config(commit_interval_ms=60_000, **PARTITIONS)))
        consumer.run(read)
        steps.append("run ended")

    def closer() -> None:
        arm.until(lambda: len(steps) == 2, "both are being handled")
        made[0].close()
        steps.append("closed")

    for partition in range(2):
        arm.produce(partition, 5)
    arm.start(application)
    arm.start(closer)
    arm.finish()
    handled = ["handles 0", "handles 1", "reading ended", "reading ended"]
    assert sorted(steps) == ["closed", *handled, "run ended"]
    assert offsets(arm) == {TopicPartition(arm.topic, number): 1 for number in range(2)}


def test_a_thread_that_has_ended_holds_nothing_up(arm: Arm) -> None:
    """It broke out of its loop, and will never ask for the next one."""
    made: list[Consumer] = []
    left: list[str] = []
    told = Told()

    def application() -> None:
        made.append(consumer := Consumer(arm.config(), listener=told))
        for message in consumer:
            consumer.mark_offset(message)
            left.append("the loop")
            break

    def closer() -> None:
        arm.until(lambda: bool(left), "it has read one")
        made[0].close()

    arm.produce(0, 5)
    arm.start(application)
    arm.start(closer)
    arm.finish()
    assert [kind for kind, _ in told.calls] == ["assigned", "revoked"]


def test_what_a_thread_holds_is_its_own() -> None:
    streams = [Stream(TopicPartition("t", number), 1) for number in range(3)]
    for stream, reader in zip(streams, ("me", "you", "you"), strict=True):
        stream.reader, stream.held = reader, 1
    assert let_go(streams, "me")
    assert [stream.held for stream in streams] == [0, 1, 1]
    assert not let_go(streams, "you")
    assert not is_over("somebody whom nothing is known of")


def test_close_by_the_reader_of_a_partition_waits_for_itself_no_more(tiny: TinyWorld) -> None:
    told = Told()

    def application(_: SimDriver) -> None:
        config = tiny.config(commit_interval_ms=60_000, **PARTITIONS)
        consumer = Consumer(config, listener=told)
        partition = next(each for each in consumer.partitions() if each.partition == 0)
        for message in partition:
            consumer.mark_offset(message)
            consumer.close()

    tiny.produce(0, 3)
    tiny.play(application, 60_000)
    assert [kind for kind, _ in told.calls] == ["assigned", "revoked"]
    assert committed(tiny, TP0) == 1


class Slow(Told):
    """A listener whose `revoked` takes a while."""

    def __init__(self, driver: SimDriver) -> None:
        super().__init__()
        self.inside = False
        self.on_revoked = self._wait
        self._driver = driver

    def _wait(self) -> None:
        self.inside = True
        self._driver.sleep_us(500_000)
        self.inside = False


def test_a_callback_in_one_thread_is_no_misuse_of_another(tiny: TinyWorld) -> None:
    ended: list[bool] = []

    def application(driver: SimDriver) -> None:
        slow = Slow(driver)
        consumer = Consumer(tiny.config(), listener=slow)
        messages: Iterator[object] = consumer.messages()
        next(messages)
        consumer.pause([TP0])
        assert list(consumer.messages(timeout_ms=100)) == []
        driver.spawn(consumer.close)
        while not slow.inside:
            driver.sleep_us(10_000)
        ended.append(list(messages) == [])
        assert slow.inside

    tiny.produce(0, 3)
    tiny.play(application, 10_000)
    assert ended == [True]


def test_reading_in_a_callback_is_misuse(tiny: TinyWorld) -> None:
    class Reads(Told):
        def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
            with pytest.raises(MisuseError, match="inside a rebalance callback"):
                next(made[0].messages())
            super().on_partitions_assigned(partitions)

    told, made = Reads(), list[Consumer]()

    def application(_: SimDriver) -> None:
        made.append(Consumer(tiny.config(), listener=told))
        next(made[0].messages())

    tiny.produce(0, 3)
    tiny.play(application, 10_000)
    assert [kind for kind, _ in told.calls] == ["assigned"]


def test_two_threads_that_close_at_once_close_it_once(arm: Arm) -> None:
    told, steps = Told(), list[str]()
    client = Client(arm.config(commit_interval_ms=60_000))
    store = FencingStore()
    made: list[Consumer] = []

    def closer() -> None:
        arm.until(lambda: "handling" in steps, "it is being handled")
        steps.append("closing")
        made[0].close()
        steps.append(f"store closed {store.closed}, stored {store.offsets[tp][0]}")
        with pytest.raises(RuntimeError):  # it has been released, and by nobody else since
            client.end_use()

    def application() -> None:
        made.append(
            consumer := Consumer.from_client(
                client, arm.group, [arm.topic], offset_store_factory=store, listener=told
            )
        )
        for message in consumer:
            steps.append("handling")
            arm.until(lambda: steps.count("closing") == 2, "both have called")
            consumer.mark_offset(message)

    tp = TopicPartition(arm.topic, 0)
    arm.produce(0, 5)
    arm.start(application)
    arm.start(closer)
    arm.start(closer)
    arm.finish()
    ended = "store closed 1, stored 1"
    assert sorted(steps) == ["closing", "closing", "handling", ended, ended]
    assert [kind for kind, _ in told.calls] == ["assigned", "revoked"]


def test_a_close_within_a_close_returns_at_once(tiny: TinyWorld) -> None:
    """As by the handler of a signal that comes while the main thread closes."""
    steps: list[str] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        honest = driver.wait

        def wait(until_ms: int | None) -> None:
            if consumer.ended and not steps:
                steps.append("a signal comes")
                consumer.close()
                steps.append("its handler has returned")
                assert not consumer.closed
            honest(until_ms)

        driver.wait = wait  # type: ignore[method-assign]
        next(consumer.messages())
        consumer.close()
        assert consumer.closed

    tiny.produce(0, 1)
    tiny.play(application, 5_000)
    assert steps == ["a signal comes", "its handler has returned"]


def test_a_thread_that_closes_too_is_done_with_what_it_holds(tiny: TinyWorld) -> None:
    """Neither waits for the other until the dwell time is over."""
    took_ms: list[int] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config(session_timeout_ms=30_000))
        held: list[int] = []

        def until(condition: Callable[[], bool]) -> None:
            with driver.lock:
                while not condition():
                    driver.wait(driver.now_ms() + 20)

        def read() -> None:
            for message in consumer:
                held.append(message.offset)
                until(lambda: consumer.ended)
                consumer.mark_offset(message)
                consumer.close()

        driver.spawn(read)
        until(lambda: bool(held))
        begun_ms = driver.now_ms()
        consumer.close()
        took_ms.append(driver.now_ms() - begun_ms)

    tiny.produce(0, 1)
    tiny.play(application, 60_000)
    assert took_ms[0] < 1_000
    assert committed(tiny, TopicPartition("t", 0)) == 1
