"""Handle records beside each other, and commit only what is done.

    python examples/worker_pool.py localhost:9092 my-group orders

Each record is acknowledged by itself when its handler returns; what is committed is the end of the
finished prefix of each partition, so a crash repeats records and loses none.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from ksim import Acknowledge, Config, Consumer, Message, sleep_ms

WORKERS = 4
BACKOFF_MS = 100
Ask = Callable[[Message, int], object]


class UnavailableError(Exception):
    """The service that a handler needs does not answer now."""


def settings(servers: str, group: str, topic: str) -> Config:
    return Config(
        bootstrap_servers=tuple(servers.split(",")),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        acknowledge=Acknowledge.EACH,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


def always_there(message: Message, attempt: int) -> None:
    """A service that never fails; `attempt` counts from 0."""


def consume(config: Config, sink: Callable[[Message], object], ask: Ask = always_there) -> None:
    """Until SIGTERM; `sink` is where the effect of a record goes."""

    def handle(message: Message) -> None:
        """Runs in a worker. What it raises ends the consumer; its record comes again."""
        attempt = 0
        while True:
            try:
                ask(message, attempt)
                break
            except UnavailableError:
                attempt += 1
                sleep_ms(BACKOFF_MS)
        sink(message)

    with Consumer(config) as consumer:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.stop())
        consumer.run(handle, workers=WORKERS)


def write_line(message: Message) -> None:
    value = (message.value or b"").decode(errors="replace")
    sys.stdout.write(f"{message.topic}-{message.partition}@{message.offset} {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    consume(settings(*sys.argv[1:]), write_line)
