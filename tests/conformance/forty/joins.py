"""Checks 1 to 13: what JoinGroup refuses, pending ids, and the initial delay."""

from __future__ import annotations

from tests.conformance.forty.arms import Arm
from tests.conformance.forty.member import Member
from tests.conformance.forty.registry import check

SECOND_MS = 1_000
DELAY_MS = 3_000  # of the profile `delay`


@check()
def check_01_empty_group_id_comes_first(arm: Arm) -> None:
    arm.group_id = ""
    assert Member(arm, "a", session_ms=1).join()["error_code"] == 24


@check("three")
def check_02_session_timeout_out_of_range_comes_before_not_coordinator(arm: Arm) -> None:
    member = Member(arm, "a")
    for session_ms in (5_999, 1_800_001):
        for elsewhere in (False, True):
            answer = member.join(session_ms=session_ms, elsewhere=elsewhere)
            assert answer["error_code"] == 26
    assert member.join(elsewhere=True)["error_code"] == 16


@check()
def check_03_an_unknown_member_id_creates_no_group(arm: Arm) -> None:
    assert Member(arm, "a").join(member_id="abc")["error_code"] == 25
    group = arm.describe()
    assert (group["error_code"], group["group_state"]) == (0, "Dead")
    assert arm.listed_state() is None


@check()
def check_04_a_refused_first_join_leaves_an_empty_group(arm: Arm) -> None:
    assert Member(arm, "a").join(offers=[])["error_code"] == 23
    arm.until_shown(lambda: arm.listed_state() == "Empty")


@check()
def check_05_first_join_hands_out_an_id(arm: Arm) -> None:
    member = Member(arm, "client")
    answer = member.join()
    assert (answer["error_code"], answer["generation_id"]) == (79, -1)
    assert answer["member_id"].startswith("client-")
    arm.until_shown(lambda: arm.describe()["group_state"] == "Empty")
    assert member.commit(-1, member_id="") == 0


@check("delay")
def check_06_old_and_static_joins_need_no_id(arm: Arm) -> None:
    old = Member(arm, "a").ask_join(3)
    static = Member(arm, "b", "i").ask_join(9)
    arm.assert_parked(old)
    arm.assert_parked(static)
    assert [arm.get(call)["error_code"] for call in (old, static)] == [0, 0]


@check()
def check_07_a_pending_id_is_no_member(arm: Arm) -> None:
    member = Member(arm, "a")
    member.obtain_id()
    assert member.heartbeat() == 25
    assert member.sync()["error_code"] == 25
    assert member.leave() == 0
    assert member.join()["error_code"] == 25


@check()
def check_08_a_pending_id_with_an_instance_id_is_an_illegal_state(arm: Arm) -> None:
    member = Member(arm, "a")
    member.obtain_id()
    assert member.join(instance="i")["error_code"] == -1


@check("delay")
def check_09_a_single_joiner_waits_for_the_initial_delay(arm: Arm) -> None:
    member = Member(arm, "a")
    call = member.enter()
    assert member.take(call)["generation_id"] == 1
    arm.assert_took(call.after_ms, DELAY_MS)


@check("delay")
def check_10_a_second_member_extends_the_initial_delay_once(arm: Arm) -> None:
    first, second = Member(arm, "a"), Member(arm, "b")
    began_ms = arm.now_ms
    calls = [first.enter()]
    arm.wait(SECOND_MS)
    calls.append(second.enter())
    for member, call in zip((first, second), calls, strict=True):
        assert member.take(call)["generation_id"] == 1
        arm.assert_took(call.asked_ms + call.after_ms - began_ms, 2 * DELAY_MS)


@check("delay")
def check_11_joiners_extend_the_initial_delay_up_to_the_rebalance_timeout(arm: Arm) -> None:
    limit_ms = 8_000
    members = [Member(arm, "a", rebalance_ms=limit_ms)]
    members += [Member(arm, f"b{at}", rebalance_ms=60_000) for at in range(7)]
    calls = [members[0].enter()]
    for member in members[1:]:
        arm.wait(SECOND_MS)
        calls.append(member.enter())
    for member, call in zip(members, calls, strict=True):
        assert member.take(call)["generation_id"] == 1
    arm.assert_took(calls[0].after_ms, limit_ms)


@check("long-delay")
def check_12_an_expired_pending_id_ends_the_initial_delay(arm: Arm) -> None:
    member, pending = Member(arm, "a"), Member(arm, "b", session_ms=6_000)
    call = member.enter()
    began_ms = arm.now_ms
    pending.obtain_id()
    assert member.take(call)["generation_id"] == 1
    arm.assert_took(call.asked_ms + call.after_ms - began_ms, 6_000)


@check("delay")
def check_13_a_pending_id_does_not_hold_back_the_initial_delay(arm: Arm) -> None:
    member, pending = Member(arm, "a"), Member(arm, "b")
    call = member.enter()
    pending.obtain_id()
    assert member.take(call)["generation_id"] == 1
    arm.assert_took(call.after_ms, DELAY_MS)
