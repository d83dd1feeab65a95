"""Applications that the tests of the kit run: right ones, and wrong ones of every kind."""

from __future__ import annotations

import os
import signal
import threading
import time as clock
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import sleep  # noqa: TID251 - what an application must not do
from typing import Any

from ksim import Acknowledge, Config, Consumer, ConsumerMode, Message, sleep_ms
from ksim.consumer.partitions import PartitionConsumer

Sink = Callable[[Message], None]


def config(**options: Any) -> Config:
    usual: dict[str, Any] = {
        "bootstrap_servers": ("kafka:9092",),
        "group_id": "audit",
        "topics": ("payments",),
        "auto_offset_reset": "earliest",
        "session_timeout_ms": 10_000,
    }
    return Config(**{**usual, **options})


def plain(sink: Sink, cost_ms: int = 3) -> None:
    with Consumer(config()) as consumer:
        for message in consumer:
            sleep_ms(cost_ms)
            sink(message)
            consumer.mark_offset(message)


def pool(sink: Sink) -> None:
    def handle(message: Message) -> None:
        sleep_ms(5)
        sink(message)

    with Consumer(config(acknowledge=Acknowledge.EACH)) as consumer:
        consumer.run(handle, workers=4)


def apart(sink: Sink) -> None:
    def read(partition: PartitionConsumer) -> None:
        for message in partition:
            sleep_ms(2)
            sink(message)
            consumer.mark_offset(message)

    with Consumer(config(mode=ConsumerMode.PARTITIONS)) as consumer:
        consumer.run(read)


def configured(own: Config, sink: Sink) -> None:
    with Consumer(own) as consumer:
        for message in consumer:
            sink(message)
            consumer.mark_offset(message)


def group_of_each_life(topic: str, sink: Sink) -> None:
    """On a real broker, where each life is a process."""
    own = f"{topic}-{os.getpid()}"
    configured(config(topics=(topic,), group_id=own), sink)


def early(sink: Sink, own: Config | None = None) -> None:
    """Commits before it handles."""
    with Consumer(own or config()) as consumer:
        for message in consumer:
            consumer.mark_offset(message)
            consumer.commit_offsets()
            sink(message)


def twice(sink: Sink) -> None:
    with Consumer(config()) as consumer:
        for message in consumer:
            sink(message)
            sink(message)
            consumer.mark_offset(message)


def silent() -> None:
    with Consumer(config()) as consumer:
        for message in consumer:
            consumer.mark_offset(message)


def with_signals(sink: Sink, told: list[int]) -> None:
    with Consumer(config()) as consumer:

        def handler(number: int, _: object) -> None:
            told.append(number)
            consumer.stop()

        signal.signal(signal.SIGTERM, handler)
        for message in consumer:
            sink(message)
            consumer.mark_offset(message)


# Wrong ones


def raises_at_once() -> None:
    raise ValueError("no such setting")


def exits() -> None:
    raise SystemExit("no such file")


def no_consumer() -> None:
    sleep_ms(1_000_000)


def never_polls() -> None:
    with Consumer(config()):
        while True:
            sleep_ms(1_000)


def sleeps() -> None:
    with Consumer(config()) as consumer:
        for _ in consumer:
            clock.sleep(0.25)  # noqa: TID251 - what an application must not do


def sleeps_by_another_name() -> None:
    with Consumer(config()) as consumer:
        for _ in consumer:
            sleep(0.25)


class Pace:
    nap = staticmethod(sleep)


def sleeps_by_a_class() -> None:
    with Consumer(config()) as consumer:
        for _ in consumer:
            Pace.nap(0.25)


def sleeps_by_default(nap: Callable[[float], None] = sleep) -> None:
    with Consumer(config()) as consumer:
        for _ in consumer:
            nap(0.25)


def sleeps_by_keyword(*, nap: Callable[[float], None] = sleep) -> None:
    sleeps_by_default(nap)


def swallows() -> None:
    with Consumer(config()) as consumer:
        for message in consumer:
            try:
                sleep(0.25)
            except Exception:  # noqa: BLE001 - the error that is told all the same
                consumer.mark_offset(message)


def starts_threads() -> None:
    with Consumer(config()) as consumer:
        for message in consumer:
            threading.Thread(target=print, args=(message,)).start()


def starts_a_pool() -> None:
    with Consumer(config()) as consumer, ThreadPoolExecutor(2) as workers:
        for message in consumer:
            workers.submit(print, message)


def spins() -> None:
    with Consumer(config()) as consumer:
        while True:
            list(consumer.messages(timeout_ms=0))


def waits_for_a_lock() -> None:
    with Consumer(config()) as consumer:
        lock = threading.Lock()
        for _ in consumer:
            lock.acquire()
