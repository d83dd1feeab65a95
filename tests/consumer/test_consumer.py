"""The public consumer in a simulated world: callbacks, marks, commits, pauses and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ksim.consumer.config import Config, Strategy
from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Engine
from ksim.consumer.message import Message, NotificationType, RebalanceListener
from ksim.consumer.port import Driver, Feedable
from ksim.core.errors import ConfigError
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.worlds import TinyWorld

TP0, TP1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Told:
    """A listener that writes down, and may do something in a callback."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[TopicPartition, ...]]] = []
        self.on_revoked: Any = lambda: None

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("assigned", tuple(partitions)))

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("revoked", tuple(partitions)))
        self.on_revoked()

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.calls.append(("lost", tuple(partitions)))


def committed(tiny: TinyWorld, tp: TopicPartition) -> int:
    """What the offsets log holds last for this partition."""
    found = [
        entry.offset
        for log in tiny.cluster.state.offsets_logs
        for entry in log
        if getattr(entry, "offset", None) is not None
        and (getattr(entry, "topic", ""), getattr(entry, "partition", -1)) == tuple(tp)
    ]
    return found[-1] if found else -1


def test_ports_are_what_they_say(tiny: TinyWorld) -> None:
    made: list[object] = []

    def application(driver: SimDriver) -> None:
        port: Driver = driver
        listener: RebalanceListener = Told()
        feedable: Feedable = Engine(tiny.config(), port, listener, ())
        made.append(feedable)

    tiny.start(application)
    tiny.run(10)
    assert made
    assert not tiny.failures


def test_callbacks_surround_the_messages(tiny: TinyWorld) -> None:
    told = Told()
    seen: list[Message] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config(), listener=told) as consumer:
            for message in consumer:
                assert told.calls == [("assigned", (TP0, TP1))]
                seen.append(message)
                consumer.mark_offset(message)
                if len(seen) == 4:
                    break

    tiny.produce(0, 2)
    tiny.produce(1, 2)
    tiny.play(application, 5_000)
    assert sorted((m.partition, m.offset) for m in seen) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert told.calls == [("assigned", (TP0, TP1)), ("revoked", (TP0, TP1))]
    assert (committed(tiny, TP0), committed(tiny, TP1)) == (2, 2)


def test_an_exception_commits_what_was_marked_and_goes_on(tiny: TinyWorld) -> None:
    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            for message in consumer:
                if message.offset == 3:
                    raise ValueError("a poisoned record")
                consumer.mark_offset(message)

    tiny.produce(0, 6)
    tiny.start(application)
    tiny.run(5_000)
    assert [str(error) for error in tiny.failures] == ["a poisoned record"]
    assert committed(tiny, TP0) == 3


def test_a_commit_waits_for_the_acknowledgement(tiny: TinyWorld) -> None:
    after: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(commit_interval_ms=60_000))
        for message in consumer:
            consumer.mark_offset(message)
            consumer.commit_offsets()
            after.append(committed(tiny, TP0))

    tiny.produce(0, 3)
    tiny.play(application, 3_000)
    assert after == [1, 2, 3]


def test_a_commit_in_the_callback_counts_for_the_old_generation(tiny: TinyWorld) -> None:
    told = Told()
    consumers: list[Consumer] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(commit_interval_ms=60_000), listener=told)
        consumers.append(consumer)
        for _message in consumer:
            pass

    def commit() -> None:
        consumers[0].mark_partition_offset("t", 0, 1)
        consumers[0].commit_offsets()

    told.on_revoked = commit
    tiny.produce(0, 2)
    tiny.start(application)
    tiny.run(2_000)
    tiny.start(lambda _: list(Consumer(tiny.config())) and None, "n")
    tiny.run(3_000)
    assert not tiny.failures
    assert told.calls[1][0] == "revoked"
    assert committed(tiny, TP0) == 2


def test_a_mark_after_the_tenure_is_ignored_and_counted(tiny: TinyWorld) -> None:
    counts: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        message = next(consumer.messages(timeout_ms=3_000))
        consumer.close()
        consumer.mark_offset(message)
        counts.append(consumer.stale_marks)

    tiny.produce(0, 1)
    tiny.play(application, 5_000)
    assert counts == [1]
    assert committed(tiny, TP0) == -1


def test_paused_partitions_hand_out_nothing_until_they_are_resumed(tiny: TinyWorld) -> None:
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        assert list(consumer.messages(timeout_ms=1_000)) == []
        consumer.pause([TP0])
        tiny.produce(0, 2)
        tiny.produce(1, 2)
        seen.extend(m.partition for m in consumer.messages(timeout_ms=1_000))
        consumer.resume([TP0])
        seen.extend(m.partition for m in consumer.messages(timeout_ms=1_000))

    tiny.play(application, 6_000)
    assert seen == [1, 1, 0, 0]


def test_what_is_not_owned_yet_is_not_paused_when_it_comes(tiny: TinyWorld) -> None:
    """Its application saw nothing of it: nobody would ever resume it."""
    seen: list[int] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        while not consumer.subscriptions():
            consumer.pause([TP0])
            seen.extend(m.partition for m in consumer.messages(timeout_ms=1))
        seen.extend(m.partition for m in consumer.messages(timeout_ms=1_000))

    tiny.produce(0, 2)
    tiny.play(application, 6_000)
    assert seen == [0, 0]


def test_what_ended_the_block_is_raised_whatever_its_close_does(tiny: TinyWorld) -> None:
    class Bad(Told):
        def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
            raise OSError(f"the callback for {len(partitions)}")

    raised: list[BaseException] = []

    def application(_: SimDriver) -> None:
        try:
            with Consumer(tiny.config(), listener=Bad()) as consumer:
                next(consumer.messages())
                raise ValueError("the handler")
        except (ValueError, OSError) as error:
            raised.append(error)

    tiny.produce(0, 1)
    tiny.play(application, 6_000)
    (error,) = raised
    assert str(error) == "the handler"
    assert error.__notes__ == ["close() raised OSError: the callback for 2"]


def test_stop_ends_the_iteration_from_outside(tiny: TinyWorld) -> None:
    ended: list[bool] = []
    consumers: list[Consumer] = []

    def application(_: SimDriver) -> None:
        with Consumer(tiny.config()) as consumer:
            consumers.append(consumer)
            ended.append(list(consumer) == [])
            assert consumer.ended

    tiny.start(application)
    tiny.run(2_000)
    assert not ended
    consumers[0].stop()
    tiny.run(2_000)
    assert not tiny.failures
    assert ended == [True]


def test_close_in_a_callback_only_says_so(tiny: TinyWorld) -> None:
    told = Told()
    order: list[str] = []

    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config(), listener=told)

        def close() -> None:
            consumer.close()
            order.append("said")

        told.on_revoked = close
        order.append(f"iterated {len(list(consumer))}")
        consumer.close()
        order.append("closed")

    tiny.start(application)
    tiny.run(1_000)
    tiny.start(lambda _: list(Consumer(tiny.config())) and None, "n")
    tiny.run(4_000)
    assert not tiny.failures
    assert order == ["said", "iterated 0", "closed"]


def test_what_is_known_can_be_asked(tiny: TinyWorld) -> None:
    def application(_: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        assert consumer.generation_id == -1
        assert len(list(consumer.messages(timeout_ms=1_000))) == 3
        assert consumer.subscriptions() == {"t": [0, 1]}
        assert consumer.high_water_marks()[TP0] == 3
        assert consumer.generation_id == 1
        assert consumer.errors() == []
        start, ok = consumer.notifications()
        assert (start.type, start.current) == (NotificationType.REBALANCE_START, ())
        assert (ok.type, ok.claimed, ok.released) == (
            NotificationType.REBALANCE_OK,
            (TP0, TP1),
            (),
        )
        assert consumer.notifications() == []

    tiny.produce(0, 3)
    tiny.play(application, 4_000)


def test_a_handler_that_never_returns_is_left_behind_by_the_group(tiny: TinyWorld) -> None:
    told = Told()

    def slow(driver: SimDriver) -> None:
        for _ in Consumer(tiny.config(dwell_time_ms=1_000), listener=told):
            driver.sleep_us(4_000_000)

    seen: list[int] = []

    def quick(_: SimDriver) -> None:
        seen.extend(message.offset for message in Consumer(tiny.config()))

    tiny.produce(0, 1)
    tiny.start(slow, "a")
    tiny.run(1_000)
    tiny.start(quick, "b")
    tiny.run(2_500)
    tiny.produce(1, 1)
    tiny.run(4_000)
    assert not tiny.failures
    assert [kind for kind, _ in told.calls] == ["assigned", "lost", "assigned"]
    assert seen == [0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group_id": ""}, "group_id = ''"),
        ({"topics": ()}, "at least one topic"),
        ({"session_timeout_ms": 0}, "session_timeout_ms = 0"),
        ({"heartbeat_interval_ms": 6_000}, "below session_timeout_ms = 6000"),
        ({"auto_offset_reset": "first"}, "earliest, latest, none"),
    ],
)
def test_a_wrong_configuration_shows_the_value(
    tiny: TinyWorld, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny.config(**options)


def test_heartbeats_hear_of_a_rebalance_within_its_timeout(tiny: TinyWorld) -> None:
    options = {"session_timeout_ms": 30_000, "heartbeat_interval_ms": 9_000}
    assert tiny.config(**options).member_config().heartbeat_interval_ms == 9_000
    short = tiny.config(**options, rebalance_timeout_ms=3_000).member_config()
    assert short.heartbeat_interval_ms == 1_000


def test_a_configuration_takes_names_with_dots_and_durations() -> None:
    found = Config.from_mapping(
        {
            "group.id": "g",
            "topics": "a,b",
            "session.timeout.ms": "10s",
            "partition.assignment.strategy": "roundrobin",
            "auto.offset.reset": "beginning",
        }
    )
    assert (found.topics, found.session_timeout_ms) == (("a", "b"), 10_000)
    assert found.partition_strategy == Strategy.ROUND_ROBIN
    assert found.auto_offset_reset == "earliest"
    with pytest.raises(ConfigError, match="nearest: 'group_id'"):
        Config.from_mapping({"groupid": "g"})
