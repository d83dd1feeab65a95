"""Checks 30 to 36: leaving, static members, and the size of groups."""

from __future__ import annotations

from tests.conformance.forty.arms import Arm
from tests.conformance.forty.member import (
    OTHER_TOPICS,
    Member,
    leave_batch,
    shares_of,
    stable,
)
from tests.conformance.forty.registry import check

REBALANCE_MS = 3_000


@check()
def check_30_a_batch_of_leaves_is_one_change(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    generation_id = stable(leader, follower)
    answer = leave_batch(arm, [{"member_id": "x"}, {"member_id": follower.member_id}])
    assert answer["error_code"] == 0
    assert [each["error_code"] for each in answer["members"]] == [25, 0]
    assert arm.describe()["group_state"] == "PreparingRebalance"
    leave_batch(arm, [{"member_id": leader.member_id}])
    first, second = Member(arm, "l"), Member(arm, "f")
    generation_id = stable(first, second)
    both = [{"member_id": each.member_id} for each in (first, second)]
    assert [each["error_code"] for each in leave_batch(arm, both)["members"]] == [0, 0]
    assert arm.describe()["group_state"] == "Empty"
    assert stable(Member(arm, "n")) == generation_id + 2  # one for the leaves, one for the join


@check()
def check_31_a_static_member_is_removed_by_either_name(arm: Arm) -> None:
    member = Member(arm, "a", "i")
    stable(member)
    assert member.leave(member_id="") == 0
    assert arm.describe()["group_state"] == "Empty"
    member.member_id = ""
    stable(member)
    assert member.leave(instance=None) == 0
    assert arm.describe()["group_state"] == "Empty"
    member.member_id = ""
    stable(member)
    before = member.member_id
    assert member.join(member_id="")["member_id"] != before
    assert member.leave(member_id=before) == 82


@check()
def check_32_a_static_follower_comes_back_without_a_rebalance(arm: Arm) -> None:
    leader, follower = Member(arm, "l", "l"), Member(arm, "f", "f")
    generation_id = stable(leader, follower)
    before = follower.member_id
    answer = follower.join(member_id="")
    assert (answer["error_code"], answer["generation_id"]) == (0, generation_id)
    assert answer["member_id"] != before
    assert leader.heartbeat() == 0
    old = {"member_id": before}
    assert follower.heartbeat(**old) == 82
    assert follower.sync(**old)["error_code"] == 82
    assert follower.join(**old)["error_code"] == 82
    assert follower.commit(**old) == 82
    assert follower.leave(**old) == 82
    assert follower.heartbeat(member_id=before, instance=None) == 25


@check()
def check_33_what_a_static_leader_is_told_depends_on_the_version(arm: Arm) -> None:
    leader, follower = Member(arm, "l", "l"), Member(arm, "f", "f")
    stable(leader, follower)
    answer = leader.join(9, member_id="")
    assert answer["skip_assignment"] is True
    assert answer["leader"] == answer["member_id"]
    assert len(answer["members"]) == 2
    before = leader.member_id
    answer = leader.join(8, member_id="")
    assert answer["leader"] == before != answer["member_id"]
    assert answer["members"] == []


@check()
def check_34_a_static_member_with_other_topics_begins_no_rebalance(arm: Arm) -> None:
    leader, follower = Member(arm, "l", "l"), Member(arm, "f", "f")
    generation_id = stable(leader, follower)
    answer = follower.join(member_id="", offers=OTHER_TOPICS)
    assert (answer["error_code"], answer["generation_id"]) == (0, generation_id)
    assert (leader.heartbeat(), follower.heartbeat()) == (0, 0)


@check()
def check_35_silent_static_members_stay_for_one_round(arm: Arm) -> None:
    statics = [
        Member(arm, name, name, session_ms=60_000, rebalance_ms=REBALANCE_MS) for name in "st"
    ]
    generation_id = stable(*statics)
    member = Member(arm, "d", rebalance_ms=REBALANCE_MS)
    call = member.enter()
    answer = member.take(call)
    arm.assert_took(call.after_ms, REBALANCE_MS)
    assert answer["generation_id"] == generation_id + 1
    assert len(answer["members"]) == 3
    assert member.sync(shares_of(member, *statics))["error_code"] == 0
    arm.assert_took(arm.until(lambda: member.heartbeat() == 27) - call.asked_ms, 2 * REBALANCE_MS)
    assert [each["member_id"] for each in arm.describe()["members"]] == [member.member_id]


@check("small-groups")
def check_36_a_full_group_takes_nobody(arm: Arm) -> None:
    leader, follower = Member(arm, "l", "l"), Member(arm, "f")
    stable(leader, follower)
    assert Member(arm, "n").join()["error_code"] == 81
    assert leader.join(member_id="")["error_code"] == 81
    arm.group_id += "-empty"
    members = [Member(arm, name, rebalance_ms=REBALANCE_MS) for name in "abc"]
    for member in members:
        member.obtain_id()
    first, second, third = members
    assert first.join()["error_code"] == 0
    calls = [second.ask_join()]
    arm.until(lambda: first.heartbeat() == 27)
    calls.append(first.ask_join())
    arm.assert_parked(calls[1])
    assert third.join()["error_code"] == 81
    answers = [arm.get(call) for call in calls]
    assert [answer["error_code"] for answer in answers] == [0, 0]
    arm.assert_took(calls[0].after_ms, REBALANCE_MS)
