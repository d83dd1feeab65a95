"""Acknowledging one by one, worker pools, batches and seeks."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress
from typing import Any

import pytest

from ksim.consumer.config import Acknowledge, ConsumerMode
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.core.errors import MisuseError
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, TP1, Told, committed
from tests.consumer.worlds import TinyWorld

EACH = {"acknowledge": Acknowledge.EACH}


def test_an_unfinished_record_holds_the_commit_back(tiny: TinyWorld) -> None:
    after: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(**EACH))
        messages = list(consumer.messages(timeout_ms=1_000))
        for message in [*messages[2:], messages[0]]:
            message.ack()
        consumer.commit_offsets()
        after.append(committed(tiny, TP0))
        messages[1].ack()
        consumer.commit_offsets()
        after.append(committed(tiny, TP0))

    tiny.produce(0, 5)
    tiny.play(application, 5_000)
    assert after == [1, 5]


def test_no_more_is_handed_out_than_may_be_in_flight(tiny: TinyWorld) -> None:
    counts: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(max_in_flight=3, **EACH))
        first = list(consumer.messages(timeout_ms=1_000))
        first[0].ack()
        counts.extend([len(first), len(list(consumer.messages(timeout_ms=1_000)))])

    tiny.produce(0, 5)
    tiny.play(application, 5_000)
    assert counts == [3, 1]


def test_a_revocation_waits_for_what_is_in_flight(tiny: TinyWorld) -> None:
    told = Told()
    order: list[str] = []
    told.on_revoked = lambda: order.append("revoked")
    held: list[Message] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config(**EACH), listener=told)
        driver.spawn(lambda: acknowledge_late(driver))
        for message in consumer:
            held.append(message)  # noqa: PERF402 - it is read while it grows

    def acknowledge_late(driver: SimDriver) -> None:
        driver.sleep_us(3_000_000)
        for message in held:
            message.ack()
        order.append("acknowledged")

    tiny.produce(0, 2)
    tiny.start(application)
    tiny.run(1_000)
    tiny.start(lambda _: list(Consumer(tiny.config())) and None, "n")
    tiny.run(5_000)
    assert not tiny.failures
    assert order == ["acknowledged", "revoked"]
    assert committed(tiny, TP0) == 2


def test_workers_handle_beside_each_other_and_in_any_order(tiny: TinyWorld) -> None:
    finished: list[int] = []
    busy: list[int] = []
    consumers: list[Consumer] = []

    def application(driver: SimDriver) -> None:
        def handler(message: Message) -> None:
            busy.append(message.offset)
            driver.sleep_us((10 - message.offset) * 100_000)
            finished.append(message.offset)

        with Consumer(tiny.config(**EACH)) as consumer:
            consumers.append(consumer)
            consumer.run(handler, workers=5)

    tiny.produce(0, 5)
    tiny.start(application)
    tiny.run(3_000)
    assert (busy, finished) == ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    consumers[0].stop()
    tiny.run(1_000)
    assert not tiny.failures
    assert committed(tiny, TP0) == 5


@pytest.mark.parametrize("mode", ["each", "partitions"])
def test_whatever_a_worker_raises_ends_the_run(tiny: TinyWorld, mode: str) -> None:
    """Some exceptions are none of Exception, and end a thread as well."""

    def handler(_: object) -> None:
        raise CancelledError("no more")

    def application(_: SimDriver) -> None:
        options: dict[str, Any] = EACH if mode == "each" else {"mode": ConsumerMode.PARTITIONS}
        with suppress(CancelledError), Consumer(tiny.config(**options)) as consumer:
            if mode == "each":
                consumer.run(handler, workers=2)
            else:
                consumer.run(handler)
            ended.append("without it")
        ended.append("with it")

    ended: list[str] = []
    tiny.produce(0, 4)
    tiny.start(application)
    tiny.run(5_000)
    assert ended == ["with it"]


def test_a_handler_that_raises_ends_the_run_and_its_record_comes_again(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(driver: SimDriver) -> None:
        def handler(message: Message) -> None:
            driver.sleep_us(50_000)
            if message.offset == 2:
                raise ValueError("a poisoned record")

        with Consumer(tiny.config(**EACH)) as consumer:
            consumer.run(handler, workers=2)

    def successor(_: SimDriver) -> None:
        seen.extend(message.offset for message in Consumer(tiny.config()).messages(1_000))

    tiny.produce(0, 4)
    tiny.start(application)
    tiny.run(3_000)
    assert [str(error) for error in tiny.failures] == ["a poisoned record"]
    assert committed(tiny, TP0) == 2
    tiny.start(successor, "s")
    tiny.run(3_000)
    assert seen == [2, 3]


@pytest.mark.parametrize(
    ("options", "use"),
    [
        ({}, lambda _, message: message.ack()),
        ({}, lambda consumer, _: consumer.run(print)),
        (EACH, lambda consumer, message: consumer.mark_offset(message)),
        (EACH, lambda consumer, _: consumer.mark_partition_offset("t", 0, 1)),
        (EACH, lambda consumer, _: consumer.run(print, workers=0)),
        ({}, lambda consumer, _: consumer.seek("t", 0, -1)),
        ({}, lambda consumer, _: consumer.seek("t", 7, 0)),
    ],
)
def test_the_wrong_one_for_the_mode_raises(
    tiny: TinyWorld, options: dict[str, Any], use: Any
) -> None:
    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(**options))
        use(consumer, next(consumer.messages()))

    tiny.produce(0, 1)
    tiny.start(application)
    tiny.run(3_000)
    (error,) = tiny.failures
    assert isinstance(error, MisuseError), error


def test_a_batch_is_of_one_partition_and_in_flight_as_a_whole(tiny: TinyWorld) -> None:
    told = Told()
    batches: list[list[tuple[int, int]]] = []
    order: list[str] = []
    told.on_revoked = lambda: order.append("revoked")

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config(), listener=told)
        for batch in consumer.batches(max_records=3):
            batches.append([(message.partition, message.offset) for message in batch])
            driver.sleep_us(1_000_000)
            order.append("done")
            consumer.mark_offset(batch[-1])

    tiny.produce(0, 4)
    tiny.produce(1, 2)
    tiny.start(application)
    tiny.run(500)
    tiny.start(lambda _: list(Consumer(tiny.config())) and None, "n")
    tiny.run(1_500)
    assert not tiny.failures
    assert [len(batch) for batch in batches][:1] in ([3], [2])
    assert all(len({partition for partition, _ in batch}) == 1 for batch in batches)
    assert order[:2] == ["done", "revoked"]


def test_after_a_seek_the_next_message_is_that_one(tiny: TinyWorld) -> None:
    seen: list[int] = []
    after: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        for message in consumer.messages(timeout_ms=1_000):
            seen.append(message.offset)
            consumer.mark_offset(message)
            if seen == [0, 1, 2]:
                consumer.commit_offsets()
                consumer.seek("t", 0, 1)
            if len(seen) == 4:
                consumer.commit_offsets()
                after.append(committed(tiny, TP0))
                consumer.seek("t", 0, 5)
        consumer.close()

    tiny.produce(0, 7)
    tiny.play(application, 5_000)
    assert seen == [0, 1, 2, 1, 5, 6]
    assert after == [2]
    assert committed(tiny, TopicPartition("t", 0)) == 7
    assert committed(tiny, TP1) == -1


def test_a_seek_back_keeps_what_is_done_below_it(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(commit_interval_ms=60_000))
        for message in consumer.messages(timeout_ms=1_000):
            seen.append(message.offset)
            if len(seen) > 3:
                break  # the one that came again is not marked
            consumer.mark_offset(message)
            if len(seen) == 3:
                consumer.seek("t", 0, 2)
        consumer.close()

    tiny.produce(0, 3)
    tiny.start(application)
    tiny.run(5_000)
    assert not tiny.failures
    assert seen == [0, 1, 2, 2]
    assert committed(tiny, TP0) == 2
