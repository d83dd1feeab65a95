"""A worker for each partition, which writes its records in batches.

    python examples/partitions.py localhost:9092 my-group orders

What a worker has gathered belongs to its tenure of the partition: when that is over, whoever gets
the partition next reads it again, from the last mark.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from ksim import Config, Consumer, ConsumerMode, Message, PartitionConsumer, sleep_ms

BATCH = 5
IDLE_MS = 500
COST_MS = 50


def settings(servers: str, group: str, topic: str) -> Config:
    return Config(
        bootstrap_servers=tuple(servers.split(",")),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        mode=ConsumerMode.PARTITIONS,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


def consume(config: Config, sink: Callable[[Sequence[Message]], object]) -> None:
    """Until SIGTERM; `sink` is where a batch of one partition goes."""

    def write(pending: list[Message]) -> None:
        if pending:
            sleep_ms(COST_MS)
            sink(pending)
            consumer.mark_offset(pending[-1])
            pending.clear()

    def read(partition: PartitionConsumer) -> None:
        pending: list[Message] = []
        while True:
            for message in partition.messages(timeout_ms=IDLE_MS):
                pending.append(message)
                if len(pending) == BATCH:
                    write(pending)
            if partition.ended:
                return
            write(pending)
            if consumer.ended:
                return

    with Consumer(config) as consumer:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.stop())
        consumer.run(read)


def write_lines(messages: Sequence[Message]) -> None:
    for each in messages:
        value = (each.value or b"").decode(errors="replace")
        sys.stdout.write(f"{each.topic}-{each.partition}@{each.offset} {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    consume(settings(*sys.argv[1:]), write_lines)
