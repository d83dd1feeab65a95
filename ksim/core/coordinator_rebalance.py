"""Rebalances: how a join phase begins and ends, and what the timers do.

Source: Kafka `GroupMetadataManager`, the methods that work on a `ClassicGroup`.
"""

from __future__ import annotations

from ksim.core.coordinator_expiry import clean_up
from ksim.core.coordinator_shard import (
    CLEANUP,
    JOIN,
    SESSION,
    SYNC,
    Shard,
    append_error,
    check_group,
    sync_error,
)
from ksim.core.coordinator_state import (
    AssignmentStore,
    ClassicGroup,
    ClassicMember,
    Difference,
    EmptyGeneration,
    GroupState,
)
from ksim.core.errors import KafkaError
from ksim.core.messages import JoinGroupResponse, SyncGroupResponse
from ksim.core.subscription import PROTOCOL_TYPE, MalformedProtocolError, decode_subscription


def rebalance_or_complete(shard: Shard, group: ClassicGroup, reason: str) -> None:
    """Begin a rebalance where one can begin; otherwise see whether the join phase is over."""
    if group.state == GroupState.PREPARING_REBALANCE:
        maybe_complete_join(shard, group)
    else:
        prepare_rebalance(shard, group, reason)


def prepare_rebalance(shard: Shard, group: ClassicGroup, reason: str) -> None:
    if group.state == GroupState.COMPLETING_REBALANCE:
        drop_assignments(shard, group, KafkaError.REBALANCE_IN_PROGRESS)
    group.pending_syncs.clear()
    shard.timers.cancel((SYNC, group.group_id))
    initial = group.state == GroupState.EMPTY
    shard.change_state(group, GroupState.PREPARING_REBALANCE, reason)
    if initial:
        delay_ms = shard.state.config.initial_rebalance_delay_ms
        _arm_initial(shard, group, delay_ms, max(group.rebalance_timeout_ms - delay_ms, 0))
    elif group.all_joined:
        complete_join(shard, group, reason)
    else:
        _arm_rebalance(shard, group)


def maybe_complete_join(shard: Shard, group: ClassicGroup) -> None:
    """The initial delay is not cut short by members that join or leave."""
    if group.all_joined and group.previous_state != GroupState.EMPTY:
        complete_join(shard, group, "all members joined")


def _arm_initial(shard: Shard, group: ClassicGroup, delay_ms: int, remaining_ms: int) -> None:
    group.initial_window = (delay_ms, remaining_ms)
    shard.arm_group(JOIN, group, delay_ms)


def _arm_rebalance(shard: Shard, group: ClassicGroup) -> None:
    group.initial_window = None
    shard.arm_group(JOIN, group, group.rebalance_timeout_ms)


def _initial_delay_over(
    shard: Shard, group: ClassicGroup, delay_ms: int, remaining_ms: int
) -> None:
    """Wait again if members came during the window, never past the first rebalance timeout."""
    if group.new_member_added and remaining_ms != 0:
        group.new_member_added = False
        longest_ms = shard.state.config.initial_rebalance_delay_ms
        _arm_initial(shard, group, min(longest_ms, remaining_ms), max(remaining_ms - delay_ms, 0))
    else:
        complete_join(shard, group, "initial rebalance delay over")


def complete_join(shard: Shard, group: ClassicGroup, reason: str) -> None:
    """End the join phase with whoever waits; static members stay even when they do not."""
    shard.timers.cancel((JOIN, group.group_id))
    absent = [
        member.member_id
        for member in group.members.values()
        if member.join_token is None and member.group_instance_id is None
    ]
    for member_id in absent:
        shard.remove_member(group, member_id)
    if group.members and not _elect_joined_leader(shard, group):
        _arm_rebalance(shard, group)
        return
    group.initial_window = None
    group.generation_id += 1
    group.pending_syncs.clear()
    if group.members:
        _begin_sync_phase(shard, group, reason)
    else:
        group.protocol_name = None
        group.subscribed = ()
        shard.change_state(group, GroupState.EMPTY, reason)
        shard.append((shard.group_record(group),), EmptyGeneration(group.group_id))


def _elect_joined_leader(shard: Shard, group: ClassicGroup) -> bool:
    assert group.leader is not None
    if group.members[group.leader].join_token is not None:
        return True
    waiting = [member.member_id for member in group.awaiting_members()]
    if waiting:
        group.leader = shard.choose(waiting)
    return bool(waiting)


def _begin_sync_phase(shard: Shard, group: ClassicGroup, reason: str) -> None:
    group.protocol_name = shard.select_protocol(group)
    group.subscribed = subscribed_topics(group)
    shard.change_state(group, GroupState.COMPLETING_REBALANCE, reason)
    for member in group.members.values():
        shard.answer_join(group, member, join_success(shard, group, member, group.leader or ""))
        shard.arm_session(group, member)
        member.is_new = False
        group.pending_syncs[member.member_id] = True
    shard.arm_group(SYNC, group, group.rebalance_timeout_ms)


def subscribed_topics(group: ClassicGroup) -> tuple[str, ...] | None:
    """The topics of all members, sorted; None where the broker cannot read them.

    Source: Kafka `ClassicGroup.computeSubscribedTopics`.
    """
    if group.protocol_type != PROTOCOL_TYPE or group.protocol_name is None:
        return None
    topics: set[str] = set()
    for member in group.members.values():
        try:
            found = decode_subscription("", None, member.metadata(group.protocol_name))
        except MalformedProtocolError:
            return None
        topics.update(found.topics)
    return tuple(sorted(topics))


def join_success(
    shard: Shard,
    group: ClassicGroup,
    member: ClassicMember,
    leader: str,
    *,
    skip_assignment: bool = False,
) -> JoinGroupResponse:
    """The current generation, as told to one member; the list goes to the leader alone."""
    leads = leader == member.member_id
    return JoinGroupResponse(
        error_code=KafkaError.NONE,
        generation_id=group.generation_id,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=leader,
        member_id=member.member_id,
        members=shard.joined_members(group) if leads else (),
        skip_assignment=skip_assignment,
    )


def sync_success(group: ClassicGroup, member: ClassicMember) -> SyncGroupResponse:
    return SyncGroupResponse(
        error_code=KafkaError.NONE,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        assignment=member.assignment,
    )


def drop_assignments(shard: Shard, group: ClassicGroup, error_code: int) -> None:
    """Nobody has an assignment; who waits for one gets the error and a fresh session."""
    for member in group.members.values():
        member.assignment = b""
        if shard.answer_sync(member, sync_error(error_code)):
            shard.arm_session(group, member)


def assignment_stored(shard: Shard, store: AssignmentStore, error_code: int) -> None:
    """The leader's assignment is in the log, or is not; stale ones count for nothing."""
    group = shard.state.groups.get(store.group_id)
    if (
        group is None
        or group.state != GroupState.COMPLETING_REBALANCE
        or group.generation_id != store.generation_id
    ):
        return
    if error_code != KafkaError.NONE:
        drop_assignments(shard, group, append_error(error_code))
        prepare_rebalance(shard, group, f"append error {error_code} when storing the assignment")
        return
    assignments = dict(store.assignments)
    shard.change_state(group, GroupState.STABLE, "assignment stored")
    for member in group.members.values():
        member.assignment = assignments.get(member.member_id, b"")
        if shard.answer_sync(member, sync_success(group, member)):
            shard.arm_session(group, member)


# Timers


def fire_timers(shard: Shard) -> None:
    """All that are due, the earliest first, sessions before others of the same deadline."""
    while (key := shard.timers.pop_due(shard.now_ms)) is not None:
        if key == CLEANUP:
            clean_up(shard)
            continue
        kind, group_id = key[0], key[1]
        group = shard.state.groups.get(group_id)
        assert group is not None, f"timer {key} outlived its group"
        if kind == SESSION:
            _session_over(shard, group, key[2])
        elif kind == SYNC:
            _sync_over(shard, group)
        elif group.initial_window is not None:
            _initial_delay_over(shard, group, *group.initial_window)
        else:
            complete_join(shard, group, "rebalance timeout")
        check_group(group)


def _session_over(shard: Shard, group: ClassicGroup, member_id: str) -> None:
    if member_id in group.pending_joins:
        shard.remove_member(group, member_id)
        _complete_early(shard, group)
        return
    member = group.members.get(member_id)
    if member is None:
        return
    waits = member.join_token is not None or member.sync_token is not None
    if waits and not member.is_new:
        return
    shard.remove_member(group, member_id)
    if group.state == GroupState.PREPARING_REBALANCE:
        _complete_early(shard, group)
    else:
        prepare_rebalance(shard, group, f"session of {member_id} expired")


def _complete_early(shard: Shard, group: ClassicGroup) -> None:
    """Expiry, unlike joins and leaves, does not respect the initial delay."""
    if group.state != GroupState.PREPARING_REBALANCE or not group.all_joined:
        return
    delayed = group.initial_window is not None
    if not delayed or not shard.differs(Difference.EXPIRY_WAITS_FOR_DELAY):
        complete_join(shard, group, "all remaining members joined")


def _sync_over(shard: Shard, group: ClassicGroup) -> None:
    if not group.pending_syncs:
        return
    late = list(group.pending_syncs)
    for member_id in late:
        shard.remove_member(group, member_id)
    prepare_rebalance(shard, group, f"no SyncGroup in time from {', '.join(late)}")
