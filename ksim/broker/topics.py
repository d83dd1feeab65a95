"""Topics that come, grow and go, and who leads them: requests and answers as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ksim.broker.batches import BatchLog
from ksim.broker.cluster import NO_NODE, ClusterState
from ksim.broker.settings import ServeConfig
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

Answer = dict[str, Any]
Data = Mapping[str, Any]
MOST_PARTITIONS: Final = 10_000
TWICE: Final = "the request names this topic more than once"
_MOST_LETTERS: Final = 249
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def is_legal(topic: str) -> bool:
    """Kafka's rule for the names of topics."""
    return 0 < len(topic) <= _MOST_LETTERS and topic not in (".", "..") and set(topic) <= _LETTERS


def _metric(topic: str) -> str:
    """Kafka names its metrics so: two topics that would share one cannot both be."""
    return topic.replace(".", "_")


def _names(topics: Sequence[Data]) -> list[str]:
    return [topic["name"] for topic in topics]


def _once(topics: Sequence[Data]) -> tuple[list[Data], list[str]]:
    """The topics that are named once, and the names of those that are named again."""
    counted = Counter(_names(topics))
    once = [topic for topic in topics if counted[topic["name"]] == 1]
    return once, [name for name, times in counted.items() if times > 1]


class Topics:
    """What the cluster answers about its topics."""

    def __init__(self, config: ServeConfig, state: ClusterState[BatchLog]) -> None:
        self._config = config
        self._state = state

    def metadata(self, data: Data, version: int) -> list[Answer]:
        """The topics of a Metadata answer; those that are missing may be created by it."""
        state = self._state
        wanted = data["topics"]
        everything = wanted is None or (version == 0 and not wanted)
        names = sorted(state.counts) if everything else list(dict.fromkeys(_names(wanted)))
        if self._config.auto_create_topics and data["allow_auto_topic_creation"]:
            for name in names:
                if name not in state.counts and is_legal(name):
                    state.create_topic(name, self._config.num_partitions)
        return [self._topic(name) for name in names]

    def _topic(self, name: str) -> Answer:
        count = self._state.counts.get(name)
        if count is None:
            legal = is_legal(name)
            error = KafkaError.UNKNOWN_TOPIC_OR_PARTITION if legal else KafkaError.INVALID_TOPIC
            return {"error_code": error, "name": name, "partitions": []}
        return {
            "error_code": 0,
            "name": name,
            "is_internal": False,
            "partitions": [self._partition(TopicPartition(name, n)) for n in range(count)],
        }

    def _partition(self, tp: TopicPartition) -> Answer:
        leader = self._state.leader(tp)
        dark = leader.node_id == NO_NODE
        return {
            "error_code": KafkaError.LEADER_NOT_AVAILABLE if dark else KafkaError.NONE,
            "partition_index": tp.partition,
            "leader_id": leader.node_id,
            "leader_epoch": leader.epoch,
            "replica_nodes": list(self._state.alive),
            "isr_nodes": list(self._state.alive),
            "offline_replicas": [],
        }

    def create(self, data: Data, version: int) -> Answer:
        del version
        only_asked = data["validate_only"]
        wanted, twice = _once(data["topics"])
        told: list[tuple[Data, int, str | None]]
        total = sum(max(self._count(each), 0) for each in wanted)
        if total > MOST_PARTITIONS:
            message = f"{total} partitions in one request: {MOST_PARTITIONS} at most"
            told = [(each, KafkaError.POLICY_VIOLATION, message) for each in wanted]
        else:
            told = [(each, *self._create(each, only_asked=only_asked)) for each in wanted]
        told += [({"name": name}, KafkaError.INVALID_REQUEST, TWICE) for name in twice]
        return {"topics": [self._created(*each) for each in told]}

    def _count(self, topic: Data) -> int:
        count: int = len(topic["assignments"]) or topic["num_partitions"]
        return self._config.num_partitions if count == -1 else count

    def _create(self, topic: Data, *, only_asked: bool) -> tuple[int, str | None]:
        name = topic["name"]
        if not is_legal(name):
            return KafkaError.INVALID_TOPIC, f"{name!r} is no legal name"
        if name in self._state.counts:
            return KafkaError.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists."
        alike = [each for each in self._state.counts if _metric(each) == _metric(name)]
        if alike:
            return KafkaError.INVALID_TOPIC, f"{name!r} is too much like {alike[0]!r}"
        refused = self._placed(topic) if topic["assignments"] else self._counted(topic)
        if refused is None and not only_asked:
            self._state.create_topic(name, self._count(topic))
        return refused or (KafkaError.NONE, None)

    def _counted(self, topic: Data) -> tuple[int, str] | None:
        """What is wrong with the numbers of a topic, in Kafka's order."""
        count, factor, most = self._count(topic), topic["replication_factor"], self._state.brokers
        replicas = f"{factor} replicas: 1 to {most} are possible, -1 leaves it to the broker"
        if factor == 0 or factor < -1:
            return KafkaError.INVALID_REPLICATION_FACTOR, replicas
        if count <= 0:
            message = f"{count} partitions: 1 to {MOST_PARTITIONS} are possible"
            return KafkaError.INVALID_PARTITIONS, message
        if factor > most:
            return KafkaError.INVALID_REPLICATION_FACTOR, replicas
        return None

    def _placed(self, topic: Data) -> tuple[int, str] | None:
        """What is wrong where the client says which broker gets what."""
        if topic["num_partitions"] != -1 or topic["replication_factor"] != -1:
            message = "with assignments the numbers of partitions and replicas must be -1"
            return KafkaError.INVALID_REQUEST, message
        numbers = sorted(each["partition_index"] for each in topic["assignments"])
        if numbers != list(range(len(numbers))):
            message = f"partitions {numbers}: each number from 0 on is needed once"
            return KafkaError.INVALID_REPLICA_ASSIGNMENT, message
        return self._misplaced([each["broker_ids"] for each in topic["assignments"]])

    def _misplaced(self, assignments: Sequence[Sequence[int]]) -> tuple[int, str] | None:
        known = set(range(1, self._state.brokers + 1))
        for node_ids in assignments:
            if not node_ids or len(set(node_ids)) < len(node_ids) or not set(node_ids) <= known:
                message = (
                    f"replicas on {list(node_ids)}: different ones of {sorted(known)} are needed"
                )
                return KafkaError.INVALID_REPLICA_ASSIGNMENT, message
        return None

    def _created(self, topic: Data, error_code: int, message: str | None) -> Answer:
        return {
            "name": topic["name"],
            "error_code": error_code,
            "error_message": message,
            "num_partitions": -1 if error_code else self._count(topic),
            "replication_factor": -1 if error_code else len(self._state.alive),
            "configs": [],
        }

    def grow(self, data: Data, version: int) -> Answer:
        del version
        only_asked = data["validate_only"]
        wanted, twice = _once(data["topics"])
        told = [(each["name"], *self._grow(each, only_asked=only_asked)) for each in wanted]
        told += [(name, KafkaError.INVALID_REQUEST, TWICE) for name in twice]
        return {
            "results": [
                {"name": name, "error_code": error_code, "error_message": message}
                for name, error_code, message in told
            ]
        }

    def _grow(self, topic: Data, *, only_asked: bool) -> tuple[int, str | None]:
        name, count, assignments = topic["name"], topic["count"], topic["assignments"]
        before = self._state.counts.get(name)
        if before is None:
            return KafkaError.UNKNOWN_TOPIC_OR_PARTITION, None
        if not before < count <= MOST_PARTITIONS:
            message = f"{count} partitions: {before} are there, {MOST_PARTITIONS} at most"
            return KafkaError.INVALID_PARTITIONS, message
        if assignments is not None:
            if len(assignments) != count - before:
                message = f"{len(assignments)} assignments for {count - before} new partitions"
                return KafkaError.INVALID_REPLICA_ASSIGNMENT, message
            misplaced = self._misplaced([each["broker_ids"] for each in assignments])
            if misplaced is not None:
                return misplaced
        if not only_asked:
            self._state.add_partitions(name, count - before)
        return KafkaError.NONE, None

    def delete(self, data: Data, version: int) -> tuple[Answer, tuple[str, ...]]:
        """The answer, and the topics that are gone."""
        del version
        answers: list[Answer] = []
        gone: list[str] = []
        counted = Counter[str](data["topic_names"])
        for name, times in counted.items():
            if times > 1:
                refused = KafkaError.INVALID_REQUEST
                answers.append({"name": name, "error_code": refused, "error_message": TWICE})
                continue
            known = name in self._state.counts
            if known:
                self._state.delete_topic(name)
                gone.append(name)
            error = KafkaError.NONE if known else KafkaError.UNKNOWN_TOPIC_OR_PARTITION
            answers.append({"name": name, "error_code": error})
        return {"responses": answers}, tuple(gone)
