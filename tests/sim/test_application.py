"""What the application of a simulated member does, by the keys of its group."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import parse
from ksim.sim.application import PlannedError
from ksim.sim.runner import run
from tests.sim.test_runner import BASE, Watch

JOINER = '[[step]]\nat = "10s"\ndo = "start"\ntarget = "g-3"\n'


def ran(keys: str, more: str = JOINER, **changes: str) -> Watch:
    text = BASE.replace("members = 2", f"members = 2\n{keys}")
    for was, becomes in changes.items():
        assert f"{was} =" in text
        line = next(line for line in text.splitlines() if line.startswith(f"{was} ="))
        text = text.replace(line, f"{was} = {becomes}")
    watch = Watch()
    result = run(parse(text + more, "test"), 1, watches=[watch.see])
    assert result.verdict == "pass", result.violations
    return watch


def commits(watch: Watch, member: str = "g-1") -> int:
    return len(watch.arrived(m.OffsetCommitRequest, member))


def callbacks(watch: Watch, member: str) -> list[tuple[int, str]]:
    return [
        (now_ms, fact.kind)
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, o.CallbackRan) and fact.member == member
    ]


def test_a_commit_after_each_record() -> None:
    assert commits(ran('commit = "each"')) > 10 * commits(ran(""))


def test_workers_handle_records_beside_each_other() -> None:
    watch = ran('acknowledge = "each"\nworkers = 4', handler_cost='"20ms..200ms"')
    flying: set[tuple[int, int]] = set()
    most = 0
    for fact in [f for _, _, f, _ in watch.steps if isinstance(f, o.HandedOut | o.Handled)]:
        if fact.member == "g-1":
            place = fact.partition, fact.offset
            if isinstance(fact, o.HandedOut):
                flying.add(place)
            else:
                flying.discard(place)
            most = max(most, len(flying))
    assert most >= 4


def test_partitions_mode_reads_each_by_itself() -> None:
    watch = ran('mode = "partitions"', handler_cost='"15ms"')
    assert {fact.partition for fact in watch.facts(o.Handled)} == {0, 1, 2, 3}
    assert commits(watch) > 5


@pytest.mark.parametrize("keys", ['acknowledge = "each"\nworkers = 1', 'mode = "partitions"', ""])
def test_an_application_that_hangs_loses_what_it_owns_in_time(keys: str) -> None:
    """In partitions mode as well, where L1 does not judge it: one thread, of one partition."""
    hangs = '[[group.member]]\nnumber = 1\nhandler_hangs = { nth = 5, for = "30s" }\n'
    watch = ran(f'max_poll_interval = "5s"\n{keys}', hangs, partitions="2")
    at_ms = next(now_ms for _, now_ms, fact, _ in watch.steps if _hangs(fact))
    (lost_ms,) = [
        now_ms
        for source, now_ms, _, orders in watch.steps
        if source == "g-1" and any(isinstance(order, e.LosePartitions) for order in orders)
    ]
    assert 5_000 <= lost_ms - at_ms <= 6_000


def _hangs(fact: object) -> bool:
    """The fifth record of the first member, which has one partition, from offset 0 on."""
    return isinstance(fact, o.HandedOut) and fact.member == "g-1" and fact.offset == 4


def test_acknowledged_one_by_one() -> None:
    assert commits(ran('acknowledge = "each"')) > 5


def test_a_handler_that_fails_is_tried_again_before_the_record_counts() -> None:
    watch = ran('handler_fails = { every = 50, times = 2, backoff = "300ms" }')
    out: dict[tuple[int, int], int] = {}
    took: list[int] = []
    for _, now_ms, fact, _ in watch.steps:
        if isinstance(fact, o.HandedOut) and fact.member == "g-1":
            out[fact.partition, fact.offset] = now_ms
        elif isinstance(fact, o.Handled) and fact.member == "g-1":
            took.append(now_ms - out[fact.partition, fact.offset])
    assert [ms for ms in took if ms > 10] == [603] * (len(took) // 50)


def test_a_handler_that_hangs_does_so_once() -> None:
    watch = ran('handler_hangs = { nth = 20, for = "4s" }')
    times = [
        now
        for _, now, fact, _ in watch.steps
        if isinstance(fact, o.Handled) and fact.member == "g-1"
    ]
    gaps = [later - now for now, later in pairwise(times)]
    assert len([gap for gap in gaps if gap >= 4_000]) == 1


def test_static_members_keep_their_share_over_a_restart() -> None:
    watch = ran("instance_ids = true", '[[step]]\nat = "10s"\ndo = "restart"\ntarget = "g-2"\n')
    joins = [r for _, _, f, _ in watch.steps if (r := getattr(f, "request", None)) is not None]
    names = {r.group_instance_id for r in joins if isinstance(r, m.JoinGroupRequest)}
    assert names == {"g-1", "g-2"}
    assert not [t for t in watch.arrived(m.JoinGroupRequest, "g-1") if t > 9_000]


def test_a_member_may_be_otherwise() -> None:
    more = (
        '[[group.member]]\nnumber = 2\nassignors = ["roundrobin", "range"]\nhandler_cost = "7ms"\n'
    )
    text = BASE.replace("[[produce]]", f"{more}[[produce]]")
    watch = Watch()
    scenario = parse(text, "test")
    assert run(scenario, 1, watches=[watch.see]).verdict == "pass"
    group = scenario.groups[0]
    assert group.of("g-1") == group
    assert group.of("g-2").handler_cost_ms == (7, 7)
    protocols = {
        (fact.client_id, tuple(name for name, _ in fact.request.protocols))
        for _, _, fact, _ in watch.steps
        if isinstance(getattr(fact, "request", None), m.JoinGroupRequest)
    }
    assert protocols == {("g-1", ("range",)), ("g-2", ("roundrobin", "range"))}


def test_a_callback_that_sleeps_holds_the_join_back() -> None:
    watch = ran('rebalance_timeout = "20s"\non_revoked = { sleep = "3s", commit = true }')
    (revoked_ms, _) = next(item for item in callbacks(watch, "g-1") if item[1] == "revoked")
    joined = [ms for ms in watch.arrived(m.JoinGroupRequest, "g-1") if ms > revoked_ms]
    assert revoked_ms + 3_000 <= joined[0] <= revoked_ms + 3_200


def test_a_callback_may_raise_and_the_application_reads_on() -> None:
    watch = ran("on_assigned = { raise = true }\non_revoked = { raise = true }")
    assert len([1 for _, kind in callbacks(watch, "g-1") if kind == "assigned"]) >= 2
    assert not [f for f in watch.facts(o.MemberLife) if PlannedError.__name__ in f.detail]
    assert [f for f in watch.facts(o.Handled) if f.member == "g-3"]


def test_a_callback_may_seek_back() -> None:
    watch = ran("on_assigned = { seek_back = 5 }")
    offsets = [
        fact.offset
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, o.Handled) and fact.partition == 0 and now_ms > 9_000
    ]
    assert any(later < now for now, later in pairwise(offsets))


@pytest.mark.parametrize("kind", ["on_assigned", "on_revoked"])
def test_a_callback_may_close(kind: str) -> None:
    keys = f"[[group.member]]\nnumber = 2\n{kind} = {{ close = true }}\n"
    text = BASE.replace("[[produce]]", f"{keys}[[produce]]") + JOINER
    watch = Watch()
    assert run(parse(text, "test"), 1, watches=[watch.see]).verdict == "pass"
    lives = [fact.what for fact in watch.facts(o.MemberLife) if fact.member == "g-2"]
    assert "closed" in lives


def test_an_application_that_asks_for_a_while_at_a_time() -> None:
    watch = ran('poll_timeout = "100ms"', '[[step]]\nat = "28500ms"\ndo = "stop"\ntarget = "g-2"\n')
    assert [fact for fact in watch.facts(o.Handled) if fact.member == "g-2"]
