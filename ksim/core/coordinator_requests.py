"""SyncGroup, Heartbeat, LeaveGroup and the offsets: sections 3.3 to 3.7 of the classic protocol.

Source: Kafka `GroupMetadataManager` and `OffsetMetadataManager`.
"""

from __future__ import annotations

from typing import Final

from ksim.core.coordinator_join import member_error
from ksim.core.coordinator_rebalance import rebalance_or_complete, sync_success
from ksim.core.coordinator_shard import SYNC, Shard, append_error, sync_error
from ksim.core.coordinator_state import (
    AssignmentStore,
    ClassicGroup,
    GroupState,
    OffsetStore,
)
from ksim.core.errors import KafkaError
from ksim.core.events import OffsetRecord
from ksim.core.messages import (
    CommittedOffset,
    HeartbeatRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
    SyncGroupRequest,
    SyncGroupResponse,
)
from ksim.core.values import TopicPartition

_PREPARING: Final = GroupState.PREPARING_REBALANCE
_COMPLETING: Final = GroupState.COMPLETING_REBALANCE


# SyncGroup


def sync_group(shard: Shard, token: int, request: SyncGroupRequest) -> None:
    answer = _sync_now(shard, request)
    if answer is not None:
        shard.respond(token, answer)
        return
    group = shard.state.groups[request.group_id]
    member = group.members[request.member_id]
    member.sync_token = token
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
    return sync_success(group, group.members[request.member_id])


def _sync_error_code(shard: Shard, request: SyncGroupRequest) -> int:
    if request.protocol_type is None or request.protocol_name is None:
        return KafkaError.INCONSISTENT_GROUP_PROTOCOL
    if not request.group_id:
        return KafkaError.INVALID_GROUP_ID
    if not shard.state.active:
        return KafkaError.NOT_COORDINATOR
    group = shard.state.groups.get(request.group_id)
    if group is None or group.state == GroupState.EMPTY:
        return KafkaError.UNKNOWN_MEMBER_ID
    error_code = _generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code != KafkaError.NONE:
        return error_code
    if not _same_protocol(group, request):
        return KafkaError.INCONSISTENT_GROUP_PROTOCOL
    return KafkaError.REBALANCE_IN_PROGRESS if group.state == _PREPARING else KafkaError.NONE


def _same_protocol(group: ClassicGroup, request: SyncGroupRequest) -> bool:
    """A value that the group lacks passes."""
    return (group.protocol_type is None or request.protocol_type == group.protocol_type) and (
        group.protocol_name is None or request.protocol_name == group.protocol_name
    )


def _synced(shard: Shard, group: ClassicGroup, member_id: str) -> None:
    group.pending_syncs.pop(member_id, None)
    if not group.pending_syncs:
        shard.timers.cancel((SYNC, group.group_id))


def _generation_error(
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
    if not shard.state.active:
        return KafkaError.NOT_COORDINATOR
    group = shard.state.groups.get(request.group_id)
    if group is None:
        return KafkaError.UNKNOWN_MEMBER_ID
    error_code = _generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code != KafkaError.NONE:
        return error_code
    shard.arm_session(group, group.members[request.member_id])
    return KafkaError.REBALANCE_IN_PROGRESS if group.state == _PREPARING else KafkaError.NONE


# LeaveGroup


def leave_group(shard: Shard, request: LeaveGroupRequest) -> int:
    """The error code of the one member that leaves."""
    if not request.group_id:
        return KafkaError.INVALID_GROUP_ID
    if not shard.state.active:
        return KafkaError.NOT_COORDINATOR
    group = shard.state.groups.get(request.group_id)
    if group is None:
        return KafkaError.UNKNOWN_MEMBER_ID
    leaving = request.member_id
    if not leaving and request.group_instance_id is not None:
        leaving = group.static_members.get(request.group_instance_id, "")
    if leaving not in group.pending_joins:
        error_code = member_error(group, leaving, request.group_instance_id)
        if error_code != KafkaError.NONE:
            return error_code
    shard.remove_member(group, leaving)
    if group.state != GroupState.EMPTY:
        rebalance_or_complete(shard, group, f"{leaving} left")
    return KafkaError.NONE


# OffsetCommit


def offset_commit(shard: Shard, token: int, request: OffsetCommitRequest) -> None:
    if not request.offsets:
        shard.respond(token, OffsetCommitResponse(partitions=()))
        return
    error_code = _commit_error(shard, request)
    if error_code != KafkaError.NONE:
        shard.respond(token, OffsetCommitResponse(_everywhere(request, error_code)))
        return
    state = shard.state
    group = state.groups.get(request.group_id)
    created = group is None
    if group is None:
        group = state.groups[request.group_id] = ClassicGroup(request.group_id)
    if request.member_id in group.members:
        shard.arm_session(group, group.members[request.member_id])
    records, answers = _split(request, state.config.offset_metadata_max)
    if not records:
        shard.respond(token, OffsetCommitResponse(answers))
        return
    append_id = shard.append(records, OffsetStore(request.group_id, token, records, answers))
    if created:
        group.created_by = append_id


def _commit_error(shard: Shard, request: OffsetCommitRequest) -> int:
    if not shard.state.active:
        return KafkaError.NOT_COORDINATOR
    group = shard.state.groups.get(request.group_id)
    if group is None:
        simple = request.generation_id < 0
        return KafkaError.NONE if simple else KafkaError.GROUP_ID_NOT_FOUND
    if group.state == GroupState.EMPTY and request.generation_id < 0:
        return KafkaError.NONE
    error_code = _generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code == KafkaError.NONE and group.state == _COMPLETING:
        return KafkaError.REBALANCE_IN_PROGRESS
    return error_code


def _everywhere(request: OffsetCommitRequest, error_code: int) -> tuple[PartitionError, ...]:
    return tuple(
        PartitionError(entry.topic, entry.partition, error_code) for entry in request.offsets
    )


def _split(
    request: OffsetCommitRequest, metadata_max: int
) -> tuple[tuple[OffsetRecord, ...], tuple[PartitionError, ...]]:
    """What is written, and the answers: metadata is measured in UTF-16 units."""
    records: list[OffsetRecord] = []
    answers: list[PartitionError] = []
    for entry in request.offsets:
        error_code = KafkaError.NONE
        if len(entry.metadata.encode("utf-16-le", "surrogatepass")) // 2 > metadata_max:
            error_code = KafkaError.OFFSET_METADATA_TOO_LARGE
        else:
            records.append(
                OffsetRecord(
                    group_id=request.group_id,
                    topic=entry.topic,
                    partition=entry.partition,
                    offset=entry.offset,
                    leader_epoch=entry.leader_epoch,
                    metadata=entry.metadata,
                )
            )
        answers.append(PartitionError(entry.topic, entry.partition, error_code))
    return tuple(records), tuple(answers)


def offsets_stored(shard: Shard, append_id: int, store: OffsetStore, error_code: int) -> None:
    """The commit is in the log and can be seen now, or was refused for every partition."""
    group = shard.state.groups.get(store.group_id)
    if error_code == KafkaError.NONE:
        if group is not None:
            group.created_by = None
        for record in store.records:
            show_offset(shard, record)
        shard.respond(store.token, OffsetCommitResponse(store.answers))
        return
    told = append_error(error_code)
    if group is not None and group.created_by == append_id:
        shard.forget_group(group, told, "creation was not stored")
    shard.respond(
        store.token,
        OffsetCommitResponse(
            tuple(PartitionError(each.topic, each.partition, told) for each in store.answers)
        ),
    )


def show_offset(shard: Shard, record: OffsetRecord) -> None:
    offsets = shard.state.offsets.setdefault(record.group_id, {})
    offsets[TopicPartition(record.topic, record.partition)] = record


# OffsetFetch


def offset_fetch(shard: Shard, request: OffsetFetchRequest) -> OffsetFetchResponse:
    """What is committed; a partition without a commit, or of an unknown group, is at -1."""
    if not shard.state.active:
        return OffsetFetchResponse(error_code=KafkaError.NOT_COORDINATOR, partitions=())
    offsets = shard.state.offsets.get(request.group_id, {})
    return OffsetFetchResponse(
        error_code=KafkaError.NONE,
        partitions=tuple(_committed(tp, offsets.get(tp)) for tp in request.partitions),
    )


def _committed(tp: TopicPartition, record: OffsetRecord | None) -> CommittedOffset:
    return CommittedOffset(
        topic=tp.topic,
        partition=tp.partition,
        offset=-1 if record is None else record.offset,
        leader_epoch=-1 if record is None else record.leader_epoch,
        metadata="" if record is None else record.metadata,
        error_code=KafkaError.NONE,
    )
