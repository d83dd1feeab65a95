"""How fast a group reacts: `python benchmarks/rounds.py BOOTSTRAP [ROUNDS]` prints a table.

Alternating rounds, one client at a time, the same settings: time to the first record, until a
second member has its share, from a graceful leave and from a kill until the other has everything.
The last lines compare ksim with the best of the others: within 10 % or 50 ms, settled each time.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Final

PARTITIONS: Final = 6
RECORDS: Final = 600
LIMIT_S: Final = 90.0
OURS: Final = "ksim"
CLIENTS: Final = (OURS, "kafka-python", "aiokafka", "confluent-kafka")
MEASURES: Final = ("first record", "join of a second", "graceful leave", "kill to takeover")
SETTLED_S: Final = 1.0  # a member in peace: heartbeats of both have been answered
SHARE, SLACK_S = 1.10, 0.05
MEMBER: Final = Path(__file__).with_name("member.py")


class Member:
    """A child process; `await_` gives the time of the first line that is wanted."""

    def __init__(self, client: str, bootstrap: str, group: str, topic: str) -> None:
        command = [sys.executable, str(MEMBER), client, bootstrap, group, topic]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()

    @property
    def count(self) -> int:
        return len(self._lines)

    def await_(self, what: str, since: int = 0, size: int = 0) -> float:
        """When it said this, with at least (`size` below 0: exactly) so many partitions."""

        def found() -> list[float]:
            return [
                line["t"]
                for line in self._lines[since:]
                if line["what"] == what
                and (len(line["partitions"]) == -size if size < 0 else True)
                and len(line["partitions"]) >= size
            ]

        with self._changed:
            if not self._changed.wait_for(found, LIMIT_S):
                raise TimeoutError(f"{what} never came")
            return found()[0]

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        self._reader.join()


def round_of(client: str, bootstrap: str) -> dict[str, float]:
    """Seconds of each measure, in a group and a topic of their own."""
    group, topic = uuid.uuid4().hex, uuid.uuid4().hex
    produce(bootstrap, topic)
    members = [Member(client, bootstrap, group, topic)]
    try:
        first = members[0]
        made_s = first.await_("made")
        found = {MEASURES[0]: first.await_("record") - made_s}
        for measure in MEASURES[2:]:
            _rest()
            other = Member(client, bootstrap, group, topic)
            members.append(other)
            joined_s = other.await_("assigned", size=1) - other.await_("made")
            found.setdefault(MEASURES[1], joined_s)
            first.await_("assigned", size=-PARTITIONS // 2)
            _rest()
            since = first.count
            if measure == "graceful leave":
                other.signal(signal.SIGTERM)
                began_s = other.await_("closing")
            else:
                began_s = time.time()
                other.signal(signal.SIGKILL)
            found[measure] = first.await_("assigned", since, -PARTITIONS) - began_s
        return found
    finally:
        for member in members:
            member.end()


def _rest() -> None:
    """A takeover in the middle of a join says nothing."""
    threading.Event().wait(SETTLED_S)


def produce(bootstrap: str, topic: str) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for number in range(RECORDS):
        producer.produce(topic, str(number).encode(), partition=number % PARTITIONS)
    producer.flush()


def main(bootstrap: str, rounds: int) -> int:
    seconds: dict[str, dict[str, list[float]]] = {
        client: {measure: [] for measure in MEASURES} for client in CLIENTS
    }
    for number in range(rounds):
        for client in CLIENTS[number % len(CLIENTS) :] + CLIENTS[: number % len(CLIENTS)]:
            try:
                found = round_of(client, bootstrap)
            except TimeoutError as error:
                print(f"round {number + 1}, {client}: {error}", flush=True)
                continue
            for measure, took_s in found.items():
                seconds[client][measure].append(took_s)
    medians = {
        client: {
            measure: statistics.median(took) if took else float("inf")
            for measure, took in by_measure.items()
        }
        for client, by_measure in seconds.items()
    }
    print(f"{'ms, median of ' + str(rounds):20}" + "".join(f"{each:>18}" for each in CLIENTS))
    missed = 0
    for measure in MEASURES:
        row = [medians[client][measure] for client in CLIENTS]
        print(f"{measure:20}" + "".join(f"{1_000 * each:18.0f}" for each in row))
        best_s = min(row[1:])
        settled = len(seconds[OURS][measure]) == rounds
        missed += not (settled and row[0] <= max(best_s * SHARE, best_s + SLACK_S))
    print(f"{len(MEASURES) - missed} of {len(MEASURES)} within 10 % or 50 ms of the best")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10))
