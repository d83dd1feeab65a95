"""The examples with one mistake each, as they are made every day. The test kit finds them."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from examples import partitions, plain_loop, sqlite_offset_store, worker_pool
from ksim import Config, Consumer, Message, PartitionConsumer, sleep_ms


def stop_at_signals(consumer: Consumer) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: consumer.stop())


def commit_before_handling(config: Config, sink: Callable[[Message], object]) -> None:
    """A crash between the commit and the effect loses the record."""
    with Consumer(config) as consumer:
        stop_at_signals(consumer)
        for message in consumer:
            consumer.mark_offset(message)
            consumer.commit_offsets()
            sleep_ms(plain_loop.COST_MS)
            sink(message)


def swallowed_error(
    config: Config, sink: Callable[[Message], object], ask: worker_pool.Ask
) -> None:
    """A record whose service was away counts as handled, and nobody handles it."""

    def handle(message: Message) -> None:
        try:
            ask(message, 0)
            sink(message)
        except worker_pool.UnavailableError:
            pass  # "it will be all right"

    with Consumer(config) as consumer:
        stop_at_signals(consumer)
        consumer.run(handle, workers=worker_pool.WORKERS)


def state_kept_across_a_revoke(config: Config, sink: Callable[[Sequence[Message]], object]) -> None:
    """What was gathered in one tenure is written in the next, although it is read again."""
    kept: dict[int, list[Message]] = defaultdict(list)

    def write(pending: list[Message]) -> None:
        if pending:
            sleep_ms(partitions.COST_MS)
            sink(pending)
            consumer.mark_offset(pending[-1])
            pending.clear()

    def read(partition: PartitionConsumer) -> None:
        pending = kept[partition.partition]
        while True:
            for message in partition.messages(timeout_ms=partitions.IDLE_MS):
                pending.append(message)
                if len(pending) >= partitions.BATCH:
                    write(pending)
            if partition.ended:
                return
            write(pending)
            if consumer.ended:
                return

    with Consumer(config) as consumer:
        stop_at_signals(consumer)
        consumer.run(read)


class UnfencedStore(sqlite_offset_store.SQLiteOffsetStore):
    """Offsets and results in one transaction, but nobody asks whose turn it is."""

    @contextlib.contextmanager
    def transaction(self, message: Message) -> Iterator[sqlite3.Connection]:
        with self._writing() as database:
            yield database
            database.execute(
                f"UPDATE place SET next_offset = ? {sqlite_offset_store.PLACE}",
                (message.offset + 1, *self._key(message.topic, message.partition)),
            )


class UnfencedStoreFactory:
    """Makes the store of a consumer, and keeps it for the handler."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.store: UnfencedStore | None = None

    def gen_offset_store(self, consumer: Consumer) -> UnfencedStore:
        self.store = UnfencedStore(self._path, consumer.config.group_id)
        return self.store


def unfenced_store(
    config: Config,
    path: str,
    sink: Callable[[Message], object],
    work: Callable[[Message], object] = sqlite_offset_store.usual_work,
) -> None:
    """A member that was away for long writes what it held once more, behind its successor."""
    factory = UnfencedStoreFactory(path)
    with Consumer(config, offset_store_factory=factory) as consumer:
        stop_at_signals(consumer)
        assert factory.store is not None
        for message in consumer:
            work(message)
            if sqlite_offset_store.write_result(factory.store, message):
                sink(message)
            consumer.mark_offset(message)
