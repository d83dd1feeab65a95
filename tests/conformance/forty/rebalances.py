"""Checks 14 to 29: rejoining, the phases of a rebalance, sessions, and heartbeats."""

from __future__ import annotations

from tests.conformance.forty.arms import Arm
from tests.conformance.forty.member import (
    BOTH,
    OTHER_TOPICS,
    SWAPPED,
    Member,
    complete,
    rejoin,
    shares_of,
    stable,
)
from tests.conformance.forty.registry import check

SESSION_MS = 6_000  # the least that a broker takes
REBALANCE_MS = 3_000
JOIN_TIMER_MS = 300_000
HALF_HOUR_MS = 1_800_000


@check()
def check_14_a_follower_that_joins_again_unchanged_is_answered_at_once(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    generation_id = stable(leader, follower)
    answer = follower.join()
    assert (answer["error_code"], answer["generation_id"]) == (0, generation_id)
    assert answer["members"] == []
    assert (leader.heartbeat(), follower.heartbeat()) == (0, 0)


@check()
def check_15_another_order_of_protocols_is_a_change(arm: Arm) -> None:
    leader, follower = Member(arm, "l", offers=BOTH), Member(arm, "f", offers=BOTH)
    generation_id = stable(leader, follower)
    call = follower.ask_join(offers=SWAPPED)
    arm.until(lambda: leader.heartbeat() == 27)
    arm.assert_parked(call)
    assert arm.describe()["group_state"] == "PreparingRebalance"
    assert complete([follower, leader], [call, leader.ask_join()]) == generation_id + 1


@check()
def check_16_a_join_that_changes_nothing_does_not_touch_the_session(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f", session_ms=SESSION_MS)
    stable(leader, follower)
    arm.wait(3_000)
    assert follower.join(session_ms=20_000)["error_code"] == 0
    arm.assert_took(arm.until(lambda: leader.heartbeat() == 27) - arm.joined_ms, SESSION_MS)


@check()
def check_17_a_leader_that_joins_again_begins_a_rebalance(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    generation_id = stable(leader, follower)
    call = leader.ask_join()
    arm.until(lambda: follower.heartbeat() == 27)
    arm.assert_parked(call)
    assert follower.sync()["error_code"] == 27
    assert follower.commit(generation_id) == 0
    assert follower.commit(generation_id + 1) == 22


@check()
def check_18_heartbeats_do_not_replace_a_join(arm: Arm) -> None:
    leader, follower = (Member(arm, name, rebalance_ms=REBALANCE_MS) for name in "lf")
    generation_id = stable(leader, follower)
    call = leader.ask_join()
    arm.until(lambda: follower.heartbeat() in (27, 25) and call.answer is not None)
    assert leader.take(call)["generation_id"] == generation_id + 1
    arm.assert_took(call.after_ms, REBALANCE_MS)
    assert follower.heartbeat() == 25


@check()
def check_19_what_counts_before_the_sync(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    generation_id = rejoin(leader, follower)
    assert (leader.heartbeat(), follower.heartbeat()) == (0, 0)
    assert follower.commit(generation_id) == 27
    assert follower.commit(generation_id - 1) == 22
    assert follower.commit(-1) == 22


@check()
def check_20_joining_again_before_the_sync_is_answered_at_once(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    generation_id = rejoin(leader, follower)
    for member, listed in ((leader, 2), (follower, 0)):
        answer = member.join()
        assert (answer["error_code"], answer["generation_id"]) == (0, generation_id)
        assert len(answer["members"]) == listed
    assert arm.describe()["group_state"] == "CompletingRebalance"


@check()
def check_21_a_changed_join_ends_the_parked_sync(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    generation_id = rejoin(leader, follower)
    sync = follower.ask_sync()
    arm.assert_parked(sync)
    call = follower.ask_join(offers=OTHER_TOPICS)
    assert arm.get(sync)["error_code"] == 27
    arm.assert_parked(call)
    assert complete([follower, leader], [call, leader.ask_join()]) == generation_id + 1


@check()
def check_22_what_sync_looks_at_first(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    generation_id = rejoin(leader, follower)
    assert follower.sync(name="roundrobin")["error_code"] == 23
    assert follower.sync(kind="connect")["error_code"] == 23
    assert follower.sync(generation_id=generation_id + 1, name="roundrobin")["error_code"] == 22
    assert follower.sync(generation_id=generation_id + 1, member_id="x")["error_code"] == 25


@check()
def check_23_sync_must_name_the_protocol_since_version_5(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    assert follower.sync(name=None)["error_code"] == 23
    assert follower.sync(kind=None)["error_code"] == 23
    assert follower.sync(version=4, name=None, kind=None)["error_code"] == 0


@check()
def check_24_only_the_first_assignment_of_a_generation_counts(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    rejoin(leader, follower)
    assert leader.sync(shares_of(leader))["assignment"] == "l"
    found = follower.sync()
    assert (found["error_code"], found["assignment"]) == (0, "")
    other = {leader.member_id: b"other", follower.member_id: b"other"}
    assert leader.sync(other)["assignment"] == "l"
    assert follower.sync()["assignment"] == ""


@check()
def check_25_a_leader_that_never_syncs_is_removed(arm: Arm) -> None:
    leader, follower = (Member(arm, name, rebalance_ms=REBALANCE_MS) for name in "lf")
    stable(leader, follower)
    rejoin(leader, follower)
    sync = follower.ask_sync()
    assert arm.get(sync)["error_code"] == 27
    arm.assert_took(sync.asked_ms + sync.after_ms - arm.joined_ms, REBALANCE_MS)
    assert leader.heartbeat() == 25
    assert follower.heartbeat() == 27


@check()
def check_26_a_follower_that_never_syncs_is_removed(arm: Arm) -> None:
    leader, follower = (Member(arm, name, rebalance_ms=REBALANCE_MS) for name in "lf")
    stable(leader, follower)
    rejoin(leader, follower)
    assert leader.sync(shares_of(leader, follower))["error_code"] == 0
    assert follower.heartbeat() == 0
    arm.assert_took(arm.until(lambda: follower.heartbeat() == 25) - arm.joined_ms, REBALANCE_MS)
    assert leader.heartbeat() == 27


@check()
def check_27_a_sync_in_stable_does_not_prolong_the_session_a_commit_does(arm: Arm) -> None:
    observer = Member(arm, "o")
    syncing = Member(arm, "s", session_ms=SESSION_MS)
    committing = Member(arm, "c", session_ms=SESSION_MS)
    stable(observer, syncing, committing)
    arm.wait(3_000)
    assert syncing.sync()["error_code"] == 0
    committed_ms = arm.now_ms
    assert committing.commit() == 0
    arm.assert_took(arm.until(lambda: observer.heartbeat() == 27) - arm.joined_ms, SESSION_MS)
    assert syncing.heartbeat() == 25
    call = observer.ask_join()  # waits for the one that is left
    observer.take(call)
    arm.assert_took(call.asked_ms + call.after_ms - committed_ms, SESSION_MS)


@check(is_slow=True)
def check_28_a_new_member_waits_five_minutes_at_most(arm: Arm) -> None:
    present = Member(arm, "a", rebalance_ms=HALF_HOUR_MS)
    stable(present)
    call = Member(arm, "b", rebalance_ms=HALF_HOUR_MS).ask_join(3)
    arm.until(lambda: present.heartbeat() not in (0, 27) or call.answer is not None, 400_000)
    assert arm.get(call)["error_code"] == 25
    arm.assert_took(call.after_ms, JOIN_TIMER_MS)
    assert present.heartbeat() == 27


@check()
def check_29_what_heartbeat_looks_at_first(arm: Arm) -> None:
    member = Member(arm, "a")
    stable(member)
    assert member.heartbeat(-1) == 22
    assert member.heartbeat(99, member_id="x") == 25
    arm.group_id += "-unknown"
    assert member.heartbeat() == 25
