"""Requests of the core as kafka-python's message objects; the connection chooses the version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from kafka.protocol import consumer as kafka_consumer
from kafka.protocol import metadata as kafka_metadata

from ksim.core import messages as m

# Stubs of kafka-python name its fields, yet the classes are made from schemas at run time.
kc: Final[Any] = kafka_consumer
km: Final[Any] = kafka_metadata

NO_EPOCH: Final = -1
CONSUMER_REPLICA: Final = -1
NO_SESSION: Final = (0, -1)  # id and epoch of a fetch outside of any fetch session
STATIC_MEMBERS_SINCE: Final = {"JoinGroup": 5, "SyncGroup": 3, "Heartbeat": 3, "OffsetCommit": 7}

SEVERAL_LEAVE_SINCE: Final = 3

T = TypeVar("T")


def encode_request(request: m.Request) -> Any:
    """Give the kafka-python request for `request`, with the versions that ksim can read."""
    encoder = ENCODERS.get(type(request))
    assert encoder is not None, f"{type(request).__name__} cannot be sent by a consumer"
    message = encoder(request)
    assert message.is_request(), f"{message.name} is not a request"
    assert message.name == type(request).__name__, f"{type(request).__name__} as {message.name}"
    return message


def _by_topic(items: Iterable[T], topic_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Group in the order of first appearance, as the wire wants one entry for each topic."""
    topics: dict[str, list[T]] = {}
    for item in items:
        assert topic_of(item), "empty topic name"
        topics.setdefault(topic_of(item), []).append(item)
    return topics


def _static_since(api: str, group_instance_id: str | None) -> int:
    """Give the least version; older ones would drop a static member's name in silence."""
    return 0 if group_instance_id is None else STATIC_MEMBERS_SINCE[api]


def _metadata(request: m.MetadataRequest) -> Any:
    cls = km.MetadataRequest
    topics = None
    if request.topics is not None:
        assert all(request.topics), "empty topic name"
        topics = [cls.MetadataRequestTopic(name=topic) for topic in request.topics]
    # Reading must not create topics; version 4 is the first that can say so.
    return cls(topics=topics, allow_auto_topic_creation=False, min_version=4, max_version=9)


def _find_coordinator(request: m.FindCoordinatorRequest) -> Any:
    assert request.group_id, "empty group_id"
    return km.FindCoordinatorRequest(
        key=request.group_id, key_type=0, coordinator_keys=[request.group_id], max_version=4
    )


def _join_group(request: m.JoinGroupRequest) -> Any:
    assert request.group_id, "empty group_id"
    assert request.protocol_type, "empty protocol_type"
    assert request.protocols, "no protocols"
    cls = kc.JoinGroupRequest
    return cls(
        group_id=request.group_id,
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        protocol_type=request.protocol_type,
        protocols=[
            cls.JoinGroupRequestProtocol(name=name, metadata=metadata)
            for name, metadata in request.protocols
        ],
        min_version=_static_since("JoinGroup", request.group_instance_id),
        max_version=9,
    )


def _sync_group(request: m.SyncGroupRequest) -> Any:
    assert request.group_id, "empty group_id"
    assert request.member_id, "empty member_id"
    cls = kc.SyncGroupRequest
    return cls(
        group_id=request.group_id,
        generation_id=request.generation_id,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        protocol_type=request.protocol_type,
        protocol_name=request.protocol_name,
        assignments=[
            cls.SyncGroupRequestAssignment(member_id=member_id, assignment=assignment)
            for member_id, assignment in request.assignments
        ],
        min_version=_static_since("SyncGroup", request.group_instance_id),
        max_version=5,
    )


def _heartbeat(request: m.HeartbeatRequest) -> Any:
    assert request.group_id, "empty group_id"
    assert request.member_id, "empty member_id"
    return kc.HeartbeatRequest(
        group_id=request.group_id,
        generation_id=request.generation_id,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        min_version=_static_since("Heartbeat", request.group_instance_id),
        max_version=4,
    )


def _leave_group(request: m.LeaveGroupRequest) -> Any:
    assert request.group_id, "empty group_id"
    assert request.members, "nobody to leave"
    assert all(each.member_id or each.group_instance_id for each in request.members)
    cls = kc.LeaveGroupRequest
    members = [
        cls.MemberIdentity(member_id=each.member_id, group_instance_id=each.group_instance_id)
        for each in request.members
    ]
    return cls(
        group_id=request.group_id,
        member_id=request.members[0].member_id,
        members=members,
        min_version=0 if len(members) == 1 else SEVERAL_LEAVE_SINCE,
        max_version=5,
    )


def _offset_commit(request: m.OffsetCommitRequest) -> Any:
    assert request.group_id, "empty group_id"
    cls = kc.OffsetCommitRequest
    topic_cls = cls.OffsetCommitRequestTopic
    partition_cls = topic_cls.OffsetCommitRequestPartition
    return cls(
        group_id=request.group_id,
        generation_id_or_member_epoch=request.generation_id,
        member_id=request.member_id,
        group_instance_id=request.group_instance_id,
        topics=[
            topic_cls(
                name=topic,
                partitions=[
                    partition_cls(
                        partition_index=item.partition,
                        committed_offset=item.offset,
                        committed_leader_epoch=item.leader_epoch,
                        committed_metadata=item.metadata,
                    )
                    for item in items
                ],
            )
            for topic, items in _by_topic(request.offsets, lambda item: item.topic).items()
        ],
        # From version 2 on the broker's retention holds; 8 is the last before member epochs.
        min_version=max(2, _static_since("OffsetCommit", request.group_instance_id)),
        max_version=8,
    )


def _offset_fetch(request: m.OffsetFetchRequest) -> Any:
    assert request.group_id, "empty group_id"
    cls = kc.OffsetFetchRequest
    group_cls = cls.OffsetFetchRequestGroup
    group = group_cls(
        group_id=request.group_id,
        topics=_asked_topics(request, group_cls.OffsetFetchRequestTopics),
    )
    return cls(
        group_id=request.group_id,
        topics=_asked_topics(request, cls.OffsetFetchRequestTopic),
        groups=[group],
        # Offsets that a transaction is about to commit are waited for (KIP-447), from version 7 on.
        require_stable=True,
        min_version=2,  # the first with an error of the whole group
        max_version=8,
    )


def _asked_topics(request: m.OffsetFetchRequest, topic_cls: Any) -> list[Any] | None:
    """None asks for all that the group has committed."""
    if request.partitions is None:
        return None
    topics = _by_topic(request.partitions, lambda item: item.topic)
    return [
        topic_cls(name=topic, partition_indexes=[partition for _, partition in items])
        for topic, items in topics.items()
    ]


def _list_offsets(request: m.ListOffsetsRequest) -> Any:
    assert request.partitions, "no partitions"
    cls = kc.ListOffsetsRequest
    topic_cls = cls.ListOffsetsTopic
    return cls(
        replica_id=CONSUMER_REPLICA,
        isolation_level=request.isolation_level,
        topics=[
            topic_cls(
                name=topic,
                partitions=[
                    topic_cls.ListOffsetsPartition(
                        partition_index=item.partition,
                        current_leader_epoch=NO_EPOCH,
                        timestamp=item.timestamp,
                    )
                    for item in items
                ],
            )
            for topic, items in _by_topic(request.partitions, lambda item: item.topic).items()
        ],
        # Version 1 knows no isolation level, and would drop it in silence.
        min_version=1 if request.isolation_level == m.READ_UNCOMMITTED else 2,
        max_version=7,
    )


def _fetch(request: m.FetchRequest) -> Any:
    assert request.partitions, "no partitions"
    cls = kc.FetchRequest
    session_id, session_epoch = NO_SESSION
    return cls(
        replica_id=CONSUMER_REPLICA,
        max_wait_ms=request.max_wait_ms,
        min_bytes=request.min_bytes,
        max_bytes=request.max_bytes,
        isolation_level=request.isolation_level,
        session_id=session_id,
        session_epoch=session_epoch,
        topics=[
            cls.FetchTopic(
                topic=topic,
                partitions=[_fetch_partition(item, request.partition_max_bytes) for item in items],
            )
            for topic, items in _by_topic(request.partitions, lambda item: item.topic).items()
        ],
        min_version=4,  # the first whose batches are never down-converted
        max_version=12,  # the last that names topics; later ones give ids
    )


def _fetch_partition(item: m.FetchPartition, partition_max_bytes: int) -> Any:
    assert item.fetch_offset >= 0, f"fetch_offset = {item.fetch_offset}"
    return kc.FetchRequest.FetchTopic.FetchPartition(
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=NO_EPOCH,
        log_start_offset=-1,
        partition_max_bytes=partition_max_bytes,
    )


def _offset_for_leader_epoch(request: m.OffsetForLeaderEpochRequest) -> Any:
    assert request.partitions, "no partitions"
    cls = kc.OffsetForLeaderEpochRequest
    topic_cls = cls.OffsetForLeaderTopic
    return cls(
        replica_id=CONSUMER_REPLICA,
        topics=[
            topic_cls(
                topic=topic,
                partitions=[
                    topic_cls.OffsetForLeaderPartition(
                        partition=item.partition,
                        current_leader_epoch=item.current_leader_epoch,
                        leader_epoch=item.leader_epoch,
                    )
                    for item in items
                ],
            )
            for topic, items in _by_topic(request.partitions, lambda item: item.topic).items()
        ],
        min_version=3,  # the first that a consumer may ask with READ permission alone
        max_version=4,
    )


ENCODERS: Final[dict[type, Callable[[Any], Any]]] = {
    m.MetadataRequest: _metadata,
    m.FindCoordinatorRequest: _find_coordinator,
    m.JoinGroupRequest: _join_group,
    m.SyncGroupRequest: _sync_group,
    m.HeartbeatRequest: _heartbeat,
    m.LeaveGroupRequest: _leave_group,
    m.OffsetCommitRequest: _offset_commit,
    m.OffsetFetchRequest: _offset_fetch,
    m.ListOffsetsRequest: _list_offsets,
    m.FetchRequest: _fetch,
    m.OffsetForLeaderEpochRequest: _offset_for_leader_epoch,
}
