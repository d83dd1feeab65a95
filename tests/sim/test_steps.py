"""Each step does what its name says, seen in a run."""

from __future__ import annotations

from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import parse
from ksim.scenario_spec import STEPS
from ksim.sim.runner import Run, run
from ksim.sim.steps import Steps
from tests.sim.test_runner import BASE, Watch


def ran(more: str, base: str = BASE, verdict: str = "pass") -> Watch:
    watch = Watch()
    result = run(parse(base + more, "test"), 1, watches=[watch.see])
    assert result.verdict == verdict, result.violations
    return watch


def step(do: str, target: str, more: str = "", at: str = "10s") -> str:
    return f'[[step]]\nat = "{at}"\ndo = "{do}"\ntarget = "{target}"\n{more}\n'


def answers(watch: Watch, kind: type[Any]) -> list[tuple[int, Any]]:
    """Answers of this kind as members saw them."""
    return [
        (now_ms, fact.response)
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, e.ResponseReceived) and isinstance(fact.response, kind)
    ]


def handled(watch: Watch, member: str) -> list[tuple[int, o.Handled]]:
    return [
        (now_ms, fact)
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, o.Handled) and fact.member == member
    ]


def test_every_step_has_an_action() -> None:
    made = Run(parse(BASE, "test"), 1)
    steps = Steps(made.world, made.cluster, made.members, made.scenario, made.observe)
    assert {*steps.known, "crash", "start", "stop", "pause", "restart"} == set(STEPS)


def test_close_ends_the_application_between_a_record_and_its_mark() -> None:
    busy = BASE.replace('handler_cost = "1ms"', 'handler_cost = "30ms"')
    watch = ran(step("close", "g-2"), busy)
    (closed_ms,) = [
        now_ms
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, o.MemberLife) and fact.member == "g-2" and fact.what == "closed"
    ]
    last = [fact for now_ms, fact in handled(watch, "g-2") if now_ms <= closed_ms][-1]
    again = [
        f
        for _, f in handled(watch, "g-1")
        if (f.partition, f.offset) == (last.partition, last.offset)
    ]
    assert again, "the record that was not marked was not handled again"


def test_a_gap_of_polls_makes_the_member_leave() -> None:
    base = BASE.replace("members = 2", 'members = 2\nmax_poll_interval = "3s"')
    watch = ran(step("poll_gap", "g-2", 'for = "8s"'), base)
    left = watch.arrived(m.LeaveGroupRequest, "g-2")
    assert left
    assert 12_900 <= left[0] <= 14_000
    assert not [now for now, _ in handled(watch, "g-2") if left[0] < now < 17_900]
    assert [now for now, _ in handled(watch, "g-2") if now > 18_000], "it did not come back"


def test_paused_partitions_are_not_handed_out_until_they_are_resumed() -> None:
    watch = ran(step("pause_partitions", "g-2", 'for = "5s"'))
    times = [now_ms for now_ms, _ in handled(watch, "g-2")]
    assert not [now_ms for now_ms in times if 10_050 < now_ms < 15_000]
    assert [now_ms for now_ms in times if now_ms >= 15_000]
    still = ran(step("pause_partitions", "g-2") + step("resume_partitions", "g-2", at="12s"))
    assert [now for now, _ in handled(still, "g-2") if 12_000 < now < 13_000]


def test_seek_goes_back() -> None:
    watch = ran(step("seek", "g-2", "offset = 3"))
    repeated = [fact.offset for now_ms, fact in handled(watch, "g-2") if now_ms > 10_000]
    assert min(repeated) == 3


def test_the_offsets_log_refuses_for_a_while() -> None:
    watch = ran(step("refuse_offsets_log", "g", 'for = "3s"'))
    failed = [
        now_ms
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, e.RecordsAppended) and fact.error_code
    ]
    assert failed
    assert 10_000 <= failed[0] <= failed[-1] <= 13_010


def test_topics_come_grow_and_go() -> None:
    base = BASE.replace(
        'topics = ["orders"]', 'topics_whitelist = "^orders"\nmetadata_max_age = "1s"'
    )
    watch = ran(
        step("create_topic", "orders-new", "count = 2", at="5s")
        + step("add_partitions", "orders", "count = 1", at="8s")
        + step("delete_topic", "orders-new", at="15s"),
        base + '[[produce]]\ntopic = "orders-new"\nper_second = 10\ncount = 200\nstart = "4s"\n',
    )
    assert [(f.topic, f.partitions) for f in watch.facts(o.TopicIs)] == [
        ("orders-new", 2),
        ("orders", 5),
        ("orders-new", 0),
    ]
    topics = {fact.topic for fact in watch.facts(o.Handled)}
    assert topics == {"orders", "orders-new"}


def test_a_topic_is_deleted_and_comes_back() -> None:
    base = BASE.replace("members = 2", 'members = 2\nmetadata_max_age = "1s"')
    watch = ran(step("delete_topic", "orders", 'for = "500ms"\ncount = 4'), base)
    assert [f.partitions for f in watch.facts(o.TopicIs)] == [0, 4]
    late = [fact.offset for now_ms, fact in handled(watch, "g-1") if now_ms > 15_000]
    assert min(late) < 100


def test_a_truncated_log_is_read_on_from_where_it_ends() -> None:
    base = BASE.replace("[cluster]", "[cluster]\nbrokers = 2")
    watch = ran(step("truncate", "orders", "partition = 1\ncount = 20"), base)
    (cut,) = watch.facts(o.Truncated)
    again = [
        fact.offset
        for now_ms, fact in [*handled(watch, "g-1"), *handled(watch, "g-2")]
        if fact.partition == 1 and now_ms > 10_000
    ]
    assert cut.end_offset in again


def test_old_metadata_is_told_for_a_while() -> None:
    base = BASE.replace("[cluster]", "[cluster]\nbrokers = 2")
    text = step("stale_metadata", "brokers", 'for = "4s"') + step("move_coordinator", "g", at="10s")
    watch = ran(text.replace('at = "10s"', 'at = "9s"', 1), base)
    told = [
        (now_ms, response.node_id) for now_ms, response in answers(watch, m.FindCoordinatorResponse)
    ]
    before = {node_id for now_ms, node_id in told if now_ms < 9_000}
    during = {node_id for now_ms, node_id in told if 10_000 < now_ms < 13_000}
    after = {node_id for now_ms, node_id in told if now_ms > 13_000}
    assert before == during
    assert after
    assert after != before


def test_a_disconnected_member_asks_again() -> None:
    text = """
[[step]]
on = { request = "JoinGroup", member = "g-2", nth = 2 }
do = "disconnect"
target = "g-2"
peer = "coordinator"
"""
    failed = [f for f in ran(text).facts(e.RequestFailed) if "closed the connection" in f.reason]
    assert failed


def test_a_compacted_offsets_log_loads_as_before() -> None:
    base = BASE.replace("[cluster]", "[cluster]\nbrokers = 2")
    watch = ran(
        step("compact_offsets_log", "g") + step("move_coordinator", "g", at="10001ms"), base
    )
    loaded = [fact for fact in watch.facts(e.LogReplayed) if fact.entries]
    assert len(loaded[-1].entries) <= 5


def test_the_coordinator_may_be_named() -> None:
    base = BASE.replace("[cluster]", "[cluster]\nbrokers = 3")
    watch = ran(step("crash", "coordinator", 'for = "5s"'), base)
    assert len([fact for fact in watch.facts(e.LogReplayed) if fact.entries]) == 1


@pytest.mark.parametrize(
    ("until", "for_ms"), [('until = { response = "SyncGroup" }', "0ms"), ("", "300ms")]
)
def test_a_late_answer_is_passed_by_others(until: str, for_ms: str) -> None:
    """The first heartbeat of g-2 is answered after its second one."""
    text = f"""
[[fault]]
on = {{ response = "Heartbeat", member = "g-2", nth = 2 }}
do = "late"
for = "{for_ms}"
{until}
[[step]]
at = "6s"
do = "start"
target = "g-3"
"""
    watch = ran(text)
    (struck,) = [f for f in watch.facts(o.FaultStruck) if f.name == "late response Heartbeat"]
    assert struck.target == "g-2"


def test_a_kept_fault_lasts_so_long() -> None:
    text = """
[[fault]]
on = { request = "OffsetCommit", nth = 3 }
do = "error"
error = "COORDINATOR_LOAD_IN_PROGRESS"
keep = true
lasts = "2s"
"""
    watch = ran(text)
    times = [now for _, now, fact, _ in watch.steps if isinstance(fact, o.FaultStruck)]
    assert len(times) > 1
    assert times[-1] - times[0] <= 2_000


def test_a_dropped_answer_does_not_shift_the_draws_of_others() -> None:
    """Until it matters to a member, a run with a fault is the run without it."""
    drop = '[[fault]]\non = { response = "Fetch", member = "g-1", nth = 20 }\ndo = "DO"\n'
    plain = ran("")
    for do in ("drop", "duplicate"):
        faulty = ran(drop.replace("DO", do))
        (at_ms,) = [now for _, now, fact, _ in faulty.steps if isinstance(fact, o.FaultStruck)]
        seen = [
            [(s, t, f) for s, t, f, _ in w.steps if s == "g-2" and t < at_ms + 100]
            for w in (plain, faulty)
        ]
        assert seen[0] == seen[1]
