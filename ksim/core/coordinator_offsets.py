"""OffsetCommit, OffsetFetch and OffsetDelete: sections 3.6 to 3.8 of the classic protocol.

Source: Kafka `OffsetMetadataManager`.
"""

from __future__ import annotations

from typing import Final

from ksim.core.coordinator_expiry import forget, known_offsets
from ksim.core.coordinator_requests import generation_error
from ksim.core.coordinator_shard import Shard, append_error, refusal
from ksim.core.coordinator_state import ClassicGroup, Difference, GroupState, OffsetStore
from ksim.core.errors import KafkaError
from ksim.core.events import OffsetRecord, RequestArrived
from ksim.core.messages import (
    CommittedOffset,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
)
from ksim.core.subscription import PROTOCOL_TYPE
from ksim.core.values import TopicPartition

GROUP_NOT_FOUND_SINCE: Final = 9

# OffsetCommit


def offset_commit(shard: Shard, fact: RequestArrived, request: OffsetCommitRequest) -> None:
    token = fact.token
    if not request.offsets:
        shard.respond(token, OffsetCommitResponse(partitions=()))
        return
    error_code = _commit_error(shard, request, fact.api_version)
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
    records, answers = _split(shard, request)
    if not records:
        shard.respond(token, OffsetCommitResponse(answers))
        return
    append_id = shard.append(records, OffsetStore(request.group_id, token, records, answers))
    if created:
        group.created_by = append_id


def _commit_error(shard: Shard, request: OffsetCommitRequest, api_version: int) -> int:
    if error_code := refusal(shard):
        return error_code
    group = shard.state.groups.get(request.group_id)
    if group is None:
        if request.generation_id < 0:
            return KafkaError.NONE
        if api_version >= GROUP_NOT_FOUND_SINCE and not shard.differs(
            Difference.COMMIT_TO_UNKNOWN_GROUP
        ):
            return KafkaError.GROUP_ID_NOT_FOUND
        return KafkaError.ILLEGAL_GENERATION
    if group.state == GroupState.EMPTY and request.generation_id < 0:
        return KafkaError.NONE
    error_code = generation_error(
        group, request.member_id, request.group_instance_id, request.generation_id
    )
    if error_code == KafkaError.NONE and group.state == GroupState.COMPLETING_REBALANCE:
        return KafkaError.REBALANCE_IN_PROGRESS
    return error_code


def _everywhere(request: OffsetCommitRequest, error_code: int) -> tuple[PartitionError, ...]:
    return tuple(
        PartitionError(entry.topic, entry.partition, error_code) for entry in request.offsets
    )


def _split(
    shard: Shard, request: OffsetCommitRequest
) -> tuple[tuple[OffsetRecord, ...], tuple[PartitionError, ...]]:
    """What is written, and the answers: metadata is measured in UTF-16 units."""
    metadata_max = shard.state.config.offset_metadata_max
    retention_ms = request.retention_time_ms
    expire_ms = -1 if retention_ms < 0 else shard.now_ms + retention_ms
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
                    commit_timestamp_ms=shard.now_ms,
                    expire_timestamp_ms=expire_ms,
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
    if error_code := refusal(shard):
        return OffsetFetchResponse(error_code=error_code, partitions=())
    offsets = shard.state.offsets.get(request.group_id, {})
    asked = sorted(offsets) if request.partitions is None else request.partitions
    return OffsetFetchResponse(
        error_code=KafkaError.NONE,
        partitions=tuple(_committed(tp, offsets.get(tp)) for tp in asked),
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


# OffsetDelete


def offset_delete(shard: Shard, token: int, request: OffsetDeleteRequest) -> None:
    """Forget offsets of an empty group, or of topics that no member of a group consumes."""
    error_code = _delete_error(shard, request.group_id)
    if error_code != KafkaError.NONE:
        shard.respond(token, OffsetDeleteResponse(error_code, ()))
        return
    group = shard.state.groups[request.group_id]
    offsets = known_offsets(shard, request.group_id)
    answers: list[PartitionError] = []
    gone: list[OffsetRecord] = []
    for tp in request.partitions:
        consumed = _is_consumed(group, tp.topic)
        refused = KafkaError.GROUP_SUBSCRIBED_TO_TOPIC if consumed else KafkaError.NONE
        answers.append(PartitionError(tp.topic, tp.partition, refused))
        if not consumed and tp in offsets:
            gone.append(offsets[tp])
    response = OffsetDeleteResponse(KafkaError.NONE, tuple(answers))
    emptied = group.state == GroupState.EMPTY and len(gone) == len(offsets)
    group_too = emptied and shard.differs(Difference.LAST_OFFSET_TAKES_GROUP)
    forget(shard, group, token, response, tuple(gone), group_too=group_too)


def _is_consumed(group: ClassicGroup, topic: str) -> bool:
    """A consumer group whose subscriptions cannot be read may consume anything."""
    if group.subscribed is None:
        return group.protocol_type == PROTOCOL_TYPE
    return topic in group.subscribed


def _delete_error(shard: Shard, group_id: str) -> int:
    if not group_id:
        return KafkaError.INVALID_GROUP_ID
    if error_code := refusal(shard):
        return error_code
    group = shard.state.groups.get(group_id)
    if group is None:
        return KafkaError.GROUP_ID_NOT_FOUND
    if group.state != GroupState.EMPTY and group.protocol_type != PROTOCOL_TYPE:
        return KafkaError.NON_EMPTY_GROUP
    return KafkaError.NONE
