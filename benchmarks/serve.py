"""What `ksim serve` costs: `python benchmarks/serve.py [RECORDS]` prints a table.

Start-up to the first answered request, a first assignment over raw sockets, records of 100 B
through librdkafka, and the resident memory with a small retention.
"""

from __future__ import annotations

import json
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDS = 1_000_000
RECORD_BYTES = 100
GROUPS = 20
RETENTION_BYTES = 8 * 2**20
MIB = 2**20
LIMIT_S = 120.0
NO_DELAY = ("-X", "group.initial.rebalance.delay.ms=0")
API_VERSIONS, JOIN_GROUP, SYNC_GROUP = 18, 11, 14


@dataclass(frozen=True)
class Served:
    """`ksim serve` as a child."""

    process_id: int
    began_s: float
    bootstrap: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.bootstrap.partition(":")
        return host, int(port)

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self.process_id}/status").read_text()
        (line,) = [each for each in status.splitlines() if each.startswith("VmRSS:")]
        return int(line.split()[1]) / 1_024


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "ksim.cli.main", "serve", *arguments]
    began_s = time.perf_counter()
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=silent) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield Served(process.pid, began_s, told["bootstrap"])
        finally:
            process.terminate()


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def data(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def ask(sock: socket.socket, api_key: int, version: int, body: bytes) -> bytes:
    """The body of the answer."""
    request = struct.pack(">hhi", api_key, version, 1) + text("bench") + body
    sock.sendall(data(request))
    found = b""
    while len(found) < 4 or len(found) < 4 + int.from_bytes(found[:4], "big"):
        more = sock.recv(65_536)
        assert more, "the broker closed the connection"
        found += more
    return found[8:]


def start_up_ms() -> float:
    with serving() as served, socket.create_connection(served.address) as sock:
        ask(sock, API_VERSIONS, 0, b"")
        return (time.perf_counter() - served.began_s) * 1_000


def first_assignment_ms(address: tuple[str, int], group: str) -> float:
    """From the first JoinGroup sent to SyncGroup answered, with the id handed out between."""
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_s = time.perf_counter()

        def join(member_id: str) -> tuple[int, int, str]:
            protocols = struct.pack(">i", 1) + text("range") + data(b"\0\0\0\0\0\0\0\0\0\0")
            timeouts = struct.pack(">ii", 10_000, 10_000)
            body = text(group) + timeouts + text(member_id) + text("consumer") + protocols
            answer = ask(sock, JOIN_GROUP, 4, body)
            error, generation = struct.unpack_from(">hi", answer, 4)
            at = 10
            for _ in range(2):  # protocol and leader
                at += 2 + int.from_bytes(answer[at : at + 2], "big")
            size = int.from_bytes(answer[at : at + 2], "big")
            return error, generation, answer[at + 2 : at + 2 + size].decode()

        _, _, member_id = join("")
        error, generation, _ = join(member_id)
        assert error == 0, f"JoinGroup {error}"
        shares = struct.pack(">i", 1) + text(member_id) + data(b"\0\0\0\0\0\0\0\0\0\0")
        body = text(group) + struct.pack(">i", generation) + text(member_id) + shares
        answer = ask(sock, SYNC_GROUP, 1, body)
        assert struct.unpack_from(">h", answer, 4) == (0,), "SyncGroup"
        return (time.perf_counter() - began_s) * 1_000


def produce(bootstrap: str, records: int) -> float:
    """Records a second."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20,
                         "queue.buffering.max.messages": 200_000})  # fmt: skip
    value = b"x" * RECORD_BYTES
    began_s = time.perf_counter()
    for number in range(records):
        while True:
            try:
                producer.produce("t", value)
                break
            except BufferError:
                producer.poll(0.01)
        if number % 10_000 == 0:
            producer.poll(0)
    left = producer.flush(LIMIT_S)
    assert left == 0, f"{left} records were not delivered"
    return records / (time.perf_counter() - began_s)


def consume(bootstrap: str, records: int) -> float:
    """Records a second, from the first one on: joining the group is measured by itself."""
    from confluent_kafka import Consumer

    consumer: Any = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["t"])
    got = len(consumer.consume(1, LIMIT_S))
    began_s = time.perf_counter()
    while got < records:
        found = consumer.consume(10_000, 1)
        got += len(found)
        assert time.perf_counter() - began_s < LIMIT_S, f"{got} of {records} records"
    rate = (got - 1) / (time.perf_counter() - began_s)
    consumer.close()
    return rate


def row(what: str, found: str, target: str = "") -> None:
    sys.stdout.write(f"{what:<58} {found:>20}  {target}\n")
    sys.stdout.flush()


def main(records: int) -> None:
    starts = sorted(start_up_ms() for _ in range(5))
    row("start-up to the first answer, median of 5", f"{starts[2]:.0f} ms", "500 ms")
    with serving("--topic", "t:6", *NO_DELAY) as served:
        times = [first_assignment_ms(served.address, f"g{at}") for at in range(GROUPS)]
        found = f"{statistics.median(times):.1f} / {max(times):.1f} ms"
        row(f"first assignment, median / worst of {GROUPS}", found, "50 ms")
    with serving("--topic", "t:6", *NO_DELAY) as served:
        before_mib = served.resident_mib()
        rate = produce(served.bootstrap, records)
        row(f"{records:,} records of {RECORD_BYTES} B produced", f"{rate:,.0f} /s", "100,000 /s")
        rate = consume(served.bootstrap, records)
        row(f"{records:,} records of {RECORD_BYTES} B consumed", f"{rate:,.0f} /s", "100,000 /s")
        found = f"{before_mib:.0f} / {served.resident_mib():.0f} MiB"
        row("resident before / after, 256 MiB kept for a partition", found)
    with serving("--topic", "t:6", "-X", f"log.retention.bytes={RETENTION_BYTES}") as served:
        before_mib = served.resident_mib()
        for times_produced in (1, 2):
            produce(served.bootstrap, records)
            found = f"{before_mib:.0f} / {served.resident_mib():.0f} MiB"
            kept = f"{RETENTION_BYTES // MIB} MiB kept for each of 6 partitions"
            row(f"the same after {times_produced * records:,} records, {kept}", found)


if __name__ == "__main__":
    main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else RECORDS)
