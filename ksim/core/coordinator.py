"""The classic group coordinator of one partition of the offsets topic, sans IO.

Source: Kafka GroupMetadataManager (4.x), as facts in protocol.md 1-7.

Ledger of deviations:
- JoinGroupResponse has no skip-assignment: a static leader that comes back into a Stable group is
  told the leader's id of before, as Kafka does for versions 5 to 8.
- Offsets never expire; there is no describe, list or delete yet, and no transaction.
- Where Kafka follows the hash order of random member ids, a seeded draw decides.
- Pending writes are not visible to anything, so a state change that waits for an append is judged
  again when the append is done.
"""

from __future__ import annotations

from typing import Final, assert_never

from ksim.core import joins, rebalance
from ksim.core.coordinator_state import (
    NO_TOKEN,
    CommitContinues,
    CoordinatorConfig,
    CoordinatorState,
    Desk,
    Group,
    GroupMember,
    GroupState,
    NothingContinues,
    ReplacementContinues,
    SyncContinues,
)
from ksim.core.errors import KafkaError
from ksim.core.events import (
    CoordinatorFact,
    CoordinatorOrder,
    GroupRecord,
    LogReplayed,
    OffsetRecord,
    RecordsAppended,
    RequestArrived,
    Resigned,
    TimerFired,
)
from ksim.core.messages import (
    CommittedOffset,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    LeaveGroupRequest,
    LeaveGroupResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
    SyncGroupRequest,
    SyncGroupResponse,
)
from ksim.core.trace import Plain, plain, value_of
from ksim.core.values import TopicPartition

__all__ = ["Coordinator", "CoordinatorConfig"]

APPEND_ERRORS: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PARTITION: KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT: KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_OR_FOLLOWER: KafkaError.NOT_COORDINATOR,
    KafkaError.KAFKA_STORAGE_ERROR: KafkaError.NOT_COORDINATOR,
}
NO_METADATA: Final = -1


class Coordinator:
    """Feed it through a `Session`; it answers by tokens and writes by AppendRecords.

    It refuses everything with NOT_COORDINATOR until LogReplayed, and again after Resigned.
    """

    __slots__ = ("deadline_ms", "state")

    def __init__(self, config: CoordinatorConfig, seed: int) -> None:
        self.state = CoordinatorState(config, seed)
        self.deadline_ms: int | None = None

    def step(self, fact: CoordinatorFact, *, now_ms: int) -> list[CoordinatorOrder]:
        """Take one fact at `now_ms`."""
        desk = Desk(self.state, now_ms)
        if self.deadline_ms is not None and self.deadline_ms <= now_ms:
            _fire_overdue(desk)
        match fact:
            case RequestArrived():
                _on_request(desk, fact)
            case RecordsAppended():
                _on_appended(desk, fact)
            case LogReplayed():
                _on_replayed(desk, fact)
            case Resigned():
                _on_resigned(desk)
            case TimerFired():
                pass
            case _:
                assert_never(fact)
        self.deadline_ms = self.state.timers.deadline_ms
        return desk.orders

    def snapshot(self) -> Plain:
        """The whole state as plain data."""
        return plain(self.state)

    @classmethod
    def restore(cls, data: Plain) -> Coordinator:
        """The coordinator that `snapshot` was taken of."""
        state = value_of(data)
        assert isinstance(state, CoordinatorState), f"not a coordinator: {type(state).__name__}"
        coordinator = cls(state.config, state.seed)
        coordinator.state = state
        coordinator.deadline_ms = state.timers.deadline_ms
        return coordinator


def _fire_overdue(desk: Desk) -> None:
    while (key := desk.state.timers.pop_due(desk.now_ms)) is not None:
        group = desk.state.groups.get(key[1])
        if group is None:
            continue
        match key[0]:
            case "session":
                rebalance.expire_session(desk, group, key[2])
            case "join":
                rebalance.expire_join(desk, group)
            case _:
                rebalance.expire_sync(desk, group)
        _check(group)


def _check(group: Group) -> None:
    """What holds between any two steps."""
    name = group.group_id
    if group.state in (GroupState.COMPLETING_REBALANCE, GroupState.STABLE):
        assert group.members, f"{name}: {group.state} without members"
        assert group.leader in group.members, f"{name}: leader {group.leader} is no member"
        assert not any(m.awaits_join for m in group.members.values()), f"{name}: parked joins"
    if group.state == GroupState.EMPTY:
        assert not group.members, f"{name}: Empty with {list(group.members)}"


# Requests


def _on_request(desk: Desk, fact: RequestArrived) -> None:
    request = fact.request
    match request:
        case HeartbeatRequest():
            _on_heartbeat(desk, fact.token, request)
            return
        case JoinGroupRequest():
            joins.on_join(desk, fact, request)
        case SyncGroupRequest():
            _on_sync(desk, fact.token, request)
        case LeaveGroupRequest():
            _on_leave(desk, fact.token, request)
        case OffsetCommitRequest():
            _on_commit(desk, fact.token, request)
            return
        case OffsetFetchRequest():
            _on_fetch(desk, fact.token, request)
            return
        case _:
            raise AssertionError(f"{type(request).__name__} is not for a coordinator")
    group = desk.state.groups.get(request.group_id)
    if group is not None:
        _check(group)


def _outer(desk: Desk, group_id: str) -> int:
    """What is refused before the group is looked at."""
    if not group_id:
        return KafkaError.INVALID_GROUP_ID
    return 0 if desk.state.active else KafkaError.NOT_COORDINATOR


def _identify(
    group: Group, member_id: str, instance_id: str | None
) -> tuple[GroupMember | None, int]:
    """The member that speaks, or the error that it is told."""
    if instance_id is not None:
        mapped = group.static.get(instance_id)
        if mapped is None:
            return None, KafkaError.UNKNOWN_MEMBER_ID
        if mapped != member_id:
            return None, KafkaError.FENCED_INSTANCE_ID
    member = group.members.get(member_id)
    return member, 0 if member is not None else KafkaError.UNKNOWN_MEMBER_ID


def _on_heartbeat(desk: Desk, token: int, request: HeartbeatRequest) -> None:
    error_code = _outer(desk, request.group_id)
    group = desk.state.groups.get(request.group_id)
    if not error_code and group is None:
        error_code = KafkaError.UNKNOWN_MEMBER_ID
    if not error_code and group is not None:
        member, error_code = _identify(group, request.member_id, request.group_instance_id)
        if member is not None and request.generation_id != group.generation_id:
            error_code = KafkaError.ILLEGAL_GENERATION
        elif member is not None:
            desk.arm_session(group, member)
            if group.state == GroupState.PREPARING_REBALANCE:
                error_code = KafkaError.REBALANCE_IN_PROGRESS
    desk.answer(token, HeartbeatResponse(error_code))


def _on_sync(desk: Desk, token: int, request: SyncGroupRequest) -> None:
    error_code = _outer(desk, request.group_id)
    if request.protocol_type is None or request.protocol_name is None:
        error_code = KafkaError.INCONSISTENT_GROUP_PROTOCOL
    group = desk.state.groups.get(request.group_id)
    if error_code or group is None:
        rebalance.refuse_sync(desk, token, error_code or KafkaError.UNKNOWN_MEMBER_ID)
        return
    member, error_code = _identify(group, request.member_id, request.group_instance_id)
    if member is None:
        rebalance.refuse_sync(desk, token, error_code)
        return
    if request.generation_id != group.generation_id:
        error_code = KafkaError.ILLEGAL_GENERATION
    elif (request.protocol_type, request.protocol_name) != (
        group.protocol_type,
        group.protocol_name,
    ):
        error_code = KafkaError.INCONSISTENT_GROUP_PROTOCOL
    elif group.state == GroupState.PREPARING_REBALANCE:
        error_code = KafkaError.REBALANCE_IN_PROGRESS
    if error_code:
        rebalance.refuse_sync(desk, token, error_code)
        return
    _leave_pending_sync(desk, group, member.member_id)
    if group.state == GroupState.STABLE:
        _answer_sync(desk, group, member, token)
        return
    member.sync_token = token
    if member.member_id == group.leader:
        shares = dict(request.assignments)
        known = tuple((name, shares.get(name, b"")) for name in group.members)
        desk.append(
            (group.record(dict(known)),),
            SyncContinues(group.group_id, group.generation_id, known),
        )


def _leave_pending_sync(desk: Desk, group: Group, member_id: str) -> None:
    group.pending_sync.pop(member_id, None)
    if not group.pending_sync:
        desk.state.timers.cancel(("sync", group.group_id))


def _answer_sync(desk: Desk, group: Group, member: GroupMember, token: int) -> None:
    response = SyncGroupResponse(0, group.protocol_type, group.protocol_name, member.assignment)
    desk.answer(token, response)


def _on_leave(desk: Desk, token: int, request: LeaveGroupRequest) -> None:
    error_code = _outer(desk, request.group_id)
    group = desk.state.groups.get(request.group_id)
    if error_code or group is None:
        desk.answer(token, LeaveGroupResponse(error_code or KafkaError.UNKNOWN_MEMBER_ID))
        return
    member_id = request.member_id
    if group.pending.pop(member_id, None):
        desk.cancel_session(group, member_id)
        desk.answer(token, LeaveGroupResponse(0))
        rebalance.maybe_complete(desk, group)
        return
    if not member_id and request.group_instance_id is not None:
        member_id = group.static.get(request.group_instance_id, "")
    member, error_code = _identify(group, member_id, request.group_instance_id)
    desk.answer(token, LeaveGroupResponse(error_code))
    if member is not None:
        rebalance.remove(desk, group, member, f"{member_id} left", leaving=True)


# Offsets


def _commit_error(desk: Desk, group: Group | None, request: OffsetCommitRequest) -> int:
    if group is None:
        return KafkaError.GROUP_ID_NOT_FOUND if request.generation_id >= 0 else 0
    if group.state == GroupState.EMPTY:
        return KafkaError.UNKNOWN_MEMBER_ID if request.generation_id >= 0 else 0
    member, error_code = _identify(group, request.member_id, request.group_instance_id)
    if member is None:
        return error_code
    if request.generation_id != group.generation_id:
        return KafkaError.ILLEGAL_GENERATION
    if group.state == GroupState.COMPLETING_REBALANCE:
        return KafkaError.REBALANCE_IN_PROGRESS
    desk.arm_session(group, member)
    return 0


def _on_commit(desk: Desk, token: int, request: OffsetCommitRequest) -> None:
    group = desk.state.groups.get(request.group_id)
    error_code = 0 if desk.state.active else int(KafkaError.NOT_COORDINATOR)
    error_code = error_code or _commit_error(desk, group, request)
    limit = desk.state.config.offset_metadata_max
    answers: list[PartitionError] = []
    entries: list[OffsetRecord] = []
    for item in request.offsets:
        too_long = len(item.metadata.encode("utf-16-le")) // 2 > limit
        code = error_code or (KafkaError.OFFSET_METADATA_TOO_LARGE if too_long else 0)
        answers.append(PartitionError(item.topic, item.partition, code))
        if not code:
            entries.append(
                OffsetRecord(
                    request.group_id,
                    item.topic,
                    item.partition,
                    item.offset,
                    item.leader_epoch,
                    item.metadata,
                )
            )
    if entries:
        desk.append(tuple(entries), CommitContinues(token, tuple(entries), tuple(answers)))
    else:
        desk.answer(token, OffsetCommitResponse(tuple(answers)))


def _on_fetch(desk: Desk, token: int, request: OffsetFetchRequest) -> None:
    if not desk.state.active:
        desk.answer(token, OffsetFetchResponse(KafkaError.NOT_COORDINATOR, ()))
        return
    group = desk.state.groups.get(request.group_id)
    offsets = {} if group is None else group.offsets
    found: list[CommittedOffset] = []
    for tp in request.partitions:
        known = offsets.get(TopicPartition(*tp))
        if known is None:
            found.append(CommittedOffset(tp[0], tp[1], -1, -1, "", 0))
        else:
            found.append(
                CommittedOffset(tp[0], tp[1], known.offset, known.leader_epoch, known.metadata, 0)
            )
    desk.answer(token, OffsetFetchResponse(0, tuple(found)))


# The log


def _on_appended(desk: Desk, fact: RecordsAppended) -> None:
    continuation = desk.state.appends.pop(fact.append_id, None)
    error_code = APPEND_ERRORS.get(KafkaError(fact.error_code), KafkaError(fact.error_code))
    match continuation:
        case CommitContinues():
            _commit_appended(desk, continuation, error_code)
        case SyncContinues():
            _sync_appended(desk, continuation, error_code)
        case ReplacementContinues():
            joins.replacement_appended(desk, continuation, error_code)
        case NothingContinues() | None:
            pass
        case _:
            assert_never(continuation)


def _commit_appended(desk: Desk, done: CommitContinues, error_code: int) -> None:
    answers = done.answers
    if error_code:
        answers = tuple(
            PartitionError(a.topic, a.partition, a.error_code or error_code) for a in answers
        )
    else:
        for entry in done.entries:
            _learn_offset(desk, entry)
    desk.answer(done.token, OffsetCommitResponse(answers))


def _learn_offset(desk: Desk, entry: OffsetRecord) -> None:
    group = desk.state.groups.get(entry.group_id)
    if group is None:
        group = desk.state.groups[entry.group_id] = Group(entry.group_id)
    group.offsets[TopicPartition(entry.topic, entry.partition)] = entry


def _sync_appended(desk: Desk, done: SyncContinues, error_code: int) -> None:
    group = desk.state.groups.get(done.group_id)
    if group is None or group.state != GroupState.COMPLETING_REBALANCE:
        return
    if group.generation_id != done.generation_id:
        return
    waiting = [m for m in group.members.values() if m.awaits_sync]
    if error_code:
        for member in waiting:
            token, member.sync_token = member.sync_token, NO_TOKEN
            rebalance.refuse_sync(desk, token, error_code)
        rebalance.prepare(desk, group, "the assignment could not be written")
        return
    shares = dict(done.assignments)
    for member in group.members.values():
        member.assignment = shares.get(member.member_id, b"")
    desk.move(group, GroupState.STABLE, "the leader's assignment is written")
    for member in waiting:
        token, member.sync_token = member.sync_token, NO_TOKEN
        _answer_sync(desk, group, member, token)
        desk.arm_session(group, member)


def _on_replayed(desk: Desk, fact: LogReplayed) -> None:
    """Load the log: the last entry of a key counts, and everybody gets a fresh session."""
    state = desk.state
    state.active = True
    records: dict[str, GroupRecord] = {}
    for entry in fact.entries:
        if isinstance(entry, OffsetRecord):
            _learn_offset(desk, entry)
        else:
            records[entry.group_id] = entry
    for group_id, record in records.items():
        group = state.groups.setdefault(group_id, Group(group_id))
        group.generation_id = record.generation_id
        group.protocol_type = record.protocol_type
        group.protocol_name = record.protocol_name
        group.leader = record.leader
        for item in record.members:
            protocols = ((record.protocol_name or "", item.subscription),)
            member = group.members[item.member_id] = GroupMember(
                item.member_id,
                item.group_instance_id,
                item.client_id,
                item.session_timeout_ms,
                item.rebalance_timeout_ms,
                protocols,
                item.assignment,
            )
            if item.group_instance_id is not None:
                group.static[item.group_instance_id] = item.member_id
            desk.arm_session(group, member)
        if group.members:
            group.state = GroupState.STABLE


def _on_resigned(desk: Desk) -> None:
    """Another broker has the groups now: whoever waits here is sent to look for it."""
    state = desk.state
    for group in state.groups.values():
        for member in group.members.values():
            if member.awaits_join:
                rebalance.refuse_join(desk, member.join_token, KafkaError.NOT_COORDINATOR)
            if member.awaits_sync:
                rebalance.refuse_sync(desk, member.sync_token, KafkaError.NOT_COORDINATOR)
        desk.move(group, GroupState.DEAD, "another broker coordinates this group")
    for continuation in state.appends.values():
        if isinstance(continuation, CommitContinues):
            code = KafkaError.NOT_COORDINATOR
            answers = tuple(
                PartitionError(a.topic, a.partition, code) for a in continuation.answers
            )
            desk.answer(continuation.token, OffsetCommitResponse(answers))
        elif isinstance(continuation, ReplacementContinues):
            rebalance.refuse_join(desk, continuation.token, KafkaError.NOT_COORDINATOR)
    state.groups.clear()
    state.timers.clear()
    state.appends.clear()
    state.active = False
