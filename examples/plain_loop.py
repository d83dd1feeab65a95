"""One record after the other, each marked when its effect has happened.

    python examples/plain_loop.py localhost:9092 my-group orders

What is marked is committed at intervals, before partitions are given up, and at the end: a crash
repeats records and loses none.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from ksim import Config, Consumer, Message, sleep_ms

COST_MS = 20


def settings(servers: str, group: str, topic: str) -> Config:
    return Config(
        bootstrap_servers=tuple(servers.split(",")),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


def consume(config: Config, sink: Callable[[Message], object]) -> None:
    """Until SIGTERM; `sink` is where the effect of a record goes."""
    with Consumer(config) as consumer:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.stop())
        for message in consumer:
            sleep_ms(COST_MS)  # what it takes, such as the answer of another service
            sink(message)
            consumer.mark_offset(message)


def write_line(message: Message) -> None:
    value = (message.value or b"").decode(errors="replace")
    sys.stdout.write(f"{message.topic}-{message.partition}@{message.offset} {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    consume(settings(*sys.argv[1:]), write_line)
