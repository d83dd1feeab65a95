"""Requests and responses of the classic group protocol, in Kafka's own field names.

Values only. The bytes are the business of `ksim.wire`; record payloads never stand here.
"""

from __future__ import annotations

from ksim.core.values import TopicPartition, value

OFFSET_LATEST = -1
OFFSET_EARLIEST = -2


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
class LeaveGroupRequest:
    group_id: str
    member_id: str
    group_instance_id: str | None


@value
class LeaveGroupResponse:
    error_code: int


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
    group_id: str
    generation_id: int
    member_id: str
    group_instance_id: str | None
    offsets: tuple[OffsetAndMetadata, ...]


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
    group_id: str
    partitions: tuple[TopicPartition, ...]


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
class ListOffsetsPartition:
    """`timestamp` is a time in ms, or OFFSET_LATEST (-1), or OFFSET_EARLIEST (-2)."""

    topic: str
    partition: int
    timestamp: int


@value
class ListOffsetsRequest:
    partitions: tuple[ListOffsetsPartition, ...]


@value
class ListedOffset:
    topic: str
    partition: int
    error_code: int
    offset: int


@value
class ListOffsetsResponse:
    partitions: tuple[ListedOffset, ...]


@value
class FetchPartition:
    topic: str
    partition: int
    fetch_offset: int


@value
class FetchRequest:
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partition_max_bytes: int
    partitions: tuple[FetchPartition, ...]


@value
class FetchedPartition:
    """The header of what was fetched; the payload waits in the driver under the same request id.

    `next_offset` is where to fetch next: past records, holes and control records alike.
    """

    topic: str
    partition: int
    error_code: int
    high_watermark: int
    log_start_offset: int
    next_offset: int
    record_count: int


@value
class FetchResponse:
    error_code: int
    partitions: tuple[FetchedPartition, ...]


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


Request = (
    MetadataRequest
    | FindCoordinatorRequest
    | JoinGroupRequest
    | SyncGroupRequest
    | HeartbeatRequest
    | LeaveGroupRequest
    | OffsetCommitRequest
    | OffsetFetchRequest
    | ListOffsetsRequest
    | FetchRequest
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
    | ListOffsetsResponse
    | FetchResponse
    | ProduceResponse
)
