"""Every message through kafka-python's own bytes, in the oldest and newest version in use."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.protocol import consumer as kc
from kafka.protocol import metadata as km
from kafka.record import MemoryRecordsBuilder

from ksim.core import messages as m
from ksim.core.values import TopicPartition
from ksim.wire.codec import WireError, decode_response, encode_request
from ksim.wire.records import decode_records, record_stamps

FETCH = m.FetchRequest(
    500, 1, 1000, 900, (m.FetchPartition("t", 0, 7), m.FetchPartition("u", 1, 0))
)
REQUESTS: dict[str, tuple[m.Request, int, int]] = {
    "metadata": (m.MetadataRequest(("t",)), 4, 9),
    "metadata-all": (m.MetadataRequest(None), 4, 9),
    "find-coordinator": (m.FindCoordinatorRequest("g"), 0, 4),
    "join": (m.JoinGroupRequest("g", 1, 2, "", None, "consumer", (("range", b"s"),)), 0, 9),
    "join-static": (m.JoinGroupRequest("g", 1, 2, "", "i", "consumer", (("range", b"s"),)), 5, 9),
    "sync": (m.SyncGroupRequest("g", 3, "m", None, "consumer", "range", (("m", b"a"),)), 0, 5),
    "heartbeat": (m.HeartbeatRequest("g", 3, "m", None), 0, 4),
    "leave": (m.LeaveGroupRequest("g", (m.MemberIdentity("m", None),)), 0, 5),
    "commit": (
        m.OffsetCommitRequest("g", 3, "m", None, (m.OffsetAndMetadata("t", 0, 5, -1, "x"),)),
        2,
        8,
    ),
    "offset-fetch": (m.OffsetFetchRequest("g", (TopicPartition("t", 0),)), 2, 8),
    "list-offsets": (m.ListOffsetsRequest((m.ListOffsetsPartition("t", 0, -1),)), 1, 7),
    "fetch": (FETCH, 4, 12),
    "epochs": (m.OffsetForLeaderEpochRequest((m.EpochPartition("t", 0, 3, 2),)), 3, 4),
}


def through_bytes(message: Any, version: int) -> Any:
    """Encode as a message of this version and decode what came out."""
    return type(message).decode(message.encode(version=version), version=version)


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_survive_their_oldest_and_newest_version(name: str) -> None:
    request, oldest, newest = REQUESTS[name]
    message = encode_request(request)
    assert (message._min_version or 0, message._max_version) == (oldest, newest)
    for version in range(oldest, newest + 1):
        decoded = through_bytes(encode_request(request), version)
        assert decoded.name == type(request).__name__


def test_fetch_request_has_its_fields_in_version_12() -> None:
    decoded = through_bytes(encode_request(FETCH), 12)
    first = decoded.topics[0]
    assert (decoded.replica_id, decoded.session_id, decoded.session_epoch) == (-1, 0, -1)
    assert (decoded.isolation_level, decoded.max_wait_ms, decoded.min_bytes) == (0, 500, 1)
    assert (first.topic, first.partitions[0].fetch_offset) == ("t", 7)
    assert first.partitions[0].current_leader_epoch == -1
    assert first.partitions[0].partition_max_bytes == 900


@pytest.mark.parametrize("version", [2, 7, 8])
def test_offset_fetch_names_its_group_in_each_layout(version: int) -> None:
    decoded = through_bytes(encode_request(REQUESTS["offset-fetch"][0]), version)
    group = decoded.groups[0] if version >= 8 else decoded
    assert group.group_id == "g"
    assert group.topics[0].partition_indexes == [0]
    assert decoded.require_stable == (version >= 7), "a transaction may be about to commit"


def test_commit_carries_offset_and_metadata() -> None:
    decoded = through_bytes(encode_request(REQUESTS["commit"][0]), 8)
    item = decoded.topics[0].partitions[0]
    assert (decoded.generation_id_or_member_epoch, decoded.member_id) == (3, "m")
    assert (item.committed_offset, item.committed_metadata) == (5, "x")


def test_a_producer_request_is_refused() -> None:
    with pytest.raises(AssertionError, match="ProduceRequest"):
        encode_request(m.ProduceRequest("t", 0, 1))


def test_empty_names_are_refused() -> None:
    with pytest.raises(AssertionError, match="empty group_id"):
        encode_request(m.FindCoordinatorRequest(""))


def answer(name: str, message: Any, version: int) -> m.Response:
    return decode_response(REQUESTS[name][0], through_bytes(message, version))[0]


@pytest.mark.parametrize("version", [4, 9])
def test_metadata_response(version: int) -> None:
    cls: Any = km.MetadataResponse
    topic = cls.MetadataResponseTopic
    partition = topic.MetadataResponsePartition(
        error_code=0, partition_index=2, leader_id=1, leader_epoch=4, replica_nodes=[1]
    )
    message = cls(
        brokers=[cls.MetadataResponseBroker(node_id=1, host="h", port=9)],
        topics=[topic(error_code=0, name="t", partitions=[partition])],
    )
    epoch = 4 if version >= 7 else -1
    assert answer("metadata", message, version) == m.MetadataResponse(
        (m.BrokerEndpoint(1, "h", 9),),
        (m.TopicMetadata(0, "t", (m.PartitionMetadata(0, 2, 1, epoch),)),),
    )


@pytest.mark.parametrize("version", [0, 3, 4])
def test_find_coordinator_response(version: int) -> None:
    cls: Any = km.FindCoordinatorResponse
    found = {"error_code": 0, "node_id": 3, "host": "h", "port": 9}
    message = cls(**found) if version < 4 else cls(coordinators=[cls.Coordinator(key="g", **found)])
    expected = m.FindCoordinatorResponse(0, 3, "h", 9)
    assert answer("find-coordinator", message, version) == expected


@pytest.mark.parametrize("version", [0, 5, 7, 9])
def test_join_group_response(version: int) -> None:
    cls: Any = kc.JoinGroupResponse
    message = cls(
        error_code=0,
        generation_id=4,
        protocol_type="consumer",
        protocol_name="range",
        leader="m",
        member_id="m",
        members=[cls.JoinGroupResponseMember(member_id="m", metadata=b"s")],
    )
    protocol_type = "consumer" if version >= 7 else None
    assert answer("join", message, version) == m.JoinGroupResponse(
        0, 4, protocol_type, "range", "m", "m", (m.JoinedMember("m", None, b"s"),)
    )


def test_sync_heartbeat_and_leave_responses() -> None:
    sync: Any = kc.SyncGroupResponse
    heartbeat: Any = kc.HeartbeatResponse
    leave: Any = kc.LeaveGroupResponse
    assert answer("sync", sync(error_code=0, assignment=b"a"), 3) == m.SyncGroupResponse(
        0, None, None, b"a"
    )
    assert answer("heartbeat", heartbeat(error_code=27), 4) == m.HeartbeatResponse(27)
    member = leave.MemberResponse(member_id="m", group_instance_id="i", error_code=25)
    assert answer("leave", leave(error_code=0, members=[member]), 5) == m.LeaveGroupResponse(
        0, (m.MemberResponse("m", "i", 25),)
    )
    assert answer("leave", leave(error_code=16), 0) == m.LeaveGroupResponse(16)


@pytest.mark.parametrize("version", [2, 8])
def test_offset_commit_response(version: int) -> None:
    cls: Any = kc.OffsetCommitResponse
    topic = cls.OffsetCommitResponseTopic
    item = topic.OffsetCommitResponsePartition(partition_index=1, error_code=22)
    message = cls(topics=[topic(name="t", partitions=[item])])
    assert answer("commit", message, version) == m.OffsetCommitResponse(
        (m.PartitionError("t", 1, 22),)
    )


@pytest.mark.parametrize("version", [2, 7, 8])
def test_offset_fetch_response(version: int) -> None:
    cls: Any = kc.OffsetFetchResponse
    item = {"partition_index": 0, "committed_offset": 5, "metadata": None, "error_code": 0}
    if version >= 8:
        group = cls.OffsetFetchResponseGroup
        topic = group.OffsetFetchResponseTopics
        partition = topic.OffsetFetchResponsePartitions(**item)
        topics = [topic(name="t", partitions=[partition])]
        message = cls(groups=[group(group_id="g", topics=topics, error_code=0)])
    else:
        topic = cls.OffsetFetchResponseTopic
        partition = topic.OffsetFetchResponsePartition(**item)
        message = cls(error_code=0, topics=[topic(name="t", partitions=[partition])])
    assert answer("offset-fetch", message, version) == m.OffsetFetchResponse(
        0, (m.CommittedOffset("t", 0, 5, -1, "", 0),)
    )


@pytest.mark.parametrize("version", [1, 7])
def test_list_offsets_response(version: int) -> None:
    cls: Any = kc.ListOffsetsResponse
    topic = cls.ListOffsetsTopicResponse
    item = topic.ListOffsetsPartitionResponse(
        partition_index=0, error_code=0, offset=12, leader_epoch=3
    )
    message = cls(topics=[topic(name="t", partitions=[item])])
    assert answer("list-offsets", message, version) == m.ListOffsetsResponse(
        (m.ListedOffset("t", 0, 0, 12, 3 if version >= 4 else -1),)
    )


EPOCH = 4


def batch(first: int, values: list[bytes], compression: int = 0) -> bytes:
    """One record batch whose records start at offset `first`."""
    make_builder: Any = MemoryRecordsBuilder
    builder = make_builder(2, compression, 10_000, offset=0)
    for value in values:
        assert builder.append(1_000, b"k", value, [("h", b"v")])
    builder.close()
    # A broker sets base offset and leader epoch; they stand before what the checksum covers.
    data = bytes(builder.buffer())
    return first.to_bytes(8, "big") + data[8:12] + EPOCH.to_bytes(4, "big") + data[16:]


def control(first: int) -> bytes:
    """Turn a batch into a control batch, with its checksum set right."""
    from kafka.record.util import calc_crc32c

    data = bytearray(batch(first, [b"x"]))
    data[22] |= 0x20
    crc: int = calc_crc32c(bytes(data[21:]))  # type: ignore[no-untyped-call]
    data[17:21] = crc.to_bytes(4, "big")
    return bytes(data)


def fetched(records: bytes | None, error_code: int = 0, topic: str = "t", version: int = 12) -> Any:
    cls: Any = kc.FetchResponse
    topic_cls = cls.FetchableTopicResponse
    item = topic_cls.PartitionData(
        partition_index=0,
        error_code=error_code,
        high_watermark=20,
        last_stable_offset=20,
        log_start_offset=2,
        aborted_transactions=None,
        records=records,
    )
    message = cls(error_code=0, responses=[topic_cls(topic=topic, partitions=[item])])
    return through_bytes(message, version)


@pytest.mark.parametrize("version", [4, 11, 12])
def test_fetch_skips_what_is_below_the_asked_offset(version: int) -> None:
    data = batch(5, [b"a", b"b", b"c", b"d"])
    response, payload = decode_response(FETCH, fetched(data, version=version))
    log_start = 2 if version >= 5 else -1
    header = m.FetchedPartition("t", 0, 0, 20, log_start, 9, 2, EPOCH, 20)
    assert response == m.FetchResponse(0, (header,))
    assert payload is not None
    records = payload[TopicPartition("t", 0)]
    assert [(record.offset, record.value) for record in records] == [(7, b"c"), (8, b"d")]
    assert (records[0].timestamp_ms, records[0].key) == (1_000, b"k")
    assert records[0].headers == (("h", b"v"),)


def test_fetch_of_nothing_stays_where_it_was() -> None:
    response, payload = decode_response(FETCH, fetched(b""))
    assert isinstance(response, m.FetchResponse)
    assert (response.partitions[0].next_offset, response.partitions[0].record_count) == (7, 0)
    assert payload == {}


def test_fetch_error_of_the_broker_is_kept() -> None:
    response, _ = decode_response(FETCH, fetched(None, error_code=1))
    assert isinstance(response, m.FetchResponse)
    assert response.partitions[0].error_code == 1


def test_answer_that_was_not_asked_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="other-0"):
        decode_response(FETCH, fetched(b"", topic="other"))


def test_control_batches_and_compaction_move_the_offset_on() -> None:
    decoded = decode_records(batch(0, [b"a"]) + control(1), 0)
    assert [record.offset for record in decoded.records] == [0]
    assert decoded.next_offset == 2


def test_compressed_batches_are_read() -> None:
    decoded = decode_records(batch(3, [b"a", b"b"], compression=1), 0)
    assert [record.value for record in decoded.records] == [b"a", b"b"]


def test_the_times_of_records_are_read_where_a_batch_can_be_read() -> None:
    data = batch(3, [b"a", b"b"], compression=1)
    found = record_stamps(data)
    times = [record.timestamp_ms for record in decode_records(data, 3).records]
    assert found == [(3, times[0]), (4, times[1])]
    assert record_stamps(data[:-4] + b"\xff" * 4) == []


def test_a_partial_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    data = batch(0, [b"a"]) + batch(1, [b"b"])[:-3]
    assert decode_records(data, 0).next_offset == 1


def test_a_corrupt_batch_is_an_error_at_its_own_offset() -> None:
    damaged = bytearray(batch(1, [b"b"]))
    damaged[-2] ^= 0xFF
    data = batch(0, [b"a"]) + bytes(damaged)
    before = decode_records(data, 0)
    assert (before.next_offset, before.error_code, len(before.records)) == (1, 0, 1)
    at = decode_records(data, 1)
    assert (at.next_offset, at.error_code, at.records) == (1, 2, ())
