"""Tests that would pass whatever their applications do: each says so, or fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ksim.kit import CheckFailedError, NotJudgedWarning, SimulatedCluster
from tests.kit import applications as a

LATE = a.config(auto_offset_reset="latest")


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=2)
        yield made


# Groups that read from the end on


def _crash_of_a_beginner(cluster: SimulatedCluster) -> set[tuple[int, int]]:
    """What its application has not handled of 250 records in each partition."""
    app = cluster.start(a.configured, "a", LATE)
    cluster.run("5s")
    app.crash("2s")
    cluster.produce("payments", 500, per_second=50)
    cluster.run("60s")
    return {(p, n) for p in range(2) for n in range(250)} - {at[1:] for at in app.handled}


def test_who_begins_at_the_end_has_begun_there(cluster: SimulatedCluster) -> None:
    """Nothing was read, and nothing marked; its successor goes on from there all the same."""
    assert _crash_of_a_beginner(cluster) == set()
    assert cluster.check().checks["X2"] == "pass"


def test_what_was_written_while_a_beginner_was_away_is_lost(cluster: SimulatedCluster) -> None:
    cluster.fault(on={"request": "OffsetCommit", "nth": 0}, do="drop")
    missing = _crash_of_a_beginner(cluster)
    with pytest.raises(CheckFailedError) as caught:
        cluster.check()
    report = caught.value.report
    assert report.failed == ("X2",)
    lost = {(v.partitions[0], v.offsets[0]) for v in report.violations}
    assert lost == {(f"payments-{p}", min(n for q, n in missing if q == p)) for p in range(2)}


def test_the_beginning_of_a_new_partition_is_lost(cluster: SimulatedCluster) -> None:
    cluster.start(a.configured, "a", LATE)
    cluster.run("5s")
    cluster.add_partitions("payments")
    cluster.produce("payments", 30)
    cluster.run("6m")
    with pytest.raises(CheckFailedError, match=r"a began payments-2 at its end 10 .* offset 0 on"):
        cluster.check()


@pytest.mark.parametrize("restarts", [0, 2])
def test_who_begins_at_the_end_and_commits_loses_nothing(
    cluster: SimulatedCluster, restarts: int
) -> None:
    cluster.produce("payments", 20)
    app = cluster.start(a.configured, "a", LATE)
    cluster.start(a.configured, "b", LATE)
    cluster.run("10s")
    cluster.produce("payments", 500, per_second=50)
    for _ in range(restarts):
        cluster.run("6s")
        app.restart()
    cluster.run("20s")
    report = cluster.check()
    assert report.checks["X2"] == ("pass" if restarts else "not judged")


def test_a_group_that_was_there_before_all_records_may_be_late(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 20)
    app = cluster.start(a.configured, "a", LATE)
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning, match="audit was given none of the 20 records of payments"):
        cluster.check()
    assert app.handled == []


# Topics


def test_a_topic_that_is_none_and_one_that_nobody_reads(cluster: SimulatedCluster) -> None:
    cluster.topic("refunds", 2)
    cluster.produce("payments", 10)
    cluster.produce("refunds", 12)
    cluster.start(a.configured, "a", a.config(topics=("payments", "refundz")))
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning) as warned:
        cluster.check()
    assert [str(each.message) for each in warned] == [
        "audit reads refundz, and there is no such topic; there are: payments, refunds",
        "nobody reads refunds, in which there are 12 records",
    ]


def test_a_pattern_may_leave_a_topic_out(cluster: SimulatedCluster) -> None:
    cluster.topic("refunds", 2)
    cluster.produce("payments", 10)
    cluster.produce("refunds", 12)
    own = a.config(topics=(), topics_whitelist="pay.*")
    cluster.start(a.configured, "a", own)
    cluster.run("10s")
    assert cluster.check().notes == ()


def test_without_records_little_is_judged(cluster: SimulatedCluster) -> None:
    cluster.start(a.plain, "a")
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning, match="no records were produced"):
        cluster.check()


# Several groups


def test_a_stopped_group_beside_another_comes_back(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 300, per_second=10)
    first = cluster.start(a.configured, "a", a.config(group_id="one"))
    cluster.start(a.configured, "b", a.config(group_id="two"))
    cluster.run("5s")
    first.stop()
    cluster.run("5s")
    assert cluster.check().checks["L2"] == "pass"
    assert len(set(first.handled)) == 300


def test_each_life_may_have_a_group_of_its_own(cluster: SimulatedCluster) -> None:
    lives: list[str] = []

    def app(sink: a.Sink) -> None:
        lives.append(f"v{len(lives) + 1}")
        a.configured(a.config(group_id=lives[-1]), sink)

    cluster.produce("payments", 100, per_second=10)
    started = cluster.start(app, "a")
    cluster.run("5s")
    started.restart()
    cluster.run("30s")
    with pytest.warns(NotJudgedWarning, match="L2 of v1 is not judged"):
        report = cluster.check()
    assert {report.checks[name] for name in ("S7", "L1", "L2", "L3")} == {"pass"}


def test_each_life_is_judged_by_its_own_bounds(cluster: SimulatedCluster) -> None:
    """The first life may be silent for as long as its own limit."""
    lives: list[int] = []

    def app(sink: a.Sink) -> None:
        lives.append(1)
        own = a.config(max_poll_interval_ms=300_000 if len(lives) == 1 else 20_000)
        with a.Consumer(own) as consumer:
            for message in consumer:
                if len(lives) == 1:
                    a.sleep_ms(60_000)
                sink(message)
                consumer.mark_offset(message)

    cluster.produce("payments", 100, per_second=10)
    started = cluster.start(app, "a")
    cluster.run("100s")
    started.restart()
    cluster.run("30s")
    assert cluster.check().verdict == "pass"


def test_effects_of_several_groups_are_counted_apart(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 10)
    for name in "ab":
        cluster.start(a.configured, name, a.config(group_id=f"pay-{name}"))
    cluster.run("20s")
    with pytest.warns(NotJudgedWarning, match="payments is handled in 2, pay-a, pay-b"):
        cluster.check(exactly_once=True)


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


# Tests without a verdict


def _only_started() -> None:
    with SimulatedCluster(0) as cluster:
        cluster.topic("payments", 1)
        for name in "ab":
            cluster.start(a.plain, name)
        cluster.run("1s")


def test_a_forgotten_check_is_told() -> None:
    with pytest.warns(NotJudgedWarning, match="check.. was not called: nothing that a, b did"):
        _only_started()


def _raises() -> None:
    with SimulatedCluster(0) as cluster:
        cluster.topic("payments", 1)
        cluster.start(a.plain, "a")
        raise KeyError


def test_who_raises_has_a_verdict() -> None:
    """Warnings are errors here."""
    with pytest.raises(KeyError):
        _raises()
