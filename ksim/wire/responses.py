"""kafka-python's response objects as values of the core, whatever version was spoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ksim.core import messages as m
from ksim.core.values import Payload, SizedPayload, TopicPartition
from ksim.wire.errors import WireError
from ksim.wire.records import batch_checksums, decode_records

NO_OFFSET: Final = -1
GROUPS_SINCE: Final = 8  # OffsetFetch
COORDINATORS_SINCE: Final = 4  # FindCoordinator


def decode_response(request: m.Request, kafka_response: Any) -> tuple[m.Response, Payload | None]:
    """Give the value of the answer to `request`, and the records where it was a fetch.

    Raises WireError where the broker answered something else than was asked.
    """
    expected = type(request).__name__.replace("Request", "Response")
    assert kafka_response.name == expected, f"{kafka_response.name} is not {expected}"
    assert kafka_response.API_VERSION is not None, f"{expected} without a version"
    if isinstance(request, m.FetchRequest):
        return _fetch(request, kafka_response)
    decoder = DECODERS.get(type(request))
    assert decoder is not None, f"{expected} cannot be read by a consumer"
    response: m.Response = decoder(kafka_response)
    assert type(response).__name__ == expected, f"{type(response).__name__} is not {expected}"
    return response, None


def _name(name: str | None, what: str) -> str:
    if not name:
        raise WireError(f"a response has an empty {what}")
    return name


def _only(items: list[Any], what: str) -> Any:
    if len(items) != 1:
        raise WireError(f"a response has {len(items)} {what}: 1 expected")
    return items[0]


def _metadata(raw: Any) -> m.MetadataResponse:
    brokers = tuple(
        m.BrokerEndpoint(broker.node_id, _name(broker.host, "host"), broker.port)
        for broker in raw.brokers
    )
    topics = tuple(
        m.TopicMetadata(
            topic.error_code,
            _name(topic.name, "topic name"),
            tuple(
                m.PartitionMetadata(
                    item.error_code, item.partition_index, item.leader_id, item.leader_epoch
                )
                for item in topic.partitions
            ),
        )
        for topic in raw.topics
    )
    return m.MetadataResponse(brokers, topics)


def _find_coordinator(raw: Any) -> m.FindCoordinatorResponse:
    batched = raw.API_VERSION >= COORDINATORS_SINCE
    found = _only(raw.coordinators, "coordinators") if batched else raw
    if found.error_code == 0:
        _name(found.host, "coordinator host")
    return m.FindCoordinatorResponse(found.error_code, found.node_id, found.host, found.port)


def _join_group(raw: Any) -> m.JoinGroupResponse:
    return m.JoinGroupResponse(
        error_code=raw.error_code,
        generation_id=raw.generation_id,
        protocol_type=raw.protocol_type,
        protocol_name=raw.protocol_name,
        leader=raw.leader,
        member_id=raw.member_id,
        members=tuple(
            m.JoinedMember(
                _name(member.member_id, "member id"),
                member.group_instance_id,
                bytes(member.metadata),
            )
            for member in raw.members
        ),
        skip_assignment=bool(raw.skip_assignment),
    )


def _sync_group(raw: Any) -> m.SyncGroupResponse:
    return m.SyncGroupResponse(
        raw.error_code, raw.protocol_type, raw.protocol_name, bytes(raw.assignment)
    )


def _heartbeat(raw: Any) -> m.HeartbeatResponse:
    return m.HeartbeatResponse(raw.error_code)


def _leave_group(raw: Any) -> m.LeaveGroupResponse:
    # From version 3 on each member has its own error below that of the request.
    return m.LeaveGroupResponse(
        raw.error_code,
        tuple(
            m.MemberResponse(each.member_id, each.group_instance_id, each.error_code)
            for each in raw.members or ()
        ),
    )


def _offset_commit(raw: Any) -> m.OffsetCommitResponse:
    return m.OffsetCommitResponse(
        tuple(
            m.PartitionError(_name(topic.name, "topic name"), item.partition_index, item.error_code)
            for topic in raw.topics
            for item in topic.partitions
        )
    )


def _offset_fetch(raw: Any) -> m.OffsetFetchResponse:
    group = _only(raw.groups, "groups") if raw.API_VERSION >= GROUPS_SINCE else raw
    return m.OffsetFetchResponse(
        group.error_code,
        tuple(
            m.CommittedOffset(
                topic=_name(topic.name, "topic name"),
                partition=item.partition_index,
                offset=item.committed_offset,
                leader_epoch=item.committed_leader_epoch,
                metadata=item.metadata or "",
                error_code=item.error_code,
            )
            for topic in group.topics
            for item in topic.partitions
        ),
    )


def _list_offsets(raw: Any) -> m.ListOffsetsResponse:
    return m.ListOffsetsResponse(
        tuple(
            m.ListedOffset(
                _name(topic.name, "topic name"),
                item.partition_index,
                item.error_code,
                item.offset,
                item.leader_epoch,
            )
            for topic in raw.topics
            for item in topic.partitions
        )
    )


def _offset_for_leader_epoch(raw: Any) -> m.OffsetForLeaderEpochResponse:
    return m.OffsetForLeaderEpochResponse(
        tuple(
            m.EpochEnd(
                _name(topic.topic, "topic name"),
                item.partition,
                item.error_code,
                item.leader_epoch,
                item.end_offset,
            )
            for topic in raw.topics
            for item in topic.partitions
        )
    )


def _fetch(request: m.FetchRequest, raw: Any) -> tuple[m.FetchResponse, Payload]:
    asked = {
        TopicPartition(item.topic, item.partition): item.fetch_offset for item in request.partitions
    }
    headers: list[m.FetchedPartition] = []
    payload = SizedPayload()
    most_bytes = request.partition_max_bytes
    for topic in raw.responses:
        for item in topic.partitions:
            where = TopicPartition(_name(topic.topic, "topic name"), item.partition_index)
            if where not in asked:
                raise WireError(f"a fetch answered {where}, which was not asked")
            headers.append(_fetched(where, asked[where], item, payload, most_bytes))
    return m.FetchResponse(raw.error_code, tuple(headers)), payload


def _fetched(
    where: TopicPartition, fetch_offset: int, item: Any, payload: SizedPayload, most_bytes: int
) -> m.FetchedPartition:
    # A partition in error has no records, whatever bytes came along.
    data = item.records if item.error_code == 0 else None
    decoded = decode_records(data, fetch_offset, _aborted(item), most_bytes)
    if decoded.records:
        payload[where] = decoded.records
        payload.sizes[where] = len(data or b"")
        payload.checksums[where] = batch_checksums(data or b"")
    return m.FetchedPartition(
        topic=where.topic,
        partition=where.partition,
        error_code=item.error_code or decoded.error_code,
        high_watermark=item.high_watermark,
        log_start_offset=NO_OFFSET if item.log_start_offset is None else item.log_start_offset,
        next_offset=decoded.next_offset,
        record_count=len(decoded.records),
        leader_epoch=decoded.leader_epoch,
        last_stable_offset=item.last_stable_offset,
        detail=decoded.detail,
    )


def _aborted(item: Any) -> tuple[tuple[int, int], ...]:
    """(first offset, producer id) of what was aborted; told to who reads committed records."""
    found = item.aborted_transactions or ()
    return tuple(sorted((each.first_offset, each.producer_id) for each in found))


DECODERS: Final[dict[type, Callable[[Any], Any]]] = {
    m.MetadataRequest: _metadata,
    m.FindCoordinatorRequest: _find_coordinator,
    m.JoinGroupRequest: _join_group,
    m.SyncGroupRequest: _sync_group,
    m.HeartbeatRequest: _heartbeat,
    m.LeaveGroupRequest: _leave_group,
    m.OffsetCommitRequest: _offset_commit,
    m.OffsetFetchRequest: _offset_fetch,
    m.ListOffsetsRequest: _list_offsets,
    m.OffsetForLeaderEpochRequest: _offset_for_leader_epoch,
}
