"""The pure brokers of a served cluster, and requests for them as plain data."""

from __future__ import annotations

from typing import Any

from ksim.broker.apis import Apis, Commons, Outcome
from ksim.broker.batches import Batch, BatchLog
from ksim.broker.cluster import ClusterState
from ksim.broker.settings import ServeConfig

RECORD_BYTES = 100


class Brokers:
    """Two brokers and the topic `t`: broker 1 leads t-0, broker 2 leads t-1."""

    def __init__(self, **settings: Any) -> None:
        config = ServeConfig(brokers=2, **settings)
        state = ClusterState(2, lambda: BatchLog(config.log_retention_bytes))
        state.create_topic("t", 2)
        self.commons = Commons(config, "cluster", state, {1: 9001, 2: 9002})
        self.state = state
        self._apis = {node_id: Apis(node_id, self.commons) for node_id in (1, 2)}

    def ask(self, kind: str, data: Any, version: int = 1, node_id: int = 1) -> Outcome:
        outcome = self._apis[node_id].answer(kind, data, version)
        assert outcome is not None
        return outcome

    def refuse(self, kind: str, data: Any, error_code: int) -> Any:
        return self._apis[1].refuse(kind, data, 1, error_code)

    def produce(self, *batches: Batch, partition: int = 0) -> Any:
        """The answer for this one partition."""
        return self.produced(list(batches), partition)["responses"][0]["partition_responses"][0]

    def produced(self, records: Any, partition: int = 0) -> Any:
        item = {"index": partition, "records": records}
        return self.ask(
            "Produce", {"acks": 1, "topic_data": [{"name": "t", "partition_data": [item]}]}
        ).answer


def batch(records: int = 1, *, size: int = RECORD_BYTES, sequence: int = -1) -> Batch:
    return Batch(b"\0" * size, records, 7, -1 if sequence < 0 else 1, 0, sequence)


def fetch(offset: int, *, partition: int = 0, epoch: int = -1, **rest: int) -> Any:
    asked = {
        "partition": partition,
        "current_leader_epoch": epoch,
        "fetch_offset": offset,
        "partition_max_bytes": rest.pop("partition_max_bytes", 1_000),
    }
    return {
        "max_wait_ms": 0,
        "min_bytes": 1,
        "max_bytes": 1_000,
        "session_epoch": -1,
        **rest,
        "topics": [{"topic": "t", "partitions": [asked]}],
    }
