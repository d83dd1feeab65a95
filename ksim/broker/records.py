"""Produce, Fetch, ListOffsets and OffsetForLeaderEpoch of one broker, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ksim.broker.batches import NO_PRODUCER, Batch, BatchLog, Stamps, Timed
from ksim.broker.cluster import ClusterState
from ksim.broker.settings import ServeConfig
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

Answer = dict[str, Any]
Data = Mapping[str, Any]
ACKS: Final = (-1, 0, 1)
FULL_FETCH: Final = (-1, 0)  # session epochs; all others go on with a session, and there are none
EARLIEST: Final = -2
LATEST: Final = -1
MAX_TIMESTAMP: Final = -3
MAX_TIMESTAMP_SINCE: Final = 7  # ListOffsets


class Records:
    """What one broker answers about the partitions that it leads."""

    def __init__(
        self,
        node_id: int,
        config: ServeConfig,
        state: ClusterState[BatchLog],
        stamps: Stamps,
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._state = state
        self._stamps = stamps

    def _log(self, tp: TopicPartition, leader_epoch: int = -1) -> tuple[int, BatchLog | None]:
        """The log, if this broker leads it and the client's epoch is not another one."""
        log = self._state.logs.get(tp)
        if log is None:
            return KafkaError.UNKNOWN_TOPIC_OR_PARTITION, None
        leader = self._state.leader(tp)
        if leader.node_id != self._node_id:
            return KafkaError.NOT_LEADER_OR_FOLLOWER, None
        if 0 <= leader_epoch < leader.epoch:
            return KafkaError.FENCED_LEADER_EPOCH, None
        if leader_epoch > leader.epoch:
            return KafkaError.UNKNOWN_LEADER_EPOCH, None
        return KafkaError.NONE, log

    def produce(self, data: Data, version: int) -> Answer:
        """`records` are batches here, None where they are damaged."""
        del version
        acks = data["acks"]
        return {
            "responses": [
                {
                    "name": topic["name"],
                    "partition_responses": [
                        self._produced(TopicPartition(topic["name"], item["index"]), item, acks)
                        for item in topic["partition_data"]
                    ],
                }
                for topic in data["topic_data"]
            ]
        }

    def _produced(self, tp: TopicPartition, item: Data, acks: int) -> Answer:
        if acks in ACKS:
            error_code, base_offset, start = self._append(tp, item["records"])
        else:
            error_code, base_offset, start = KafkaError.INVALID_REQUIRED_ACKS, -1, -1
        return {
            "index": tp.partition,
            "error_code": error_code,
            "base_offset": base_offset,
            "log_append_time_ms": -1,
            "log_start_offset": start,
        }

    def _append(self, tp: TopicPartition, batches: Sequence[Batch] | None) -> tuple[int, int, int]:
        error_code, log = self._log(tp)
        if log is None:
            return error_code, -1, -1
        if batches is None:
            return KafkaError.CORRUPT_MESSAGE, -1, -1
        if not _is_valid(batches):
            return KafkaError.INVALID_RECORD, -1, -1
        (batch,) = batches
        if len(batch.data) > self._config.message_max_bytes:
            return KafkaError.MESSAGE_TOO_LARGE, -1, log.start_offset
        error_code, base_offset = log.append(batch, self._state.leader(tp).epoch)
        return error_code, base_offset, log.start_offset

    def fetch(self, data: Data) -> tuple[Answer, bool]:
        """The answer of now, and whether the client should have it already.

        It should when it has as many bytes as it asked for, when a partition has an error, and
        when it asked for nothing.
        """
        if data["session_epoch"] not in FULL_FETCH:
            refused = KafkaError.FETCH_SESSION_ID_NOT_FOUND
            return {"error_code": refused, "session_id": 0, "responses": []}, True
        size = 0
        failed = not data["topics"]
        topics: list[Answer] = []
        most = min(data["max_bytes"], self._config.fetch_max_bytes)
        for topic in data["topics"]:
            partitions: list[Answer] = []
            for asked in topic["partitions"]:
                room = max(most - size, 0)
                found = self._fetched(topic["topic"], asked, room, first=size == 0)
                failed = failed or found["error_code"] != 0
                size += len(found["records"])
                partitions.append(found)
            topics.append({"topic": topic["topic"], "partitions": partitions})
        answer = {"error_code": 0, "session_id": 0, "responses": topics}
        return answer, failed or size >= min(data["min_bytes"], most)

    def _fetched(self, topic: str, asked: Data, room: int, *, first: bool) -> Answer:
        tp = TopicPartition(topic, asked["partition"])
        error_code, log = self._log(tp, asked["current_leader_epoch"])
        end, start, records = -1, -1, b""
        if log is not None:
            if not log.start_offset <= asked["fetch_offset"] <= log.end_offset:
                error_code = KafkaError.OFFSET_OUT_OF_RANGE
            else:
                end, start = log.end_offset, log.start_offset
                limit = min(room, asked["partition_max_bytes"])
                records = log.read(asked["fetch_offset"], limit, at_least_one=first)
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

    def list_offsets(self, data: Data, version: int) -> Answer:
        return {
            "topics": [
                {
                    "name": topic["name"],
                    "partitions": [
                        self._listed(topic["name"], each, version) for each in topic["partitions"]
                    ],
                }
                for topic in data["topics"]
            ]
        }

    def _listed(self, topic: str, asked: Data, version: int) -> Answer:
        tp = TopicPartition(topic, asked["partition_index"])
        error_code, log = self._log(tp, asked["current_leader_epoch"])
        found = None if log is None else self._timed(tp, log, asked["timestamp"], version)
        if not error_code and found is None:
            error_code = KafkaError.UNSUPPORTED_VERSION
        offset, timestamp_ms, leader_epoch = found or Timed()
        return {
            "partition_index": tp.partition,
            "error_code": error_code,
            "timestamp": timestamp_ms,
            "offset": offset,
            "leader_epoch": leader_epoch,
        }

    def _timed(
        self, tp: TopicPartition, log: BatchLog, timestamp_ms: int, version: int
    ) -> Timed | None:
        """What stands at this time; None for a special time that this version does not have."""
        leader_epoch = self._state.leader(tp).epoch
        if timestamp_ms >= 0:
            return log.offset_at(timestamp_ms, self._stamps)
        if timestamp_ms == LATEST:
            return Timed(log.end_offset, leader_epoch=leader_epoch)
        if timestamp_ms == EARLIEST:
            first_epoch = log.first_epoch()
            epoch = leader_epoch if first_epoch < 0 else first_epoch
            return Timed(log.start_offset, leader_epoch=epoch)
        known = timestamp_ms == MAX_TIMESTAMP and version >= MAX_TIMESTAMP_SINCE
        return log.newest(self._stamps) if known else None

    def offset_for_leader_epoch(self, data: Data, version: int) -> Answer:
        del version
        return {
            "topics": [
                {
                    "topic": topic["topic"],
                    "partitions": [self._ended(topic["topic"], i) for i in topic["partitions"]],
                }
                for topic in data["topics"]
            ]
        }

    def _ended(self, topic: str, asked: Data) -> Answer:
        tp = TopicPartition(topic, asked["partition"])
        error_code, log = self._log(tp, asked["current_leader_epoch"])
        latest = -1 if log is None else self._state.leader(tp).epoch
        epoch, end = -1, -1
        if log is not None and asked["leader_epoch"] == latest:
            epoch, end = latest, log.end_offset
        elif log is not None and 0 <= asked["leader_epoch"] < latest:
            epoch, end = log.end_of_epoch(asked["leader_epoch"])
        return {
            "error_code": error_code,
            "partition": tp.partition,
            "leader_epoch": epoch,
            "end_offset": end,
        }


def _is_valid(batches: Sequence[Batch]) -> bool:
    """Exactly one batch, and a producer that counts begins at 0 or later."""
    return len(batches) == 1 and (
        batches[0].producer_id == NO_PRODUCER or batches[0].base_sequence >= 0
    )
