"""Positions after unclean elections, and beyond the end of a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ksim.consumer.consumer import Consumer
from ksim.core.errors import GroupFatalError, KafkaError
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, TP1, committed
from tests.consumer.worlds import TinyWorld


@pytest.fixture
def tiny() -> Iterator[TinyWorld]:
    found = TinyWorld(brokers=2)
    yield found
    found.end()


def reader(tiny: TinyWorld, seen: list[int], name: str = "m", **options: Any) -> list[Consumer]:
    made: list[Consumer] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(**{"metadata_max_age_ms": 1_000, **options})) as consumer:
            made.append(consumer)
            for message in consumer:
                seen.append(message.offset)
                consumer.mark_offset(message)

    tiny.start(application, name)
    return made


def test_it_goes_on_where_the_logs_part(tiny: TinyWorld) -> None:
    seen: list[int] = []
    made = reader(tiny, seen)
    tiny.produce(0, 5)
    tiny.run(3_000)
    assert (seen, committed(tiny, TP0)) == ([0, 1, 2, 3, 4], 5)
    assert tiny.cluster.truncate(TP0, 2) == 3
    tiny.produce(0, 3)
    tiny.run(5_000)
    assert not tiny.failures
    assert seen == [0, 1, 2, 3, 4, 3, 4, 5]
    assert committed(tiny, TP0) == 6
    assert [str(error) for error in made[0].errors()] == [
        "t-0 was truncated at 3, read up to 5: OFFSET_OUT_OF_RANGE (1)"
    ]


def test_a_successor_learns_of_it_by_the_committed_epoch(tiny: TinyWorld) -> None:
    seen: list[int] = []
    (first,) = [reader(tiny, seen)]
    tiny.produce(0, 5)
    tiny.run(3_000)
    first[0].stop()
    tiny.run(2_000)
    tiny.cluster.truncate(TP0, 2)
    tiny.produce(0, 1)
    tiny.run(1_000)
    again: list[int] = []
    reader(tiny, again, "n")
    tiny.run(5_000)
    assert not tiny.failures
    assert again == [3]
    assert committed(tiny, TP0) == 4


def test_a_leader_change_without_a_loss_changes_nothing(tiny: TinyWorld) -> None:
    seen: list[int] = []
    made = reader(tiny, seen)
    tiny.produce(0, 5)
    tiny.run(3_000)
    tiny.cluster.truncate(TP0, 0)
    tiny.produce(0, 2)
    tiny.run(5_000)
    assert not tiny.failures
    assert seen == list(range(7))
    assert made[0].errors() == []


def test_without_a_policy_the_application_must_decide(tiny: TinyWorld) -> None:
    seen: list[int] = []
    reader(tiny, seen)
    tiny.produce(0, 5)
    tiny.run(3_000)
    refused: list[int] = []
    reader(tiny, refused, "n", group_id="other", auto_offset_reset="none")
    tiny.run(3_000)
    (error,) = tiny.failures
    assert isinstance(error, GroupFatalError)
    assert refused == []


def test_a_leader_that_lags_for_a_moment_resets_nobody(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(metadata_max_age_ms=1_000))
        assert list(consumer.messages(timeout_ms=500)) == []
        consumer.seek("t", 0, 3)  # as a committed offset that the new leader has not seen yet
        seen.extend(message.offset for message in consumer.messages(timeout_ms=10_000))

    tiny.start(application)
    tiny.run(2_000)
    tiny.produce(0, 5)
    tiny.run(2_000)
    assert not tiny.failures
    assert seen == [3, 4]


def test_beyond_the_end_for_long_the_policy_decides(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        assert len(list(consumer.messages(timeout_ms=500))) == 2
        consumer.seek("t", 0, 50)
        seen.extend(message.offset for message in consumer.messages(timeout_ms=8_000))

    tiny.produce(0, 2)
    tiny.start(application)
    tiny.run(5_000)
    assert seen == []
    tiny.run(5_000)
    assert not tiny.failures
    assert seen == [0, 1]


def test_after_a_reset_back_lower_marks_count_again(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        for message in consumer.messages(timeout_ms=9_000):
            seen.append(message.offset)
            consumer.mark_offset(message)
            if len(seen) == 2:
                consumer.commit_offsets()
                consumer.seek("t", 0, 50)
        consumer.close()

    tiny.produce(0, 2)
    tiny.start(application)
    tiny.run(4_000)
    tiny.cluster.truncate(TP0, 2)
    tiny.produce(0, 1)
    tiny.run(20_000)
    assert not tiny.failures
    assert seen == [0, 1, 0]
    assert committed(tiny, TP0) == 1


def test_a_mark_of_a_record_that_is_gone_is_not_committed(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config(metadata_max_age_ms=1_000))
        for message in consumer:
            seen.append(message.offset)
            if seen == [0, 1, 2, 3, 4]:
                driver.sleep_us(3_000_000)  # the log is truncated meanwhile
            consumer.mark_offset(message)

    tiny.produce(0, 5)
    tiny.start(application)
    tiny.run(1_000)
    tiny.cluster.truncate(TP0, 5)
    tiny.run(1_500)
    tiny.produce(0, 2)
    tiny.run(5_000)
    assert not tiny.failures
    assert seen == [0, 1, 2, 3, 4, 0, 1]
    assert committed(tiny, TP0) == 2


def test_marks_are_told_at_once_after_all_that_were_not_told_are_gone(tiny: TinyWorld) -> None:
    """They go while a commit is planned, and nothing else wakes the member before its heartbeat."""
    seen: list[int] = []
    slow = {"heartbeat_interval_ms": 10_000, "session_timeout_ms": 60_000}
    reader(tiny, seen, commit_interval_ms=5_000, metadata_max_age_ms=300_000, **slow)
    tiny.produce(0, 5)
    tiny.run(3_000)
    assert (seen, committed(tiny, TP0)) == ([0, 1, 2, 3, 4], -1)
    assert tiny.cluster.truncate(TP0, 5) == 0
    tiny.run(8_000)
    tiny.produce(0, 3)
    tiny.run(14_000)
    assert (seen[5:], committed(tiny, TP0)) == ([0, 1, 2], 3)


def test_an_error_of_one_partition_costs_the_others_no_commit(tiny: TinyWorld) -> None:
    """The application is told, and what it does then is the usual end."""
    before = reader(tiny, [])
    for partition in range(2):
        tiny.produce(partition, 5)
    tiny.run(3_000)
    before[0].stop()
    tiny.run(1_000)
    reader(tiny, [], "n", auto_offset_reset="none", commit_interval_ms=60_000)
    tiny.run(1_000)
    for partition in range(2):
        tiny.produce(partition, 5)
    tiny.run(1_000)
    assert committed(tiny, TP1) == 5
    assert tiny.cluster.truncate(TP0, 2) > 0
    tiny.run(5_000)
    (error,) = tiny.failures
    assert isinstance(error, GroupFatalError)
    assert error.error_code == KafkaError.OFFSET_OUT_OF_RANGE
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (8, 10)
    heirs: list[int] = []
    reader(tiny, heirs, "h")
    tiny.produce(1, 1)
    tiny.run(1_000)
    assert heirs == [10], "it has left, nobody waits for its session"
