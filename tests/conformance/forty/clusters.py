"""The clusters of the two arms that have sockets: `ksim serve` and Apache Kafka, by profile.

All checks of an arm run side by side, each in a group of its own: nearly all of their time is
waiting for a broker's timers. So they are started together, by whichever test asks first.
"""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from kafka import KafkaAdminClient

from ksim.core.coordinator_hash import group_partition
from tests.conformance.forty.arms import TOPIC, Mover, WireArm
from tests.conformance.forty.registry import Check
from tests.kafka_server import KafkaServer, shared_server
from tests.real.processes import until
from tests.serve.served import Served

OFFSETS_TOPIC: Final = "__consumer_offsets"
PREFERRED: Final = 0
DELAY: Final = "group.initial.rebalance.delay.ms"
# What `ksim serve` is started with for the profiles of tests.kafka_server.
SERVED: Final = {
    "fast": ("-X", f"{DELAY}=0"),
    "delay": ("-X", f"{DELAY}=3000"),
    "long-delay": ("-X", f"{DELAY}=20000"),
    "small-groups": ("-X", f"{DELAY}=0", "-X", "group.max.size=2"),
    "three": ("-X", f"{DELAY}=0", "--brokers", "3"),
    "slow-load": ("-X", f"{DELAY}=0", "--brokers", "3", "-X", "coordinator.load.ms=10000"),
}


class Clusters(ABC):
    """One cluster of each profile; `result` gives what a check said."""

    def __init__(self) -> None:
        self._results: dict[str, Future[None]] = {}
        self._partitions: set[int] = set()
        self._lock = threading.Lock()

    @abstractmethod
    def start(self, profile: str) -> tuple[str, Mover]:
        """Bootstrap servers, and how a coordinator is moved there."""

    @abstractmethod
    def stop(self) -> None:
        """End what was started."""

    def result(self, check: Check, together: Iterable[Check]) -> None:
        """Run the check and all that are `together` with it, at once; raises what it raised."""
        if check.name not in self._results:
            self._run(list(together))
        self._results[check.name].result()

    def _run(self, checks: list[Check]) -> None:
        profiles = sorted({check.profile for check in checks})
        pool = ThreadPoolExecutor(len(checks) + len(profiles))
        started = {profile: pool.submit(self.start, profile) for profile in profiles}
        wait(started.values())  # a broker that starts takes the time of the others
        self._results = {
            check.name: pool.submit(self._check, check, started[check.profile]) for check in checks
        }
        pool.shutdown(wait=False)

    def _check(self, check: Check, started: Future[tuple[str, Mover]]) -> None:
        bootstrap, move = started.result()
        with contextlib.closing(WireArm(self._group_id(), bootstrap, move)) as arm:
            check.body(arm)

    def _group_id(self) -> str:
        """No two groups have one partition of the offsets topic: it may move."""
        with self._lock:
            while True:
                found = f"forty-{uuid.uuid4()}"
                partition = group_partition(found)
                if partition not in self._partitions:
                    self._partitions.add(partition)
                    return found


class RealClusters(Clusters):
    """Apache Kafka. `start` raises KafkaUnavailableError."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir

    def start(self, profile: str) -> tuple[str, Mover]:
        server = shared_server(self._run_dir, profile)
        _create_topic(server)
        WireArm("anybody", server.bootstrap).close()  # the offsets topic is there now
        return server.bootstrap, lambda group_id, at: _move_leader(server, group_id, at)

    def stop(self) -> None:
        """They end with the run."""


def _create_topic(server: KafkaServer) -> None:
    """A worker that was here before may have made it."""
    from kafka.errors import TopicAlreadyExistsError

    with contextlib.suppress(TopicAlreadyExistsError):
        server.create_topic(TOPIC, 1)


def _move_leader(server: KafkaServer, group_id: str, at: int) -> None:
    """Let the broker at this place of the bootstrap servers lead the group's offsets partition.

    A broker that is late with its heartbeats is fenced for a while: it is waited for.
    """
    from kafka import TopicPartition
    from kafka.errors import PreferredLeaderNotAvailableError

    addresses = server.bootstrap.split(",")
    partition = group_partition(group_id)
    make_admin: Any = KafkaAdminClient
    with contextlib.closing(make_admin(bootstrap_servers=server.bootstrap)) as admin:
        node_ids: dict[str, int] = {}

        def all_known() -> bool:
            for each in admin.describe_cluster()["brokers"]:
                node_ids[f"{each['host']}:{each['port']}"] = each["broker_id"]
            return node_ids.keys() == set(addresses)

        def elected() -> bool:
            with contextlib.suppress(PreferredLeaderNotAvailableError):
                admin.elect_leaders(PREFERRED, {OFFSETS_TOPIC: [partition]})
                return True
            return False

        until(all_known, "all brokers are known")
        replicas = [node_ids.pop(addresses[at]), *sorted(node_ids.values())]
        moved = {TopicPartition(OFFSETS_TOPIC, partition): replicas}
        assert set(admin.alter_partition_reassignments(moved).values()) == {None}
        until(elected, "the preferred leader leads")


class ServedClusters(Clusters):
    """`ksim serve`, and its control port to move coordinators."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def start(self, profile: str) -> tuple[str, Mover]:
        arguments = ("--topic", f"{TOPIC}:1", "--control-port", "0", *SERVED[profile])
        served = Served(self._folder / profile, *arguments)
        with self._lock:
            self._stack.enter_context(served)
        url = f"http://127.0.0.1:{served.info['control']}/coordinator"

        def move(group_id: str, at: int) -> None:
            body = json.dumps({"group": group_id, "node": at + 1}).encode()
            request = urllib.request.Request(url, body, method="POST")
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer) == {"node": at + 1}

        return served.bootstrap, move

    def stop(self) -> None:
        self._stack.close()
