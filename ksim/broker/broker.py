"""One broker's answers to everything but the group protocol."""

from __future__ import annotations

from ksim.broker.cluster import NO_NODE, ClusterState
from ksim.broker.log import PartitionLog
from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import KafkaError
from ksim.core.messages import (
    OFFSET_EARLIEST,
    OFFSET_LATEST,
    BrokerEndpoint,
    EpochEnd,
    EpochPartition,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    ListedOffset,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    PartitionMetadata,
    TopicMetadata,
)
from ksim.core.values import Payload, Record, TopicPartition

PORT = 9092
MAX_FETCH_RECORDS = 500


def host(node_id: int) -> str:
    """The name of a broker, also for networks and pictures."""
    return f"broker-{node_id}"


class Broker:
    """Stateless over the cluster's state: each method is one request's answer."""

    __slots__ = ("_cluster", "_max_fetch_records", "node_id")

    def __init__(
        self,
        node_id: int,
        cluster: ClusterState[PartitionLog],
        max_fetch_records: int = MAX_FETCH_RECORDS,
    ) -> None:
        self.node_id = node_id
        self._cluster = cluster
        self._max_fetch_records = max_fetch_records

    def metadata(self, request: MetadataRequest) -> MetadataResponse:
        """Brokers that live, and the leaders of the topics asked for (None: all)."""
        cluster = self._cluster
        topics = sorted(cluster.counts) if request.topics is None else request.topics
        return MetadataResponse(
            tuple(BrokerEndpoint(node_id, host(node_id), PORT) for node_id in cluster.alive),
            tuple(self._topic(topic) for topic in topics),
        )

    def _topic(self, topic: str) -> TopicMetadata:
        count = self._cluster.counts.get(topic)
        if count is None:
            return TopicMetadata(KafkaError.UNKNOWN_TOPIC_OR_PARTITION, topic, ())
        partitions: list[PartitionMetadata] = []
        for partition in range(count):
            leader = self._cluster.leader(TopicPartition(topic, partition))
            error = KafkaError.LEADER_NOT_AVAILABLE if leader.node_id == NO_NODE else 0
            partitions.append(PartitionMetadata(error, partition, leader.node_id, leader.epoch))
        return TopicMetadata(0, topic, tuple(partitions))

    def find_coordinator(self, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
        """The leader of the group's partition of the offsets topic."""
        node_id = self._cluster.coordinator(group_partition(request.group_id)).node_id
        if node_id == NO_NODE:
            return FindCoordinatorResponse(KafkaError.COORDINATOR_NOT_AVAILABLE, NO_NODE, "", -1)
        return FindCoordinatorResponse(0, node_id, host(node_id), PORT)

    def list_offsets(self, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """First, last or timed offsets of partitions that this broker leads."""
        return ListOffsetsResponse(tuple(self._listed(asked) for asked in request.partitions))

    def _listed(self, asked: ListOffsetsPartition) -> ListedOffset:
        tp = TopicPartition(asked.topic, asked.partition)
        error_code = self._refusal(tp)
        if error_code:
            return ListedOffset(asked.topic, asked.partition, error_code, -1)
        log = self._cluster.logs[tp]
        match asked.timestamp:
            case -2:
                offset = log.start_offset
            case -1:
                offset = log.end_offset
            case timestamp_ms:
                offset = log.offset_at(timestamp_ms)
        assert OFFSET_EARLIEST == -2
        assert OFFSET_LATEST == -1
        at_end = offset == log.end_offset
        epoch = self._cluster.leader(tp).epoch if at_end else log.epoch_at(offset)
        return ListedOffset(asked.topic, asked.partition, 0, offset, epoch)

    def _refusal(self, tp: TopicPartition, leader_epoch: int = -1) -> int:
        if tp not in self._cluster.logs:
            return KafkaError.UNKNOWN_TOPIC_OR_PARTITION
        leader = self._cluster.leader(tp)
        if leader.node_id != self.node_id:
            return KafkaError.NOT_LEADER_OR_FOLLOWER
        if 0 <= leader_epoch < leader.epoch:
            return KafkaError.FENCED_LEADER_EPOCH
        return KafkaError.UNKNOWN_LEADER_EPOCH if leader_epoch > leader.epoch else 0

    def offset_for_leader_epoch(
        self, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        """Where each epoch ends in the logs that this broker leads."""
        return OffsetForLeaderEpochResponse(tuple(self._epoch_end(p) for p in request.partitions))

    def _epoch_end(self, asked: EpochPartition) -> EpochEnd:
        tp = TopicPartition(asked.topic, asked.partition)
        error_code = self._refusal(tp, asked.current_leader_epoch)
        if error_code:
            return EpochEnd(tp.topic, tp.partition, error_code, -1, -1)
        epoch, end_offset = self._cluster.logs[tp].end_of_epoch(asked.leader_epoch)
        return EpochEnd(tp.topic, tp.partition, 0, epoch, end_offset)

    def fetch(self, request: FetchRequest) -> tuple[FetchResponse, Payload]:
        """What is there now, empty partitions included. Park it while `has_news` is false."""
        payload: Payload = {}
        found = tuple(self._fetched(asked, payload) for asked in request.partitions)
        return FetchResponse(0, found), payload

    def has_news(self, request: FetchRequest) -> bool:
        """A record or a refusal for any of its partitions; `min_bytes` counts as 1."""
        return any(self._is_news(asked) for asked in request.partitions)

    def _is_news(self, asked: FetchPartition) -> bool:
        tp = TopicPartition(asked.topic, asked.partition)
        refused = bool(self._refusal(tp, asked.current_leader_epoch))
        return refused or self._cluster.logs[tp].end_offset != asked.fetch_offset

    def _fetched(self, asked: FetchPartition, payload: Payload) -> FetchedPartition:
        tp = TopicPartition(asked.topic, asked.partition)
        error_code = self._refusal(tp, asked.current_leader_epoch)
        if error_code:
            return FetchedPartition(tp.topic, tp.partition, error_code, -1, -1, -1, 0)
        log = self._cluster.logs[tp]
        start, end = log.start_offset, log.end_offset
        if not start <= asked.fetch_offset <= end:
            error_code = KafkaError.OFFSET_OUT_OF_RANGE
            return FetchedPartition(tp.topic, tp.partition, error_code, end, start, -1, 0)
        records: tuple[Record, ...] = log.read(asked.fetch_offset, self._max_fetch_records)
        if records:
            payload[tp] = records
        next_offset = asked.fetch_offset + len(records)
        epoch = log.epoch_at(next_offset - 1) if records else -1
        count = len(records)
        return FetchedPartition(
            tp.topic, tp.partition, 0, end, start, next_offset, count, epoch, end
        )
