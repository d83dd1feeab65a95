"""Each refusal of `ksim consume` has its exit code, with a real process and sockets."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.commands import ksim
from tests.cli.consuming import Consuming, fill, rest_of, served
from tests.serve.served import Served
from tests.serve.test_serve import control

RECORDS = 20
GROUP, TOPIC = "GROUP_AUTHORIZATION_FAILED", "TOPIC_AUTHORIZATION_FAILED"


def refuse(cluster: Served, request: str, error: str) -> None:
    fault = {"on": {"request": request, "nth": 0}, "do": "error", "error": error, "keep": True}
    control(cluster, "POST", "/faults", fault)


def produce(cluster: Served, topic: str, *values: bytes) -> None:
    """Each in a batch of its own, in partition 0."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
        assert producer.flush(60) == 0


def test_65_a_corrupt_batch_ends_it_after_a_commit(tmp_path: Path) -> None:
    with served(tmp_path, module="tests.cli.damaging") as cluster:
        produce(cluster, "t", b"0", b"1", b"damaged", b"3")
        with Consuming(tmp_path, cluster.bootstrap) as process:
            process.ends_with(65)
            assert process.offsets() == [0, 1], "nothing after what cannot be read"
        assert process.kinds() == ["assigned", "error", "revoked"]
        (error,) = [event for event in process.events() if event["event"] == "error"]
        assert (error["error"], error["code"]) == ("CORRUPT_MESSAGE", 2)
        assert "t-0 at offset 2" in error["message"]
        with Consuming(tmp_path, cluster.bootstrap) as following:
            following.ends_with(65)
            assert following.offsets() == [], "it was committed up to the batch"


def test_65_although_another_partition_never_stops(tmp_path: Path) -> None:
    stopped = threading.Event()
    with served(tmp_path, "t:2", module="tests.cli.damaging") as cluster:

        def keep_coming() -> None:
            from confluent_kafka import Producer

            producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 0})
            while not stopped.wait(0.02):
                producer.produce("t", b"more", partition=1)
                producer.poll(0)
            producer.flush(60)

        thread = threading.Thread(target=keep_coming)
        thread.start()
        try:
            produce(cluster, "t", b"damaged")
            with Consuming(tmp_path, cluster.bootstrap) as process:
                process.ends_with(65)
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize(
    ("request_name", "error"),
    [
        ("FindCoordinator", GROUP),
        ("JoinGroup", GROUP),
        ("SyncGroup", GROUP),
        ("Heartbeat", GROUP),
        ("OffsetFetch", GROUP),
        ("OffsetCommit", GROUP),
        ("OffsetCommit", TOPIC),
        ("Metadata", TOPIC),
        ("ListOffsets", TOPIC),
    ],
)
def test_77_what_is_not_allowed(tmp_path: Path, request_name: str, error: str) -> None:
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        refuse(cluster, request_name, error)
        with Consuming(tmp_path, cluster.bootstrap) as process:
            process.ends_with(77)
        assert [event["error"] for event in process.events() if event["event"] == "error"][:1] == [
            error
        ]
        assert "Traceback" not in process.stderr


def test_2_a_name_that_no_topic_can_have_is_told_after_a_commit(tmp_path: Path) -> None:
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        with Consuming(tmp_path, cluster.bootstrap, "-t", "t,u") as process:
            process.ends_with(2)
        (error,) = [event for event in process.events() if event["event"] == "error"]
        assert (error["error"], error["message"]) == (
            "INVALID_TOPIC",
            "topic t,u: INVALID_TOPIC (17)",
        )
        handled = process.offsets()
        assert handled + rest_of(tmp_path, cluster.bootstrap) == [*range(RECORDS)]


def test_70_a_broken_owner_is_a_traceback_and_no_hang(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.cli.crashing")
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        with Consuming(tmp_path, cluster.bootstrap, command=command) as process:
            process.ends_with(70)
            assert "RuntimeError: planted: the owner breaks" in process.stderr
            assert "Traceback" in process.stderr


def test_70_although_somebody_asked_it_to_end(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.cli.crashing")
    with served(tmp_path) as cluster, Consuming(tmp_path, cluster.bootstrap, command=command) as it:
        it.has_told("assigned")
        it.signal(signal.SIGSTOP)
        fill(cluster.bootstrap, RECORDS)
        it.signal(signal.SIGTERM)
        it.signal(signal.SIGCONT)
        assert it.code() in (0, 70), it.stderr  # 0: it ended before there was a mark


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-messages", "many"), "many"),
        (("--idle-exit", "soon"), "idle-exit"),
        (("--close-timeout", "soon"), "close-timeout"),
        (("-X", "session.timeout.ms=1"), "session_timeout_ms"),
        (("--from", "nowhere"), "nowhere"),
    ],
)
def test_2_a_wrong_option_names_itself(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    with Consuming(tmp_path, "127.0.0.1:1", *arguments) as process:
        process.ends_with(2)
        assert said in process.stderr
        assert "Traceback" not in process.stderr


def test_2_where_no_offset_is_committed_and_none_may_be_chosen(tmp_path: Path) -> None:
    with (
        served(tmp_path) as cluster,
        Consuming(tmp_path, cluster.bootstrap, "--from", "none") as it,
    ):
        it.ends_with(2)
        assert "auto_offset_reset is none" in it.stderr


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A port where everybody who sends something gets this."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            while True:
                peer, _ = server.accept()
                with peer:
                    if ended.is_set():
                        return
                    peer.recv(4_096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "answer", [HTTP, b"\0\0\0\4\0\0\0\1", b"\0\0\0\7\0\0\0\1own", b"\xff" * 64, b""]
)
def test_69_a_broker_that_is_no_kafka(tmp_path: Path, answer: bytes) -> None:
    with (
        answering(answer) as address,
        Consuming(tmp_path, address, "-X", "bootstrap.timeout.ms=1000") as it,
    ):
        it.ends_with(69)
        assert it.stderr.startswith(f"ksim: no Kafka broker at {address} within 1000 ms")
        assert len(it.stderr.splitlines()) == 1, "what cannot be read is shown to nobody"


def test_a_topic_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with (
        served(tmp_path, "other:1") as cluster,
        Consuming(tmp_path, cluster.bootstrap) as process,
    ):
        process.has_told("error")
        (error,) = [event for event in process.events() if event["event"] == "error"]
        assert error["error"] == "UNKNOWN_TOPIC_OR_PARTITION"
        assert "topic t" in error["message"]
        create(cluster, "t")
        fill(cluster.bootstrap, RECORDS)
        process.has_handled(RECORDS)
        process.signal(signal.SIGTERM)
        process.ends_with(0)
        assert process.offsets() == list(range(RECORDS))
        assert rest_of(tmp_path, cluster.bootstrap) == []


def create(cluster: Served, topic: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    client = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for future in client.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(60)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-X", "mode=partitions"), "mode = 'partitions': ksim consume knows 'multiplex'"),
        (("-X", "acknowledge=each"), "acknowledge = 'each': ksim consume knows 'mark'"),
        (("--max-messages", "-3"), "-3 is not in the range x>=0"),
    ],
)
def test_2_what_it_cannot_do_is_refused_before_it_joins(
    arguments: tuple[str, ...], says: str
) -> None:
    found = ksim("consume", "-b", "127.0.0.1:1", "-g", "g", "-t", "t", *arguments)
    assert found.returncode == 2
    assert says in found.stderr
