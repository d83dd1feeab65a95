"""One group member with the client named: `member.py CLIENT BOOTSTRAP GROUP TOPIC`.

Writes one JSON line for each thing that happens: `made`, `assigned`, `record` (the first of each
partition), `closing`. SIGTERM closes it. The settings of all clients are the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

SESSION_MS: Final = 6_000
HEARTBEAT_MS: Final = 200
COMMIT_MS: Final = 1_000
POLL_S: Final = 0.1

stopping = False
seen: set[int] = set()


def tell(what: str, partitions: Iterable[int] = ()) -> None:
    line = json.dumps({"t": time.time(), "what": what, "partitions": sorted(partitions)})
    os.write(1, line.encode() + b"\n")


def record(partition: int) -> None:
    if partition not in seen:
        seen.add(partition)
        tell("record", [partition])


def ksim(bootstrap: str, group: str, topic: str) -> None:
    import ksim.real.driver  # noqa: F401 - loaded late; the others load theirs when imported
    from ksim import Config, Consumer

    class Listener:
        def on_partitions_assigned(self, partitions: Any) -> None:
            tell("assigned", [tp.partition for tp in partitions])

        def on_partitions_revoked(self, partitions: Any) -> None: ...

        def on_partitions_lost(self, partitions: Any) -> None: ...

    tell("made")
    config = Config(
        bootstrap_servers=(bootstrap,),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        commit_interval_ms=COMMIT_MS,
    )
    with Consumer(config, listener=Listener()) as consumer:
        signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
        for message in consumer:
            record(message.partition)
            consumer.mark_offset(message)
        tell("closing")


def kafka_python(bootstrap: str, group: str, topic: str) -> None:
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Any) -> None:
            tell("assigned", [tp.partition for tp in assigned])

        def on_partitions_revoked(self, revoked: Any) -> None: ...

    tell("made")
    consumer: Any = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        auto_commit_interval_ms=COMMIT_MS,
        partition_assignment_strategy=[RangePartitionAssignor],
    )
    consumer.subscribe([topic], listener=Listener())
    while not stopping:
        for records in consumer.poll(timeout_ms=int(POLL_S * 1_000)).values():
            record(records[0].partition)
    tell("closing")
    consumer.close()


def aiokafka(bootstrap: str, group: str, topic: str) -> None:
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned: Any) -> None:
            tell("assigned", [tp.partition for tp in assigned])

        def on_partitions_revoked(self, revoked: Any) -> None: ...

    async def run() -> None:
        tell("made")
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            auto_commit_interval_ms=COMMIT_MS,
            rebalance_timeout_ms=SESSION_MS,
            partition_assignment_strategy=[RangePartitionAssignor],
        )
        consumer.subscribe([topic], listener=Listener())
        await consumer.start()
        while not stopping:
            for records in (await consumer.getmany(timeout_ms=int(POLL_S * 1_000))).values():
                record(records[0].partition)
        tell("closing")
        await consumer.stop()

    asyncio.run(run())


def confluent(bootstrap: str, group: str, topic: str) -> None:
    from confluent_kafka import Consumer

    tell("made")
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "auto.commit.interval.ms": COMMIT_MS,
            "partition.assignment.strategy": "range",
        }
    )

    def assigned(consumer: Any, partitions: Any) -> None:
        del consumer
        tell("assigned", [tp.partition for tp in partitions])

    consumer.subscribe([topic], on_assign=assigned)
    while not stopping:
        found = consumer.poll(POLL_S)
        if found is not None and not found.error():
            record(found.partition())
    tell("closing")
    consumer.close()


CLIENTS: Final[dict[str, Callable[[str, str, str], None]]] = {
    "ksim": ksim,
    "kafka-python": kafka_python,
    "aiokafka": aiokafka,
    "confluent-kafka": confluent,
}


def stop(*_: object) -> None:
    global stopping
    stopping = True


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    CLIENTS[sys.argv[1]](*sys.argv[2:])
