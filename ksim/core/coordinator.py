"""The classic group coordinator of one partition of `__consumer_offsets`, as Kafka 4.x answers.

It answers JoinGroup 2 to 9, SyncGroup 1 to 5, Heartbeat 1 to 4, LeaveGroup 1 to 5, OffsetCommit 2
to 9, OffsetFetch 1 to 9, OffsetDelete, DescribeGroups, ListGroups and DeleteGroups; the version of
a request is in its fact. Ledger of what differs from Apache Kafka:

- A parked SyncGroup of a member that is removed is answered 25; Kafka never answers it.
- Choices that follow Kafka's hash order of member ids (a new leader, the order of the member list)
  are drawn from the seed. Ties of protocol votes follow Java's HashMap exactly.
- No commit timeout of 5 s: the driver answers every AppendRecords, with an error if need be.
- Offsets are never unstable (88), as there are no transactions.
- A group of which nothing is written yet, because its append is not finished or its first commit
  was refused for its metadata, is described and listed already; Kafka shows what is committed.
- Timers of one instant fire sessions first, and in the order they were armed; Kafka has none.
- DeleteGroups and expiry forget at once, and remember again if the log refuses the tombstones.
- Metadata that would crash Kafka's coordinator (a subscription that claims more topics than it
  has bytes for) is kept unread; a protocol offered twice counts once.
- A refused append undoes what that write did; Kafka undoes all writes of its batch.
- A failed creation of a group answers all who are parked in it; Kafka answers its creator alone.
- Authorization, transactions, KIP-848 groups and other group types do not exist.
- A parked join that is answered 16 when the coordinator resigns has the member id "".
- What Kafka 3.9 does otherwise is an option, `CoordinatorConfig.differences`, as far as it shows
  while a coordinator serves; its ways of loading, of refusing too large a commit (28) and of
  reading the state filters of ListGroups are not there.
"""

from __future__ import annotations

from typing import assert_never, cast

from ksim.core.coordinator_admin import delete_groups, describe_groups, list_groups
from ksim.core.coordinator_expiry import arm_cleanup, deleted, topics_deleted
from ksim.core.coordinator_join import group_created, join_group, static_replaced
from ksim.core.coordinator_offsets import (
    offset_commit,
    offset_delete,
    offset_fetch,
    offsets_stored,
    show_offset,
)
from ksim.core.coordinator_rebalance import (
    assignment_stored,
    fire_timers,
    prepare_rebalance,
    subscribed_topics,
)
from ksim.core.coordinator_requests import heartbeat, leave_group, sync_group
from ksim.core.coordinator_shard import Shard, check_group
from ksim.core.coordinator_state import (
    AssignmentStore,
    ClassicGroup,
    ClassicMember,
    CoordinatorConfig,
    CoordinatorState,
    Deletion,
    EmptyGeneration,
    GroupCreation,
    GroupState,
    OffsetStore,
    StaticReplacement,
)
from ksim.core.errors import KafkaError, MisuseError
from ksim.core.events import (
    CoordinatorFact,
    CoordinatorOrder,
    GroupRecord,
    GroupTombstone,
    LoadBegan,
    LogReplayed,
    OffsetRecord,
    OffsetTombstone,
    RecordsAppended,
    RequestArrived,
    Resigned,
    TimerFired,
    TopicsDeleted,
)
from ksim.core.messages import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    PartitionError,
    SyncGroupRequest,
)
from ksim.core.trace import Plain, plain, value_of
from ksim.core.values import TopicPartition

__all__ = ["Coordinator", "CoordinatorConfig"]


class Coordinator:
    """A machine: inactive until LogReplayed, and again after Resigned.

    `seed` decides what is chance in Kafka. Times are ms of the driver's clock, never going back.
    """

    __slots__ = ("_shard",)

    def __init__(self, config: CoordinatorConfig, seed: int) -> None:
        self._shard = Shard(CoordinatorState(config=config, seed=seed))

    @property
    def deadline_ms(self) -> int | None:
        """When it wants TimerFired at the latest; it may find then that nothing is due yet."""
        return self._shard.timers.deadline_ms

    @property
    def state(self) -> CoordinatorState:
        """To look at, never to change."""
        return self._shard.state

    def step(self, fact: CoordinatorFact, *, now_ms: int) -> list[CoordinatorOrder]:
        """What follows from the timers that are due, and then from `fact`."""
        shard = self._shard
        orders: list[CoordinatorOrder] = []
        shard.orders = orders
        shard.now_ms = now_ms
        deadline_ms = shard.timers.deadline_ms
        if deadline_ms is not None and deadline_ms <= now_ms:
            fire_timers(shard)
        match fact:
            case RequestArrived():
                _answer(shard, fact)
            case RecordsAppended():
                _appended(shard, fact)
            case LoadBegan():
                _begin_load(shard)
            case LogReplayed():
                _load(shard, fact)
            case TopicsDeleted():
                topics_deleted(shard, fact.topics)
            case Resigned():
                _resign(shard)
            case TimerFired():
                pass
            case _:
                assert_never(fact)
        return orders

    def snapshot(self) -> Plain:
        """The whole state as plain data."""
        return plain(self._shard.state)

    @classmethod
    def restore(cls, data: Plain) -> Coordinator:
        """A machine that goes on where `snapshot` was taken. Raises MalformedTraceError."""
        state = cast(CoordinatorState, value_of(data))
        found = cls(state.config, state.seed)
        found._shard = Shard(state)
        return found


def _answer(shard: Shard, fact: RequestArrived) -> None:
    request = fact.request
    match request:
        case HeartbeatRequest():
            shard.respond(fact.token, HeartbeatResponse(heartbeat(shard, request)))
        case JoinGroupRequest():
            join_group(shard, fact, request)
        case SyncGroupRequest():
            sync_group(shard, fact, request)
        case LeaveGroupRequest():
            shard.respond(fact.token, leave_group(shard, request))
        case OffsetCommitRequest():
            offset_commit(shard, fact, request)
        case OffsetFetchRequest():
            shard.respond(fact.token, offset_fetch(shard, request))
        case _:
            _administer(shard, fact)
            return
    group = shard.state.groups.get(request.group_id)
    if group is not None:
        check_group(group)


def _administer(shard: Shard, fact: RequestArrived) -> None:
    request = fact.request
    match request:
        case OffsetDeleteRequest():
            offset_delete(shard, fact.token, request)
        case DescribeGroupsRequest():
            shard.respond(fact.token, describe_groups(shard, fact, request))
        case ListGroupsRequest():
            shard.respond(fact.token, list_groups(shard, request))
        case DeleteGroupsRequest():
            delete_groups(shard, fact.token, request)
        case _:
            raise MisuseError(f"{type(request).__name__} is not for a group coordinator")


def _appended(shard: Shard, fact: RecordsAppended) -> None:
    """Go on where the write was ordered; a write of an earlier term is nobody's business."""
    continuation = shard.state.writes.pop(fact.append_id, None)
    if continuation is None:
        return
    match continuation:
        case AssignmentStore():
            assignment_stored(shard, continuation, fact.error_code)
        case OffsetStore():
            offsets_stored(shard, fact.append_id, continuation, fact.error_code)
        case StaticReplacement():
            static_replaced(shard, continuation, fact.error_code)
        case GroupCreation():
            group_created(shard, fact.append_id, continuation.group_id, fact.error_code)
        case Deletion():
            deleted(shard, continuation, fact.error_code)
        case EmptyGeneration():
            pass
        case _:
            assert_never(continuation)
    group = shard.state.groups.get(continuation.group_id)
    if group is not None:
        check_group(group)


def _resign(shard: Shard) -> None:
    """Answer all who wait with NOT_COORDINATOR and hold nothing any more."""
    told = KafkaError.NOT_COORDINATOR
    for group in list(shard.state.groups.values()):
        shard.forget_group(group, told, "resigned")
    for continuation in shard.state.writes.values():
        if isinstance(continuation, OffsetStore):
            answers = tuple(
                PartitionError(a.topic, a.partition, told) for a in continuation.answers
            )
            shard.respond(continuation.token, OffsetCommitResponse(answers))
        elif isinstance(continuation, Deletion):
            deleted(shard, continuation, KafkaError.NOT_LEADER_OR_FOLLOWER)
    shard.state.writes.clear()
    shard.state.offsets.clear()
    shard.state.groups.clear()
    shard.timers.clear()
    shard.state.active = False
    shard.state.loading = False


def _begin_load(shard: Shard) -> None:
    if shard.state.active:
        _resign(shard)
    shard.state.loading = True


def _load(shard: Shard, fact: LogReplayed) -> None:
    """Become coordinator: the last entry of each key wins, every member has a fresh session."""
    if shard.state.active:
        _resign(shard)
    shard.state.active = True
    shard.state.loading = False
    arm_cleanup(shard)
    groups = shard.state.groups
    for entry in fact.entries:
        match entry:
            case GroupRecord():
                groups[entry.group_id] = _loaded_group(shard, entry)
            case OffsetRecord():
                groups.setdefault(entry.group_id, ClassicGroup(entry.group_id))
                show_offset(shard, entry)
            case GroupTombstone():
                groups.pop(entry.group_id, None)
            case OffsetTombstone():
                offsets = shard.state.offsets.get(entry.group_id, {})
                offsets.pop(TopicPartition(entry.topic, entry.partition), None)
            case _:
                assert_never(entry)
    for group in groups.values():
        for member in group.members.values():
            shard.arm_session(group, member)
        if len(group.members) > shard.state.config.group_max_size:
            prepare_rebalance(shard, group, "more members than the group may have")
        check_group(group)


def _loaded_group(shard: Shard, record: GroupRecord) -> ClassicGroup:
    group = ClassicGroup(
        group_id=record.group_id,
        generation_id=record.generation_id,
        protocol_type=record.protocol_type or None,
        protocol_name=record.protocol_name,
        leader=record.leader if record.members else None,
        state_timestamp_ms=record.state_timestamp_ms,
        subscribed=None if record.members else (),
    )
    if not record.members:
        return group
    group.state = GroupState.STABLE
    for stored in record.members:
        member = ClassicMember(
            member_id=stored.member_id,
            group_instance_id=stored.group_instance_id,
            client_id=stored.client_id,
            client_host=stored.client_host,
            session_timeout_ms=stored.session_timeout_ms,
            rebalance_timeout_ms=stored.rebalance_timeout_ms,
            protocols=((record.protocol_name or "", stored.subscription),),
            assignment=stored.assignment,
        )
        shard.add_member(group, member, record.protocol_type)
    group.subscribed = subscribed_topics(group)
    return group
