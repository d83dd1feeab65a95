"""What the brokers of one cluster agree on: topics, leaders, logs, and who coordinates whom.

Deviation: one log for all replicas, so that no acknowledged record is lost when a leader moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from ksim.core.coordinator_hash import OFFSETS_TOPIC_PARTITIONS
from ksim.core.events import GroupRecord, GroupTombstone, LogEntry, OffsetRecord
from ksim.core.values import TopicPartition

NO_NODE: Final = -1
LEAST_COMPACTED: Final = 1_000


def compacted(entries: Iterable[LogEntry]) -> list[LogEntry]:
    """The last entry of each key, in order; a tombstone has done its work when it is the last."""
    last: dict[tuple[str, str, int], LogEntry] = {}
    for entry in entries:
        if isinstance(entry, GroupRecord | GroupTombstone):
            key: tuple[str, str, int] = entry.group_id, "", -1
        else:
            key = entry.group_id, entry.topic, entry.partition
        last.pop(key, None)
        last[key] = entry
    return [entry for entry in last.values() if isinstance(entry, GroupRecord | OffsetRecord)]


class Leader:
    """Who leads a partition, in which epoch."""

    __slots__ = ("epoch", "node_id")

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.epoch = 0

    def copy(self) -> Leader:
        found = Leader(self.node_id)
        found.epoch = self.epoch
        return found


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
        self._compact_at = [LEAST_COMPACTED] * OFFSETS_TOPIC_PARTITIONS

    def view(self) -> ClusterState[LogT]:
        """What is agreed on at this moment, as a broker that learns nothing more would tell it.

        It shares the logs, and must not be changed.
        """
        seen = ClusterState(self.brokers, self._make_log)
        seen.alive = list(self.alive)
        seen.logs = self.logs
        seen.counts = dict(self.counts)
        seen._leaders = {tp: each.copy() for tp, each in self._leaders.items()}
        seen._coordinators = [each.copy() for each in self._coordinators]
        return seen

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

    def change_leader(self, tp: TopicPartition) -> None:
        """The next broker leads the partition, in a new epoch."""
        leader = self._leaders[tp]
        heir = self.next_node(leader.node_id)
        leader.node_id = leader.node_id if heir == NO_NODE else heir
        leader.epoch += 1

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

    def append_offsets(self, partition: int, entries: Sequence[LogEntry]) -> None:
        """Write to a partition of the offsets topic, which is compacted when it has doubled."""
        log = self.offsets_logs[partition]
        log.extend(entries)
        if len(log) >= self._compact_at[partition]:
            log[:] = compacted(log)
            self._compact_at[partition] = max(LEAST_COMPACTED, 2 * len(log))

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
