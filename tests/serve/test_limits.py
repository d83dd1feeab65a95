"""Clients that hold things up: each loses its connection, with one line, and all others go on."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serve.served import Served
from tests.serve.test_serve import LIMIT_S, asked, frame, read_frame, wait_for

API_VERSIONS, METADATA, FETCH = frame(18, 0), frame(3, 1, b"\xff\xff\xff\xff"), 1
IDLE = ("-X", "connections.max.idle.ms=400")
CLOSED = "closed the connection"
KIB = 1_024


def lines(served: Served, text: str) -> list[str]:
    return [line for line in served.log_path.read_text().splitlines() if text in line]


def is_served(address: tuple[str, int]) -> bool:
    return asked(address, API_VERSIONS) != b""


@contextlib.contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(served.addresses[0], timeout=LIMIT_S) as sock:
        yield sock


def ask_until_closed(sock: socket.socket, others: tuple[str, int]) -> None:
    """Ask and never read, while others are served."""
    sock.setblocking(False)
    left = b""
    while True:
        left = left or METADATA * 100
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            assert is_served(others)
        except ConnectionError:
            return


def test_a_client_that_never_reads(tmp_path: Path) -> None:
    with Served(tmp_path / "log", "--topic", "t:1000", *IDLE) as served:
        before_kib = served.resident_kib()
        with connected(served) as sock:
            ask_until_closed(sock, served.addresses[0])
        (line,) = lines(served, CLOSED)
        assert line.endswith("ms for its reader")
        assert served.resident_kib() - before_kib < 32 * KIB


def test_a_client_that_reads_slowly_is_no_trouble(tmp_path: Path) -> None:
    with Served(tmp_path / "log", "--topic", "t:20000", *IDLE) as served:
        with connected(served) as sock:
            sock.sendall(METADATA)
            first = sock.recv(1 * KIB)
            size = int.from_bytes(first[:4], "big") + 4 - len(first)
            while size:
                # The other requests take the time in which this client reads nothing.
                assert is_served(served.addresses[0])
                found = sock.recv(min(size, 8 * KIB))
                assert found
                size -= len(found)
        assert not lines(served, CLOSED)


@pytest.mark.parametrize(
    ("sent", "waits_for"), [(b"", "a request"), (API_VERSIONS[:9], "the rest of a request")]
)
def test_a_client_that_is_silent(tmp_path: Path, sent: bytes, waits_for: str) -> None:
    with Served(tmp_path / "log", *IDLE) as served, connected(served) as sock:
        sock.sendall(sent)
        assert sock.recv(1) == b""
        (line,) = lines(served, CLOSED)
        assert line.endswith(f"ms for {waits_for}")
        assert is_served(served.addresses[0])


def test_frames_that_never_end_are_bounded_all_together(tmp_path: Path) -> None:
    clients, half = 40, 256 * KIB
    settings = ("-X", "queued.max.bytes=1048576")
    with Served(tmp_path / "log", *settings) as served, ExitStack() as stack:
        before_kib = served.resident_kib()
        for _ in range(clients):
            sock = stack.enter_context(connected(served))
            with contextlib.suppress(ConnectionError):
                sock.sendall(frame(0, 3, b"\0" * half, size=50 * KIB * KIB))
        wait_for(lambda: len(lines(served, "more than 1048576 bytes")) >= clients - 5)
        assert is_served(served.addresses[0])
        assert served.resident_kib() - before_kib < 16 * KIB
        assert len(lines(served, CLOSED)) < clients


def test_connections_beyond_the_limit(tmp_path: Path) -> None:
    with Served(tmp_path / "log", "-X", "max.connections=20") as served, ExitStack() as stack:
        socks = [stack.enter_context(connected(served)) for _ in range(50)]
        answers: list[bytes] = []
        for sock in socks:
            try:
                sock.sendall(API_VERSIONS)
                answers.append(read_frame(sock))
            except ConnectionError:
                answers.append(b"")
        assert [bool(answer) for answer in answers] == [True] * 20 + [False] * 30
        assert len(lines(served, "20 are open")) == 30
        socks[0].close()
        wait_for(lambda: is_served(served.addresses[0]))


def test_a_parked_request_does_not_outlive_its_client(tmp_path: Path) -> None:
    partition = struct.pack(">iqi", 0, 0, 2**20)
    topic = struct.pack(">ih", 1, 1) + b"t" + struct.pack(">i", 1) + partition
    fetch = frame(FETCH, 4, struct.pack(">iiiib", -1, 2**31 - 1, 1, 2**20, 0) + topic)
    settings = ("--topic", "t:1", "-X", "max.connections=1")
    with Served(tmp_path / "log", *settings) as served:
        with connected(served) as sock:
            sock.sendall(API_VERSIONS + fetch)
            assert read_frame(sock)
        wait_for(lambda: is_served(served.addresses[0]))
        assert not lines(served, "Fetch"), "it was not parked"
