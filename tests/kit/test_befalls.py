"""What befalls applications, by the test or by themselves, and how each of it comes to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ksim import MisuseError
from ksim.kit import ApplicationError, NotJudgedWarning, SimulatedCluster
from tests.kit import applications as a


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=2)
        yield made


# What an application does to itself, or to another


@pytest.mark.parametrize("befall", ["crash", "restart", "pause", "stop"])
@pytest.mark.parametrize("whom", ["a", "b"])
def test_an_application_can_bring_it_about(
    cluster: SimulatedCluster, befall: str, whom: str
) -> None:
    after: list[int] = []

    def app(sink: a.Sink, hook: Callable[[], None]) -> None:
        with a.Consumer(a.config()) as consumer:
            for message in consumer:
                sink(message)
                if message.offset == 10 and not after:
                    after.append(len(cluster.apps["a"].handled))
                    hook()
                    after.append(len(cluster.apps["a"].handled))
                consumer.mark_offset(message)

    def hook() -> None:
        action = getattr(cluster.apps[whom], befall)
        action() if befall == "restart" else action("3s")

    cluster.produce("payments", 100, per_second=10)
    cluster.start(app, "a", hook=hook)
    cluster.start(a.plain, "b")
    cluster.run("60s")
    assert cluster.check().verdict == "pass"
    ends = whom == "a" and befall != "pause"
    assert len(after) == (1 if ends else 2), "what was ended goes on"


def test_only_the_test_makes_time_go_by(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        del sink
        cluster.check()

    cluster.start(app, "a")
    with pytest.raises(MisuseError, match=r"check\(\): by a itself"):
        cluster.run("5s")


def test_an_action_cannot_run_what_runs_it(cluster: SimulatedCluster) -> None:
    cluster.judged = True
    cluster.start(a.plain, "a")
    cluster.at("1s", cluster.run, "1s")
    with pytest.raises(MisuseError, match="by what runs already"):
        cluster.run("5s")


# What comes to its end


@pytest.mark.parametrize("seed", range(3))
def test_the_load_is_written_to_its_end_before_the_verdict(seed: int) -> None:
    with SimulatedCluster(seed) as cluster:
        cluster.topic("payments", 2)
        cluster.produce("payments", 400, per_second=10)
        app = cluster.start(a.plain, "a")
        cluster.run("5s")
        assert cluster.check().verdict == "pass"
    assert len(app.handled) == 400


@pytest.mark.parametrize("others", [0, 1])
def test_who_is_stopped_when_the_test_ends_has_a_successor(
    cluster: SimulatedCluster, others: int
) -> None:
    cluster.produce("payments", 60, per_second=10)
    apps = [cluster.start(a.plain, name) for name in "ab"[: 1 + others]]
    cluster.run("4s")
    for app in apps:
        app.stop()
    assert cluster.check().verdict == "pass"


def test_a_pause_has_its_end_whatever_befalls_it_meanwhile(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 100, per_second=10)
    app = cluster.start(a.plain, "a")
    cluster.at("8s", app.pause, "5s")
    cluster.at("10s", app.stop, "5s")
    cluster.run("60s")
    story = [line.split("  ")[-1] for line in cluster.check().story]
    ends = ["fault: stop a for 5.000 s", "a resumed", "a closed"]
    assert [line for line in story if line in ends] == ends
    assert len(app.process.lives) == 2


def test_a_new_start_waits_for_the_end_of_the_one_before(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        try:
            a.plain(sink)
        finally:
            a.sleep_ms(4_000)

    cluster.produce("payments", 100, per_second=10)
    started = cluster.start(app, "a")
    cluster.at("5s", started.stop, "1s")
    cluster.run("30s")
    assert cluster.check().verdict == "pass"
    assert len(started.process.lives) == 2


def test_who_does_not_end_when_it_is_told_to(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        try:
            a.plain(sink)
        finally:
            while True:
                a.sleep_ms(1_000)

    cluster.produce("payments", 100, per_second=10)
    started = cluster.start(app, "a")
    cluster.start(a.plain, "b")
    cluster.run("8s")
    started.stop("5s")
    cluster.run("60s")
    with pytest.warns(NotJudgedWarning) as warned:
        cluster.check()
    said = [str(each.message) for each in warned]
    assert said[0].startswith("the new start of a did not come")
    assert said[1].startswith("a has not ended 60 s after it was told to")


def test_a_new_life_has_to_read_as_well(cluster: SimulatedCluster) -> None:
    lives: list[int] = []

    def app(sink: a.Sink) -> None:
        lives.append(1)
        if len(lives) == 1:
            a.plain(sink)
        a.never_polls()

    cluster.produce("payments", 10)
    started = cluster.start(app, "a")
    cluster.run("10s")
    started.restart()
    cluster.run("10s")
    with pytest.raises(ApplicationError, match="a has never asked its Consumer for a message"):
        cluster.check()
