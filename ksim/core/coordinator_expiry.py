"""What is forgotten, and when: offsets that are too old, groups that hold nothing, and deletions.

Source: Kafka `OffsetMetadataManager.cleanupExpiredOffsets`, `OffsetExpirationConditionImpl`,
`GroupMetadataManager.cleanupGroup`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ksim.core.coordinator_shard import CLEANUP, Shard, append_error
from ksim.core.coordinator_state import ClassicGroup, Deletion, GroupState, OffsetStore
from ksim.core.errors import KafkaError
from ksim.core.events import GroupRecord, GroupTombstone, LogEntry, OffsetRecord, OffsetTombstone
from ksim.core.messages import (
    DeletedGroup,
    DeleteGroupsResponse,
    OffsetDeleteResponse,
    PartitionError,
)
from ksim.core.subscription import PROTOCOL_TYPE
from ksim.core.values import TopicPartition

_CLEANUP_RANK: Final = 2


def arm_cleanup(shard: Shard) -> None:
    after_ms = shard.state.config.offsets_retention_check_interval_ms
    shard.timers.arm(CLEANUP, shard.now_ms + after_ms, _CLEANUP_RANK)


def clean_up(shard: Shard) -> None:
    """One tick: every group loses its expired offsets, and goes if it is empty without any."""
    for group_id in sorted(shard.state.groups):
        group = shard.state.groups[group_id]
        offsets = known_offsets(shard, group_id)
        gone = tuple(offsets[tp] for tp in sorted(offsets) if _expired(shard, group, offsets[tp]))
        group_too = group.state == GroupState.EMPTY and len(gone) == len(offsets)
        if gone or group_too:
            forget(shard, group, None, None, gone, group_too=group_too)
    arm_cleanup(shard)


def _expired(shard: Shard, group: ClassicGroup, record: OffsetRecord) -> bool:
    base_ms = _expiry_base_ms(group, record)
    if base_ms is None:
        return False
    if record.expire_timestamp_ms >= 0:
        return shard.now_ms >= record.expire_timestamp_ms
    return shard.now_ms - base_ms >= shard.state.config.offsets_retention_ms


def _expiry_base_ms(group: ClassicGroup, record: OffsetRecord) -> int | None:
    """Since when the retention runs; None while the offset is in use."""
    if group.protocol_type is None:
        return record.commit_timestamp_ms
    if group.state == GroupState.EMPTY:
        known = group.state_timestamp_ms >= 0
        return group.state_timestamp_ms if known else record.commit_timestamp_ms
    if group.state != GroupState.STABLE or group.protocol_type != PROTOCOL_TYPE:
        return None
    unused = group.subscribed is not None and record.topic not in group.subscribed
    return record.commit_timestamp_ms if unused else None


def topics_deleted(shard: Shard, topics: tuple[str, ...]) -> None:
    """The offsets of topics that are no more go at once."""
    for group_id in sorted(shard.state.groups):
        offsets = known_offsets(shard, group_id)
        gone = tuple(offsets[tp] for tp in sorted(offsets) if tp.topic in topics)
        if gone:
            forget(shard, shard.state.groups[group_id], None, None, gone, group_too=False)


def delete_group(shard: Shard, token: int, group: ClassicGroup) -> None:
    """An empty group with all that it has committed."""
    assert group.state == GroupState.EMPTY, group.state
    offsets = known_offsets(shard, group.group_id)
    answer = DeleteGroupsResponse((DeletedGroup(group.group_id, KafkaError.NONE),))
    gone = tuple(offsets[tp] for tp in sorted(offsets))
    forget(shard, group, token, answer, gone, group_too=True)


def forget(
    shard: Shard,
    group: ClassicGroup,
    token: int | None,
    answer: OffsetDeleteResponse | DeleteGroupsResponse | None,
    gone: tuple[OffsetRecord, ...],
    *,
    group_too: bool,
) -> None:
    """Forget now, write tombstones, answer when they are written."""
    entries: list[LogEntry] = [OffsetTombstone(r.group_id, r.topic, r.partition) for r in gone]
    for record in gone:
        offsets = shard.state.offsets.get(record.group_id, {})
        offsets.pop(TopicPartition(record.topic, record.partition), None)
    _hide(shard, group.group_id, gone)
    if not shard.state.offsets.get(group.group_id, True):
        del shard.state.offsets[group.group_id]
    kept: GroupRecord | None = None
    if group_too:
        kept = shard.group_record(group)
        entries.append(GroupTombstone(group.group_id))
        shard.forget_group(group, KafkaError.UNKNOWN_MEMBER_ID, "removed")
    if entries:
        shard.append(tuple(entries), Deletion(group.group_id, token, answer, kept, gone))
    elif token is not None and answer is not None:
        shard.respond(token, answer)


def known_offsets(shard: Shard, group_id: str) -> dict[TopicPartition, OffsetRecord]:
    """What is committed, and what will be when the writes that are under way are stored.

    Whatever is written from now on stands behind those in the log, and is true of them too.
    """
    found = dict(shard.state.offsets.get(group_id, {}))
    for write in shard.state.writes.values():
        if isinstance(write, OffsetStore) and write.group_id == group_id:
            found |= {TopicPartition(each.topic, each.partition): each for each in write.records}
    return found


def _hide(shard: Shard, group_id: str, gone: tuple[OffsetRecord, ...]) -> None:
    """A commit that is under way is answered as ever, but what is deleted behind it never shows."""
    partitions = {(each.topic, each.partition) for each in gone}
    for append_id, write in shard.state.writes.items():
        if isinstance(write, OffsetStore) and write.group_id == group_id:
            kept = tuple(r for r in write.records if (r.topic, r.partition) not in partitions)
            shard.state.writes[append_id] = replace(write, records=kept)


def deleted(shard: Shard, done: Deletion, error_code: int) -> None:
    """The tombstones are in the log; or they were refused, and what they void is still there."""
    answer = done.answer
    if error_code != KafkaError.NONE:
        if done.group is not None and done.group_id not in shard.state.groups:
            shard.state.groups[done.group_id] = ClassicGroup(
                group_id=done.group_id,
                generation_id=done.group.generation_id,
                protocol_type=done.group.protocol_type or None,
                state_timestamp_ms=done.group.state_timestamp_ms,
            )
        for record in done.offsets:
            kept = shard.state.offsets.setdefault(record.group_id, {})
            kept.setdefault(TopicPartition(record.topic, record.partition), record)
        answer = _refused(done, append_error(error_code))
    if done.token is not None and answer is not None:
        shard.respond(done.token, answer)


def _refused(done: Deletion, told: int) -> OffsetDeleteResponse | DeleteGroupsResponse | None:
    match done.answer:
        case DeleteGroupsResponse():
            return DeleteGroupsResponse((DeletedGroup(done.group_id, told),))
        case OffsetDeleteResponse(partitions=partitions):
            return OffsetDeleteResponse(
                told, tuple(PartitionError(each.topic, each.partition, told) for each in partitions)
            )
        case None:
            return None
