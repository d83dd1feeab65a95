"""The hands of the coordinator: every change of a group, and every order, is made here."""

from __future__ import annotations

from typing import Final, TypeVar

from ksim.core.coordinator_hash import draw, scala_map_order
from ksim.core.coordinator_state import (
    LEGAL_PREDECESSORS,
    ClassicGroup,
    ClassicMember,
    Continuation,
    CoordinatorState,
    Difference,
    GroupState,
    Protocols,
)
from ksim.core.errors import KafkaError
from ksim.core.events import (
    AppendRecords,
    CoordinatorOrder,
    GroupRecord,
    GroupRecordMember,
    LogEntry,
    SendResponse,
    StateChanged,
)
from ksim.core.messages import (
    JoinedMember,
    JoinGroupResponse,
    Response,
    SyncGroupResponse,
)

T = TypeVar("T")

SESSION: Final = "session"
JOIN: Final = "join"
SYNC: Final = "sync"
CLEANUP: Final = ("cleanup",)

_SESSION_RANK: Final = 0
_GROUP_RANK: Final = 1

NOT_ENOUGH_REPLICAS: Final = 19
_INVALID_FETCH_SIZE: Final = 4
_MESSAGE_TOO_LARGE: Final = 10
_RECORD_LIST_TOO_LARGE: Final = 18

_TOLD: Final[dict[int, int]] = {
    KafkaError.UNKNOWN_TOPIC_OR_PARTITION: KafkaError.COORDINATOR_NOT_AVAILABLE,
    NOT_ENOUGH_REPLICAS: KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT: KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_OR_FOLLOWER: KafkaError.NOT_COORDINATOR,
    KafkaError.KAFKA_STORAGE_ERROR: KafkaError.NOT_COORDINATOR,
    _INVALID_FETCH_SIZE: KafkaError.UNKNOWN_SERVER_ERROR,
    _MESSAGE_TOO_LARGE: KafkaError.UNKNOWN_SERVER_ERROR,
    _RECORD_LIST_TOO_LARGE: KafkaError.UNKNOWN_SERVER_ERROR,
}


def append_error(error_code: int) -> int:
    """What the client is told when the log refused.

    Source: Kafka `appendGroupMetadataErrorToResponseError`.
    """
    return _TOLD.get(error_code, error_code)


def join_error(error_code: int, member_id: str) -> JoinGroupResponse:
    return JoinGroupResponse(
        error_code=error_code,
        generation_id=-1,
        protocol_type=None,
        protocol_name=None,
        leader="",
        member_id=member_id,
        members=(),
    )


def sync_error(error_code: int) -> SyncGroupResponse:
    return SyncGroupResponse(
        error_code=error_code, protocol_type=None, protocol_name=None, assignment=b""
    )


class Shard:
    """State, the time of this step, and the orders it has led to so far."""

    __slots__ = ("now_ms", "orders", "state", "timers")

    def __init__(self, state: CoordinatorState) -> None:
        self.state = state
        self.timers = state.timers
        self.now_ms = 0
        self.orders: list[CoordinatorOrder] = []

    # Orders

    def respond(self, token: int, response: Response) -> None:
        self.orders.append(SendResponse(token=token, response=response))

    def append(self, entries: tuple[LogEntry, ...], continuation: Continuation) -> int:
        self.state.appends = append_id = self.state.appends + 1
        self.state.writes[append_id] = continuation
        self.orders.append(AppendRecords(append_id=append_id, entries=entries))
        return append_id

    def change_state(self, group: ClassicGroup, to: GroupState, reason: str) -> None:
        assert group.state in LEGAL_PREDECESSORS[to], f"{group.state} -> {to}: {reason}"
        group.previous_state = group.state
        group.state = to
        group.state_timestamp_ms = self.now_ms
        self.orders.append(
            StateChanged(
                group_id=group.group_id,
                from_state=group.previous_state.value,
                to_state=to.value,
                generation_id=group.generation_id,
                members=tuple(group.members),
                reason=reason,
            )
        )

    def choose(self, among: list[T]) -> T:
        """One of several where Kafka takes the first in hash order."""
        self.state.draws += 1
        return among[draw(self.state.seed, self.state.draws) % len(among)]

    def shuffled(self, items: list[T]) -> list[T]:
        """Hash order, where Kafka lists members."""
        for last in range(len(items) - 1, 0, -1):
            self.state.draws += 1
            at = draw(self.state.seed, self.state.draws) % (last + 1)
            items[last], items[at] = items[at], items[last]
        return items

    # Kafka 3.9

    def differs(self, what: Difference) -> bool:
        """Whether this is done as in Kafka 3.9; ask only where it decides something."""
        if what not in self.state.config.differences:
            return False
        name = what.value
        self.state.differed[name] = self.state.differed.get(name, 0) + 1
        return True

    def select_protocol(self, group: ClassicGroup) -> str:
        chosen, scalas = group.select_protocol(), group.select_protocol(scala_map_order)
        return scalas if scalas != chosen and self.differs(Difference.VOTE_TIE) else chosen

    # Parked requests

    def park_join(self, group: ClassicGroup, member: ClassicMember, token: int) -> None:
        if member.join_token is None:
            group.awaiting_join += 1
        member.join_token = token

    def answer_join(
        self, group: ClassicGroup, member: ClassicMember, response: JoinGroupResponse
    ) -> None:
        if member.join_token is not None:
            self.respond(member.join_token, response)
            self.unpark_join(group, member)

    def unpark_join(self, group: ClassicGroup, member: ClassicMember) -> None:
        if member.join_token is not None:
            member.join_token = None
            group.awaiting_join -= 1

    def answer_sync(self, member: ClassicMember, response: SyncGroupResponse) -> bool:
        if member.sync_token is None:
            return False
        self.respond(member.sync_token, response)
        member.sync_token = None
        return True

    # Members

    def add_member(self, group: ClassicGroup, member: ClassicMember, protocol_type: str) -> None:
        if not group.members:
            group.protocol_type = protocol_type
        if group.leader is None:
            group.leader = member.member_id
        group.members[member.member_id] = member
        group.count_protocols(member.protocols, 1)
        group.pending_joins.pop(member.member_id, None)
        if member.group_instance_id is not None:
            group.static_members[member.group_instance_id] = member.member_id

    def offer_protocols(
        self, group: ClassicGroup, member: ClassicMember, protocols: Protocols
    ) -> None:
        group.count_protocols(member.protocols, -1)
        member.protocols = protocols
        group.count_protocols(protocols, 1)

    def remove_member(self, group: ClassicGroup, member_id: str) -> None:
        """Forget a member or a pending id, with its timer (Kafka `ClassicGroup.remove`)."""
        member = group.members.pop(member_id, None)
        if member is not None:
            evicted = KafkaError.UNKNOWN_MEMBER_ID
            self.answer_join(group, member, join_error(evicted, ""))
            self.answer_sync(member, sync_error(evicted))
            group.count_protocols(member.protocols, -1)
            if member.group_instance_id is not None:
                del group.static_members[member.group_instance_id]
        if group.leader == member_id:
            group.leader = self.choose(list(group.members)) if group.members else None
        group.pending_joins.pop(member_id, None)
        group.pending_syncs.pop(member_id, None)
        self.timers.cancel((SESSION, group.group_id, member_id))

    def replace_static_member(
        self, group: ClassicGroup, before: ClassicMember, member_id: str
    ) -> ClassicMember:
        """The entry under a new id; who still waits under the old one is fenced at once."""
        before_id = before.member_id
        fenced = KafkaError.FENCED_INSTANCE_ID
        self.answer_join(group, before, join_error(fenced, before_id))
        self.answer_sync(before, sync_error(fenced))
        del group.members[before_id]
        self.timers.cancel((SESSION, group.group_id, before_id))
        member = ClassicMember(
            member_id=member_id,
            group_instance_id=before.group_instance_id,
            client_id=before.client_id,
            client_host=before.client_host,
            session_timeout_ms=before.session_timeout_ms,
            rebalance_timeout_ms=before.rebalance_timeout_ms,
            protocols=before.protocols,
            assignment=before.assignment,
        )
        group.members[member_id] = member
        assert before.group_instance_id is not None
        group.static_members[before.group_instance_id] = member_id
        if group.leader == before_id:
            group.leader = member_id
        return member

    def forget_group(self, group: ClassicGroup, error_code: int, reason: str) -> None:
        """Answer all who wait with the error and drop the group with its timers."""
        for member in group.members.values():
            self.answer_join(group, member, join_error(error_code, ""))
            self.answer_sync(member, sync_error(error_code))
        for member_id in (*group.members, *group.pending_joins):
            self.timers.cancel((SESSION, group.group_id, member_id))
        self.timers.cancel((JOIN, group.group_id))
        self.timers.cancel((SYNC, group.group_id))
        self.change_state(group, GroupState.DEAD, reason)
        del self.state.groups[group.group_id]

    # Timers

    def arm_session(
        self, group: ClassicGroup, member: ClassicMember, timeout_ms: int | None = None
    ) -> None:
        """Restart the member's one timer, with its session timeout unless told otherwise."""
        wait_ms = member.session_timeout_ms if timeout_ms is None else timeout_ms
        self.timers.arm(
            (SESSION, group.group_id, member.member_id), self.now_ms + wait_ms, _SESSION_RANK
        )

    def arm_pending(self, group: ClassicGroup, member_id: str, timeout_ms: int) -> None:
        self.timers.arm(
            (SESSION, group.group_id, member_id), self.now_ms + timeout_ms, _SESSION_RANK
        )

    def arm_group(self, kind: str, group: ClassicGroup, timeout_ms: int) -> None:
        self.timers.arm((kind, group.group_id), self.now_ms + timeout_ms, _GROUP_RANK)

    # Views

    def joined_members(self, group: ClassicGroup) -> tuple[JoinedMember, ...]:
        """The member list that the leader gets."""
        return tuple(
            JoinedMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                metadata=member.metadata(group.protocol_name),
            )
            for member in self.shuffled(list(group.members.values()))
        )

    def group_record(
        self, group: ClassicGroup, assignments: dict[str, bytes] | None = None
    ) -> GroupRecord:
        """GroupMetadata as it goes to the log; assignments as stored unless given."""
        return GroupRecord(
            group_id=group.group_id,
            protocol_type=group.protocol_type or "",
            generation_id=group.generation_id,
            protocol_name=group.protocol_name,
            leader=group.leader,
            state_timestamp_ms=group.state_timestamp_ms,
            members=tuple(
                GroupRecordMember(
                    member_id=member.member_id,
                    group_instance_id=member.group_instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    session_timeout_ms=member.session_timeout_ms,
                    rebalance_timeout_ms=member.rebalance_timeout_ms,
                    subscription=member.metadata(group.protocol_name),
                    assignment=(
                        member.assignment
                        if assignments is None
                        else assignments.get(member.member_id, b"")
                    ),
                )
                for member in group.members.values()
            ),
        )


def refusal(shard: Shard) -> int:
    """Why no group request can be answered now: not coordinator, or not yet."""
    if not shard.state.active:
        loading = shard.state.loading
        return KafkaError.COORDINATOR_LOAD_IN_PROGRESS if loading else KafkaError.NOT_COORDINATOR
    return KafkaError.NONE


def check_group(group: ClassicGroup) -> None:
    """Invariants that cost nothing to look at; `check_everything` has the dear ones."""
    assert group.generation_id >= 0
    assert 0 <= group.awaiting_join <= len(group.members)
    assert (group.leader is None) == (not group.members)
    assert group.leader is None or group.leader in group.members
    match group.state:
        case GroupState.EMPTY:
            assert not group.members
        case GroupState.COMPLETING_REBALANCE:
            assert group.members
            assert group.awaiting_join == 0
        case GroupState.STABLE:
            assert group.members
        case GroupState.PREPARING_REBALANCE | GroupState.DEAD:
            pass


def check_everything(shard: Shard) -> None:
    """For tests: the whole tree agrees with itself."""
    for group in shard.state.groups.values():
        check_group(group)
        waiting = [member for member in group.members.values() if member.join_token is not None]
        assert group.awaiting_join == len(waiting)
        counts: dict[str, int] = {}
        for member_id, member in group.members.items():
            assert member.member_id == member_id
            for name in dict(member.protocols):
                counts[name] = counts.get(name, 0) + 1
            assert member.sync_token is None or group.state == GroupState.COMPLETING_REBALANCE
        assert counts == group.supported
        assert all(
            group.members[held].group_instance_id == name
            for name, held in group.static_members.items()
        )
        joining = shard.timers.armed_until((JOIN, group.group_id)) is not None
        assert joining == (group.state == GroupState.PREPARING_REBALANCE)
