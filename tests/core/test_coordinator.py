"""The coordinator against the facts about Kafka's (protocol.md sections 1-7 and 12)."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.core import messages as m
from ksim.core.errors import MisuseError
from ksim.core.events import (
    GroupRecord,
    LogReplayed,
)
from tests.core.rig import BOTH, RANGE, SWAPPED, Rig, completing

# Outer checks


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"group": "", "session": 1}, 24),
        ({"session": 5_999}, 26),
        ({"session": 1_800_001}, 26),
        ({"session": 6_000}, 79),
        ({"session": 1_800_000}, 79),
        ({"member": "abc"}, 25),
        ({"protocols": ()}, 23),
        ({"kind": ""}, 23),
    ],
)
def test_join_of_an_unknown_group(options: dict[str, Any], code: int) -> None:
    rig = Rig()
    token = rig.join(**options)
    assert rig.code(token) == code
    answer = rig.answer(token)
    assert (answer.generation_id, answer.leader, answer.members) == (-1, "", ())
    assert ("g" in rig.machine.state.groups) == (code in (23, 79))


def test_refused_join_still_stores_the_empty_group() -> None:
    rig = Rig()
    rig.join(protocols=())
    assert rig.log == [GroupRecord("g", "", 0, None, None, -1, ())]


def test_who_is_not_coordinator_says_so() -> None:
    rig = Rig(load=False)
    assert rig.code(rig.join(session=5_999)) == 26
    joined = rig.answer(rig.join("abc"))
    assert (joined.error_code, joined.member_id) == (16, "")
    assert rig.code(rig.sync("a")) == 16
    assert rig.heartbeat("a") == rig.leave("a") == rig.commit_code("a") == 16
    assert rig.code(rig.ask(m.OffsetFetchRequest("g", ()))) == 16
    assert rig.answer(rig.ask(m.OffsetCommitRequest("g", 1, "a", None, ()))).partitions == ()


def test_empty_group_id() -> None:
    rig = Rig()
    assert rig.code(rig.sync("a", group="")) == 24
    assert rig.heartbeat("a", group="") == rig.leave("a", group="") == 24
    assert rig.commit_code(group="") == 0
    assert rig.committed("") == 7


def test_other_requests_are_misuse() -> None:
    with pytest.raises(MisuseError, match="MetadataRequest"):
        Rig().ask(m.MetadataRequest(None))


# Joining


def test_two_steps_of_a_dynamic_member() -> None:
    rig = Rig()
    answer = rig.answer(rig.join(fresh="client-1"))
    assert (answer.error_code, answer.member_id, answer.generation_id) == (79, "client-1", -1)
    assert rig.group().state == "Empty"
    assert rig.commit_code() == 0
    assert rig.heartbeat("client-1", 0) == 25
    assert rig.code(rig.sync("client-1")) == 25
    assert rig.leave("client-1") == 0
    assert rig.code(rig.join("client-1")) == 25


def test_pending_id_with_instance_id() -> None:
    rig = Rig()
    rig.join(fresh="a")
    assert rig.code(rig.join("a", instance="i")) == -1


def test_static_member_needs_one_step() -> None:
    rig = Rig()
    token = rig.join(instance="i", fresh="a")
    assert rig.code(token) is None
    assert rig.group().state == "PreparingRebalance"


def test_repeated_join_replaces_the_parked_one() -> None:
    rig = Rig()
    first = rig.add("a")
    second = rig.join("a")
    rig.until(10_000)
    assert rig.code(first) is None
    assert rig.code(second) == 0


def test_pending_id_expires() -> None:
    rig = Rig()
    rig.join(fresh="a", session=6_000)
    rig.until(5_999)
    assert "a" in rig.group().pending_joins
    rig.until(6_000)
    assert rig.code(rig.join("a")) == 25
    assert rig.idle


# The initial delay


def test_single_joiner_is_answered_after_the_delay() -> None:
    rig = Rig()
    token = rig.add("a")
    rig.until(100_000)
    assert rig.at(token) == 3_000
    answer = rig.answer(token)
    assert (answer.error_code, answer.generation_id, answer.leader) == (0, 1, "a")
    assert (answer.protocol_type, answer.protocol_name) == ("consumer", "range")
    assert answer.members == (m.JoinedMember("a", None, b"r"),)


def test_second_member_in_the_window_doubles_it() -> None:
    rig = Rig()
    first = rig.add("a")
    rig.until(1_000)
    second = rig.add("b")
    rig.until(6_500)
    assert rig.at(first) == rig.at(second) == 6_000
    assert rig.answer(second).members == ()
    assert {each.member_id for each in rig.answer(first).members} == {"a", "b"}


def test_joins_for_ever_end_at_the_first_rebalance_timeout() -> None:
    rig = Rig()
    tokens = [rig.add("m0", rebalance=10_000)]
    for second in range(1, 10):
        rig.until(second * 1_000)
        tokens.append(rig.add(f"m{second}", rebalance=60_000))
    rig.until(10_500)
    assert {rig.at(token) for token in tokens} == {10_000}


def test_flag_left_by_the_cap_costs_the_next_rebalance_a_delay() -> None:
    rig = Rig()
    rig.add("a", rebalance=6_000)
    rig.until(2_900)
    rig.add("b", rebalance=6_000)
    rig.until(5_900)
    rig.add("c", rebalance=6_000)
    rig.until(6_000)
    assert rig.group().state == "CompletingRebalance"
    for member in "abc":
        assert rig.leave(member) == 0
    assert rig.group().state == "Empty"
    token = rig.add("d", rebalance=60_000)
    rig.until(100_000)
    assert rig.at(token) == 12_000


def test_rebalance_timeout_shorter_than_the_delay() -> None:
    rig = Rig()
    first = rig.add("a", rebalance=1_000)
    second = rig.add("b", rebalance=60_000)
    rig.until(4_000)
    assert rig.at(first) == rig.at(second) == 3_000


def test_no_delay() -> None:
    rig = Rig(initial_rebalance_delay_ms=0)
    token = rig.add("a")
    rig.until(0)
    assert rig.at(token) == 0


def test_expiry_of_a_pending_id_cuts_the_delay_short() -> None:
    rig = Rig(initial_rebalance_delay_ms=20_000)
    token = rig.add("a")
    rig.join(fresh="b", session=6_000)
    rig.until(30_000)
    assert rig.at(token) == 6_000


def test_pending_id_does_not_hold_back_the_end_of_the_delay() -> None:
    rig = Rig()
    token = rig.add("a")
    rig.join(fresh="b", session=60_000)
    rig.until(4_000)
    assert rig.at(token) == 3_000


def test_leaving_does_not_cut_the_delay_short() -> None:
    rig = Rig()
    rig.add("a")
    assert rig.leave("a") == 0
    rig.until(2_999)
    assert rig.group().state == "PreparingRebalance"
    rig.until(3_000)
    assert (rig.group().state, rig.group().generation_id) == ("Empty", 1)
    assert rig.log[-1] == GroupRecord("g", "consumer", 1, None, None, 3_000, ())


# Joining again


def test_follower_that_rejoins_unchanged() -> None:
    rig = Rig()
    rig.stable("L", "F")
    answer = rig.answer(rig.join("F", session=20_000))
    assert (answer.error_code, answer.generation_id, answer.leader) == (0, 1, "L")
    assert answer.members == ()
    assert rig.group().members["F"].session_timeout_ms == 10_000
    assert rig.heartbeat("L") == 0


@pytest.mark.parametrize("changed", [SWAPPED, RANGE, (*BOTH, ("x", b""))])
def test_follower_that_rejoins_changed(changed: tuple[tuple[str, bytes], ...]) -> None:
    rig = Rig()
    rig.stable("L", "F", protocols=BOTH)
    assert rig.code(rig.join("F", protocols=changed)) is None
    assert rig.group().state == "PreparingRebalance"
    assert rig.heartbeat("L") == 27


def test_leader_that_rejoins_starts_a_rebalance() -> None:
    rig = Rig()
    rig.stable("L", "F")
    start = rig.now
    token = rig.join("L")
    assert rig.code(token) is None
    assert rig.heartbeat("F") == 27
    assert rig.code(rig.sync("F")) == 27
    assert rig.commit_code("F", 1) == 0
    assert rig.commit_code("F", 2) == 22
    rig.until(start + 5_000)
    assert rig.heartbeat("F") == 27
    rig.until(start + 12_000)
    assert rig.at(token) == start + 10_000
    assert rig.answer(token).generation_id == 2
    assert rig.heartbeat("F", 2) == 25


def test_only_member_that_rejoins_is_answered_at_once() -> None:
    rig = Rig()
    rig.stable("L")
    answer = rig.answer(rig.join("L"))
    assert (answer.error_code, answer.generation_id) == (0, 2)


def test_rejoin_while_completing() -> None:
    rig = Rig()
    rig.stable("L", "F")
    leader, follower = rig.join("L"), rig.join("F")
    assert rig.code(leader) == rig.code(follower) == 0
    assert len(rig.answer(rig.join("L")).members) == 2
    again = rig.answer(rig.join("F"))
    assert (again.error_code, again.generation_id, again.members) == (0, 2, ())
    parked = rig.sync("F", 2)
    changed = rig.join("F", protocols=BOTH)
    assert rig.code(parked) == 27
    assert rig.code(changed) is None


def test_offer_that_not_all_support() -> None:
    rig = Rig()
    rig.stable("L", "F")
    answer = rig.answer(rig.join("F", protocols=(("roundrobin", b""),)))
    assert (answer.error_code, answer.member_id) == (23, "F")
    assert rig.code(rig.join(kind="connect")) == 23


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (BOTH, BOTH, "range"),
        (SWAPPED, SWAPPED, "roundrobin"),
        (BOTH, SWAPPED, "range"),
        (BOTH, (("roundrobin", b""),), "roundrobin"),
        ((("range", b""), ("sticky", b"")), (("sticky", b""), ("range", b"")), "sticky"),
    ],
)
def test_votes(first: Any, second: Any, chosen: str) -> None:
    rig = Rig()
    token = rig.add("a", protocols=first)
    rig.add("b", protocols=second)
    rig.until(6_000)
    assert rig.answer(token).protocol_name == chosen


# Capacity


def test_a_full_group() -> None:
    rig = Rig(group_max_size=2)
    rig.stable("L", "F")
    answer = rig.answer(rig.join())
    assert (answer.error_code, answer.member_id) == (81, "")


def test_a_full_group_refuses_a_static_restart() -> None:
    rig = Rig(group_max_size=2)
    rig.stable("L@1", "F@2")
    assert rig.code(rig.join(instance="2")) == 81


def test_pending_ids_are_not_counted() -> None:
    rig = Rig(group_max_size=2)
    assert [rig.code(rig.join(fresh=name)) for name in "abc"] == [79] * 3
    joins = [rig.join(name) for name in "abc"]
    assert [rig.code(token) for token in joins] == [None, None, 81]
    rig.until(6_000)
    assert [rig.code(token) for token in joins] == [0, 0, 81]


def test_loaded_group_that_is_too_large() -> None:
    log = Rig()
    log.stable("a", "b", "c")
    rig = Rig(load=False, group_max_size=2)
    rig.feed(LogReplayed(tuple(log.log)))
    assert rig.group().state == "PreparingRebalance"
    tokens = [rig.join(name) for name in "abc"]
    assert [rig.code(token) for token in tokens] == [None, None, 81]
    rig.until(10_000)
    assert rig.code(tokens[0]) == 0


# SyncGroup


@pytest.mark.parametrize(
    ("member", "generation", "kind", "name", "code"),
    [
        ("x", 9, "other", "other", 25),
        ("F", 9, "other", "other", 22),
        ("F", 1, "other", "range", 23),
        ("F", 1, "consumer", "other", 23),
        ("x", 9, None, "range", 23),
        ("F", 1, "consumer", None, 23),
        ("F", 1, "consumer", "range", 0),
    ],
)
def test_sync_in_stable(
    member: str, generation: int, kind: str | None, name: str | None, code: int
) -> None:
    rig = Rig()
    rig.stable("L", "F")
    token = rig.sync(member, generation, kind=kind, name=name)
    assert rig.code(token) == code
    if not code:
        assert rig.answer(token) == m.SyncGroupResponse(0, "consumer", "range", b"F")


def test_leader_omits_a_member() -> None:
    rig = completing("L", "F")
    follower = rig.sync("F", 1, (("F", b"ignored"),))
    assert rig.code(follower) is None
    leader = rig.sync("L", 1, (("L", b"all"), ("nobody", b"x")))
    assert rig.answer(leader).assignment == b"all"
    assert rig.answer(follower) == m.SyncGroupResponse(0, "consumer", "range", b"")
    assert rig.answer(rig.sync("L", 1, (("L", b"new"),))).assignment == b"all"
    record = rig.log[-1]
    assert isinstance(record, GroupRecord)
    assert [(each.member_id, each.assignment) for each in record.members] == [
        ("L", b"all"),
        ("F", b""),
    ]


def test_repeated_sync_replaces_the_parked_one() -> None:
    rig = completing("L", "F")
    first, second = rig.sync("F"), rig.sync("F")
    rig.sync("L")
    assert (rig.code(first), rig.code(second)) == (None, 0)


def test_leader_never_syncs() -> None:
    rig = completing("L", "F")
    start, parked = rig.now, rig.sync("F")
    for at in range(2_000, 10_000, 2_000):
        rig.until(start + at)
        assert rig.heartbeat("L") == 0
    rig.until(start + 10_000)
    assert rig.code(parked) == 27
    assert rig.at(parked) == start + 10_000
    assert rig.heartbeat("L") == 25


def test_follower_never_syncs_though_it_heartbeats() -> None:
    rig = completing("L", "F")
    start = rig.now
    rig.sync("L")
    assert rig.group().state == "Stable"
    for at in range(2_000, 10_000, 2_000):
        rig.until(start + at)
        assert rig.heartbeat("L") == rig.heartbeat("F") == rig.commit_code("F", 1) == 0
    rig.until(start + 10_000)
    assert rig.heartbeat("F") == 25
    assert rig.heartbeat("L") == 27


def test_late_follower_is_not_evicted() -> None:
    rig = completing("L", "F")
    start = rig.now
    rig.sync("L")
    rig.until(start + 5_000)
    assert rig.code(rig.sync("F")) == 0
    rig.heartbeat("L")
    rig.heartbeat("F")
    rig.until(start + 10_000)
    assert rig.heartbeat("F") == 0


@pytest.mark.parametrize(
    ("error_code", "told"),
    [(3, 15), (19, 15), (7, 15), (6, 16), (56, 16), (10, -1), (18, -1), (4, -1), (-1, -1)],
)
def test_assignment_is_refused_by_the_log(error_code: int, told: int) -> None:
    rig = completing("L", "F")
    rig.hold = True
    tokens = [rig.sync("F"), rig.sync("L", 1, (("L", b"x"),))]
    assert [rig.code(token) for token in tokens] == [None, None]
    rig.appended(error_code)
    assert [rig.code(token) for token in tokens] == [told, told]
    assert rig.group().state == "PreparingRebalance"
    assert rig.group().members["L"].assignment == b""


def test_stale_assignment_counts_for_nothing() -> None:
    rig = completing("L", "F")
    rig.hold = True
    leader, follower = rig.sync("L", 1, (("L", b"old"),)), rig.sync("F")
    rejoined = rig.join("F", protocols=BOTH)
    assert (rig.code(leader), rig.code(follower)) == (27, 27)
    rig.appended(0)
    assert rig.group().state == "PreparingRebalance"
    rig.join("L")
    assert rig.code(rejoined) == 0
    assert rig.group().state == "CompletingRebalance"
    assert rig.group().members["L"].assignment == b""
