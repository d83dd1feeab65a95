"""Tests that would pass whatever their applications do: each says so, or fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from ksim import GroupFatalError
from ksim.kit import CheckFailedError, NotJudgedWarning, SimulatedCluster
from tests.kit import applications as a

LATE = a.config(auto_offset_reset="latest")


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=2)
        yield made


# Groups that read from the end on


def test_what_was_written_while_a_beginner_was_away_is_lost(cluster: SimulatedCluster) -> None:
    app = cluster.start(a.configured, "a", LATE)
    cluster.run("5s")
    app.crash("2s")
    cluster.produce("payments", 500, per_second=50)
    cluster.run("60s")
    missing = {(p, n) for p in range(2) for n in range(250)} - {at[1:] for at in app.handled}
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


# Faults, instances, topics and positions


def test_a_fault_that_ends_a_member_is_a_reason(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        try:
            a.plain(sink)
        except GroupFatalError:
            a.plain(sink)

    cluster.produce("payments", 10)
    cluster.fault(
        on={"response": "JoinGroup", "nth": 1}, do="error", error="GROUP_AUTHORIZATION_FAILED"
    )
    cluster.start(app, "a")
    cluster.run("20s")
    assert cluster.check().verdict == "pass"


@pytest.mark.parametrize("seed", range(4))
def test_a_second_process_of_one_instance_is_a_reason(seed: int) -> None:
    own = a.config(group_instance_id="i1")

    def app(sink: a.Sink) -> None:
        with suppress(GroupFatalError):
            a.configured(own, sink)

    with SimulatedCluster(seed) as cluster:
        cluster.topic("payments", 2)
        cluster.produce("payments", 100, per_second=5)
        first = cluster.start(app, "a")
        cluster.run("5s")
        first.pause("25s")
        cluster.run("3s")
        cluster.start(app, "b")
        cluster.run("60s")
        with pytest.warns(NotJudgedWarning, match="a has ended by itself"):
            cluster.check()


def test_a_topic_that_comes_during_the_run_is_a_cause(cluster: SimulatedCluster) -> None:
    own = a.config(topics=(), topics_whitelist="pay|later")
    cluster.produce("payments", 10)
    app = cluster.start(a.configured, "a", own)
    cluster.run("10s")
    cluster.topic("later", 2)
    cluster.produce("later", 40, per_second=1)
    cluster.run("450s")
    assert cluster.check().verdict == "pass"
    assert len(set(app.handled)) == 50


def test_a_topic_that_comes_during_the_run_is_read_from_its_beginning_or_lost(
    cluster: SimulatedCluster,
) -> None:
    own = a.config(
        topics=(), topics_whitelist=".*", auto_offset_reset="latest", metadata_max_age_ms=20_000
    )
    cluster.start(a.configured, "a", own)
    cluster.run("5s")
    cluster.produce("payments", 10)
    cluster.run("3s")
    cluster.topic("later", 1)
    cluster.produce("later", 30, per_second=1)
    cluster.run("60s")
    with pytest.raises(CheckFailedError, match="X2: a began later-0 at its end"):
        cluster.check()


def test_a_pattern_that_takes_nothing(cluster: SimulatedCluster) -> None:
    cluster.produce("payments", 10)
    cluster.start(a.plain, "a")
    own = a.config(group_id="other", topics=(), topics_whitelist="paymnts")
    cluster.start(a.configured, "b", own)
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning, match="other reads nothing: what it asks for is no topic"):
        cluster.check()


def test_what_is_jumped_over_is_told(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        with a.Consumer(a.config()) as consumer:
            for message in consumer:
                sink(message)
                consumer.mark_offset(message)
                if message.offset == 2:
                    consumer.seek(message.topic, message.partition, 40)

    cluster.produce("payments", 100)
    cluster.start(app, "a")
    cluster.run("10s")
    with pytest.warns(NotJudgedWarning) as warned:
        cluster.check()
    assert all("a went to offset 40 of payments-" in str(each.message) for each in warned)
    assert len(warned) == 2


def test_two_consumers_of_two_groups_in_one_process(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        with (
            a.Consumer(a.config(group_id="one")) as one,
            a.Consumer(a.config(group_id="two")) as two,
        ):
            while not one.ended:
                batches = [(each, list(each.messages(timeout_ms=50))) for each in (one, two)]
                for consumer, batch in batches:
                    for message in batch:
                        sink(message)
                        consumer.mark_offset(message)

    cluster.produce("payments", 60)
    app_ = cluster.start(app, "a")
    cluster.run("20s")
    assert cluster.check(ignore=["S9"]).verdict == "pass"
    assert len(app_.handled) == 120


def test_a_process_that_tells_of_one_of_its_groups(cluster: SimulatedCluster) -> None:
    def app(sink: a.Sink) -> None:
        with (
            a.Consumer(a.config(group_id="settings", topics=("settings",))) as settings,
            a.Consumer(a.config()) as consumer,
        ):
            while not consumer.ended:
                for message in settings.messages(timeout_ms=50):
                    settings.mark_offset(message)
                for message in consumer.messages(timeout_ms=50):
                    sink(message)
                    consumer.mark_offset(message)

    cluster.topic("settings", 1)
    cluster.produce("settings", 5)
    cluster.produce("payments", 10)
    cluster.start(app, "a")
    cluster.run("20s")
    with pytest.warns(NotJudgedWarning, match="S1, S2, S9, L2, X2 are not judged: a does not tell"):
        assert cluster.check().verdict == "pass"


def test_a_life_that_reads_less_leaves_nothing_undone(cluster: SimulatedCluster) -> None:
    lives: list[int] = []

    def app(sink: a.Sink) -> None:
        lives.append(1)
        topics = ("payments", "refunds") if len(lives) == 1 else ("payments",)
        a.configured(a.config(topics=topics), sink)

    cluster.topic("refunds", 2)
    cluster.produce("payments", 10)
    cluster.produce("refunds", 10)
    started = cluster.start(app, "a")
    cluster.run("10s")
    started.restart()
    cluster.run("20s")
    assert cluster.check().notes == ()


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
