"""What the brokers of one cluster agree on: topics, leaders, logs, and who coordinates whom.

Deviation: one log for all replicas, so that no acknowledged record is lost when a leader moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ksim.core.coordinator_hash import OFFSETS_TOPIC_PARTITIONS
from ksim.core.events import LogEntry
from ksim.core.values import TopicPartition

NO_NODE: Final = -1


class Leader:
    """Who leads a partition, in which epoch."""

    __slots__ = ("epoch", "node_id")

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.epoch = 0


LogT = TypeVar("LogT")


class ClusterState(Generic[LogT]):
    """Shared by all brokers of a cluster; node ids count from 1.

    `make_log` makes the log of a new partition: records in the simulator, bytes on sockets.
    """

    def __init__(self, brokers: int, make_log: Callable[[], LogT]) -> None:
        assert brokers > 0, f"brokers = {brokers}"
        self.alive = list(range(1, brokers + 1))
        self.brokers = brokers
        self._make_log = make_log
        self.logs: dict[TopicPartition, LogT] = {}
        self.counts: dict[str, int] = {}
        self._leaders: dict[TopicPartition, Leader] = {}
        self._coordinators = [Leader(1 + p % brokers) for p in range(OFFSETS_TOPIC_PARTITIONS)]
        self.offsets_logs: list[list[LogEntry]] = [[] for _ in range(OFFSETS_TOPIC_PARTITIONS)]

    def create_topic(self, topic: str, partitions: int) -> None:
        """A new topic; partition p is led by broker 1 + p mod brokers."""
        assert topic not in self.counts, f"topic {topic} exists"
        self.counts[topic] = 0
        self.add_partitions(topic, partitions)

    def add_partitions(self, topic: str, count: int) -> None:
        """Let the topic have `count` partitions more."""
        before = self.counts[topic]
        for partition in range(before, before + count):
            tp = TopicPartition(topic, partition)
            self.logs[tp] = self._make_log()
            self._leaders[tp] = Leader(self._next_alive(1 + partition % self.brokers))
        self.counts[topic] = before + count

    def delete_topic(self, topic: str) -> None:
        """The topic and what was in it are gone."""
        for partition in range(self.counts.pop(topic)):
            tp = TopicPartition(topic, partition)
            del self.logs[tp], self._leaders[tp]

    def leader(self, tp: TopicPartition) -> Leader:
        return self._leaders[tp]

    def coordinator(self, partition: int) -> Leader:
        """Who leads this partition of the offsets topic."""
        return self._coordinators[partition]

    def move_coordinator(self, partition: int, node_id: int) -> None:
        """Another broker leads this partition of the offsets topic from now on."""
        assert node_id in self.alive, f"node {node_id} of {self.alive}"
        leader = self._coordinators[partition]
        leader.node_id = node_id
        leader.epoch += 1

    def next_node(self, node_id: int) -> int:
        """The living broker after this one, around the circle; NO_NODE if there is no other."""
        others = [other for other in self.alive if other != node_id]
        return min(others, key=lambda other: (other <= node_id, other), default=NO_NODE)

    def _next_alive(self, node_id: int) -> int:
        return node_id if node_id in self.alive else self.next_node(node_id)

    def fail(self, node_id: int) -> None:
        """A broker is gone: others lead what it led."""
        self.alive.remove(node_id)
        for leader in (*self._leaders.values(), *self._coordinators):
            if leader.node_id == node_id:
                leader.node_id = self.next_node(node_id)
                leader.epoch += 1

    def recover(self, node_id: int) -> None:
        """A broker is back, as a follower; it leads only what nobody else could."""
        self.alive = sorted([*self.alive, node_id])
        for leader in (*self._leaders.values(), *self._coordinators):
            if leader.node_id == NO_NODE:
                leader.node_id = node_id
                leader.epoch += 1
