"""Facts (past tense, into a machine) and orders (imperative, out of it). Nothing else crosses.

`ksim.core.trace` turns each of them into plain data and back, so that what stands here is also
the vocabulary of recordings.
"""

from __future__ import annotations

from ksim.core.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    Request,
    Response,
)
from ksim.core.values import TopicPartition, value

ANY_NODE = -1
NEWEST_VERSION = 2**15 - 1


@value
class Mark:
    """All up to and including `offset` is done in this tenure."""

    topic: str
    partition: int
    tenure: int
    offset: int
    metadata: str


@value
class Assigned:
    """One partition of an assignment; its tenure is never used again, `offset` is read first."""

    topic: str
    partition: int
    tenure: int
    offset: int


# Facts of the member


@value
class Started:
    """The consumer began; the member looks for its coordinator."""


@value
class TimerFired:
    """The deadline of the machine has come."""


@value
class ResponseReceived:
    request_id: int
    response: Response


@value
class RequestFailed:
    """A request has no answer: connection lost, timed out, or no broker."""

    request_id: int
    reason: str


@value
class UserPolled:
    """The user's thread called in at `at_ms`; `waiting` is true while it sits inside the call."""

    waiting: bool
    at_ms: int


@value
class MarksTaken:
    """Marks that rose since the last snapshot of them, the highest of each tenure.

    `waiting` and `at_ms` are those of a `UserPolled` that is told with them, as either has to be
    known before a timer fires; -1: none is.
    """

    marks: tuple[Mark, ...]
    waiting: bool = False
    at_ms: int = -1


@value
class RecordsHandedOut:
    """Said once the buffer is empty or given back; `at_ms`: when the last one was handed out.

    That is -1 in recordings of before.
    """

    topic: str
    partition: int
    tenure: int
    first: int
    last: int
    at_ms: int = -1


@value
class BufferDrained:
    """The driver's buffer of this tenure has room again."""

    topic: str
    partition: int
    tenure: int


@value
class PartitionsRevoked:
    """The answer to RevokePartitions; `abandoned` are those still in flight when the wait ended."""

    revocation_id: int
    abandoned: tuple[TopicPartition, ...]


@value
class PartitionsLost:
    """The answer to LosePartitions."""

    revocation_id: int


@value
class CommitRequested:
    ticket: int


@value
class OffsetsRequested:
    """The user asks the coordinator for offsets, or to keep some, past the marks of this member."""

    ticket: int
    request: OffsetCommitRequest | OffsetFetchRequest


@value
class Paused:
    partitions: tuple[TopicPartition, ...]


@value
class Resumed:
    partitions: tuple[TopicPartition, ...]


@value
class Sought:
    topic: str
    partition: int
    tenure: int
    offset: int


@value
class PartitionClosed:
    """The reader of this partition gave it back; its group shares anew."""

    topic: str
    partition: int
    tenure: int


@value
class CloseRequested:
    """Revoke, commit, leave within this time; a second one: leave at once, come what may."""

    timeout_ms: int
    leave_group: bool


MemberFact = (
    Started
    | TimerFired
    | ResponseReceived
    | RequestFailed
    | UserPolled
    | MarksTaken
    | RecordsHandedOut
    | BufferDrained
    | PartitionsRevoked
    | PartitionsLost
    | CommitRequested
    | OffsetsRequested
    | Paused
    | Resumed
    | Sought
    | PartitionClosed
    | CloseRequested
)

# Orders of the member


@value
class SendRequest:
    """Send `request` to `node_id` (ANY_NODE: any broker that is known).

    `channel` keeps what may park apart: "group" for the coordinator, "fetch" and "meta"; "store"
    is the user's offset store, and no broker. The driver answers with ResponseReceived or
    RequestFailed of the same `request_id`, always.
    """

    request_id: int
    node_id: int
    channel: str
    request: Request
    request_timeout_ms: int


@value
class RevokePartitions:
    """Stop hand-outs of these; answer PartitionsRevoked when nothing of them is in flight."""

    revocation_id: int
    partitions: tuple[TopicPartition, ...]


@value
class LosePartitions:
    """Stop hand-outs of these at once: the group may have given them to others already."""

    revocation_id: int
    partitions: tuple[TopicPartition, ...]
    reason: str


@value
class AbandonPartitions:
    """The dwell is over: answer PartitionsRevoked now, naming what is still in flight."""

    revocation_id: int


@value
class AssignPartitions:
    """Own these, each with its tenure and first offset; the full set of the generation.

    -1 where it cannot be known, as nobody leads the partition: `DropBuffered` says it later.
    """

    generation_id: int
    partitions: tuple[Assigned, ...]


@value
class BufferRecords:
    """Keep the payload of this fetch for these (topic, partition, tenure); drop the rest of it."""

    request_id: int
    partitions: tuple[Assigned, ...]


@value
class DropBuffered:
    """Forget what is buffered of this tenure: after a seek, or where the log was truncated.

    Also where the first offset was not known before. The next record is the one at `offset`; marks
    from there on are void. `sought`: it answers a seek, until which everything that was buffered is
    from before it.
    """

    topic: str
    partition: int
    tenure: int
    offset: int
    sought: bool = False


@value
class SetDeliverUntil:
    """Hand-outs are allowed until this time by a clock that counts suspend (the lease)."""

    deliver_until_ms: int


@value
class CommitFinished:
    ticket: int
    error_code: int


@value
class OffsetsAnswered:
    """The answer to OffsetsRequested; without an answer of a broker each error code says so."""

    ticket: int
    response: OffsetCommitResponse | OffsetFetchResponse


@value
class Notify:
    """A change the application may want to know: kind, generation, the partitions held now."""

    kind: str
    generation_id: int
    partitions: tuple[TopicPartition, ...]


@value
class ReportError:
    """A refusal that the application should see; a `fatal` one ends its reading.

    The member has ended with it where the group refuses it (`Closed` follows); where it is about a
    partition, it stays until the application closes it, so that marks of the others are committed.
    `topic`, `partition` and `offset` say what it is about, if it is about a place.
    """

    error_code: int
    context: str
    fatal: bool
    topic: str = ""
    partition: int = -1
    offset: int = -1
    detail: str = ""


@value
class Closed:
    """The member is done; nothing comes after this."""


MemberOrder = (
    SendRequest
    | RevokePartitions
    | LosePartitions
    | AbandonPartitions
    | AssignPartitions
    | BufferRecords
    | DropBuffered
    | SetDeliverUntil
    | CommitFinished
    | OffsetsAnswered
    | Notify
    | ReportError
    | Closed
)

# Facts and orders of the coordinator


@value
class RequestArrived:
    """A group request reached the coordinator; `fresh_member_id` is the driver's entropy.

    `api_version` is the version of the request on the wire: some answers depend on it.
    """

    token: int
    request: Request
    client_id: str
    fresh_member_id: str
    api_version: int = NEWEST_VERSION
    client_host: str = "/127.0.0.1"


@value
class RecordsAppended:
    """The answer to AppendRecords."""

    append_id: int
    error_code: int


@value
class LogReplayed:
    """This broker became coordinator; the offsets log from its beginning."""

    entries: tuple[LogEntry, ...]


@value
class LoadBegan:
    """This broker is coordinator, but has not read the offsets log yet: LogReplayed follows."""


@value
class TopicsDeleted:
    """These topics are gone; the offsets of their partitions go with them."""

    topics: tuple[str, ...]


@value
class GroupRecordMember:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    subscription: bytes
    assignment: bytes


@value
class GroupRecord:
    """GroupMetadata of the offsets log (protocol.md 7)."""

    group_id: str
    protocol_type: str
    generation_id: int
    protocol_name: str | None
    leader: str | None
    state_timestamp_ms: int
    members: tuple[GroupRecordMember, ...]


@value
class OffsetRecord:
    """A committed offset; `expire_timestamp_ms` is -1 where the broker's retention counts."""

    group_id: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int = -1
    expire_timestamp_ms: int = -1


@value
class GroupTombstone:
    """The group's last record is void."""

    group_id: str


@value
class OffsetTombstone:
    """The partition has no committed offset any more."""

    group_id: str
    topic: str
    partition: int


LogEntry = GroupRecord | OffsetRecord | GroupTombstone | OffsetTombstone


@value
class Resigned:
    """This broker is no longer coordinator of the group's partition."""


CoordinatorFact = (
    RequestArrived
    | RecordsAppended
    | LoadBegan
    | LogReplayed
    | TopicsDeleted
    | Resigned
    | TimerFired
)


@value
class SendResponse:
    """Answer the request that came with this token."""

    token: int
    response: Response


@value
class AppendRecords:
    """Write to the offsets log; answer RecordsAppended. Entries of one order go in one batch."""

    append_id: int
    entries: tuple[LogEntry, ...]


@value
class StateChanged:
    """For listeners: the group moved along a legal edge."""

    group_id: str
    from_state: str
    to_state: str
    generation_id: int
    members: tuple[str, ...]
    reason: str


CoordinatorOrder = SendResponse | AppendRecords | StateChanged
