"""Processes of the user's in the world: lives, signals, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable

from ksim.kit import SimulatedCluster
from ksim.sim.process import current_life
from ksim.wiring import sleep_ms
from tests.kit.applications import Consumer, config


def run(app: Callable[[], object], until: str = "10s") -> SimulatedCluster:
    cluster = SimulatedCluster(1)
    cluster.topic("payments", 2)
    cluster.start(app, "a")
    cluster.run(until)
    return cluster


def lives(cluster: SimulatedCluster) -> list[tuple[str, str]]:
    facts = [fact for _, _, fact, _ in cluster.case.steps]
    return [(f.member, f.what) for f in facts if type(f).__name__ == "MemberLife"]


def test_each_consumer_of_a_process_is_a_member() -> None:
    def app() -> None:
        with Consumer(config()), Consumer(config(group_id="other")):
            sleep_ms(5_000)

    cluster = run(app)
    assert lives(cluster) == [
        ("a", "started"), ("a+2", "started"), ("a+2", "closed"), ("a", "closed")
    ]  # fmt: skip
    assert [(life.member, life.config.group_id) for life in cluster.case.lives] == [
        ("a", "audit"), ("a+2", "other")
    ]  # fmt: skip
    cluster.end()


def test_a_process_that_ends_without_close_is_gone_as_by_a_crash() -> None:
    assert lives(run(lambda: Consumer(config()))) == [("a", "started"), ("a", "crashed")]


def test_what_a_crashed_process_does_at_its_end_reaches_nothing() -> None:
    ended: list[int] = []

    def app() -> None:
        with Consumer(config()) as consumer:
            try:
                list(consumer)
            finally:
                ended.append(len(lives(cluster)))

    cluster = SimulatedCluster(1)
    cluster.topic("payments", 2)
    cluster.at("5s", cluster.start(app, "a").crash)
    cluster.run("10s")
    assert not ended
    cluster.end()
    assert ended == [2]
    assert lives(cluster) == [("a", "started"), ("a", "crashed")]


def test_a_stop_wakes_who_sleeps_and_who_waits() -> None:
    woken: list[tuple[str, int]] = []

    def app(how: str) -> None:
        try:
            with Consumer(config()) as consumer:
                sleep_ms(100_000) if how == "sleeps" else list(consumer)
        except SystemExit:
            woken.append((how, cluster.now_ms // 1_000))
            raise

    cluster = SimulatedCluster(1)
    cluster.topic("payments", 2)
    for how in ("sleeps", "waits"):
        cluster.at("5s", cluster.start(app, how, how).stop)
    cluster.run("200s")
    assert sorted(woken) == [("sleeps", 5), ("waits", 5)]
    assert [what for _, what in lives(cluster)].count("closed") == 2


def test_a_pause_keeps_what_would_wake_it() -> None:
    woken: list[int] = []

    def app() -> None:
        for _ in range(3):
            sleep_ms(1_000)
            woken.append(cluster.now_ms)

    cluster = SimulatedCluster(1)
    cluster.at(1_500, cluster.start(app, "a").pause, "5s")
    cluster.run("10s")
    assert [at_ms // 100 for at_ms in woken] == [10, 65, 75]


def test_outside_there_is_no_life() -> None:
    seen: list[object] = []
    run(lambda: seen.append(current_life()))
    assert current_life() is None
    assert seen[0] is not None
