"""Applications as they are, in virtual time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ksim import MisuseError
from ksim.kit import ApplicationError, CheckFailedError, NotJudgedWarning, SimulatedCluster
from ksim.scenario_table import ScenarioError
from tests.kit import applications as a


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=6)
        yield made


def handled(cluster: SimulatedCluster) -> list[tuple[int, int]]:
    facts = [fact for _, _, fact, _ in cluster.case.steps]
    return [(f.partition, f.offset) for f in facts if type(f).__name__ == "Handled"]


@pytest.mark.parametrize("app", [a.plain, a.pool, a.apart])
def test_payments_survive_a_rebalance(
    cluster: SimulatedCluster, app: Callable[..., object]
) -> None:
    cluster.produce("payments", count=1_000, per_second=100)
    apps = [cluster.start(app, name=name) for name in ("a", "b", "c")]
    cluster.at("5s", apps[1].pause, "20s")
    cluster.at("8s", apps[0].restart)
    cluster.at("12s", apps[2].stop, "3s")
    cluster.at("30s", apps[2].crash)
    cluster.run("1m")
    report = cluster.check()
    assert report.verdict == "pass"
    assert {report.checks[name] for name in ("S1", "S2", "S5", "S9", "L1", "L2")} == {"pass"}
    assert set(handled(cluster)) == {(n % 6, n // 6) for n in range(1_000)}
    assert {"b paused", "a crashed"} <= {line[13:] for line in report.story}


def test_the_same_seed_is_the_same_run() -> None:
    def steps(seed: int) -> list[str]:
        with SimulatedCluster(seed) as cluster:
            cluster.topic("payments", 2)
            cluster.produce("payments", 50, per_second=50)
            for name in "ab":
                cluster.start(a.plain, name)
            cluster.run("20s")
            cluster.check()
            return [repr(step) for step in cluster.case.steps]

    assert steps(1) == steps(1) != steps(2)


def test_a_commit_before_handling_is_found(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 10)
    cluster.start(a.early, "a")
    cluster.run("10s")
    with pytest.raises(CheckFailedError, match="it would be lost") as caught:
        cluster.check()
    report = caught.value.report
    assert report.failed == ("S1", "S2")
    assert "generation 1 assigns a payments[0, 1, 2, 3, 4, 5]" in str(caught.value)
    assert "owned by a" in report.timeline("a test")
    with pytest.raises(MisuseError, match="over after check"):
        cluster.run("1s")


def test_without_an_effect_what_needs_it_is_not_judged(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 10)
    cluster.start(a.silent, "a")
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning, match="a does not tell"):
        report = cluster.check()
    assert {report.checks[name] for name in ("S1", "S2", "S9", "L2")} == {"not judged"}
    assert report.checks["S5"] == "pass"
    assert "a does not tell what it has handled. Give it a parameter `sink`" in report.text()


def test_an_effect_may_be_told_by_name(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        del sink

    def by_name() -> None:
        a.plain(cluster.handled)

    cluster.produce("payments", 10)
    cluster.start(by_name, "a")
    cluster.run("10s")
    assert cluster.check().checks["L2"] == "pass"
    message: Any = None
    with pytest.raises(MisuseError, match="only an application"):
        cluster.handled(message)


def test_what_happens_twice_is_found(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 6)
    cluster.start(a.twice, "a")
    cluster.run("10s")
    with pytest.raises(
        CheckFailedError, match=r"X1: a handled offset 0 of payments-\d at"
    ) as caught:
        cluster.check(exactly_once=True, ignore=["S9"])
    assert caught.value.report.failed == ("X1",)
    assert caught.value.report.checks["S9"] == "ignored"


def test_an_application_has_its_own_signals(cluster: SimulatedCluster) -> None:
    told: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    cluster.produce("payments", 10)
    first = cluster.start(a.with_signals, "a", told=told)
    cluster.start(a.plain, "b")
    cluster.at("20s", first.stop)
    cluster.run("30s")
    cluster.check()
    assert told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_faults_of_scenarios_strike(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 100, per_second=20)
    for name in ("app-1", "app-2"):
        cluster.start(a.plain, name)
    cluster.fault(on={"response": "SyncGroup", "member": "app-1"}, do="drop")
    cluster.at("40s", cluster.add_partitions, "payments", 2)
    cluster.run("1m")
    report = cluster.check()
    assert any("drop response SyncGroup app-1" in line for line in report.story)
    with pytest.raises(ScenarioError, match="do = 'dorp': nearest: 'drop'"):
        cluster.fault(on={"request": "Fetch"}, do="dorp")


def test_brokers_and_coordinators_fail() -> None:
    with SimulatedCluster(5, {"brokers": 3}) as cluster:
        cluster.topic("payments", 3)
        cluster.produce("payments", 200, per_second=10)
        for name in "ab":
            cluster.start(a.plain, name)
        cluster.at("8s", cluster.crash_broker, 2, "5s")
        cluster.at("16s", cluster.move_coordinator, "audit")
        cluster.run("40s")
        assert cluster.check().checks["S9"] == "pass"
        with pytest.raises(MisuseError, match="there are 3"):
            cluster.crash_broker(4)


def test_values_are_as_the_test_has_them(cluster: SimulatedCluster) -> None:
    seen: list[tuple[bytes | None, bytes | None]] = []

    def app(sink: a.Sink) -> None:
        def note(message: a.Message) -> None:
            seen.append((message.key, message.value))
            sink(message)

        a.plain(note)

    cluster.produce("payments", values=["x", b"y", None])
    cluster.produce("payments", 2, values=lambda number: f"n{number}")
    cluster.start(app, "a")
    cluster.run("10s")
    cluster.check()
    assert sorted(seen, key=str) == sorted(
        [(b"0", b"x"), (b"1", b"y"), (b"2", None), (b"0", b"n0"), (b"1", b"n1")], key=str
    )


def test_time_goes_by_until_a_condition_holds(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 60, per_second=10)
    app = cluster.start(a.plain, "a")
    cluster.until(lambda: len(app.handled) >= 7)
    assert 7 <= len(app.handled) < 60
    assert set(app.handled) <= {("payments", n % 6, n // 6) for n in range(60)}
    with pytest.raises(ApplicationError, match="not so within 2s"):
        cluster.until(lambda: len(app.handled) > 60, within="2s")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.topic("payments", 1), "a new name"),
        (lambda c: c.topic("t", 0), "at least 1"),
        (lambda c: c.produce("payment", 1), "nearest: 'payments'"),
        (lambda c: c.produce("payments"), "needs count = NUMBER, or a list"),
        (lambda c: c.produce("payments", 3, values=["x"]), "only 1 values"),
        (lambda c: c.produce("payments", 0), "at least 1"),
        (lambda c: c.run("5 s"), "run '5 s': a duration, as"),
        (lambda c: c.at(-1, c.end), "at -1: a duration"),
        (lambda c: c.start(a.plain, "a").pause("soon"), "pause of a for 'soon'"),
        (lambda c: [c.start(a.plain, name) for name in "aa"], "'a' is there already"),
    ],
)
def test_mistakes_of_a_test_are_told(
    cluster: SimulatedCluster, call: Callable[[SimulatedCluster], object], words: str
) -> None:
    cluster.judged = True
    with pytest.raises(MisuseError, match=words):
        call(cluster)


def test_settings_are_those_of_scenarios() -> None:
    with pytest.raises(ScenarioError, match=r"ksim_cluster: cluster.broker = 3.*'brokers'"):
        SimulatedCluster(0, {"broker": 3})


def test_outside_of_applications_nothing_is_replaced(cluster: SimulatedCluster) -> None:
    ran: list[str] = []

    def by_the_test() -> None:
        other = threading.Thread(target=ran.append, args=("thread",))
        other.start()
        other.join()

    before = getattr(time, "sleep")  # noqa: B009 - the name itself is banned
    cluster.judged = True
    cluster.start(a.plain, "a")
    cluster.at("1s", by_the_test)
    cluster.run("2s")
    assert ran == ["thread"]
    assert getattr(time, "sleep") is before is a.sleep  # noqa: B009
    assert a.Pace.nap is before
    assert a.sleeps_by_default.__defaults__ == (before,)
    assert a.sleeps_by_keyword.__kwdefaults__ == {"nap": before}
