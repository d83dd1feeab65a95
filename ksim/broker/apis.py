"""What a broker answers besides the group protocol: plain data in Kafka's field names, both ways.

A request has every field, with Kafka's default where its version has none. The records of a
Produce request are batches already, None where they are damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ksim.broker.batches import NO_PRODUCER, BatchLog, Stamps, unread
from ksim.broker.cluster import NO_NODE, ClusterState
from ksim.broker.records import Records
from ksim.broker.settings import ServeConfig, describe_configs
from ksim.broker.topics import Topics
from ksim.core import messages as m
from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

Answer = dict[str, Any]
Data = Mapping[str, Any]
GROUP_KEY: Final = 0
NO_EPOCH: Final = -1
COORDINATORS_SINCE: Final = 4  # FindCoordinator


@dataclass(slots=True)
class Commons:
    """What all brokers of a served cluster share; `ports` by node id.

    `stamps` reads the times of a batch's records, as bytes are all that a broker knows.
    """

    config: ServeConfig
    cluster_id: str
    state: ClusterState[BatchLog]
    ports: dict[int, int] = field(default_factory=dict[int, int])
    producer_ids: int = 0
    stamps: Stamps = unread


class Outcome(NamedTuple):
    """An answer and what came with it.

    `enough` is false for a fetch that may wait for more. `appended`: parked fetches should look
    again. `deleted` are the topics that are gone: the coordinators have to know.
    """

    answer: Answer
    enough: bool = True
    appended: bool = False
    deleted: tuple[str, ...] = ()


Handler = Callable[[Data, int], Answer]


class Apis:
    """The answers of one broker."""

    def __init__(self, node_id: int, commons: Commons) -> None:
        self._node_id = node_id
        self._commons = commons
        self._state = commons.state
        self._topics = topics = Topics(commons.config, commons.state)
        self._records = records = Records(node_id, commons.config, commons.state, commons.stamps)
        self._handlers: dict[str, Handler] = {
            "Metadata": self._metadata,
            "DescribeCluster": self._describe_cluster,
            "FindCoordinator": self._find_coordinator,
            "InitProducerId": self._init_producer_id,
            "DescribeConfigs": self._describe_configs,
            "ListOffsets": records.list_offsets,
            "OffsetForLeaderEpoch": records.offset_for_leader_epoch,
            "CreateTopics": topics.create,
            "CreatePartitions": topics.grow,
        }

    def answer(self, kind: str, data: Data, version: int) -> Outcome | None:
        """The answer of now; None for what is no request of this room."""
        match kind:
            case "Produce":
                return Outcome(self._records.produce(data, version), appended=True)
            case "Fetch":
                return Outcome(*self._records.fetch(data))
            case "DeleteTopics":
                found, gone = self._topics.delete(data, version)
                return Outcome(found, appended=bool(gone), deleted=gone)
            case _:
                handler = self._handlers.get(kind)
                return None if handler is None else Outcome(handler(data, version))

    def refuse(self, kind: str, data: Data, version: int, error_code: int) -> Answer:
        """The answer that refuses a request; what changes something is not even tried."""
        if kind in CHANGES:
            return CHANGES[kind](data, error_code)
        found = self.answer(kind, data, version)
        if found is None:
            return {"error_code": error_code}
        stamped: Answer = _stamped(found.answer, error_code)
        return stamped

    # Who is who

    def _brokers(self, key: str) -> list[Answer]:
        host, ports = self._commons.config.host, self._commons.ports
        return [
            {key: node_id, "host": host, "port": ports[node_id]} for node_id in self._state.alive
        ]

    def _metadata(self, data: Data, version: int) -> Answer:
        return {
            "brokers": self._brokers("node_id"),
            "cluster_id": self._commons.cluster_id,
            "controller_id": min(self._state.alive),
            "topics": self._topics.metadata(data, version),
        }

    def _describe_cluster(self, data: Data, version: int) -> Answer:
        del data, version
        return {
            "error_code": 0,
            "cluster_id": self._commons.cluster_id,
            "controller_id": min(self._state.alive),
            "brokers": self._brokers("broker_id"),
        }

    def _find_coordinator(self, data: Data, version: int) -> Answer:
        key_type = data["key_type"]
        if version < COORDINATORS_SINCE:
            return self._coordinator(data["key"], key_type)
        return {
            "coordinators": [
                {"key": key, **self._coordinator(key, key_type)} for key in data["coordinator_keys"]
            ]
        }

    def _coordinator(self, key: str, key_type: int) -> Answer:
        nobody = {"node_id": -1, "host": "", "port": -1}
        if key_type != GROUP_KEY:
            return {"error_code": KafkaError.INVALID_REQUEST, **nobody}
        node_id = self._state.coordinator(group_partition(key)).node_id
        if node_id == NO_NODE:
            return {"error_code": KafkaError.COORDINATOR_NOT_AVAILABLE, **nobody}
        host, port = self._commons.config.host, self._commons.ports[node_id]
        return {"error_code": 0, "node_id": node_id, "host": host, "port": port}

    def _init_producer_id(self, data: Data, version: int) -> Answer:
        del version
        if data["transactional_id"] is not None:
            refused = KafkaError.INVALID_REQUEST  # there are no transactions
            return {"error_code": refused, "producer_id": -1, "producer_epoch": -1}
        if (data["producer_id"] == NO_PRODUCER) != (data["producer_epoch"] == NO_EPOCH):
            refused = KafkaError.INVALID_REQUEST  # an id and its epoch come together
            return {"error_code": refused, "producer_id": -1, "producer_epoch": -1}
        self._commons.producer_ids += 1
        return {"error_code": 0, "producer_id": self._commons.producer_ids, "producer_epoch": 0}

    def _describe_configs(self, data: Data, version: int) -> Answer:
        topics = tuple(self._state.counts)
        return describe_configs(self._commons.config, self._node_id, topics, data, version)


# Refusals


def _stamped(answer: Any, error_code: int) -> Any:
    """The same answer with this error wherever it can tell one, and without records."""
    if isinstance(answer, list):
        return [_stamped(each, error_code) for each in answer]
    if not isinstance(answer, dict):
        return answer
    found = {key: _stamped(item, error_code) for key, item in answer.items()}
    blank = {"error_code": error_code, "records": b"", "base_offset": -1, "offset": -1}
    return {key: blank.get(key, item) for key, item in found.items()}


Refusal = Callable[[Data, int], Answer]


def _not_produced(data: Data, error_code: int) -> Answer:
    blank = {"error_code": error_code, "base_offset": -1}
    return {
        "responses": [
            {
                "name": topic["name"],
                "partition_responses": [
                    {"index": item["index"], **blank} for item in topic["partition_data"]
                ],
            }
            for topic in data["topic_data"]
        ]
    }


def _named(key: str, names: Callable[[Data], list[str]]) -> Refusal:
    return lambda data, code: {key: [{"name": name, "error_code": code} for name in names(data)]}


def _topic_names(data: Data) -> list[str]:
    return [topic["name"] for topic in data["topics"]]


CHANGES: Final[dict[str, Refusal]] = {
    "Produce": _not_produced,
    "InitProducerId": lambda _, code: {"error_code": code, "producer_id": -1, "producer_epoch": -1},
    "CreateTopics": _named("topics", _topic_names),
    "CreatePartitions": _named("results", _topic_names),
    "DeleteTopics": _named("responses", lambda data: list(data["topic_names"])),
}


# Offsets of partitions that do not exist: the coordinator never sees them


def known_commit(
    request: m.OffsetCommitRequest, known: Container[TopicPartition]
) -> m.OffsetCommitRequest:
    """The request for the partitions that exist alone."""
    kept = tuple(
        item for item in request.offsets if TopicPartition(item.topic, item.partition) in known
    )
    return m.OffsetCommitRequest(
        request.group_id,
        request.generation_id,
        request.member_id,
        request.group_instance_id,
        kept,
        request.retention_time_ms,
    )


def whole_commit(
    request: m.OffsetCommitRequest, response: m.OffsetCommitResponse
) -> m.OffsetCommitResponse:
    """The answer to all that was asked, in its order, from the answer to what exists."""
    told = {(each.topic, each.partition): each for each in response.partitions}
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    return m.OffsetCommitResponse(
        tuple(
            told.get((item.topic, item.partition))
            or m.PartitionError(item.topic, item.partition, unknown)
            for item in request.offsets
        )
    )


def known_delete(
    request: m.OffsetDeleteRequest, known: Container[TopicPartition]
) -> m.OffsetDeleteRequest:
    """The request for the partitions that exist alone."""
    kept = tuple(tp for tp in request.partitions if tp in known)
    return m.OffsetDeleteRequest(request.group_id, kept)


def whole_delete(
    request: m.OffsetDeleteRequest, response: m.OffsetDeleteResponse
) -> m.OffsetDeleteResponse:
    """The answer to all that was asked; a group that is refused has no partitions to tell of."""
    if response.error_code:
        return response
    told = {(each.topic, each.partition): each for each in response.partitions}
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    return m.OffsetDeleteResponse(
        KafkaError.NONE,
        tuple(
            told.get((tp.topic, tp.partition)) or m.PartitionError(tp.topic, tp.partition, unknown)
            for tp in request.partitions
        ),
    )
