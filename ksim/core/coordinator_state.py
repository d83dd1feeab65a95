"""What the coordinator remembers: the tree that `snapshot` writes down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ksim.core.coordinator_hash import hash_map_order
from ksim.core.events import GroupRecord, OffsetRecord
from ksim.core.messages import DeleteGroupsResponse, OffsetDeleteResponse, PartitionError
from ksim.core.timers import KeyedTimers
from ksim.core.trace import registered
from ksim.core.values import TopicPartition, value

Protocols = tuple[tuple[str, bytes], ...]


class GroupState(StrEnum):
    """Kafka's `ClassicGroupState`, under the names that DescribeGroups shows."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


LEGAL_PREDECESSORS: Final[dict[GroupState, tuple[GroupState, ...]]] = {
    GroupState.EMPTY: (GroupState.PREPARING_REBALANCE,),
    GroupState.PREPARING_REBALANCE: (
        GroupState.EMPTY,
        GroupState.COMPLETING_REBALANCE,
        GroupState.STABLE,
    ),
    GroupState.COMPLETING_REBALANCE: (GroupState.PREPARING_REBALANCE,),
    GroupState.STABLE: (GroupState.COMPLETING_REBALANCE,),
    GroupState.DEAD: tuple(GroupState),
}


class Difference(StrEnum):
    """What a coordinator of Kafka 3.9 does otherwise than those of 4.x, each for itself."""

    COMMIT_TO_UNKNOWN_GROUP = "commit-to-unknown-group"
    SYNC_EXTENDS_SESSION = "sync-extends-session"
    ASSIGNMENT_HIDDEN = "assignment-hidden"
    LEAVES_ONE_BY_ONE = "leaves-one-by-one"
    PENDING_LEAVES_QUIETLY = "pending-leaves-quietly"
    EXPIRY_WAITS_FOR_DELAY = "expiry-waits-for-delay"
    DELAY_GROWS_ONCE = "delay-grows-once"
    REFUSED_JOIN_COMPLETES = "refused-join-completes"
    SYNC_BEFORE_PROTOCOL = "sync-before-protocol"
    VOTE_TIE = "vote-tie"
    LAST_OFFSET_TAKES_GROUP = "last-offset-takes-group"
    JOIN_WRITES_NO_GROUP = "join-writes-no-group"


@registered
@value
class CoordinatorConfig:
    """Kafka's `GroupCoordinatorConfig`, with its defaults; times in ms, sizes in UTF-16 units.

    `differences` are names of `Difference`: what the coordinator does as in Kafka 3.9.
    """

    initial_rebalance_delay_ms: int = 3000
    min_session_timeout_ms: int = 6000
    max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 2**31 - 1
    new_member_join_timeout_ms: int = 300_000
    offset_metadata_max: int = 4096
    offsets_retention_ms: int = 604_800_000
    offsets_retention_check_interval_ms: int = 600_000
    differences: tuple[str, ...] = ()


@registered
@dataclass(slots=True)
class ClassicMember:
    """One member (Kafka `ClassicGroupMember`); the tokens are those of its parked requests."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    is_new: bool = False
    join_token: int | None = None
    sync_token: int | None = None

    def metadata(self, protocol_name: str | None) -> bytes:
        """The subscription under a protocol; zero bytes when the member does not offer it."""
        for name, metadata in self.protocols:
            if name == protocol_name:
                return metadata
        return b""


@registered
@dataclass(slots=True)
class ClassicGroup:
    """One group (Kafka `ClassicGroup`). The fields change through `Shard` alone.

    `initial_window` is (delay, remaining) of the initial delay while its timer runs;
    `created_by` is the append that makes a new group last; `supported` counts, for each protocol
    name, the members that offer it; `pending_joins` and `pending_syncs` are ids as keys;
    `subscribed` are the topics of a consumer group's members, None where they cannot be known.
    """

    group_id: str
    state: GroupState = GroupState.EMPTY
    previous_state: GroupState = GroupState.DEAD
    generation_id: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str | None = None
    members: dict[str, ClassicMember] = field(default_factory=dict)
    static_members: dict[str, str] = field(default_factory=dict)
    pending_joins: dict[str, bool] = field(default_factory=dict)
    pending_syncs: dict[str, bool] = field(default_factory=dict)
    supported: dict[str, int] = field(default_factory=dict)
    awaiting_join: int = 0
    new_member_added: bool = False
    initial_window: tuple[int, int] | None = None
    created_by: int | None = None
    state_timestamp_ms: int = -1
    subscribed: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.state = GroupState(self.state)
        self.previous_state = GroupState(self.previous_state)

    @property
    def all_joined(self) -> bool:
        return self.awaiting_join == len(self.members) and not self.pending_joins

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def supports(self, protocol_type: str, protocols: Protocols) -> bool:
        """Whether a member with this offer may join (Kafka `supportsProtocols`)."""
        if self.state == GroupState.EMPTY:
            return bool(protocol_type) and bool(protocols)
        size = len(self.members)
        return protocol_type == self.protocol_type and any(
            self.supported.get(name, 0) == size for name, _ in protocols
        )

    def count_protocols(self, protocols: Protocols, by: int) -> None:
        for name in dict(protocols):
            left = self.supported.get(name, 0) + by
            if left:
                self.supported[name] = left
            else:
                self.supported.pop(name, None)

    def select_protocol(self, order: Callable[[Iterable[str]], list[str]] = hash_map_order) -> str:
        """Each member votes for the first of its own that all support; ties go by `order`."""
        size = len(self.members)
        votes: dict[str, int] = {}
        for member in self.members.values():
            vote = next(name for name, _ in member.protocols if self.supported[name] == size)
            votes[vote] = votes.get(vote, 0) + 1
        most = max(votes.values())
        return next(name for name in order(votes) if votes[name] == most)

    def awaiting_members(self) -> Iterator[ClassicMember]:
        return (member for member in self.members.values() if member.join_token is not None)


# What a pending append is for: the continuation when RecordsAppended comes


@registered
@value
class GroupCreation:
    """A join made the group; its answer does not wait, but the group goes if this fails."""

    group_id: str


@registered
@value
class EmptyGeneration:
    """A generation without members; whether it was stored changes nothing."""

    group_id: str


@registered
@value
class AssignmentStore:
    """The leader's SyncGroup; counts only in the generation it was made for."""

    group_id: str
    generation_id: int
    assignments: Protocols


@registered
@value
class StaticReplacement:
    """A static member came back under a new id; `before` is what it was, `leader` was leading."""

    group_id: str
    token: int
    api_version: int
    member_id: str
    leader: str
    before_id: str
    before_session_timeout_ms: int
    before_rebalance_timeout_ms: int
    before_protocols: Protocols


@registered
@value
class OffsetStore:
    """An OffsetCommit: what to show and what to answer once it is in the log."""

    group_id: str
    token: int
    records: tuple[OffsetRecord, ...]
    answers: tuple[PartitionError, ...]


@registered
@value
class Deletion:
    """Tombstones: what was forgotten, to be remembered again if the log refuses them.

    `answer` goes to `token` when they are stored; without a token nobody waits (expiry).
    """

    group_id: str
    token: int | None
    answer: OffsetDeleteResponse | DeleteGroupsResponse | None
    group: GroupRecord | None
    offsets: tuple[OffsetRecord, ...]


Continuation = (
    GroupCreation | EmptyGeneration | AssignmentStore | StaticReplacement | OffsetStore | Deletion
)


@registered
@dataclass(slots=True)
class CoordinatorState:
    """One partition of `__consumer_offsets`. `offsets` is by group, then by partition.

    `differed` counts, for each of the configured differences, how often it decided something.
    """

    config: CoordinatorConfig
    seed: int
    draws: int = 0
    appends: int = 0
    active: bool = False
    loading: bool = False
    groups: dict[str, ClassicGroup] = field(default_factory=dict)
    offsets: dict[str, dict[TopicPartition, OffsetRecord]] = field(default_factory=dict)
    writes: dict[int, Continuation] = field(default_factory=dict)
    differed: dict[str, int] = field(default_factory=dict)
    timers: KeyedTimers = field(default_factory=KeyedTimers)
