"""Requests and responses of the classic group protocol, in Kafka's own field names.

Values only. The bytes are the business of `ksim.wire`; record payloads never stand here.
"""

from __future__ import annotations

from ksim.core.values import TopicPartition, value

OFFSET_LATEST = -1
OFFSET_EARLIEST = -2
READ_UNCOMMITTED = 0
READ_COMMITTED = 1


@value
class MetadataRequest:
    """Ask for brokers and leaders; `topics` None asks for all topics."""

    topics: tuple[str, ...] | None


@value
class BrokerEndpoint:
    node_id: int
    host: str
    port: int


@value
class PartitionMetadata:
    error_code: int
    partition: int
    leader_id: int
    leader_epoch: int


@value
class TopicMetadata:
    error_code: int
    topic: str
    partitions: tuple[PartitionMetadata, ...]


@value
class MetadataResponse:
    brokers: tuple[BrokerEndpoint, ...]
    topics: tuple[TopicMetadata, ...]


@value
class FindCoordinatorRequest:
    group_id: str


@value
class FindCoordinatorResponse:
    error_code: int
    node_id: int
    host: str
    port: int


@value
class JoinGroupRequest:
    """`protocols` are (name, subscription bytes) in the member's order of preference."""

    group_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    member_id: str
    group_instance_id: str | None
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]


@value
class JoinedMember:
    member_id: str
    group_instance_id: str | None
    metadata: bytes


@value
class JoinGroupResponse:
    error_code: int
    generation_id: int
    protocol_type: str | None
    protocol_name: str | None
    leader: str
    member_id: str
    members: tuple[JoinedMember, ...]
    skip_assignment: bool = False


@value
class SyncGroupRequest:
    """`assignments` are (member id, assignment bytes); empty for followers."""

    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None
    protocol_type: str | None
    protocol_name: str | None
    assignments: tuple[tuple[str, bytes], ...]


@value
class SyncGroupResponse:
    error_code: int
    protocol_type: str | None
    protocol_name: str | None
    assignment: bytes


@value
class HeartbeatRequest:
    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None


@value
class HeartbeatResponse:
    error_code: int


@value
class MemberIdentity:
    member_id: str
    group_instance_id: str | None


@value
class LeaveGroupRequest:
    """Who leaves; versions before 3 know one member, by its id."""

    group_id: str
    members: tuple[MemberIdentity, ...]


@value
class MemberResponse:
    member_id: str
    group_instance_id: str | None
    error_code: int


@value
class LeaveGroupResponse:
    """`error_code` is of the whole request; each member has its own."""

    error_code: int
    members: tuple[MemberResponse, ...] = ()

    @property
    def first_error(self) -> int:
        """What a request of one member came to, in whatever version it was answered."""
        return self.error_code or next((member.error_code for member in self.members), 0)


@value
class OffsetAndMetadata:
    """An offset to commit: the next one to read, not the last one done."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str


@value
class OffsetCommitRequest:
    """`retention_time_ms` is -1 for the broker's own; only versions 2 to 4 can say another."""

    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None
    offsets: tuple[OffsetAndMetadata, ...]
    retention_time_ms: int = -1


@value
class PartitionError:
    topic: str
    partition: int
    error_code: int


@value
class OffsetCommitResponse:
    partitions: tuple[PartitionError, ...]


@value
class OffsetFetchRequest:
    """`partitions` None asks for all that the group has committed.

    Who asks is for stores of the user's, which fence by it; brokers are not told.
    """

    group_id: str
    partitions: tuple[TopicPartition, ...] | None
    member_id: str = ""
    generation_id: int = -1


@value
class CommittedOffset:
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    error_code: int


@value
class OffsetFetchResponse:
    error_code: int
    partitions: tuple[CommittedOffset, ...]


@value
class OffsetDeleteRequest:
    group_id: str
    partitions: tuple[TopicPartition, ...]


@value
class OffsetDeleteResponse:
    error_code: int
    partitions: tuple[PartitionError, ...]


@value
class DescribeGroupsRequest:
    groups: tuple[str, ...]


@value
class DescribedGroupMember:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@value
class DescribedGroup:
    """`protocol_data` is the protocol's name; it is empty unless the group is Stable."""

    error_code: int
    error_message: str | None
    group_id: str
    group_state: str
    protocol_type: str
    protocol_data: str
    members: tuple[DescribedGroupMember, ...]


@value
class DescribeGroupsResponse:
    groups: tuple[DescribedGroup, ...]


@value
class ListGroupsRequest:
    """Filters by state and by type; an empty one lets all pass."""

    states: tuple[str, ...]
    types: tuple[str, ...]


@value
class ListedGroup:
    group_id: str
    protocol_type: str
    group_state: str
    group_type: str


@value
class ListGroupsResponse:
    error_code: int
    groups: tuple[ListedGroup, ...]


@value
class DeleteGroupsRequest:
    groups: tuple[str, ...]


@value
class DeletedGroup:
    group_id: str
    error_code: int


@value
class DeleteGroupsResponse:
    groups: tuple[DeletedGroup, ...]


@value
class ListOffsetsPartition:
    """`timestamp` is a time in ms, or OFFSET_LATEST (-1), or OFFSET_EARLIEST (-2)."""

    topic: str
    partition: int
    timestamp: int


@value
class ListOffsetsRequest:
    """By `isolation_level` 1 the latest offset is the last stable one."""

    partitions: tuple[ListOffsetsPartition, ...]
    isolation_level: int = READ_UNCOMMITTED


@value
class ListedOffset:
    """`leader_epoch` is that of the record there, of the leader at the end; -1 is not known."""

    topic: str
    partition: int
    error_code: int
    offset: int
    leader_epoch: int = -1


@value
class ListOffsetsResponse:
    partitions: tuple[ListedOffset, ...]


@value
class FetchPartition:
    """`current_leader_epoch` is the one that the member knows; -1 is not compared."""

    topic: str
    partition: int
    fetch_offset: int
    current_leader_epoch: int = -1


@value
class FetchRequest:
    """By `isolation_level` 1 (READ_COMMITTED) nothing beyond the last stable offset is given."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partition_max_bytes: int
    partitions: tuple[FetchPartition, ...]
    isolation_level: int = READ_UNCOMMITTED


@value
class FetchedPartition:
    """The header of what was fetched; the payload waits in the driver under the same request id.

    `next_offset` is where to fetch next: past records, holes and control records alike.
    `leader_epoch` is the one that the last record was written in. `last_stable_offset` is the
    first of a transaction that is open, otherwise the high watermark. `detail` says why the batch
    there cannot be read.
    """

    topic: str
    partition: int
    error_code: int
    high_watermark: int
    log_start_offset: int
    next_offset: int
    record_count: int
    leader_epoch: int = -1
    last_stable_offset: int = -1
    detail: str = ""


@value
class FetchResponse:
    error_code: int
    partitions: tuple[FetchedPartition, ...]


@value
class EpochPartition:
    topic: str
    partition: int
    current_leader_epoch: int
    leader_epoch: int


@value
class OffsetForLeaderEpochRequest:
    """Where does `leader_epoch` end in each of these logs?"""

    partitions: tuple[EpochPartition, ...]


@value
class EpochEnd:
    """`end_offset` is -1 where the leader knows nothing of that epoch or an earlier one."""

    topic: str
    partition: int
    error_code: int
    leader_epoch: int
    end_offset: int


@value
class OffsetForLeaderEpochResponse:
    partitions: tuple[EpochEnd, ...]


@value
class ProduceRequest:
    """Append `record_count` records; their payload waits in the driver."""

    topic: str
    partition: int
    record_count: int


@value
class ProduceResponse:
    topic: str
    partition: int
    error_code: int
    base_offset: int


# What a member asks the coordinator of its group.
GROUP_REQUESTS = (
    JoinGroupRequest,
    SyncGroupRequest,
    HeartbeatRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
)
Request = (
    MetadataRequest
    | FindCoordinatorRequest
    | JoinGroupRequest
    | SyncGroupRequest
    | HeartbeatRequest
    | LeaveGroupRequest
    | OffsetCommitRequest
    | OffsetFetchRequest
    | OffsetDeleteRequest
    | DescribeGroupsRequest
    | ListGroupsRequest
    | DeleteGroupsRequest
    | ListOffsetsRequest
    | FetchRequest
    | OffsetForLeaderEpochRequest
    | ProduceRequest
)
Response = (
    MetadataResponse
    | FindCoordinatorResponse
    | JoinGroupResponse
    | SyncGroupResponse
    | HeartbeatResponse
    | LeaveGroupResponse
    | OffsetCommitResponse
    | OffsetFetchResponse
    | OffsetDeleteResponse
    | DescribeGroupsResponse
    | ListGroupsResponse
    | DeleteGroupsResponse
    | ListOffsetsResponse
    | FetchResponse
    | OffsetForLeaderEpochResponse
    | ProduceResponse
)
