"""What comes between two steps: an answer before a seek, a resume after a pause, an early end."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.consumer.config import Acknowledge
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.consumer.offsets import OffsetStash
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import CommitFailedError
from ksim.core.values import Record, TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, Told, committed
from tests.consumer.worlds import TinyWorld

EACH = {"acknowledge": Acknowledge.EACH}


@pytest.mark.parametrize("late_us", [2_000, 50_000])
def test_an_answer_that_comes_before_a_seek_is_dropped(late_us: int) -> None:
    """On sockets the owner may feed a fetch before it feeds the seek."""
    tiny, seen = TinyWorld(partitions=1), list[int]()

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        honest = driver.post

        def post(fact: Any) -> None:
            if isinstance(fact, e.Sought):
                tiny.world.call_after(late_us, honest, fact)
            else:
                honest(fact)

        driver.post = post  # type: ignore[method-assign]
        for message in consumer.messages(timeout_ms=5_000):
            seen.append(message.offset)
            if seen == [0, 1, 2, 3, 4]:
                driver.sleep_us(100_000)
                tiny.produce(0, 5)
                driver.sleep_us(1)  # the parked fetch is answered, and on its way
                consumer.seek("t", 0, 2)

    tiny.produce(0, 5)
    tiny.play(application, 20_000)
    tiny.end()
    assert seen == [0, 1, 2, 3, 4, *range(2, 10)]


def test_a_pause_and_a_resume_hold_no_other_partition_back(tiny: TinyWorld) -> None:
    seen: list[int] = []
    own = [TopicPartition("t", partition) for partition in range(2)]

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        for message in consumer.messages():
            seen.append(message.partition)
            if len(seen) == 20:
                consumer.pause(own)
                driver.sleep_us(200_000)
                consumer.resume(own)

    for partition in range(2):
        tiny.produce(partition, 50)
    tiny.start(application)
    tiny.run(5_000)
    tiny.produce(1, 50)  # the other one is quiet from now on
    tiny.run(10_000)
    assert not tiny.failures
    assert (seen.count(0), seen.count(1)) == (50, 100)


def test_a_commit_that_was_never_made_is_no_success(tiny: TinyWorld) -> None:
    told: list[object] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config(commit_interval_ms=60_000))
        consumer.mark_offset(next(consumer.messages()))
        honest = driver.send

        def send(order: e.SendRequest) -> None:
            if isinstance(order.request, m.FetchRequest | m.MetadataRequest):
                honest(order)
            else:
                failed = e.RequestFailed(order.request_id, "nobody is there")
                tiny.world.call_after(50_000, driver.post, failed)

        driver.send = send  # type: ignore[method-assign]
        with pytest.raises(CommitFailedError) as caught:
            consumer.commit_offsets()
        told.append(caught.value.error_code)

    tiny.produce(0, 5)
    tiny.play(application, 60_000)
    assert told == [25]


def test_leaving_by_an_exception_waits_for_no_acknowledgement(tiny: TinyWorld) -> None:
    """Nobody is left who could give it."""
    told, took_ms = Told(), list[int]()

    def fail(driver: SimDriver) -> None:
        with Consumer(tiny.config(**EACH), listener=told) as consumer:
            next(consumer.messages())
            took_ms.append(driver.now_ms())
            raise ValueError("poisoned")

    def application(driver: SimDriver) -> None:
        with pytest.raises(ValueError, match="poisoned"):
            fail(driver)
        took_ms.append(driver.now_ms())

    tiny.produce(0, 5)
    tiny.play(application, 60_000)
    assert took_ms[1] - took_ms[0] < 1_000
    assert [kind for kind, _ in told.calls] == ["assigned", "revoked"]


def test_a_handler_that_ends_the_program_ends_the_pool(tiny: TinyWorld) -> None:
    told: list[object] = []

    def handler(message: Message) -> None:
        raise SystemExit(message.offset + 3)

    def application(_: SimDriver) -> None:
        with pytest.raises(SystemExit) as caught, Consumer(tiny.config(**EACH)) as consumer:
            consumer.run(handler, workers=1)
        told.append(caught.value.code)

    tiny.produce(0, 5)
    tiny.play(application, 60_000)
    assert told == [3]


def test_a_stash_goes_back_with_a_newer_tenure() -> None:
    stash = OffsetStash()
    for tenure, offset in ((1, 10), (2, 6), (2, 5)):
        stash.mark_offset(Message("t", 0, tenure, Record(offset, 0, None, b"", ())))
    assert stash.offsets() == {"t-0": 6}


@pytest.mark.parametrize("options", [{}, EACH])
def test_a_mark_from_before_a_seek_back_does_not_count(options: Any) -> None:
    """What comes after the seek was asked for again."""
    tiny, seen = TinyWorld(partitions=1), list[int]()
    known: list[tuple[int, int]] = []

    def application(driver: SimDriver) -> None:
        del driver
        consumer = Consumer(tiny.config(**options))
        for message in consumer.messages(timeout_ms=3_000):
            seen.append(message.offset)
            if seen == [0, 1, 2, 3, 4]:
                consumer.seek("t", 0, 0)
                message.ack() if options else consumer.mark_offset(message)
                stash = OffsetStash()
                stash.mark_offset(message)
                if not options:
                    consumer.mark_offsets(stash)
        known.append((committed(tiny, TP0), consumer.stale_marks))

    tiny.produce(0, 5)
    tiny.play(application, 20_000)
    tiny.end()
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert known == [(-1, 1 if options else 2)]


def test_what_is_marked_after_a_seek_back_is_committed_in_time() -> None:
    """What is committed already is marked first, and must not keep the member from asking."""
    tiny, known = TinyWorld(partitions=1), list[tuple[int, int]]()

    def application(driver: SimDriver) -> None:
        del driver
        options = {"commit_interval_ms": 200, "heartbeat_interval_ms": 3_000}
        consumer = Consumer(tiny.config(**options))
        for turn in range(6):
            for message in consumer.messages(timeout_ms=1_500 if turn == 0 else 400):
                consumer.mark_offset(message)
            known.append((message.offset, committed(tiny, TP0)))
            consumer.seek("t", 0, message.offset)
            tiny.produce(0, 1)

    tiny.produce(0, 5)
    tiny.play(application, 20_000)
    tiny.end()
    assert known == [(at, at + 1) for at in range(4, 10)]
