"""Logs, leaders, answers and fault rules."""

from __future__ import annotations

import pytest

from ksim.broker.broker import Broker
from ksim.broker.cluster import NO_NODE, ClusterState
from ksim.broker.faults import FaultAction, FaultBook, FaultRule, error_response, kind_of
from ksim.broker.log import PartitionLog
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

TP = TopicPartition("t", 0)


@pytest.fixture
def cluster() -> ClusterState:
    found = ClusterState(3, PartitionLog)
    found.create_topic("t", 2)
    found.logs[TP].append([(b"k", bytes([n]), ()) for n in range(10)], 1_000)
    return found


def test_a_log_gives_out_what_was_appended() -> None:
    log = PartitionLog()
    assert log.append([(None, b"a", ()), (None, b"b", ())], 5) == 0
    assert log.append([(None, b"c", ())], 9) == 2
    assert [(r.offset, r.value) for r in log.read(1, 10)] == [(1, b"b"), (2, b"c")]
    assert [r.offset for r in log.read(0, 1)] == [0]
    assert (log.offset_at(6), log.offset_at(10)) == (2, -1)


def test_a_broker_that_fails_hands_its_partitions_to_others(cluster: ClusterState) -> None:
    led = cluster.leader(TP)
    before = led.node_id
    cluster.fail(before)
    assert led.node_id in cluster.alive
    assert led.epoch == 1
    cluster.recover(before)
    assert led.node_id != before


def test_without_any_broker_nobody_coordinates(cluster: ClusterState) -> None:
    for node_id in (1, 2, 3):
        cluster.fail(node_id)
    answer = Broker(1, cluster).find_coordinator(m.FindCoordinatorRequest("g"))
    assert (answer.error_code, answer.node_id) == (15, NO_NODE)
    cluster.recover(2)
    assert Broker(2, cluster).find_coordinator(m.FindCoordinatorRequest("g")).node_id == 2


def test_metadata_names_leaders_and_refuses_unknown_topics(cluster: ClusterState) -> None:
    answer = Broker(1, cluster).metadata(m.MetadataRequest(("t", "x")))
    known, unknown = answer.topics
    assert [p.leader_id for p in known.partitions] == [1, 2]
    assert unknown.error_code == KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    assert [b.node_id for b in answer.brokers] == [1, 2, 3]


@pytest.mark.parametrize(("timestamp", "offset"), [(-2, 0), (-1, 10), (1_000, 0), (1_001, -1)])
def test_offsets_by_time(cluster: ClusterState, timestamp: int, offset: int) -> None:
    request = m.ListOffsetsRequest((m.ListOffsetsPartition("t", 0, timestamp),))
    assert Broker(1, cluster).list_offsets(request).partitions[0].offset == offset


def test_an_offset_comes_with_the_epoch_that_reading_on_there_is_of(cluster: ClusterState) -> None:
    request = m.ListOffsetsRequest(tuple(m.ListOffsetsPartition("t", 0, at) for at in (-2, -1)))
    cluster.fail(cluster.leader(TP).node_id)
    answer = Broker(cluster.leader(TP).node_id, cluster).list_offsets(request)
    assert [found.leader_epoch for found in answer.partitions] == [0, 1]


def test_an_epoch_older_than_the_log_ends_where_it_begins() -> None:
    log = PartitionLog()
    assert log.end_of_epoch(3) == (3, 0)
    log.append([(None, b"", ())], 0, 5)
    assert log.end_of_epoch(3) == (3, 0)
    assert log.end_of_epoch(6) == (5, 1)


def fetch(offset: int, partition: int = 0) -> m.FetchRequest:
    return m.FetchRequest(500, 1, 1 << 20, 1 << 20, (m.FetchPartition("t", partition, offset),))


def test_a_fetch_gives_records_and_where_to_go_on(cluster: ClusterState) -> None:
    broker = Broker(1, cluster, max_fetch_records=4)
    response, payload = broker.fetch(fetch(3))
    assert response.partitions == (m.FetchedPartition("t", 0, 0, 10, 0, 7, 4, 0, 10),)
    assert [record.offset for record in payload[TP]] == [3, 4, 5, 6]


def test_a_fetch_at_the_end_is_no_news(cluster: ClusterState) -> None:
    broker = Broker(1, cluster)
    assert not broker.has_news(fetch(10))
    assert broker.has_news(fetch(9))
    assert broker.has_news(fetch(11))


@pytest.mark.parametrize(
    ("node_id", "request_", "code"),
    [(2, fetch(0), 6), (1, fetch(11), 1), (1, fetch(0, partition=7), 3)],
)
def test_fetches_are_refused(
    cluster: ClusterState, node_id: int, request_: m.FetchRequest, code: int
) -> None:
    response, payload = Broker(node_id, cluster).fetch(request_)
    assert response.partitions[0].error_code == code
    assert not payload


def rule(**change: object) -> FaultRule:
    usual = {
        "direction": "request",
        "kind": "SyncGroup",
        "member": "a",
        "nth": 2,
        "action": FaultAction.DROP,
        "error_code": 0,
        "for_ms": 0,
        "keep": False,
    }
    return FaultRule(**{**usual, **change})  # type: ignore[arg-type]


def struck(book: FaultBook, times: int, member: str = "a") -> list[bool]:
    return [book.decide("request", "SyncGroup", member) is not None for _ in range(times)]


def test_a_rule_strikes_the_nth_match_once() -> None:
    assert struck(FaultBook((rule(),)), 4) == [False, True, False, False]


def test_a_kept_rule_strikes_from_the_nth_match_on() -> None:
    assert struck(FaultBook((rule(keep=True),)), 4) == [False, True, True, True]


def test_every_match_is_struck_by_nth_zero() -> None:
    assert struck(FaultBook((rule(nth=0, keep=True),)), 3) == [True, True, True]


def test_other_members_kinds_and_directions_do_not_count() -> None:
    book = FaultBook((rule(nth=1),))
    assert struck(book, 1, "b") == [False]
    assert book.decide("response", "SyncGroup", "a") is None
    assert book.decide("request", "Heartbeat", "a") is None
    assert struck(book, 1) == [True]


def test_healing_forgets_all_rules() -> None:
    book = FaultBook((rule(nth=0, keep=True),))
    book.clear()
    assert struck(book, 2) == [False, False]


REQUESTS: list[m.Request] = [
    m.MetadataRequest(("t",)),
    m.FindCoordinatorRequest("g"),
    m.JoinGroupRequest("g", 1, 1, "m", None, "consumer", ()),
    m.SyncGroupRequest("g", 1, "m", None, "consumer", "range", ()),
    m.HeartbeatRequest("g", 1, "m", None),
    m.LeaveGroupRequest("g", (m.MemberIdentity("m", None),)),
    m.OffsetDeleteRequest("g", (TP,)),
    m.DescribeGroupsRequest(("g",)),
    m.ListGroupsRequest((), ()),
    m.DeleteGroupsRequest(("g",)),
    m.OffsetCommitRequest("g", 1, "m", None, (m.OffsetAndMetadata("t", 0, 1, -1, ""),)),
    m.OffsetFetchRequest("g", (TP,)),
    m.ListOffsetsRequest((m.ListOffsetsPartition("t", 0, -1),)),
    fetch(0),
    m.ProduceRequest("t", 0, 1),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=kind_of)
def test_every_request_can_be_refused(request_: m.Request) -> None:
    response = error_response(request_, 15)
    assert type(response).__name__ == f"{kind_of(request_)}Response"
    assert "error_code=15" in repr(response)
