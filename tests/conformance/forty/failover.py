"""Checks 37 to 40: a coordinator that moves, and what OffsetCommit takes."""

from __future__ import annotations

from tests.conformance.forty.arms import EARLY_MS, LATE_MS, Arm, Call
from tests.conformance.forty.member import (
    BOTH,
    RANGE,
    Member,
    leave_batch,
    rejoin,
    stable,
)
from tests.conformance.forty.registry import check

SESSION_MS = 6_000
REAL_LOADS = (
    "Apache Kafka has read the log of a test's group before the next request reaches it: it cannot "
    "be held in loading"
)
METADATA_MAX = 4_096


def _code(arm: Arm, name: str, version: int, data: dict[str, object], *, elsewhere: bool) -> int:
    answer = arm.get(arm.ask(name, version, data, elsewhere=elsewhere))
    for key in ("groups", "results"):
        if answer.get(key):
            answer = answer[key][0]
    return int(answer["error_code"])


def _codes(member: Member, *, elsewhere: bool) -> dict[str, int]:
    """What each request of a member, and each look at its group, is refused with."""
    arm = member.arm
    described, deleted = {"groups": [arm.group_id]}, {"groups_names": [arm.group_id]}
    return {
        "Heartbeat": member.heartbeat(elsewhere=elsewhere),
        "JoinGroup": member.join(elsewhere=elsewhere)["error_code"],
        "SyncGroup": member.sync(elsewhere=elsewhere)["error_code"],
        "OffsetCommit": member.commit(elsewhere=elsewhere),
        "LeaveGroup": member.leave(elsewhere=elsewhere),
        "DescribeGroups": _code(arm, "DescribeGroups", 5, described, elsewhere=elsewhere),
        "DeleteGroups": _code(arm, "DeleteGroups", 2, deleted, elsewhere=elsewhere),
    }


@check("three")
def check_37_members_keep_a_full_session_when_the_coordinator_moves(arm: Arm) -> None:
    session_ms = 12_000  # longer than the move itself may take on a busy machine
    leader, follower = Member(arm, "l"), Member(arm, "f", session_ms=session_ms)
    stable(leader, follower)
    arm.wait(3_000)
    moved_ms = arm.now_ms
    arm.move()
    assert set(_codes(leader, elsewhere=True).values()) == {16}
    listed = arm.get(arm.ask("ListGroups", 4, {"states_filter": []}, elsewhere=True))
    assert listed["error_code"] == 0
    assert arm.group_id not in [each["group_id"] for each in listed["groups"]]
    arm.loaded()
    assert (leader.heartbeat(), arm.describe()["group_state"]) == (0, "Stable")
    loaded_ms = arm.now_ms
    lost_ms = arm.until(lambda: leader.heartbeat() == 27)
    assert lost_ms - moved_ms >= session_ms - EARLY_MS
    assert lost_ms - loaded_ms <= session_ms + LATE_MS


@check("slow-load", not_run={"real": REAL_LOADS})
def check_37_while_the_coordinator_loads(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    stable(leader, follower)
    arm.move()
    found = _codes(leader, elsewhere=False)
    assert found.pop("Heartbeat") == 0
    assert set(found.values()) == {14}
    assert leader.heartbeat(99, member_id="anybody") == 0
    assert _code(arm, "ListGroups", 4, {"states_filter": []}, elsewhere=False) == 14


@check("three")
def check_38_a_generation_that_was_not_synced_is_lost(arm: Arm) -> None:
    leader, follower = Member(arm, "l"), Member(arm, "f")
    generation_id = stable(leader, follower)
    assert rejoin(leader, follower) == generation_id + 1
    arm.move()
    arm.loaded()
    assert arm.describe()["group_state"] == "Stable"
    for member in (leader, follower):
        assert member.heartbeat(generation_id + 1) == 22
        assert member.heartbeat(generation_id) == 0
        member.generation_id = generation_id
    assert rejoin(leader, follower) == generation_id + 1


@check("three")
def check_39_only_the_selected_protocol_survives(arm: Arm) -> None:
    leader = Member(arm, "l", offers=BOTH)
    two, one = Member(arm, "t", offers=BOTH), Member(arm, "o", offers=RANGE)
    generation_id = stable(leader, two, one)
    arm.move()
    arm.loaded()
    assert one.join()["generation_id"] == generation_id
    assert leader.heartbeat(generation_id) == 0
    call: Call = two.ask_join()
    arm.until(lambda: leader.heartbeat(generation_id) == 27)
    arm.assert_parked(call)


@check()
def check_40_what_a_commit_looks_at_first(arm: Arm) -> None:
    member = Member(arm, "a", session_ms=SESSION_MS)
    assert member.commit(1, version=8) == 22
    assert member.commit(1, version=9) == 69
    member.obtain_id()  # the group is Empty now
    assert member.commit(0) == 25
    assert member.commit(-1, member_id="anybody") == 0
    assert member.commit(-1, metadata="x" * (METADATA_MAX + 1)) == 12
    assert member.commit(-1, metadata="x" * METADATA_MAX) == 0
    leave_batch(arm, [{"member_id": member.member_id}])
    member.member_id = ""
    stable(member)
    arm.wait(3_000)
    assert arm.get(member.ask_commit(partitions=0))["topics"] == []
    emptied_ms = arm.until(lambda: arm.describe()["group_state"] == "Empty")
    arm.assert_took(emptied_ms - arm.joined_ms, SESSION_MS)
