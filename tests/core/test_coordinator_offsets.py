"""Versions, batches, expiry and administration: what the coordinator answers to everybody else."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.core import messages as m
from ksim.core.events import (
    GroupTombstone,
    LoadBegan,
    LogReplayed,
    OffsetTombstone,
    Resigned,
    TopicsDeleted,
)
from ksim.core.subscription import encode_subscription
from ksim.core.values import TopicPartition
from tests.core.rig import BOTH, Rig

T0 = TopicPartition("t", 0)
TO_T = (("range", encode_subscription(["t"])),)
TO_U = (("range", encode_subscription(["u"])),)
HOUR_MS = 3_600_000
SOON = {"offsets_retention_ms": HOUR_MS, "offsets_retention_check_interval_ms": 600_000}


def describe(rig: Rig, group: str = "g", version: int = 5) -> m.DescribedGroup:
    response = rig.answer(rig.ask(m.DescribeGroupsRequest((group,)), version=version))
    (found,) = response.groups
    assert isinstance(found, m.DescribedGroup)
    return found


def listed(rig: Rig, states: tuple[str, ...] = (), types: tuple[str, ...] = ()) -> list[str]:
    response = rig.answer(rig.ask(m.ListGroupsRequest(states, types)))
    assert response.error_code == 0
    return [group.group_id for group in response.groups]


def delete(rig: Rig, group: str = "g") -> int:
    response = rig.answer(rig.ask(m.DeleteGroupsRequest((group,))))
    return int(response.groups[0].error_code)


def delete_offsets(rig: Rig, *partitions: TopicPartition, group: str = "g") -> Any:
    response = rig.answer(rig.ask(m.OffsetDeleteRequest(group, partitions)))
    return response.error_code or [each.error_code for each in response.partitions]


def leave_all(rig: Rig, *who: tuple[str, str | None]) -> list[int]:
    members = tuple(m.MemberIdentity(*each) for each in who)
    response = rig.answer(rig.ask(m.LeaveGroupRequest("g", members)))
    assert response.error_code == 0
    return [each.error_code for each in response.members]


# Versions


def test_join_before_version_4_needs_no_second_step() -> None:
    rig = Rig()
    token = rig.join(version=3, fresh="a")
    assert rig.code(token) is None
    rig.until(3_000)
    assert rig.code(token) == 0
    assert list(rig.group().members) == ["a"]


def test_new_member_that_waits_five_minutes_is_gone() -> None:
    rig = Rig(initial_rebalance_delay_ms=0)
    rig.stable("L", rebalance=1_800_000)
    token = rig.join(version=3, fresh="F", rebalance=1_800_000)
    start = rig.now
    for at_ms in range(start + 5_000, start + 300_000, 5_000):
        rig.until(at_ms)
        assert rig.heartbeat("L") == 27
    assert rig.code(token) is None
    rig.until(start + 300_000)
    assert (rig.code(token), rig.answer(token).member_id) == (25, "")


@pytest.mark.parametrize(("version", "expected"), [(5, 23), (4, 0)])
def test_sync_names_its_protocol_since_version_5(version: int, expected: int) -> None:
    rig = Rig()
    rig.stable("L")
    request = m.SyncGroupRequest("g", 1, "L", None, None, None, ())
    assert rig.code(rig.ask(request, version=version)) == expected


@pytest.mark.parametrize(("version", "expected"), [(9, 69), (8, 22)])
def test_commit_of_a_generation_nobody_knows(version: int, expected: int) -> None:
    rig = Rig()
    entry = m.OffsetAndMetadata("t", 0, 1, -1, "")
    request = m.OffsetCommitRequest("g", 1, "a", None, (entry,))
    assert rig.answer(rig.ask(request, version=version)).partitions[0].error_code == expected


def test_static_leader_is_told_to_skip_the_assignment_since_version_9() -> None:
    rig = Rig()
    rig.stable("L@i", "F")
    answer = rig.answer(rig.join(instance="i", fresh="L2", version=9))
    assert (answer.leader, answer.skip_assignment, answer.generation_id) == ("L2", True, 1)
    assert sorted(member.member_id for member in answer.members) == ["F", "L2"]


def test_static_follower_has_nothing_to_skip() -> None:
    rig = Rig()
    rig.stable("L", "F@i")
    answer = rig.answer(rig.join(instance="i", fresh="F2", version=9))
    assert (answer.leader, answer.skip_assignment, answer.members) == ("L", False, ())


# Leaving together


def test_unknown_and_known_leave_in_one_request() -> None:
    rig = Rig()
    rig.stable("L", "F")
    assert leave_all(rig, ("nobody", None), ("F", None)) == [25, 0]
    assert rig.group().state == "PreparingRebalance"


def test_last_two_leave_together_in_one_generation() -> None:
    rig = Rig()
    rig.stable("L", "F")
    assert leave_all(rig, ("L", None), ("F", None)) == [0, 0]
    assert (rig.group().state, rig.group().generation_id) == ("Empty", 2)


def test_nobody_who_leaves_changes_nothing() -> None:
    rig = Rig()
    rig.stable("L")
    assert leave_all(rig, ("nobody", None), ("L", "i")) == [25, 25]
    assert rig.group().state == "Stable"


# Loading


def test_while_loading_only_heartbeats_pass() -> None:
    rig = Rig(load=False)
    rig.feed(LoadBegan())
    assert rig.heartbeat("anybody", 77) == 0
    assert rig.code(rig.join()) == 14
    assert rig.code(rig.sync("a")) == 14
    assert rig.leave("a") == 14
    assert rig.commit_code() == 14
    assert rig.code(rig.ask(m.OffsetFetchRequest("g", None))) == 14
    assert describe(rig).error_code == 14
    assert rig.code(rig.ask(m.ListGroupsRequest((), ()))) == 14
    assert delete(rig) == 14
    assert delete_offsets(rig, T0) == 14
    rig.feed(LogReplayed(()))
    assert rig.heartbeat("anybody", 77) == 25


def test_after_resigning_nothing_is_listed() -> None:
    rig = Rig()
    rig.stable("L")
    rig.feed(Resigned())
    assert rig.code(rig.ask(m.ListGroupsRequest((), ()))) == 0
    assert listed(rig) == []
    assert describe(rig).error_code == 16


# Describe and list


def test_describe_shows_metadata_only_when_stable() -> None:
    rig = Rig()
    rig.stable("L", "F")
    found = describe(rig)
    assert (found.group_state, found.protocol_type, found.protocol_data) == (
        "Stable",
        "consumer",
        "range",
    )
    assert [(each.metadata, each.assignment) for each in found.members] == [
        (b"r", b"L"),
        (b"r", b"F"),
    ]
    rig.join("L")
    found = describe(rig)
    assert (found.group_state, found.protocol_data) == ("PreparingRebalance", "")
    assert [(each.metadata, each.assignment) for each in found.members] == [
        (b"", b"L"),
        (b"", b"F"),
    ]


@pytest.mark.parametrize(("version", "expected"), [(5, 0), (6, 69)])
def test_describe_of_an_unknown_group(version: int, expected: int) -> None:
    found = describe(Rig(), version=version)
    assert (found.error_code, found.group_state, found.members) == (expected, "Dead", ())


def test_list_filters_by_state_and_type() -> None:
    rig = Rig()
    rig.stable("L")
    rig.commit(group="simple")
    assert listed(rig) == ["g", "simple"]
    assert listed(rig, states=(" sTable ",)) == ["g"]
    assert listed(rig, states=("Nonsense",)) == []
    assert listed(rig, types=("Classic",)) == ["g", "simple"]
    assert listed(rig, types=("share",)) == []


# Delete


def test_only_empty_groups_are_deleted() -> None:
    rig = Rig()
    assert delete(rig, "") == 69
    assert delete(rig) == 69
    rig.stable("L")
    assert delete(rig) == 68
    assert rig.commit_code("L", 1) == 0
    rig.leave("L")
    assert delete(rig) == 0
    assert rig.log[-2:] == [OffsetTombstone("g", "t", 0), GroupTombstone("g")]
    assert listed(rig) == []
    assert rig.committed() == -1


def test_deletion_that_is_refused_changes_nothing() -> None:
    rig = Rig()
    rig.commit()
    rig.hold = True
    token = rig.ask(m.DeleteGroupsRequest(("g",)))
    rig.appended(7)
    assert rig.answer(token).groups[0].error_code == 15
    assert listed(rig) == ["g"]
    assert rig.committed() == 7


@pytest.mark.parametrize("what", ["group", "offsets", "topic"])
def test_a_commit_under_way_goes_with_what_is_deleted_after_it(what: str) -> None:
    rig = Rig()
    rig.commit(offset=3)
    rig.hold = True
    commit = rig.commit(offset=7)
    match what:
        case "group":
            rig.ask(m.DeleteGroupsRequest(("g",)))
        case "offsets":
            rig.ask(m.OffsetDeleteRequest("g", (T0,)))
        case _:
            rig.feed(TopicsDeleted(("t",)))
    while rig.held:
        rig.appended(0)
    assert rig.answer(commit).partitions[0].error_code == 0
    assert rig.committed() == -1
    rig.hold = False
    rig.feed(LogReplayed(tuple(rig.log)))
    assert rig.committed() == -1, "the log says the same"


def test_a_group_whose_first_commit_is_under_way_is_not_cleaned_up() -> None:
    rig = Rig(**SOON)
    rig.join(fresh="pending", session=1_800_000)
    rig.until(SOON["offsets_retention_check_interval_ms"] - 1)
    rig.hold = True
    rig.commit(offset=7)
    rig.until(SOON["offsets_retention_check_interval_ms"])
    while rig.held:
        rig.appended(0)
    assert (listed(rig), rig.committed()) == (["g"], 7)


def test_deleted_groups_do_not_come_back_with_the_log() -> None:
    rig = Rig()
    rig.stable("L")
    rig.commit("L", 1)
    rig.leave("L")
    assert delete(rig) == 0
    rig.feed(LogReplayed(tuple(rig.log)))
    assert listed(rig) == []
    assert rig.committed() == -1


def test_offsets_of_consumed_topics_are_kept() -> None:
    rig = Rig()
    assert delete_offsets(rig, T0) == 69
    rig.stable("L", protocols=TO_U)
    rig.commit("L", 1)
    assert delete_offsets(rig, T0, TopicPartition("u", 0)) == [0, 86]
    assert rig.committed() == -1
    assert listed(rig) == ["g"]


def test_offsets_of_a_group_of_another_kind_are_kept_while_it_lives() -> None:
    rig = Rig()
    rig.stable("L", kind="connect")
    assert delete_offsets(rig, T0) == 68


# Expiry


def test_empty_group_without_offsets_goes_at_the_next_tick() -> None:
    rig = Rig(**SOON)
    rig.join(fresh="pending", session=1_800_000)
    rig.until(599_999)
    assert listed(rig) == ["g"]
    rig.until(600_000)
    assert listed(rig) == []
    assert rig.log[-1] == GroupTombstone("g")
    assert rig.code(rig.join("pending")) == 25


def test_offsets_expire_after_the_group_was_empty_for_long_enough() -> None:
    rig = Rig(**SOON)
    rig.stable("L", protocols=TO_T, session=1_800_000)
    rig.commit("L", 1)
    rig.until(2 * HOUR_MS // 5)
    rig.heartbeat("L")
    rig.leave("L")
    empty_ms = rig.now
    rig.until(empty_ms + HOUR_MS - 1)
    assert rig.committed() == 7
    rig.until(empty_ms + HOUR_MS + 600_000)
    assert rig.committed() == -1
    assert listed(rig) == []


@pytest.mark.parametrize(("offers", "kept"), [(TO_T, 7), (TO_U, -1), (BOTH, 7)])
def test_stable_group_loses_only_what_nobody_consumes(offers: Any, kept: int) -> None:
    rig = Rig(**SOON)
    rig.stable("L", protocols=offers, session=1_800_000)
    rig.commit("L", 1)
    for _ in range(9):
        rig.until(rig.now + 600_000)
        assert rig.heartbeat("L") == 0
    assert rig.committed() == kept
    assert listed(rig) == ["g"]


def test_request_may_say_how_long_its_offsets_last() -> None:
    rig = Rig(**SOON)
    entry = m.OffsetAndMetadata("t", 0, 7, -1, "")
    rig.ask(m.OffsetCommitRequest("g", -1, "", None, (entry,), 700_000), version=4)
    rig.until(600_000)
    assert rig.committed() == 7
    rig.until(1_200_000)
    assert rig.committed() == -1


def test_deleted_topics_take_their_offsets_with_them() -> None:
    rig = Rig()
    rig.commit()
    rig.feed(TopicsDeleted(("other",)))
    assert rig.committed() == 7
    rig.feed(TopicsDeleted(("t",)))
    assert rig.committed() == -1
    assert rig.log[-1] == OffsetTombstone("g", "t", 0)
