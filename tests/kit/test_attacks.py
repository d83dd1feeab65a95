"""What a sceptical user may write: no false pass, no hang, clear words."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ksim import Consumer, MisuseError, sleep_ms
from ksim.kit import (
    ApplicationError,
    BlockedError,
    CheckFailedError,
    NotJudgedWarning,
    SimulatedCluster,
)
from tests.kit import applications as a

COUNT = 60


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=2)
        made.produce("payments", COUNT)
        yield made


def loses(sink: a.Sink) -> None:
    """It commits, and has no effect."""
    del sink
    with Consumer(a.config()) as consumer:
        for message in consumer:
            consumer.mark_offset(message)


def silent_audit() -> None:
    with Consumer(a.config(group_id="other")) as consumer:
        for message in consumer:
            consumer.mark_offset(message)


def silent_sibling() -> None:
    with Consumer(a.config()) as consumer:
        for message in consumer:
            consumer.mark_offset(message)


def ends_early(sink: a.Sink) -> None:
    with Consumer(a.config()) as consumer:
        for number, message in enumerate(consumer):
            if number == COUNT // 2:
                return
            sink(message)
            consumer.mark_offset(message)


# No false pass


def test_a_silent_group_does_not_disarm_the_checks_of_others(cluster: SimulatedCluster) -> None:
    cluster.start(loses, "a")
    cluster.start(silent_audit, "b")
    cluster.run("20s")
    with pytest.raises(CheckFailedError) as caught:
        cluster.check()
    assert {"S1", "L2"} <= set(caught.value.report.failed)
    assert "b does not tell" in caught.value.report.text()


def test_a_silent_group_is_not_accused(cluster: SimulatedCluster) -> None:
    cluster.start(a.plain, "a")
    cluster.start(silent_audit, "b")
    cluster.run("20s")
    with pytest.warns(NotJudgedWarning, match="b does not tell"):
        assert cluster.check().checks["L2"] == "pass"


def test_who_is_silent_beside_others_is_taken_at_its_word(cluster: SimulatedCluster) -> None:
    cluster.start(a.plain, "a")
    cluster.start(silent_sibling, "b")
    cluster.run("20s")
    with pytest.raises(CheckFailedError, match=r"b does not tell .*as if it had handled nothing"):
        cluster.check()


def test_exactly_once_cannot_be_asked_of_who_tells_nothing(cluster: SimulatedCluster) -> None:
    cluster.start(a.silent, "a")
    cluster.run("10s")
    with pytest.raises(MisuseError, match="exactly_once: a tells nothing"):
        cluster.check(exactly_once=True)


def test_an_application_that_ended_by_itself_is_not_started_again(
    cluster: SimulatedCluster,
) -> None:
    app = cluster.start(ends_early, "a")
    cluster.run("10s")
    with pytest.raises(CheckFailedError) as caught:
        cluster.check()
    assert "L2" in caught.value.report.failed
    assert len(app.handled) == COUNT // 2
    assert "a has ended by itself" in caught.value.report.text()


@pytest.mark.parametrize("ignore", [["S99"], "S9", ["s1"], None, [3]])
def test_only_checks_that_there_are_can_be_ignored(cluster: SimulatedCluster, ignore: Any) -> None:
    cluster.start(a.plain, "a")
    cluster.run("10s")
    with pytest.raises(MisuseError, match="ignore"):
        cluster.check(ignore=ignore)


def test_a_test_without_applications_proves_nothing(cluster: SimulatedCluster) -> None:
    cluster.run("1s")
    with pytest.raises(MisuseError, match="no application was started"):
        cluster.check()


def test_an_application_that_reads_another_topic_is_told(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        a.configured(a.config(topics=("paiments",)), sink)

    cluster.start(app, "a")
    cluster.run("10s")
    with pytest.raises(ApplicationError, match=r"any of the 60 records .*what is read: paiments"):
        cluster.check()


# What befalls an application


@pytest.mark.parametrize("befall", ["pause", "crash"])
def test_an_earlier_end_does_not_end_what_came_later(
    cluster: SimulatedCluster, befall: str
) -> None:
    cluster.judged = True
    app = cluster.start(a.plain, "a")
    back: Callable[[], None] = app.resume if befall == "pause" else app.restart
    lived: list[bool] = []

    def look() -> None:
        lived.append(app.process.alive and not app.process.lives[-1].paused)

    cluster.at("1s", getattr(app, befall), "10s")
    cluster.at("2s", back)
    cluster.at("4s", getattr(app, befall), "60s")
    for when in ("30s", "70s"):
        cluster.at(
            when, lambda: lived.append(app.process.alive and not app.process.lives[-1].paused)
        )
    cluster.run("80s")
    assert lived == [False, True]


def test_what_did_not_come_is_told(cluster: SimulatedCluster) -> None:
    app = cluster.start(a.plain, "a")
    other = cluster.start(a.plain, "b")
    other.crash()
    cluster.at("2s", other.pause)
    cluster.at("50s", app.pause)
    cluster.fault(on={"response": "Heartbeat", "member": "zzz"}, do="drop")
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning) as warned:
        text = cluster.check().text()
    assert all(str(each.message) in text for each in warned)
    assert "pause of b did nothing: it was not running" in text
    assert "at('50s') did not come" in text
    assert "'zzz'" in text
    assert "has struck nothing" in text
    assert not app.process.lives[-1].paused


def test_a_sigterm_handler_that_raises_ends_the_main_thread(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        a.plain(sink)

    first = cluster.start(app, "a")
    cluster.start(a.plain, "b")
    cluster.at("5s", first.stop)
    cluster.run("20s")
    cluster.check()
    assert not first.process.alive


def test_a_process_may_ignore_sigterm(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        a.plain(sink)

    first = cluster.start(app, "a")
    cluster.at("5s", first.stop)
    cluster.run("20s")
    assert first.process.alive
    cluster.check()


def test_an_interrupt_ends_the_session_and_is_no_failure_of_an_application(
    cluster: SimulatedCluster,
) -> None:
    def app() -> None:
        raise KeyboardInterrupt

    cluster.start(app, "a")
    with pytest.raises(KeyboardInterrupt):
        cluster.run("1s")


# No hang


def test_one_long_wait_is_no_cost_of_every_record(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        with Consumer(a.config()) as consumer:
            for number, message in enumerate(consumer):
                if number == 10:
                    sleep_ms(60_000)
                if (message.partition, message.offset) != (0, 7):
                    sink(message)
                consumer.mark_offset(message)

    cluster.start(app, "a")
    cluster.run("2m")
    with pytest.raises(CheckFailedError) as caught:
        cluster.check()
    assert {"S1", "L2"} <= set(caught.value.report.failed)
    assert cluster.now_ms < 30 * 60_000


def test_who_swallows_everything_is_left_where_it_stands(cluster: SimulatedCluster) -> None:
    def app() -> None:
        with Consumer(a.config()) as consumer:
            while True:
                try:
                    for _ in consumer.messages(timeout_ms=0):
                        pass
                except BaseException:  # noqa: BLE001 - what it does wrong
                    pass

    cluster.watchdog.limit_s = 1.0
    cluster.start(app, "a")
    with pytest.raises(BlockedError, match="a blocks the simulation"):
        cluster.run("1m")
    cluster.end()


# Clear words


@pytest.mark.parametrize("told", [b"x", "x", None, 5, {"a": 1}])
def test_only_messages_are_handled(cluster: SimulatedCluster, told: Any) -> None:
    def app(sink: Any) -> None:
        with Consumer(a.config()) as consumer:
            for _ in consumer:
                sink(told)

    cluster.start(app, "a")
    with pytest.raises(MisuseError, match=r"handled .*a Message, or a list of them"):
        cluster.run("10s")


async def coroutine() -> None:
    """No application."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.start(coroutine, "a"), "does nothing when it is called"),
        (lambda c: c.start(5, "a"), "is no function"),
        (lambda c: c.start(a.plain, "a+b"), "start 'a.b': up to 200 letters"),
        (lambda c: c.start(a.plain, 5), "start 5: up to 200 letters"),
        (lambda c: c.start(a.plain, "faults"), "for something else"),
        (lambda c: c.start(a.plain, "broker-1"), "for something else"),
        (lambda c: c.at("1s", "pause"), "'pause' is no function"),
        (lambda c: c.at("1s", c.start(a.plain, "a").pause("5s")), "None is no function"),
        (lambda c: c.topic("a b"), "topic 'a b'"),
        (lambda c: c.topic("t", "6"), "at least 1"),
        (lambda c: c.start(a.early, "a", a.config()), r"'sink'; its parameters: \(sink: "),
        (lambda c: c.start(a.plain, "a", price=3), "unexpected keyword argument 'price'"),
        (lambda _: a.Consumer(a.config()), "Consumer of group 'audit' in the test itself"),
        (lambda c: c.produce("payments", values="abc"), "'abc': a list of bytes"),
        (lambda c: c.produce("payments", values=[1]), "1: a list of bytes"),
        (lambda c: c.produce("payments", values=(n for n in ())), "a list of bytes"),
        (lambda c: c.add_partitions("payments", "2"), "'payments', '2'.: a whole number"),
        (lambda c: c.add_partitions("payments", 0), "'payments', 0.: a whole number"),
        (lambda c: c.crash_broker([1]), r"crash_broker\(\[1\]\): there are 1"),
        (lambda c: c.until(True), "until True: a function"),
        (lambda c: c.run(float("inf")), "run inf: a duration"),
        (lambda c: c.run(float("nan")), "run nan: a duration"),
        (lambda c: c.run(10**30), "at most 366 days"),
        (lambda c: c.run(True), "run True: a duration"),
        (lambda c: c.run([1]), r"run \[1\]: a duration"),
        (lambda c: c.move_coordinator("nope"), "move_coordinator of group 'nope'"),
    ],
)
def test_misuse_is_told_where_it_happens(
    cluster: SimulatedCluster, call: Callable[[SimulatedCluster], object], words: str
) -> None:
    cluster.judged = True
    with pytest.raises(MisuseError, match=words):
        call(cluster)


def test_nothing_can_follow_a_check(cluster: SimulatedCluster) -> None:
    cluster.start(a.plain, "a")
    cluster.run("10s")
    cluster.check()
    for late in (lambda: cluster.run("1s"), cluster.check, lambda: cluster.start(a.plain, "b")):
        with pytest.raises(MisuseError, match="the test is over after check"):
            late()
