"""SyncGroup, Heartbeat and LeaveGroup: sections 3.3 to 3.5 of the classic protocol.

Source: Kafka `GroupMetadataManager`.
"""

from __future__ import annotations

from typing import Final

from ksim.core.coordinator_join import member_error
from ksim.core.coordinator_rebalance import rebalance_or_complete, sync_success
from ksim.core.coordinator_shard import SYNC, Shard, refusal, sync_error
from ksim.core.coordinator_state import AssignmentStore, ClassicGroup, Difference, GroupState
from ksim.core.errors import KafkaError
from ksim.core.events import RequestArrived
from ksim.core.messages import (
    HeartbeatRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

PROTOCOL_NAMES_SINCE: Final = 5
_PREPARING: Final = GroupState.PREPARING_REBALANCE


# SyncGroup


def sync_group(shard: Shard, fact: RequestArrived, request: SyncGroupRequest) -> None:
    named = request.protocol_type is not None and request.protocol_name is not None
    if not named and fact.api_version >= PROTOCOL_NAMES_SINCE:
        shard.respond(fact.token, sync_error(KafkaError.INCONSISTENT_GROUP_PROTOCOL))
        return
    answer = _sync_now(shard, request)
    if answer is not None:
        shard.respond(fact.token, answer)
        return
    group = shard.state.groups[request.group_id]
    member = group.members[request.member_id]
    member.sync_token = fact.token
    _synced(shard, group, request.member_id)
    if group.leader != request.member_id:
        return
    given = dict(request.assignments)
    assignments = {member_id: given.get(member_id, b"") for member_id in group.members}
    shard.append(
        (shard.group_record(group, assignments),),
        AssignmentStore(group.group_id, group.generation_id, tuple(assignments.items())),
    )


def _sync_now(shard: Shard, request: SyncGroupRequest) -> SyncGroupResponse | None:
    """The answer, unless the request has to wait for the leader."""
    error_code = _sync_error_code(shard, request)
    if error_code != KafkaError.NONE:
        return sync_error(error_code)
    group = shard.state.groups[request.group_id]
    if group.state != GroupState.STABLE:
        return None
    _synced(shard, group, request.member_id)
    member = group.members[request.member_id]
    if shard.differs(Difference.SYNC_EXTENDS_SESSION):
        shard.arm_session(group, member)
    return sync_success(group, member)


def _sync_error_code(shard: Shard, request: SyncGroupRequest) -> int:
    if not request.group_id:
        return KafkaError.INVALID_GROUP_ID
    if error_code := refusal(shard):
        return error_code
    group = shard.state.groups.get(request.group_id)
    if group is None or group.state == GroupState.EMPTY:
        return KafkaError.UNKNOWN_MEMBER_ID
    error_code = generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code != KafkaError.NONE:
        return error_code
    if not _same_protocol(shard, group, request):
        return KafkaError.INCONSISTENT_GROUP_PROTOCOL
    return KafkaError.REBALANCE_IN_PROGRESS if group.state == _PREPARING else KafkaError.NONE


def _same_protocol(shard: Shard, group: ClassicGroup, request: SyncGroupRequest) -> bool:
    """A value that either side lacks passes."""
    pairs = (
        (group.protocol_type, request.protocol_type),
        (group.protocol_name, request.protocol_name),
    )
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        return False
    lacking = any(known is None and given is not None for known, given in pairs)
    return not (lacking and shard.differs(Difference.SYNC_BEFORE_PROTOCOL))


def _synced(shard: Shard, group: ClassicGroup, member_id: str) -> None:
    group.pending_syncs.pop(member_id, None)
    if not group.pending_syncs:
        shard.timers.cancel((SYNC, group.group_id))


def generation_error(
    group: ClassicGroup, member_id: str, group_instance_id: str | None, generation_id: int
) -> int:
    error_code = member_error(group, member_id, group_instance_id)
    if error_code == KafkaError.NONE and generation_id != group.generation_id:
        return KafkaError.ILLEGAL_GENERATION
    return error_code


# Heartbeat


def heartbeat(shard: Shard, request: HeartbeatRequest) -> int:
    """The error code; what is answered 0 or 27 keeps the member alive."""
    if not request.group_id:
        return KafkaError.INVALID_GROUP_ID
    if shard.state.loading:
        return KafkaError.NONE
    if not shard.state.active:
        return KafkaError.NOT_COORDINATOR
    group = shard.state.groups.get(request.group_id)
    if group is None:
        return KafkaError.UNKNOWN_MEMBER_ID
    error_code = generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code != KafkaError.NONE:
        return error_code
    shard.arm_session(group, group.members[request.member_id])
    return KafkaError.REBALANCE_IN_PROGRESS if group.state == _PREPARING else KafkaError.NONE


# LeaveGroup


def leave_group(shard: Shard, request: LeaveGroupRequest) -> LeaveGroupResponse:
    """All removals first, then one transition of the group."""
    error_code = refusal(shard) if request.group_id else KafkaError.INVALID_GROUP_ID
    if error_code != KafkaError.NONE:
        return LeaveGroupResponse(error_code)
    group = shard.state.groups.get(request.group_id)
    if group is None:
        unknown = KafkaError.UNKNOWN_MEMBER_ID
        return LeaveGroupResponse(0, tuple(_left(each, unknown) for each in request.members))
    one_by_one = len(request.members) > 1 and shard.differs(Difference.LEAVES_ONE_BY_ONE)
    answers: list[MemberResponse] = []
    pending: dict[str, bool] = {}
    for who in request.members:
        was_pending = who.member_id in group.pending_joins
        answers.append(_left(who, _remove(shard, group, who)))
        if not answers[-1].error_code:
            pending[who.member_id or str(who.group_instance_id)] = was_pending
        if one_by_one:
            _after_leave(shard, group, pending)
            pending.clear()
    _after_leave(shard, group, pending)
    return LeaveGroupResponse(0, tuple(answers))


def _after_leave(shard: Shard, group: ClassicGroup, pending: dict[str, bool]) -> None:
    """What follows when these left: of each, whether it was only an id that was given out."""
    if not pending or group.state == GroupState.EMPTY:
        return
    quiet = all(pending.values()) and group.state != _PREPARING
    if not (quiet and shard.differs(Difference.PENDING_LEAVES_QUIETLY)):
        rebalance_or_complete(shard, group, f"{', '.join(pending)} left")


def _left(who: MemberIdentity, error_code: int) -> MemberResponse:
    return MemberResponse(who.member_id, who.group_instance_id, error_code)


def _remove(shard: Shard, group: ClassicGroup, who: MemberIdentity) -> int:
    """Without a member id the instance id alone is meant: an operator removes that member."""
    leaving = who.member_id
    if not leaving and who.group_instance_id is not None:
        leaving = group.static_members.get(who.group_instance_id, "")
    if leaving not in group.pending_joins:
        error_code = member_error(group, leaving, who.group_instance_id)
        if error_code != KafkaError.NONE:
            return error_code
    shard.remove_member(group, leaving)
    return KafkaError.NONE
