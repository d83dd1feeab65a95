"""The member's whole state, its legal edges, and what each refusal means to its identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ksim.core.errors import KafkaError
from ksim.core.events import Assigned, OffsetsRequested
from ksim.core.messages import READ_UNCOMMITTED, JoinedMember
from ksim.core.trace import registered
from ksim.core.values import TopicPartition, value


class ClientState(StrEnum):
    """Where the member stands towards its group (Kafka AbstractCoordinator.MemberState)."""

    UNJOINED = "UNJOINED"
    PREPARING_REBALANCE = "PREPARING_REBALANCE"
    COMPLETING_REBALANCE = "COMPLETING_REBALANCE"
    STABLE = "STABLE"


LEGAL_EDGES: Final = {
    ClientState.UNJOINED: (ClientState.PREPARING_REBALANCE,),
    ClientState.PREPARING_REBALANCE: (ClientState.UNJOINED, ClientState.COMPLETING_REBALANCE),
    ClientState.COMPLETING_REBALANCE: (ClientState.UNJOINED, ClientState.STABLE),
    ClientState.STABLE: (ClientState.UNJOINED, ClientState.PREPARING_REBALANCE),
}


class Phase(StrEnum):
    """The life of the member as its owner sees it."""

    NEW = "NEW"
    RUNNING = "RUNNING"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


# Looked up in each step, where the enumeration itself would take longer than the comparison.
CLOSED: Final = Phase.CLOSED


class Release(StrEnum):
    """How far the partitions of the last generation are on their way out."""

    NONE = "NONE"
    REVOKING = "REVOKING"
    COMMITTING = "COMMITTING"
    LOSING = "LOSING"


class Position(StrEnum):
    """What a tenure waits for before it may be fetched."""

    OFFSET_FETCH = "OFFSET_FETCH"
    LIST_OFFSETS = "LIST_OFFSETS"
    EPOCH_END = "EPOCH_END"
    READY = "READY"
    STOPPED = "STOPPED"


class Reaction(StrEnum):
    """What an error code does to member id, generation and coordinator."""

    RETRY = "RETRY"
    REDISCOVER = "REDISCOVER"
    REJOIN = "REJOIN"
    ADOPT_ID = "ADOPT_ID"
    FORGET_GENERATION = "FORGET_GENERATION"
    FORGET_IDENTITY = "FORGET_IDENTITY"
    REPORT = "REPORT"
    FATAL = "FATAL"


def _reactions() -> dict[tuple[str, int], Reaction]:
    every = ("join", "sync", "heartbeat", "commit", "offsets")
    table: dict[tuple[str, int], Reaction] = {}
    for kind in every:
        table[kind, KafkaError.COORDINATOR_NOT_AVAILABLE] = Reaction.REDISCOVER
        table[kind, KafkaError.NOT_COORDINATOR] = Reaction.REDISCOVER
        table[kind, KafkaError.COORDINATOR_LOAD_IN_PROGRESS] = Reaction.RETRY
        table[kind, KafkaError.UNKNOWN_MEMBER_ID] = Reaction.FORGET_IDENTITY
        table[kind, KafkaError.ILLEGAL_GENERATION] = Reaction.FORGET_GENERATION
        table[kind, KafkaError.REBALANCE_IN_PROGRESS] = Reaction.REJOIN
        table[kind, KafkaError.FENCED_INSTANCE_ID] = Reaction.FATAL
    for kind in (*every, "find"):
        # A membership ends by what is said of it, not by one request that was not allowed.
        goes_on = kind in ("heartbeat", "commit")
        for code in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_GROUP_ID):
            table[kind, code] = Reaction.REPORT if goes_on else Reaction.FATAL
    table["find", KafkaError.COORDINATOR_NOT_AVAILABLE] = Reaction.RETRY
    table["find", KafkaError.COORDINATOR_LOAD_IN_PROGRESS] = Reaction.RETRY
    table["find", KafkaError.UNSUPPORTED_VERSION] = Reaction.FATAL
    table["join", KafkaError.MEMBER_ID_REQUIRED] = Reaction.ADOPT_ID
    table["commit", KafkaError.REQUEST_TIMED_OUT] = Reaction.REDISCOVER
    table["commit", KafkaError.UNKNOWN_TOPIC_OR_PARTITION] = Reaction.RETRY
    table["offsets", KafkaError.UNSTABLE_OFFSET_COMMIT] = Reaction.RETRY
    table["offsets", KafkaError.REQUEST_TIMED_OUT] = Reaction.RETRY
    table["offsets", KafkaError.UNKNOWN_TOPIC_OR_PARTITION] = Reaction.REPORT
    return table


# Source: protocol.md 8. A code that is not here has the default of its request.
REACTIONS: Final = _reactions()
DEFAULT_REACTION: Final = {
    "find": Reaction.REPORT,
    "join": Reaction.FATAL,
    "sync": Reaction.FATAL,
    "heartbeat": Reaction.REPORT,
    "commit": Reaction.REPORT,
    "offsets": Reaction.FATAL,
}


@registered
@value
class MemberConfig:
    """What the machine needs of the configuration; times in ms."""

    group_id: str
    topics: tuple[str, ...]
    topics_whitelist: str | None
    topics_blacklist: str | None
    user_data: bytes | None
    own_offset_store: bool
    group_instance_id: str | None
    assignors: tuple[str, ...]
    auto_offset_reset: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    heartbeat_interval_ms: int
    max_poll_interval_ms: int
    commit_interval_ms: int
    commit_retry_max: int
    dwell_time_ms: int
    request_timeout_ms: int
    retry_backoff_ms: int
    retry_backoff_max_ms: int
    metadata_max_age_ms: int
    fetch_min_bytes: int
    fetch_max_bytes: int
    fetch_max_wait_ms: int
    max_partition_fetch_bytes: int
    fetch_buffer_bytes: int
    isolation_level: int = READ_UNCOMMITTED


@registered
@value
class Epoch:
    """Records from `start_offset` on were written in this leader epoch."""

    start_offset: int
    leader_epoch: int


@registered
@dataclass(slots=True)
class Tenure:
    """One continuous ownership of one partition; its number is never used again."""

    topic: str
    partition: int
    tenure: int
    waits_for: Position = Position.OFFSET_FETCH
    position: int = -1
    committed: int = -1
    to_commit: int = -1
    refused: int = -1
    metadata: str = ""
    paused: bool = False
    buffered: bool = False
    epochs: tuple[Epoch, ...] = ()
    confirmed_epoch: int = -1
    latest_epoch: int = -1
    strayed_ms: int = -1
    leaderless: int = 0
    refused_code: int = 0

    @property
    def uncommitted(self) -> bool:
        """A mark stands where the coordinator has neither acknowledged nor refused it for good."""
        return self.to_commit >= 0 and self.to_commit not in (self.committed, self.refused)


@registered
@value
class Pending:
    """A request without its answer yet; `epoch` is the identity that it was sent under."""

    key: str
    kind: str
    epoch: int
    generation_id: int
    sent_ms: int
    partitions: tuple[Assigned, ...]
    tickets: tuple[int, ...]


@registered
@dataclass(slots=True)
class MemberState:
    """All that the member knows; nothing of it lives elsewhere."""

    config: MemberConfig
    seed: int
    phase: Phase = Phase.NEW
    client_state: ClientState = ClientState.UNJOINED
    release: Release = Release.NONE
    coordinator: int = -1
    member_id: str = ""
    generation_id: int = -1
    protocol_name: str = ""
    epoch: int = 0
    rejoin_needed: bool = False
    is_leader: bool = False
    skip_assignment: bool = False
    peers: tuple[JoinedMember, ...] = ()
    assigning: bool = False
    sync_due: bool = False
    owned: dict[TopicPartition, Tenure] = field(default_factory=dict[TopicPartition, Tenure])
    announced: bool = False
    next_tenure: int = 1
    next_request_id: int = 0
    next_revocation_id: int = 0
    pending: dict[int, Pending] = field(default_factory=dict[int, Pending])
    answering: int = -1
    busy: dict[str, int] = field(default_factory=dict[str, int])
    timers: dict[str, int] = field(default_factory=dict[str, int])
    attempts: dict[str, int] = field(default_factory=dict[str, int])
    heartbeat_due: bool = False
    commit_due: bool = False
    tickets: tuple[int, ...] = ()
    fetch_due: bool = False
    deliver_until_ms: int = 0
    synced_ms: int = 0
    metadata_due: bool = False
    metadata_fresh: bool = False
    topic_errors: dict[str, int] = field(default_factory=dict[str, int])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    leaders: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    epochs: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    assigned_counts: dict[str, int] = field(default_factory=dict[str, int])
    group_topics: tuple[str, ...] = ()
    subscribed: tuple[str, ...] = ()
    joined_topics: tuple[str, ...] = ()
    topics_known: bool = False
    poll_expired: bool = False
    rebalancing: bool = False
    asks: tuple[OffsetsRequested, ...] = ()
    asked: dict[str, OffsetsRequested] = field(default_factory=dict[str, OffsetsRequested])
    stale_marks: int = 0
    leave_group: bool = True
    left: bool = False

    @property
    def refusal(self) -> int:
        """Of a mark that will never be committed, as it was refused for good; 0: there is none."""
        codes = (t.refused_code for t in self.owned.values() if 0 <= t.to_commit == t.refused)
        return next(codes, 0)

    @property
    def closed(self) -> bool:
        """Nothing comes out of this member any more."""
        return self.phase == CLOSED
