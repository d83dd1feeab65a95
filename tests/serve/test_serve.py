"""`ksim serve` as a child process: its control port, what it refuses, and bad input."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ksim.broker.settings import ServeConfig
from ksim.cli.serve import configured
from ksim.core.errors import ConfigError
from ksim.wire.server import APIS
from tests.serve.clients import Member, aiokafka, librdkafka
from tests.serve.served import Served

NO_DELAY = ("-X", "group.initial.rebalance.delay.ms=0")
LIMIT_S = 60.0
PARKED_S = 0.2  # a mutated request may be one that waits
PARTITIONS = 6
RECORDS = 600
NESTED = "[" * 50_000


def produce(bootstrap: str, first: int, count: int, partitions: int = PARTITIONS) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in range(first, first + count):
        producer.produce("t", str(number).encode(), partition=number % partitions)
    assert producer.flush(LIMIT_S) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LIMIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until_s, "it did not come true"
        pause.wait(0.02)


def control(served: Served, method: str, path: str, body: Any = None) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    data = None if body is None else text.encode()
    url = f"http://127.0.0.1:{served.info['control']}{path}"
    with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
        return json.load(answer)


def test_control_port_moves_breaks_and_tells(tmp_path: Path) -> None:
    arguments = ("--brokers", "2", "--topic", f"t:{PARTITIONS}", "--control-port", "0", *NO_DELAY)
    with Served(tmp_path / "log", *arguments) as served:
        members = [Member(loop, served.bootstrap) for loop in (librdkafka, aiokafka)]

        def owners() -> set[str]:
            return {share["member_id"] for share in control(served, "GET", "/ownership")}

        def seen() -> set[int]:
            return {number for member in members for number in member.seen}

        try:
            wait_for(lambda: len(owners()) == 2)
            produce(served.bootstrap, 0, RECORDS)
            wait_for(lambda: len(seen()) == RECORDS)
            (group,) = control(served, "GET", "/groups")
            assert (group["group"], group["state"], group["protocol"]) == ("g", "Stable", "range")
            moved = control(served, "POST", "/coordinator", {"group": "g", "node": None})
            assert moved == {"node": 3 - group["node"]}
            fault = {"on": {"request": "Heartbeat", "nth": 1}, "do": "error",
                     "error": "UNKNOWN_MEMBER_ID", "keep": False}  # fmt: skip
            added = control(served, "POST", "/faults", fault)
            kept = control(served, "POST", "/faults", {**fault, "on": {"request": "SyncGroup"}})
            assert control(served, "DELETE", f"/faults/{kept['id']}") == {"lifted": True}
            assert added["id"] != kept["id"]
            wait_for(lambda: bool(control(served, "GET", "/ownership")))
            produce(served.bootstrap, RECORDS, RECORDS)
            wait_for(lambda: len(seen()) == 2 * RECORDS)
            found = control(served, "GET", "/checks")
            assert found["violations"] == []
            verdicts = {found["checks"][name] for name in ("S3", "S4", "S6", "S12", "S13")}
            assert verdicts == {"pass"}
            assert found["checks"]["S5"] == "not judged"
            assert control(served, "GET", "/trace")[0]["fact"]["_"] == "LoadBegan"
        finally:
            for member in members:
                member.stop()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("DELETE", "/faults/7", None, 404),
        ("POST", "/faults", {"on": {"request": "Sync"}, "do": "drop"}, 400),
        ("POST", "/faults", [1], 400),
        ("POST", "/coordinator", {"group": "g", "node": 9}, 400),
        ("POST", "/coordinator", {"group": "g", "node": True}, 400),
        ("PUT", "/faults", {}, 404),
        ("POST", "/faults", NESTED, 400),
    ],
)
def test_control_port_refuses(
    tmp_path: Path, method: str, path: str, body: Any, status: int
) -> None:
    with Served(tmp_path / "log", "--control-port", "0") as served:
        with pytest.raises(urllib.error.HTTPError) as refused:
            control(served, method, path, body)
        assert refused.value.code == status
        assert "error" in json.load(refused.value)
        refused.value.close()


def test_the_number_of_a_fault_is_given_once(tmp_path: Path) -> None:
    fault = {"on": {"request": "Heartbeat", "nth": 1}, "do": "drop"}
    with Served(tmp_path / "log", "--control-port", "0") as served:
        first = control(served, "POST", "/faults", fault)["id"]
        assert control(served, "DELETE", f"/faults/{first}") == {"lifted": True}
        assert control(served, "POST", "/faults", fault)["id"] != first


def read_frame(sock: socket.socket) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        found = sock.recv(65_536)
        if not found:
            return b""
        data += found
    return data[4:]


def asked(address: tuple[str, int], body: bytes) -> bytes:
    """The answer to these bytes; nothing when the connection was closed."""
    with socket.create_connection(address, timeout=LIMIT_S) as sock:
        try:
            sock.sendall(body)
            return read_frame(sock)
        except ConnectionError:
            return b""


def frame(api_key: int, version: int, body: bytes = b"", size: int | None = None) -> bytes:
    head = struct.pack(">hhih", api_key, version, 7, 1) + b"f" + body
    return struct.pack(">i", len(head) if size is None else size) + head


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frame(18, 0, size=-5),
        frame(18, 0, size=2**31 - 1),
        frame(999, 0),
        frame(11, 99),
        frame(3, 1, b"\x7f\xff\xff\xff"),
        frame(15, 0, b"\0\0\0\1\xff\xff"),
        frame(0, 3, b"\xff" * 40),
    ],
)
def test_nonsense_closes_that_connection_alone(tmp_path: Path, bad: bytes) -> None:
    with Served(tmp_path / "log", "--topic", "t:1") as served:
        (address,) = served.addresses
        with socket.create_connection(address, timeout=LIMIT_S) as witness:
            assert asked(address, bad) == b""
            witness.sendall(frame(18, 0))
            assert struct.unpack_from(">ih", read_frame(witness)) == (7, 0)
        assert struct.unpack_from(">ih", asked(address, frame(18, 99))) == (7, 35)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len([line for line in lines if "closed the connection" in line]) == 1


def mutated(entropy: Random) -> bytes:
    """A frame of a real request with a few bytes changed, cut off or added."""
    api = entropy.choice(list(APIS.values()))
    version = entropy.randint(api.min_version, api.max_version)
    tags = b"\0" if api.request.flexible_version_q(version) else b""
    body = bytearray(tags + api.request().encode(version=version))
    for _ in range(entropy.randint(0, 4)):
        match entropy.randrange(3):
            case 0 if body:
                body[entropy.randrange(len(body))] = entropy.randrange(256)
            case 1:
                body += entropy.randbytes(entropy.randint(1, 20))
            case _:
                del body[entropy.randint(0, len(body)) :]
    return frame(api.api_key, version, bytes(body))


def flood(address: tuple[str, int], entropy: Random, count: int) -> None:
    """Send so many mutated frames; whenever the broker closes, connect again."""
    sent = 0
    while sent < count:
        with socket.create_connection(address, timeout=LIMIT_S) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            chunk = min(entropy.randint(1, 3), count - sent)
            with contextlib.suppress(ConnectionError, TimeoutError):
                sock.sendall(b"".join(mutated(entropy) for _ in range(chunk)))
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(PARKED_S)
                while sock.recv(65_536):
                    pass
            sent += chunk


def test_a_hundred_thousand_mutated_frames(tmp_path: Path) -> None:
    with Served(tmp_path / "log", "--topic", "t:1") as served:
        (address,) = served.addresses
        entropy = Random(7)
        flood(address, entropy, 20_000)
        before_kib = served.resident_kib()
        flood(address, entropy, 80_000)
        assert struct.unpack_from(">ih", asked(address, frame(18, 0))) == (7, 0)
        grown_kib = served.resident_kib() - before_kib
        assert grown_kib < 32_768, f"{grown_kib} KiB more after 80,000 frames"


def test_settings_are_kafkas() -> None:
    config = configured(
        ServeConfig(),
        ("group.initial.rebalance.delay.ms=0", "offsets.retention.minutes=2", "num.partitions=3"),
    )
    assert config.coordinator.initial_rebalance_delay_ms == 0
    assert config.coordinator.offsets_retention_ms == 120_000
    assert config.num_partitions == 3
    for wrong in ("group.max.sise=3", "group.max.size=many", "auto.create.topics.enable=1"):
        with pytest.raises(ConfigError, match="-X"):
            configured(ServeConfig(), (wrong,))
