"""What a broker answers besides the group protocol, as plain data in Kafka's field names."""

from __future__ import annotations

import re
from typing import Any, Final

from ksim.broker.batches import BatchLog
from ksim.broker.cluster import NO_NODE
from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.serve.cluster import Cluster
from ksim.wire.batches import read_batches
from ksim.wire.errors import WireError

Answer = dict[str, Any]
GROUP_KEY: Final = 0
COORDINATORS_SINCE: Final = 4  # FindCoordinator
_MOST_PARTITIONS: Final = 10_000
_LEGAL_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class Apis:
    """The answers of one broker."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id

    # Who is who

    def _brokers(self, key: str) -> list[Answer]:
        host = self.cluster.config.host
        return [
            {key: node_id, "host": host, "port": self.cluster.ports[node_id]}
            for node_id in self.cluster.state.alive
        ]

    def metadata(self, raw: Any, version: int) -> Answer:
        state = self.cluster.state
        everything = raw.topics is None or (version == 0 and not raw.topics)
        names = sorted(state.counts) if everything else [topic.name for topic in raw.topics]
        if self.cluster.config.auto_create_topics and raw.allow_auto_topic_creation:
            for name in names:
                if name not in state.counts and is_legal(name):
                    state.create_topic(name, self.cluster.config.num_partitions)
        return {
            "brokers": self._brokers("node_id"),
            "cluster_id": self.cluster.cluster_id,
            "controller_id": min(state.alive),
            "topics": [self._topic(name) for name in names],
        }

    def _topic(self, name: str) -> Answer:
        state = self.cluster.state
        count = state.counts.get(name)
        if count is None:
            legal = is_legal(name)
            error = KafkaError.UNKNOWN_TOPIC_OR_PARTITION if legal else KafkaError.INVALID_TOPIC
            return {"error_code": error, "name": name, "partitions": []}
        partitions: list[Answer] = []
        for number in range(count):
            leader = state.leader(TopicPartition(name, number))
            dark = leader.node_id == NO_NODE
            partitions.append(
                {
                    "error_code": KafkaError.LEADER_NOT_AVAILABLE if dark else KafkaError.NONE,
                    "partition_index": number,
                    "leader_id": leader.node_id,
                    "leader_epoch": leader.epoch,
                    "replica_nodes": list(state.alive),
                    "isr_nodes": list(state.alive),
                    "offline_replicas": [],
                }
            )
        return {
            "error_code": 0,
            "name": name,
            "is_internal": False,
            "partitions": partitions,
        }

    def describe_cluster(self, raw: Any, version: int) -> Answer:
        del raw, version
        return {
            "error_code": 0,
            "cluster_id": self.cluster.cluster_id,
            "controller_id": min(self.cluster.state.alive),
            "brokers": self._brokers("broker_id"),
        }

    def find_coordinator(self, raw: Any, version: int) -> Answer:
        if version < COORDINATORS_SINCE:
            return self._coordinator(raw.key, raw.key_type)
        return {
            "coordinators": [
                {"key": key, **self._coordinator(key, raw.key_type)} for key in raw.coordinator_keys
            ]
        }

    def _coordinator(self, key: str, key_type: int) -> Answer:
        nobody = {"node_id": -1, "host": "", "port": -1}
        if key_type != GROUP_KEY:
            return {"error_code": KafkaError.INVALID_REQUEST, **nobody}
        node_id = self.cluster.state.coordinator(group_partition(key)).node_id
        if node_id == NO_NODE:
            return {"error_code": KafkaError.COORDINATOR_NOT_AVAILABLE, **nobody}
        host, port = self.cluster.config.host, self.cluster.ports[node_id]
        return {"error_code": 0, "node_id": node_id, "host": host, "port": port}

    # Records

    def _log(self, tp: TopicPartition, leader_epoch: int = -1) -> tuple[int, BatchLog | None]:
        """The log, if this broker leads it and the client's epoch is not another one."""
        state = self.cluster.state
        log = state.logs.get(tp)
        if log is None:
            return KafkaError.UNKNOWN_TOPIC_OR_PARTITION, None
        leader = state.leader(tp)
        if leader.node_id != self.node_id:
            return KafkaError.NOT_LEADER_OR_FOLLOWER, None
        if 0 <= leader_epoch < leader.epoch:
            return KafkaError.FENCED_LEADER_EPOCH, None
        if leader_epoch > leader.epoch:
            return KafkaError.UNKNOWN_LEADER_EPOCH, None
        return KafkaError.NONE, log

    def produce(self, raw: Any, version: int) -> Answer:
        del version
        answer = {
            "responses": [
                {
                    "name": topic.name,
                    "partition_responses": [
                        self._produced(TopicPartition(topic.name, item.index), item.records)
                        for item in topic.partition_data
                    ],
                }
                for topic in raw.topic_data
            ]
        }
        self.cluster.tell_news()
        return answer

    def _produced(self, tp: TopicPartition, records: Any) -> Answer:
        error_code, base_offset, start = self._append(tp, records)
        return {
            "index": tp.partition,
            "error_code": error_code,
            "base_offset": base_offset,
            "log_append_time_ms": -1,
            "log_start_offset": start,
        }

    def _append(self, tp: TopicPartition, records: Any) -> tuple[int, int, int]:
        error_code, log = self._log(tp)
        if log is None:
            return error_code, -1, -1
        try:
            batches = list(read_batches(bytes(records or b"")))
        except WireError:
            return KafkaError.CORRUPT_MESSAGE, -1, log.start_offset
        limit = self.cluster.config.message_max_bytes
        if any(len(batch.data) > limit for batch in batches):
            return KafkaError.MESSAGE_TOO_LARGE, -1, log.start_offset
        epoch = self.cluster.state.leader(tp).epoch
        first = -1
        for batch in batches:
            error_code, base_offset = log.append(batch, epoch)
            if error_code:
                return error_code, -1, log.start_offset
            first = base_offset if first < 0 else first
        return KafkaError.NONE, first, log.start_offset

    def init_producer_id(self, raw: Any, version: int) -> Answer:
        del version
        if raw.transactional_id is not None:
            refused = KafkaError.INVALID_REQUEST  # there are no transactions
            return {"error_code": refused, "producer_id": -1, "producer_epoch": -1}
        producer_id = self.cluster.next_producer_id
        self.cluster.next_producer_id += 1
        return {"error_code": 0, "producer_id": producer_id, "producer_epoch": 0}

    async def fetch(self, raw: Any, version: int) -> Answer:
        """What is there, as soon as it is enough, or when the client has waited long enough."""
        del version
        until_ms = self.cluster.now_ms + raw.max_wait_ms
        while True:
            answer, size = self._fetched(raw)
            left_ms = until_ms - self.cluster.now_ms
            if size < 0 or size >= raw.min_bytes or left_ms <= 0:
                return answer
            await self.cluster.wait_for_news(left_ms / 1_000)

    def fetched_now(self, raw: Any, version: int) -> Answer:
        """The answer to a fetch that does not wait."""
        del version
        return self._fetched(raw)[0]

    def _fetched(self, raw: Any) -> tuple[Answer, int]:
        """The answer of now and its bytes; -1 where a partition has an error to tell."""
        size = 0
        failed = False
        topics: list[Answer] = []
        for topic in raw.topics:
            partitions: list[Answer] = []
            for asked in topic.partitions:
                room = max(raw.max_bytes - size, 0)
                found = self._fetched_partition(topic.topic, asked, room, first=size == 0)
                failed = failed or found["error_code"] != 0
                size += len(found["records"])
                partitions.append(found)
            topics.append({"topic": topic.topic, "partitions": partitions})
        answer = {"error_code": 0, "session_id": 0, "responses": topics}
        return answer, -1 if failed else size

    def _fetched_partition(self, topic: str, asked: Any, room: int, *, first: bool) -> Answer:
        tp = TopicPartition(topic, asked.partition)
        error_code, log = self._log(tp, asked.current_leader_epoch)
        end, start, records = -1, -1, b""
        if log is not None:
            end, start = log.end_offset, log.start_offset
            if not start <= asked.fetch_offset <= end:
                error_code = KafkaError.OFFSET_OUT_OF_RANGE
            else:
                limit = min(room, asked.partition_max_bytes)
                records = log.read(asked.fetch_offset, limit, at_least_one=first)
        return {
            "partition_index": tp.partition,
            "error_code": error_code,
            "high_watermark": end,
            "last_stable_offset": end,
            "log_start_offset": start,
            "aborted_transactions": None,
            "preferred_read_replica": -1,
            "records": records,
        }

    def list_offsets(self, raw: Any, version: int) -> Answer:
        del version
        return {
            "topics": [
                {
                    "name": topic.name,
                    "partitions": [self._listed(topic.name, item) for item in topic.partitions],
                }
                for topic in raw.topics
            ]
        }

    def _listed(self, topic: str, asked: Any) -> Answer:
        tp = TopicPartition(topic, asked.partition_index)
        error_code, log = self._log(tp, asked.current_leader_epoch)
        offset, timestamp_ms = -1, -1
        if log is not None:
            match asked.timestamp:
                case -2:
                    offset = log.start_offset
                case -1:
                    offset = log.end_offset
                case at_ms:
                    offset, timestamp_ms = log.offset_at(at_ms)
        return {
            "partition_index": tp.partition,
            "error_code": error_code,
            "timestamp": timestamp_ms,
            "offset": offset,
            "leader_epoch": self.cluster.state.leader(tp).epoch if log is not None else -1,
        }

    def offset_for_leader_epoch(self, raw: Any, version: int) -> Answer:
        del version
        return {
            "topics": [
                {
                    "topic": topic.topic,
                    "partitions": [self._end_of_epoch(topic.topic, i) for i in topic.partitions],
                }
                for topic in raw.topics
            ]
        }

    def _end_of_epoch(self, topic: str, asked: Any) -> Answer:
        error_code, log = self._log(
            TopicPartition(topic, asked.partition), asked.current_leader_epoch
        )
        epoch, end = (-1, -1) if log is None else log.end_of_epoch(asked.leader_epoch)
        return {
            "error_code": error_code,
            "partition": asked.partition,
            "leader_epoch": epoch,
            "end_offset": end,
        }

    # Topics

    def create_topics(self, raw: Any, version: int) -> Answer:
        del version
        return {"topics": [self._created(topic, raw) for topic in raw.topics]}

    def _created(self, topic: Any, raw: Any) -> Answer:
        count = len(topic.assignments) or topic.num_partitions
        count = self.cluster.config.num_partitions if count == -1 else count
        error_code, message = KafkaError.NONE, None
        if not is_legal(topic.name):
            error_code, message = KafkaError.INVALID_TOPIC, f"{topic.name!r} is no legal name"
        elif topic.name in self.cluster.state.counts:
            error_code = KafkaError.TOPIC_ALREADY_EXISTS
            message = f"Topic '{topic.name}' already exists."
        elif not 0 < count <= _MOST_PARTITIONS:
            error_code = KafkaError.INVALID_PARTITIONS
            message = f"{count} partitions: 1 to {_MOST_PARTITIONS} are possible"
        elif not getattr(raw, "validate_only", False):
            self.cluster.state.create_topic(topic.name, count)
        return {
            "name": topic.name,
            "error_code": error_code,
            "error_message": message,
            "num_partitions": count if not error_code else -1,
            "replication_factor": len(self.cluster.state.alive) if not error_code else -1,
            "configs": [],
        }

    def create_partitions(self, raw: Any, version: int) -> Answer:
        del version
        return {"results": [self._grown(topic, raw) for topic in raw.topics]}

    def _grown(self, topic: Any, raw: Any) -> Answer:
        before = self.cluster.state.counts.get(topic.name)
        error_code, message = KafkaError.NONE, None
        if before is None:
            error_code = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
        elif not before < topic.count <= _MOST_PARTITIONS:
            error_code = KafkaError.INVALID_PARTITIONS
            message = f"{topic.count} partitions: {before} are there, {_MOST_PARTITIONS} at most"
        elif not raw.validate_only:
            self.cluster.state.add_partitions(topic.name, topic.count - before)
        return {"name": topic.name, "error_code": error_code, "error_message": message}

    def delete_topics(self, raw: Any, version: int) -> Answer:
        del version
        return {"responses": [self._deleted(name) for name in raw.topic_names]}

    def _deleted(self, name: str) -> Answer:
        known = name in self.cluster.state.counts
        if known:
            self.cluster.delete_topic(name)
        error = KafkaError.NONE if known else KafkaError.UNKNOWN_TOPIC_OR_PARTITION
        return {"name": name, "error_code": error}


def is_legal(topic: str) -> bool:
    """Kafka's rule for the names of topics."""
    return topic not in (".", "..") and _LEGAL_TOPIC.fullmatch(topic) is not None
