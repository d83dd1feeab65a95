"""The transport: no broker, silent brokers, and a whole conversation with a real one."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ksim.core import messages as m
from ksim.core.errors import ConfigError, NoBrokerError
from ksim.core.events import ANY_NODE, SendRequest
from ksim.core.values import Payload, TopicPartition
from ksim.real.clock import now_ms
from ksim.real.transport import Transport, parse_server

Result = tuple[int, m.Response | None, Payload | None, str]
BOOTSTRAP_MS = 300
SLACK_MS = 2_000
REBALANCE_MS = 10_000
# Version 1, one topic "t", no user data, nothing owned. Kafka's coordinator reads this itself,
# and leaves a JoinGroup without any answer when it cannot.
SUBSCRIPTION = b"\0\1\0\0\0\1\0\1t\xff\xff\xff\xff\0\0\0\0"


class Talk:
    """Sends one request after the other and waits for each result."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        self.results: list[Result] = []
        self.transport = Transport(
            servers, "ksim-test", lambda *result: self.results.append(result)
        )
        self.request_id = 0

    def start(self, request: m.Request, channel: str, node_id: int, timeout_ms: int) -> None:
        """Send, and do not wait."""
        self.request_id += 1
        self.transport.send(SendRequest(self.request_id, node_id, channel, request, timeout_ms))

    def collect(self, count: int, limit_ms: int = 20_000) -> list[Result]:
        """Poll until so many results are there."""
        until_ms = now_ms() + limit_ms
        while len(self.results) < count:
            assert now_ms() < until_ms, "no result in time"
            self.transport.poll(100)
        taken, self.results = self.results, []
        assert len(taken) == count
        return taken

    def ask(self, request: m.Request, channel: str = "meta", node_id: int = ANY_NODE) -> Any:
        """Give the response to a request."""
        self.start(request, channel, node_id, 15_000)
        ((request_id, response, _, reason),) = self.collect(1)
        assert request_id == self.request_id
        assert response is not None, reason
        return response

    def fetch(self, request: m.FetchRequest, node_id: int) -> tuple[m.FetchResponse, Payload]:
        """Give the response and the records of a fetch."""
        self.start(request, "fetch", node_id, 15_000)
        ((_, response, payload, reason),) = self.collect(1)
        assert isinstance(response, m.FetchResponse), reason
        assert payload is not None
        return response, payload


@contextmanager
def talking(*servers: str) -> Iterator[Talk]:
    talk = Talk(servers)
    with closing(talk.transport):
        yield talk


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def closed_port() -> int:
    with listener() as server:
        port: int = server.getsockname()[1]
    return port


def test_unreachable_broker_is_told_in_time() -> None:
    server = f"127.0.0.1:{closed_port()}"
    before_ms = now_ms()
    with talking(server) as talk, pytest.raises(NoBrokerError) as caught:
        talk.transport.bootstrap(BOOTSTRAP_MS)
    assert BOOTSTRAP_MS <= now_ms() - before_ms < BOOTSTRAP_MS + SLACK_MS
    told = f"no Kafka broker at {server} within {BOOTSTRAP_MS} ms: cannot connect to {server}: "
    assert str(caught.value) == told + "Connection refused"


def test_broker_that_never_answers_is_told_in_time() -> None:
    with listener() as silent:
        before_ms = now_ms()
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        with talking(server) as talk, pytest.raises(NoBrokerError):
            talk.transport.bootstrap(BOOTSTRAP_MS)
    assert now_ms() - before_ms < BOOTSTRAP_MS + SLACK_MS


def test_unknown_node_is_a_failure_of_the_request() -> None:
    with talking(f"127.0.0.1:{closed_port()}") as talk:
        talk.start(m.HeartbeatRequest("g", 1, "m", None), "group", 5, 1_000)
        assert talk.results == []
        assert talk.collect(1) == [(1, None, None, "unknown node 5")]


def test_refused_connection_fails_each_request_once() -> None:
    with talking(f"127.0.0.1:{closed_port()}") as talk:
        for _ in range(3):
            talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 1_000)
        results = talk.collect(3)
        assert [result[0] for result in results] == [1, 2, 3]
        assert all("refused" in result[3] for result in results)


def test_request_without_answer_ends_at_its_own_timeout() -> None:
    with listener() as silent, talking(f"127.0.0.1:{silent.getsockname()[1]}") as talk:
        talk.start(m.MetadataRequest(None), "meta", ANY_NODE, BOOTSTRAP_MS)
        before_ms = now_ms()
        ((_, response, _, reason),) = talk.collect(1)
        assert response is None
        assert "in time" in reason
        assert now_ms() - before_ms >= BOOTSTRAP_MS - 50


def test_closed_and_senseless_connections_fail_their_requests() -> None:
    for sent, expected in ((b"", "closed the connection"), (b"\xff" * 64, "cannot read")):
        with listener() as server, talking(f"127.0.0.1:{server.getsockname()[1]}") as talk:
            talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 5_000)
            talk.transport.poll(100)
            peer, _ = server.accept()
            with peer:
                peer.settimeout(5)
                peer.recv(4_096)
                peer.sendall(sent)
            ((_, response, _, reason),) = talk.collect(1)
            assert response is None
            assert expected in reason


def test_wake_ends_a_poll() -> None:
    with talking(f"127.0.0.1:{closed_port()}") as talk:
        waker = threading.Thread(target=talk.transport.wake)
        before_ms = now_ms()
        waker.start()
        talk.transport.poll(900)
        waker.join()
        assert now_ms() - before_ms < 800


def test_servers_are_parsed() -> None:
    assert parse_server("h") == ("h", 9092)
    assert parse_server("h:1") == ("h", 1)
    assert parse_server("[::1]:7") == ("::1", 7)
    assert parse_server("[::1]") == ("::1", 9092)
    for bad in ("h:x", ":1", "h:0", "h:70000", ""):
        with pytest.raises(ConfigError, match="host:port"):
            parse_server(bad)


def join(member_id: str, group_id: str) -> m.JoinGroupRequest:
    protocols = (("range", SUBSCRIPTION),)
    return m.JoinGroupRequest(
        group_id, REBALANCE_MS, REBALANCE_MS, member_id, None, "consumer", protocols
    )


def find_coordinator(talk: Talk, group_id: str) -> int:
    """The offsets topic of a fresh broker takes a moment."""
    until_ms = now_ms() + 30_000
    while now_ms() < until_ms:
        found = talk.ask(m.FindCoordinatorRequest(group_id))
        if found.error_code == 0:
            node_id: int = found.node_id
            return node_id
        talk.transport.poll(200)
    raise AssertionError("no coordinator")


def ask_loaded(talk: Talk, request: m.Request, node_id: int) -> Any:
    """The answer of a coordinator once it has its group: it is named before it has loaded."""
    until_ms = now_ms() + 30_000
    while now_ms() < until_ms:
        found = talk.ask(request, "group", node_id)
        if found.error_code not in (14, 15, 16):
            return found
        talk.transport.poll(200)
    raise AssertionError("the coordinator never loads")


@pytest.mark.kafka
def test_a_member_talks_through_its_life(kafka: Any) -> None:
    topic, group_id = f"life-{uuid.uuid4().hex}", f"group-{uuid.uuid4().hex}"
    kafka.create_topic(topic, 2)
    with talking(kafka.bootstrap) as talk:
        talk.transport.bootstrap(10_000)
        metadata = talk.ask(m.MetadataRequest((topic,)))
        assert [len(item.partitions) for item in metadata.topics] == [2]
        node_id = find_coordinator(talk, group_id)
        refused = ask_loaded(talk, join("", group_id), node_id)
        assert refused.error_code == 79
        joined = talk.ask(join(refused.member_id, group_id), "group", node_id)
        assert (joined.error_code, joined.leader) == (0, joined.member_id)
        assert joined.members[0].metadata == SUBSCRIPTION
        me, generation_id = joined.member_id, joined.generation_id
        synced = talk.ask(
            m.SyncGroupRequest(
                group_id, generation_id, me, None, "consumer", "range", ((me, b"assignment"),)
            ),
            "group",
            node_id,
        )
        assert (synced.error_code, synced.assignment) == (0, b"assignment")
        heartbeat = m.HeartbeatRequest(group_id, generation_id, me, None)
        assert talk.ask(heartbeat, "group", node_id).error_code == 0
        offsets = (m.OffsetAndMetadata(topic, 1, 42, -1, "note"),)
        commit = m.OffsetCommitRequest(group_id, generation_id, me, None, offsets)
        committed = talk.ask(commit, "group", node_id)
        assert committed.partitions == (m.PartitionError(topic, 1, 0),)
        asked = (TopicPartition(topic, 0), TopicPartition(topic, 1))
        known = talk.ask(m.OffsetFetchRequest(group_id, asked), "group", node_id)
        assert {(item.partition, item.offset, item.metadata) for item in known.partitions} == {
            (0, -1, ""),
            (1, 42, "note"),
        }
        leave = m.LeaveGroupRequest(group_id, (m.MemberIdentity(me, None),))
        assert talk.ask(leave, "group", node_id).error_code == 0
        assert talk.ask(heartbeat, "group", node_id).error_code == 25


@pytest.mark.kafka
def test_records_of_a_producer_are_fetched(kafka: Any) -> None:
    from kafka import KafkaProducer

    topic = f"fetch-{uuid.uuid4().hex}"
    kafka.create_topic(topic, 1)
    make_producer: Any = KafkaProducer
    producer = make_producer(bootstrap_servers=kafka.bootstrap)
    for number in range(20):
        producer.send(topic, value=b"v%d" % number, key=b"k", headers=[("h", b"x")], partition=0)
    producer.flush(60)
    producer.close(60)
    with talking(kafka.bootstrap) as talk:
        talk.transport.bootstrap(10_000)
        metadata = talk.ask(m.MetadataRequest((topic,)))
        leader_id = metadata.topics[0].partitions[0].leader_id
        listed = talk.ask(
            m.ListOffsetsRequest((m.ListOffsetsPartition(topic, 0, m.OFFSET_LATEST),)),
            "meta",
            leader_id,
        )
        assert listed.partitions == (m.ListedOffset(topic, 0, 0, 20, 0),)
        request = m.FetchRequest(500, 1, 1 << 20, 1 << 20, (m.FetchPartition(topic, 0, 5),))
        response, payload = talk.fetch(request, leader_id)
        records = payload[TopicPartition(topic, 0)]
        assert [record.value for record in records] == [b"v%d" % at for at in range(5, 20)]
        assert records[0].headers == (("h", b"x"),)
        header = response.partitions[0]
        assert (header.next_offset, header.record_count, header.high_watermark) == (20, 15, 20)


@pytest.mark.kafka
def test_a_parked_fetch_holds_up_no_other_channel(kafka: Any) -> None:
    topic = f"park-{uuid.uuid4().hex}"
    kafka.create_topic(topic, 1)
    with talking(kafka.bootstrap) as talk:
        talk.transport.bootstrap(10_000)
        metadata = talk.ask(m.MetadataRequest((topic,)))
        leader_id = metadata.topics[0].partitions[0].leader_id
        parked = m.FetchRequest(3_000, 1, 1 << 20, 1 << 20, (m.FetchPartition(topic, 0, 0),))
        talk.start(parked, "fetch", leader_id, 15_000)
        talk.start(m.MetadataRequest((topic,)), "meta", leader_id, 15_000)
        first, second = talk.collect(2)
        assert isinstance(first[1], m.MetadataResponse)
        assert isinstance(second[1], m.FetchResponse)
