"""Exactly once into a database: results and offsets in one transaction, fenced by claims.

    python examples/sqlite_offset_store.py localhost:9092 my-group orders results.db

A record's result is in the database if and only if its offset is. Whoever fetches the offsets of a
partition takes the claim on it; a member that has lost its claim cannot write any more, whatever it
believes. Generations alone would not do: a group that was forgotten counts from 1 again, and after
a failover the same numbers are used twice.

Handle the records of a partition in order, one after the other (not with acknowledge="each").
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

from ksim import Config, Consumer, Message, TopicPartition, sleep_ms
from ksim.core.errors import KafkaError
from ksim.core.messages import (
    CommittedOffset,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
)

BUSY_S: Final = 10.0
COST_MS: Final = 20
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS place (
    group_id TEXT, topic TEXT, number INTEGER,
    next_offset INTEGER NOT NULL DEFAULT -1, metadata TEXT NOT NULL DEFAULT '',
    claim INTEGER NOT NULL DEFAULT 0, member_id TEXT NOT NULL DEFAULT '',
    generation_id INTEGER NOT NULL DEFAULT -1,
    PRIMARY KEY (group_id, topic, number));
CREATE TABLE IF NOT EXISTS result (
    topic TEXT, number INTEGER, position INTEGER, value BLOB);
"""
PLACE: Final = "WHERE group_id = ? AND topic = ? AND number = ?"


class FencedError(Exception):
    """Another member has the claim, or another tenure of this one: write nothing."""


class AlreadyThereError(FencedError):
    """The offsets have passed this record: it was written, or the log was made anew."""


class OtherRecordError(Exception):
    """The result of another record stands at this offset: the topic was made anew, or truncated."""


class SQLiteOffsetStore:
    """The offsets of one consumer, in the database that its results go to.

    Two threads use it: the consumer's store thread, and the handler's by `transaction`.
    """

    def __init__(self, path: str, group_id: str) -> None:
        self._group_id = group_id
        self._lock = threading.Lock()
        self._claims: dict[TopicPartition, int] = {}
        self._tenures: dict[TopicPartition, tuple[int, int]] = {}
        self._database = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._database.executescript(SCHEMA)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Alone in the database; all or nothing."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # SQLite has undone some failures itself; they are what is to be told.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._database.execute("ROLLBACK")
                raise

    def _key(self, topic: str, partition: int) -> tuple[str, str, int]:
        return self._group_id, topic, partition

    def fetch_offset(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """Take the claim on each partition, and tell where to read."""
        found: list[CommittedOffset] = []
        claims: dict[TopicPartition, int] = {}
        with self._writing() as database:
            for tp in request.partitions or ():
                key = self._key(*tp)
                database.execute("INSERT OR IGNORE INTO place (group_id, topic, number) "
                                 "VALUES (?, ?, ?)", key)  # fmt: skip
                database.execute(
                    f"UPDATE place SET claim = claim + 1, member_id = ?, generation_id = ? {PLACE}",
                    (request.member_id, request.generation_id, *key),
                )
                offset, metadata, claim = database.execute(
                    f"SELECT next_offset, metadata, claim FROM place {PLACE}", key
                ).fetchone()
                claims[tp] = claim
                found.append(CommittedOffset(*tp, offset, -1, metadata, 0))
        self._claims |= claims  # not before they are stored
        return OffsetFetchResponse(0, tuple(found))

    def commit_offset(self, request: OffsetCommitRequest) -> OffsetCommitResponse:
        """Take marks of who has the claim; all others are told that their generation is over."""
        answers: list[PartitionError] = []
        with self._writing() as database:
            for item in request.offsets:
                changed = database.execute(
                    "UPDATE place SET metadata = CASE WHEN next_offset <= ? THEN ? ELSE metadata "
                    f"END, next_offset = MAX(next_offset, ?) {PLACE} "
                    "AND member_id = ? AND generation_id = ?",
                    (item.offset, item.metadata, item.offset,
                     *self._key(item.topic, item.partition),
                     request.member_id, request.generation_id),
                )  # fmt: skip
                refused = 0 if changed.rowcount else int(KafkaError.ILLEGAL_GENERATION)
                answers.append(PartitionError(item.topic, item.partition, refused))
        return OffsetCommitResponse(tuple(answers))

    @contextlib.contextmanager
    def transaction(self, message: Message) -> Iterator[sqlite3.Connection]:
        """Write this record's result in here; its offset is kept with it, or neither is.

        Raises FencedError, before anything is written, for a record that is not this member's to
        write. Mark it all the same: the mark is refused as well, and the member joins again. Do not
        call `commit_offsets` in here: the store would wait for its own transaction.
        """
        key = self._key(message.topic, message.partition)
        mine = self._claim_of(message)
        with self._writing() as database:
            kept = database.execute(f"SELECT next_offset, claim FROM place {PLACE}", key).fetchone()
            if kept is None or kept[1] != mine:
                raise FencedError(f"{message!r}: claim {mine}, in the database {kept}")
            if message.offset < kept[0]:
                raise AlreadyThereError(f"{message!r}: the next one is {kept[0]}")
            yield database
            database.execute(
                f"UPDATE place SET next_offset = ? {PLACE}", (message.offset + 1, *key)
            )

    def result_at(self, topic: str, partition: int, offset: int) -> bytes | None:
        """What was written for this record; None for nothing, and for a tombstone."""
        with self._lock:
            found = self._database.execute(
                "SELECT value FROM result WHERE topic = ? AND number = ? AND position = ?",
                (topic, partition, offset),
            ).fetchone()
        return None if found is None or found[0] is None else bytes(found[0])

    def _claim_of(self, message: Message) -> int | None:
        """The claim that the tenure of this message began under; a later one is not for it."""
        tp = TopicPartition(message.topic, message.partition)
        tenure, claim = self._tenures.get(tp, (-1, -1))
        if message.tenure > tenure:
            tenure, claim = self._tenures[tp] = message.tenure, self._claims.get(tp, -1)
        return claim if message.tenure == tenure else None

    def close(self) -> None:
        with self._lock:
            self._database.close()


class SQLiteOffsetStoreFactory:
    """Makes the store of a consumer, and keeps it for the handler."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.store: SQLiteOffsetStore | None = None

    def gen_offset_store(self, consumer: Consumer) -> SQLiteOffsetStore:
        self.store = SQLiteOffsetStore(self._path, consumer.config.group_id)
        return self.store


def no_sink(message: Message) -> None:
    """The database is all that there is."""


def write_result(store: SQLiteOffsetStore, message: Message) -> bool:
    """The result of a record, once; false where it is not ours to write.

    Raises OtherRecordError where going on would drop records without a word.
    """
    place = (message.topic, message.partition, message.offset)
    try:
        with store.transaction(message) as database:
            database.execute("INSERT INTO result VALUES (?, ?, ?, ?)", (*place, message.value))
    except AlreadyThereError as error:
        if store.result_at(*place) != message.value:
            raise OtherRecordError(str(error)) from error
        return False
    except FencedError:
        return False
    return True


def settings(servers: str, group: str, topic: str) -> Config:
    return Config(
        bootstrap_servers=tuple(servers.split(",")),
        group_id=group,
        topics=(topic,),
        auto_offset_reset="earliest",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
    )


def usual_work(message: Message) -> None:
    """What it takes to find the result of a record, such as the answer of another service."""
    del message
    sleep_ms(COST_MS)


def consume(
    config: Config,
    path: str,
    sink: Callable[[Message], object] = no_sink,
    work: Callable[[Message], object] = usual_work,
) -> None:
    """Until SIGTERM; `sink` is told of each result that is in the database."""
    factory = SQLiteOffsetStoreFactory(path)
    with Consumer(config, offset_store_factory=factory) as consumer:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: consumer.stop())
        assert factory.store is not None
        for message in consumer:
            work(message)
            if write_result(factory.store, message):
                sink(message)
            consumer.mark_offset(message)


def main(servers: str, group: str, topic: str, path: str) -> None:
    consume(settings(servers, group, topic), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
