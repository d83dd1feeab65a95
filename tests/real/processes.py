"""`ksim consume` as real processes, and what they left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ksim.core.errors import KafkaError
from ksim.core.events import AssignPartitions, ResponseReceived, SendRequest
from ksim.core.messages import OffsetCommitRequest, OffsetCommitResponse
from ksim.core.trace import value_of
from ksim.recording import read_recording

ROOT = Path(__file__).parents[2]
LIMIT_S = 90.0
LOOK_S = 0.05
NEVER = threading.Event()

Place = tuple[int, int]


def until(condition: Callable[[], bool], what: str, within_s: float = LIMIT_S) -> None:
    """Look until it holds; files of other processes cannot notify."""
    limit_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < limit_s, f"never came: {what}"
        NEVER.wait(LOOK_S)


def commits_of(recording: Path) -> list[dict[int, int]]:
    """By assignment: the offset of each partition that the coordinator acknowledged last."""
    sent: dict[int, OffsetCommitRequest] = {}
    found: list[dict[int, int]] = []
    for entry in read_recording(recording).entries:
        fact = value_of(entry.fact)
        if isinstance(fact, ResponseReceived) and fact.request_id in sent:
            assert isinstance(fact.response, OffsetCommitResponse)
            taken = {
                each.partition
                for each in fact.response.partitions
                if each.error_code == KafkaError.NONE
            }
            for item in sent.pop(fact.request_id).offsets:
                if item.partition in taken and found:
                    found[-1][item.partition] = item.offset
        for order in map(value_of, entry.orders):
            match order:
                case SendRequest(request=OffsetCommitRequest()):
                    sent[order.request_id] = order.request
                case AssignPartitions():
                    found.append({})
    return found


def consume_command(
    recording: Path, bootstrap: str, group: str, topic: str, plant: str | None
) -> list[str]:
    """`ksim consume` from the beginning of a topic, or the same with a planted error."""
    ksim = ["-m", "ksim.cli.main"] if plant is None else ["-m", "tests.canary", plant, "--"]
    command = [sys.executable, *ksim, "consume", "-b", bootstrap, "-g", group]
    return [*command, "-t", topic, "--from", "earliest", "--record", str(recording)]


class Member:
    """One process; stdout and stderr go to one file, in the order they were written."""

    def __init__(
        self,
        folder: Path,
        name: str,
        bootstrap: str,
        group: str,
        topic: str,
        plant: str | None = None,
    ) -> None:
        self.name = name
        self.output = folder / f"{name}.out"
        self.recording = folder / f"{name}.ksim"
        command = consume_command(self.recording, bootstrap, group, topic, plant)
        for setting in (
            "session.timeout.ms=6000",
            "heartbeat.interval.ms=1000",
            "commit.interval.ms=1000",
            f"client.id={name}",
        ):
            command += ["-X", setting]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
            )

    def lines(self) -> list[dict[str, Any]]:
        """Messages and events in order; a line that is not whole yet is left out."""
        whole = self.output.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines() if "event" in line]

    def handled(self) -> list[Place]:
        return [(line["partition"], line["offset"]) for line in self.lines() if "offset" in line]

    def owned(self) -> list[int]:
        """Partitions of the last assignment."""
        sets = [line["partitions"] for line in self.lines() if line.get("event") == "assigned"]
        return [partition for _, partition in sets[-1]] if sets else []

    def committed(self) -> dict[int, int]:
        """By its recording: the last offset of each partition whose commit was acknowledged."""
        return {p: offset for each in commits_of(self.recording) for p, offset in each.items()}

    def unacknowledged(self) -> list[Place]:
        """What it handled after its last acknowledged commit of each partition."""
        done = self.committed()
        return [place for place in self.handled() if place[1] >= done.get(place[0], 0)]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


class Production(threading.Thread):
    """Keyed records at a steady rate, from a thread of the test."""

    def __init__(self, bootstrap: str, topic: str, count: int, per_second: int) -> None:
        super().__init__()
        self.sent = 0
        self.failure: BaseException | None = None
        self._servers = bootstrap
        self._topic = topic
        self._count = count
        self._per_second = per_second

    def run(self) -> None:
        from kafka import KafkaProducer

        try:
            producer: Any = KafkaProducer(bootstrap_servers=self._servers, linger_ms=5)
            began_s = time.monotonic()
            for number in range(self._count):
                text = str(number).encode()
                producer.send(self._topic, key=text, value=text)
                self.sent = number + 1
                ahead_s = began_s + number / self._per_second - time.monotonic()
                if ahead_s > LOOK_S / 10:
                    NEVER.wait(ahead_s)
            producer.flush(LIMIT_S)
            producer.close(LIMIT_S)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def reach(self, count: int) -> None:
        """Return when so many were sent."""
        until(lambda: self.sent >= count or self.failure is not None, f"{count} records sent")
        assert self.failure is None, self.failure
