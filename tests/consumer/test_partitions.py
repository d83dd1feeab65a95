"""Partitions mode: one stream for each partition, each its own safe point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ksim.consumer.config import ConsumerMode
from ksim.consumer.consumer import Consumer
from ksim.consumer.partitions import PartitionConsumer
from ksim.core.errors import MisuseError
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, TP1, Told, committed
from tests.consumer.worlds import TinyWorld

PARTITIONS = {"mode": ConsumerMode.PARTITIONS}
Read = Callable[[SimDriver, Consumer, PartitionConsumer], None]


def start(tiny: TinyWorld, read: Read, name: str = "m", **options: Any) -> list[Consumer]:
    """A consumer that gives each partition to a thread of its own."""
    made: list[Consumer] = []
    listener = options.pop("listener", None)

    def application(driver: SimDriver) -> None:
        with Consumer(tiny.config(**PARTITIONS, **options), listener=listener) as consumer:
            made.append(consumer)
            for partition in consumer.partitions():
                driver.spawn(lambda each=partition: read(driver, consumer, each))  # type: ignore[misc]

    tiny.start(application, name)
    return made


def test_each_partition_is_read_by_itself(tiny: TinyWorld) -> None:
    seen: list[tuple[int, int]] = []
    ended: list[tuple[str, int]] = []

    def read(_: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        for message in partition:
            seen.append((message.partition, message.offset))
            consumer.mark_offset(message)
        ended.append((partition.topic, partition.partition))

    made = start(tiny, read)
    tiny.run(1_000)
    tiny.produce(0, 2)
    tiny.produce(1, 3)
    tiny.run(2_000)
    assert sorted(seen) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    made[0].stop()
    tiny.run(2_000)
    assert not tiny.failures
    assert sorted(ended) == [("t", 0), ("t", 1)]
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (2, 3)


def test_one_slow_partition_holds_a_revocation_and_not_the_others(tiny: TinyWorld) -> None:
    told = Told()
    order: list[str] = []
    told.on_revoked = lambda: order.append("revoked")

    def read(driver: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        for message in partition:
            if message.partition == 0:
                driver.sleep_us(2_000_000)
            order.append(f"{message.partition}@{message.offset}")
            consumer.mark_offset(message)

    start(tiny, read, listener=told)
    tiny.run(1_000)
    tiny.produce(0, 1)
    tiny.produce(1, 1)
    tiny.run(200)
    assert order == ["1@0"]
    start(tiny, read, "n")
    tiny.run(1_000)
    assert order == ["1@0"]
    tiny.run(3_000)
    assert not tiny.failures
    assert order == ["1@0", "0@0", "revoked"]
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (1, 1)


def test_a_partition_that_is_closed_comes_back_as_a_new_one(tiny: TinyWorld) -> None:
    made: list[PartitionConsumer] = []
    seen: list[tuple[int, int]] = []

    def read(_: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        made.append(partition)
        for message in partition:
            seen.append((message.partition, message.offset))
            if seen == [(0, 0), (0, 1)]:
                assert partition.close() == []
                assert partition.ended
            elif message.offset != 1 or len(seen) > 2:
                consumer.mark_offset(message)

    start(tiny, read)
    tiny.run(1_000)
    tiny.produce(0, 4)
    tiny.run(5_000)
    assert not tiny.failures
    assert [(each.topic, each.partition) for each in made].count(("t", 0)) == 2
    assert seen == [(0, 0), (0, 1), (0, 1), (0, 2), (0, 3)]
    assert committed(tiny, TP0) == 4
    assert [each.ended for each in made if each.partition == 0] == [True, False]


def test_what_is_known_of_a_partition(tiny: TinyWorld) -> None:
    found: list[tuple[int, int]] = []

    def read(_: SimDriver, __: Consumer, partition: PartitionConsumer) -> None:
        batches = list(partition.batches(max_records=2, timeout_ms=1_000))
        if partition.partition == 0:
            found.extend((len(batch), partition.high_water_mark_offset()) for batch in batches)
            assert repr(partition).startswith("PartitionConsumer(t-0, tenure ")

    tiny.produce(0, 3)
    start(tiny, read)
    tiny.run(4_000)
    assert not tiny.failures
    assert found == [(2, 3), (1, 3)]


def test_a_partition_out_of_range_says_so_where_it_is_read(tiny: TinyWorld) -> None:
    errors: list[str] = []

    def read(_: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        if partition.partition == 0:
            consumer.seek("t", 0, 99)
        for _message in partition.messages(timeout_ms=2_000):
            pass
        errors.extend(f"{partition.partition}: {error}" for error in partition.errors())

    made = start(tiny, read)
    tiny.run(5_000)
    assert not tiny.failures
    assert len(errors) == 1
    assert errors[0].startswith("0: t-0 at offset 99: OFFSET_OUT_OF_RANGE")
    assert made[0].errors() == []


def test_a_partition_that_is_closed_returns_the_errors_that_nobody_read(tiny: TinyWorld) -> None:
    told: list[str] = []

    def read(_: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        if partition.partition == 0 and not told:
            consumer.seek("t", 0, 99)
            for _message in partition.messages(timeout_ms=2_000):
                pass
            told.extend(map(str, partition.close()))
            assert partition.close() == partition.errors() == []

    start(tiny, read)
    tiny.run(5_000)
    assert not tiny.failures
    assert len(told) == 1
    assert told[0].startswith("t-0 at offset 99: OFFSET_OUT_OF_RANGE")


def test_the_wrong_one_for_the_mode_raises(tiny: TinyWorld) -> None:
    def multiplex(_: SimDriver) -> None:
        next(Consumer(tiny.config()).partitions())

    def partitions(_: SimDriver) -> None:
        next(Consumer(tiny.config(**PARTITIONS)).messages())

    tiny.start(multiplex, "a")
    tiny.start(partitions, "b")
    tiny.run(1_000)
    assert sorted(map(str, tiny.failures)) == [
        "messages() needs mode = 'multiplex'", "partitions() needs mode = 'partitions'",
    ]  # fmt: skip
    assert all(isinstance(error, MisuseError) for error in tiny.failures)


def test_run_gives_each_partition_a_worker_of_its_own(tiny: TinyWorld) -> None:
    seen: list[tuple[int, int]] = []
    made: list[Consumer] = []

    def application(driver: SimDriver) -> None:
        def read(partition: PartitionConsumer) -> None:
            for message in partition:
                driver.sleep_us(100_000)
                seen.append((message.partition, driver.now_ms()))
                consumer.mark_offset(message)

        with Consumer(tiny.config(**PARTITIONS)) as consumer:
            made.append(consumer)
            consumer.run(read)

    tiny.produce(0, 2)
    tiny.produce(1, 2)
    tiny.start(application, "m")
    tiny.run(3_000)
    made[0].stop()
    tiny.run(3_000)
    assert not tiny.failures
    times = {number: [at_ms for p, at_ms in seen if p == number] for number in (0, 1)}
    assert times[0] == times[1]  # beside each other
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (2, 2)


def test_a_partition_whose_handler_returns_is_given_back(
    tiny: TinyWorld, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[PartitionConsumer] = []
    seen: list[int] = []
    made: list[Consumer] = []

    def application(_: SimDriver) -> None:
        def read(partition: PartitionConsumer) -> None:
            taken.append(partition)
            for message in partition:
                seen.append(message.offset)
                if message.offset == 2 and seen.count(2) == 1:
                    return  # what is not marked comes again
                consumer.mark_offset(message)

        with Consumer(tiny.config(**PARTITIONS)) as consumer:
            made.append(consumer)
            consumer.run(read)

    tiny.produce(0, 5)
    tiny.start(application, "m")
    tiny.run(10_000)
    assert seen == [0, 1, 2, 2, 3, 4]
    assert [each.partition for each in taken].count(0) == 2
    assert [each.ended for each in taken if each.partition == 0] == [True, False]
    assert caplog.text.count("the handler of t-0 returned before the partition had ended") == 1
    made[0].stop()
    tiny.run(3_000)
    assert not tiny.failures
    assert committed(tiny, TP0) == 5
    assert caplog.text.count("returned before") == 1  # they all return at the end


def test_a_handler_that_always_returns_does_not_keep_its_group_busy(
    tiny: TinyWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """At once, then after 1, 2, 4 and 8 s; the other partition is read all the time."""
    taken: list[int] = []
    made: list[Consumer] = []

    def application(_: SimDriver) -> None:
        def read(partition: PartitionConsumer) -> None:
            if partition.partition == 0:
                taken.append(partition.partition)
                return
            for message in partition:
                consumer.mark_offset(message)

        with Consumer(tiny.config(**PARTITIONS)) as consumer:
            made.append(consumer)
            consumer.run(read)

    tiny.produce(0, 5)
    tiny.produce(1, 5)
    tiny.start(application, "m")
    tiny.run(20_000)
    assert len(taken) in (5, 6)
    assert "it is given back, and" in caplog.text
    assert "it is given back after 4000 ms, and" in caplog.text
    made[0].stop()
    tiny.run(3_000)  # it does not rest for longer than its consumer
    assert not tiny.failures
    assert made[0].closed
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (-1, 5)


def test_errors_that_a_handler_did_not_read_are_in_the_log(
    tiny: TinyWorld, caplog: pytest.LogCaptureFixture
) -> None:
    def application(_: SimDriver) -> None:
        def read(partition: PartitionConsumer) -> None:
            if partition.partition == 0 and not caplog.text:
                consumer.seek("t", 0, 99)
                assert list(partition.messages(timeout_ms=2_000)) == []
            else:
                assert list(partition) == []

        with Consumer(tiny.config(**PARTITIONS)) as consumer:
            consumer.run(read)

    tiny.start(application, "m")
    tiny.run(5_000)
    assert not tiny.failures
    assert "t-0, which its handler did not read: t-0 at offset 99: OFFSET_OUT_OF_R" in caplog.text


def test_run_raises_what_a_reader_raised_once_the_others_are_done(tiny: TinyWorld) -> None:
    ended: list[int] = []

    def application(driver: SimDriver) -> None:
        def read(partition: PartitionConsumer) -> None:
            for message in partition:
                if message.partition == 0:
                    driver.sleep_us(200_000)
                    raise ValueError("of partition 0")
                driver.sleep_us(500_000)
                consumer.mark_offset(message)
                ended.append(message.offset)

        with Consumer(tiny.config(**PARTITIONS)) as consumer:
            consumer.run(read)

    tiny.produce(0, 2)
    tiny.produce(1, 2)
    tiny.start(application, "m")
    tiny.run(5_000)
    assert [str(error) for error in tiny.failures] == ["of partition 0"]
    assert ended == [0]
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (-1, 1)


def test_an_application_that_is_told_late_gets_each_partition_once(tiny: TinyWorld) -> None:
    """Two assignments pass while it is still in a callback; one of them is over by then."""
    taken: list[tuple[int, int]] = []

    class Slow(Told):
        def on_partitions_revoked(self, partitions: Any) -> None:
            super().on_partitions_revoked(partitions)
            drivers[0].sleep_us(2_000_000)

    drivers: list[SimDriver] = []

    def read(driver: SimDriver, consumer: Consumer, partition: PartitionConsumer) -> None:
        taken.append((partition.partition, partition._stream.tenure))
        drivers[:] = [driver]
        for message in partition:
            consumer.mark_offset(message)

    start(tiny, read, "m", listener=Slow(), heartbeat_interval_ms=200, dwell_time_ms=100)
    tiny.run(1_000)
    for name in ("n", "o"):
        start(tiny, lambda *_: None, name, heartbeat_interval_ms=200)
        tiny.run(600)
    tiny.run(5_000)
    assert not tiny.failures
    assert len(taken) == len(set(taken)), f"one of {taken} was offered twice"
