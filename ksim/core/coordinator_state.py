"""What a coordinator knows, and the legal edges of a group. Source: Kafka ClassicGroup."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ksim.core.events import (
    AppendRecords,
    CoordinatorOrder,
    GroupRecord,
    GroupRecordMember,
    OffsetRecord,
    SendResponse,
    StateChanged,
)
from ksim.core.messages import PartitionError, Response
from ksim.core.timers import KeyedTimers
from ksim.core.trace import registered
from ksim.core.values import TopicPartition, value

NO_TOKEN: Final = -1


class GroupState(StrEnum):
    """Kafka ClassicGroupState."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


LEGAL_EDGES: Final = {
    GroupState.EMPTY: (GroupState.PREPARING_REBALANCE, GroupState.DEAD),
    GroupState.PREPARING_REBALANCE: (
        GroupState.COMPLETING_REBALANCE,
        GroupState.EMPTY,
        GroupState.DEAD,
    ),
    GroupState.COMPLETING_REBALANCE: (
        GroupState.STABLE,
        GroupState.PREPARING_REBALANCE,
        GroupState.DEAD,
    ),
    GroupState.STABLE: (GroupState.PREPARING_REBALANCE, GroupState.DEAD),
    GroupState.DEAD: (),
}


@registered
@value
class CoordinatorConfig:
    """The broker settings that groups feel; times in ms, defaults as Kafka's."""

    initial_rebalance_delay_ms: int = 3_000
    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 2**31 - 1
    new_member_join_timeout_ms: int = 300_000
    offset_metadata_max: int = 4_096


@registered
@dataclass(slots=True)
class GroupMember:
    """One member; a token other than -1 is a parked request."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes = b""
    is_new: bool = False
    join_token: int = NO_TOKEN
    sync_token: int = NO_TOKEN

    @property
    def awaits_join(self) -> bool:
        return self.join_token != NO_TOKEN

    @property
    def awaits_sync(self) -> bool:
        return self.sync_token != NO_TOKEN

    def metadata(self, protocol_name: str | None) -> bytes:
        """What this member offered under this name."""
        return next((data for name, data in self.protocols if name == protocol_name), b"")


@registered
@dataclass(slots=True)
class Group:
    """One group; `pending` and `pending_sync` are ordered sets of member ids."""

    group_id: str
    state: GroupState = GroupState.EMPTY
    previous_state: GroupState = GroupState.EMPTY
    generation_id: int = 0
    protocol_type: str = ""
    protocol_name: str | None = None
    leader: str | None = None
    members: dict[str, GroupMember] = field(default_factory=dict[str, GroupMember])
    static: dict[str, str] = field(default_factory=dict[str, str])
    pending: dict[str, bool] = field(default_factory=dict[str, bool])
    pending_sync: dict[str, bool] = field(default_factory=dict[str, bool])
    new_member_added: bool = False
    delay_ms: int = 0
    remaining_ms: int = 0
    offsets: dict[TopicPartition, OffsetRecord] = field(
        default_factory=dict[TopicPartition, OffsetRecord]
    )

    @property
    def in_initial_rebalance(self) -> bool:
        return (
            self.state == GroupState.PREPARING_REBALANCE and self.previous_state == GroupState.EMPTY
        )

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest that any member asks for."""
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0)

    def record(self, assignments: dict[str, bytes] | None = None) -> GroupRecord:
        """What the offsets log keeps of this group."""
        return GroupRecord(
            self.group_id,
            self.protocol_type,
            self.generation_id,
            self.protocol_name,
            self.leader,
            tuple(
                GroupRecordMember(
                    m.member_id,
                    m.group_instance_id,
                    m.client_id,
                    m.session_timeout_ms,
                    m.rebalance_timeout_ms,
                    m.metadata(self.protocol_name),
                    m.assignment if assignments is None else assignments.get(m.member_id, b""),
                )
                for m in self.members.values()
            ),
        )


# What waits for an append


@registered
@value
class CommitContinues:
    """Offsets become visible and the commit is answered."""

    token: int
    entries: tuple[OffsetRecord, ...]
    answers: tuple[PartitionError, ...]


@registered
@value
class SyncContinues:
    """The leader's assignment becomes the group's."""

    group_id: str
    generation_id: int
    assignments: tuple[tuple[str, bytes], ...]


@registered
@value
class ReplacementContinues:
    """A static member is back under a new id, without a rebalance."""

    group_id: str
    member_id: str
    old_member_id: str
    group_instance_id: str
    leader_before: str
    token: int


@registered
@value
class NothingContinues:
    """Nobody waits for this record."""


Continuation = CommitContinues | SyncContinues | ReplacementContinues | NothingContinues


@registered
@dataclass(slots=True)
class CoordinatorState:
    """All that a coordinator knows of its partition of the offsets topic."""

    config: CoordinatorConfig
    seed: int
    active: bool = False
    groups: dict[str, Group] = field(default_factory=dict[str, Group])
    timers: KeyedTimers = field(default_factory=KeyedTimers)
    draws: int = 0
    next_append_id: int = 0
    appends: dict[int, Continuation] = field(default_factory=dict[int, Continuation])


class Desk:
    """One step as the rooms of the coordinator see it."""

    __slots__ = ("now_ms", "orders", "state")

    def __init__(self, state: CoordinatorState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.orders: list[CoordinatorOrder] = []

    def answer(self, token: int, response: Response) -> None:
        self.orders.append(SendResponse(token, response))

    def append(
        self, entries: tuple[GroupRecord | OffsetRecord, ...], continuation: Continuation
    ) -> None:
        """Write to the offsets log; `continuation` says what happens when it is written."""
        append_id = self.state.next_append_id
        self.state.next_append_id += 1
        self.state.appends[append_id] = continuation
        self.orders.append(AppendRecords(append_id, entries))

    def move(self, group: Group, to_state: GroupState, reason: str) -> None:
        """The only place where a group's state changes."""
        before = GroupState(group.state)
        assert to_state in LEGAL_EDGES[before], f"{group.group_id}: {before} to {to_state}"
        group.previous_state = before
        group.state = to_state
        self.orders.append(
            StateChanged(
                group.group_id,
                before,
                to_state,
                group.generation_id,
                tuple(group.members),
                reason,
            )
        )

    def arm_session(self, group: Group, member: GroupMember) -> None:
        key = ("session", group.group_id, member.member_id)
        self.state.timers.arm(key, self.now_ms + member.session_timeout_ms)

    def cancel_session(self, group: Group, member_id: str) -> None:
        self.state.timers.cancel(("session", group.group_id, member_id))
