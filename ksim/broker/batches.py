"""The log of one partition as batches of bytes, and what it remembers of its producers.

Source: Kafka `UnifiedLog`, `ProducerStateManager`.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ksim.core.errors import KafkaError

NO_PRODUCER: Final = -1
_KEPT_BATCHES: Final = 5
_KEPT_PRODUCERS: Final = 10_000  # Kafka forgets them after a day instead
_SEQUENCES: Final = 2**31
_BASE: Final = struct.Struct(">q")
_EPOCH: Final = struct.Struct(">i")
_EPOCH_AT: Final = 12


class Batch(NamedTuple):
    """One record batch as it came; offset and leader epoch are stamped when it is appended."""

    data: bytes
    records: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int


class Appended(NamedTuple):
    error_code: int
    base_offset: int


class Timed(NamedTuple):
    """A record that was looked for by its time; all -1 where there is none."""

    offset: int = -1
    timestamp_ms: int = -1
    leader_epoch: int = -1


Stamps = Callable[[bytes], Iterable[tuple[int, int]]]


def unread(data: bytes) -> Iterable[tuple[int, int]]:
    """(offset, timestamp) of each record: of none, where nobody can read a batch."""
    del data
    return ()


class _Stored(NamedTuple):
    base_offset: int
    max_timestamp_ms: int
    leader_epoch: int
    data: bytes


@dataclass(slots=True)
class _Producer:
    """The last batches of a producer id, oldest first: (base sequence, count, base offset)."""

    epoch: int
    batches: list[tuple[int, int, int]] = field(default_factory=list)


class BatchLog:
    """Batches by offset. `retention_bytes` bounds what is kept: the oldest batches go first."""

    __slots__ = ("_bases", "_producers", "_stored", "bytes_kept", "end_offset", "retention_bytes",
                 "start_offset")  # fmt: skip

    def __init__(self, retention_bytes: int) -> None:
        self.retention_bytes = retention_bytes
        self.start_offset = 0
        self.end_offset = 0
        self.bytes_kept = 0
        self._stored: list[_Stored] = []
        self._bases: list[int] = []
        self._producers: dict[int, _Producer] = {}

    def append(self, batch: Batch, leader_epoch: int) -> Appended:
        """Append once: a batch that was sent again is answered with where it stands already."""
        known = self._known(batch)
        if known is not None:
            return known
        base_offset = self.end_offset
        data = b"".join(
            (
                _BASE.pack(base_offset),
                batch.data[8:_EPOCH_AT],
                _EPOCH.pack(leader_epoch),
                batch.data[_EPOCH_AT + 4 :],
            )
        )
        self._stored.append(_Stored(base_offset, batch.max_timestamp_ms, leader_epoch, data))
        self._bases.append(base_offset)
        self.end_offset += batch.records
        self.bytes_kept += len(data)
        self._remember(batch, base_offset)
        self._retain()
        return Appended(KafkaError.NONE, base_offset)

    def _known(self, batch: Batch) -> Appended | None:
        """The answer for an idempotent producer's batch that is not the next one."""
        producer = self._producers.get(batch.producer_id)
        if batch.producer_id == NO_PRODUCER or producer is None:
            return None
        if batch.producer_epoch < producer.epoch:
            return Appended(KafkaError.INVALID_PRODUCER_EPOCH, -1)
        if batch.producer_epoch > producer.epoch:
            fresh = batch.base_sequence == 0
            return None if fresh else Appended(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
        for sequence, count, base_offset in producer.batches:
            if (sequence, count) == (batch.base_sequence, batch.records):
                return Appended(KafkaError.NONE, base_offset)
        sequence, count, _ = producer.batches[-1]
        if batch.base_sequence == (sequence + count) % _SEQUENCES:
            return None
        return Appended(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)

    def _remember(self, batch: Batch, base_offset: int) -> None:
        if batch.producer_id == NO_PRODUCER:
            return
        producer = self._producers.get(batch.producer_id)
        if producer is None and len(self._producers) >= _KEPT_PRODUCERS:
            del self._producers[next(iter(self._producers))]
        if producer is None or producer.epoch != batch.producer_epoch:
            producer = self._producers[batch.producer_id] = _Producer(batch.producer_epoch)
        producer.batches.append((batch.base_sequence, batch.records, base_offset))
        del producer.batches[:-_KEPT_BATCHES]

    def _retain(self) -> None:
        drop = 0
        while self.bytes_kept > self.retention_bytes and drop < len(self._stored) - 1:
            self.bytes_kept -= len(self._stored[drop].data)
            drop += 1
        if drop:
            del self._stored[:drop], self._bases[:drop]
            self.start_offset = self._bases[0]

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> bytes:
        """Whole batches from the one that holds `offset`, up to so many bytes."""
        assert self.start_offset <= offset <= self.end_offset, f"offset {offset}"
        if offset == self.end_offset:
            return b""
        found: list[bytes] = []
        size = 0
        for at in range(bisect_right(self._bases, offset) - 1, len(self._stored)):
            data = self._stored[at].data
            if size + len(data) > max_bytes and not (at_least_one and not found):
                break
            found.append(data)
            size += len(data)
        return b"".join(found)

    def offset_at(self, timestamp_ms: int, stamps: Stamps) -> Timed:
        """The first record of this time or later."""
        for stored in self._stored:
            if stored.max_timestamp_ms >= timestamp_ms:
                return _first_in(stored, timestamp_ms, stamps)
        return Timed()

    def newest(self, stamps: Stamps) -> Timed:
        """The first of the records that have the latest time."""
        latest_ms = max((stored.max_timestamp_ms for stored in self._stored), default=-1)
        return Timed() if latest_ms < 0 else self.offset_at(latest_ms, stamps)

    def first_epoch(self) -> int:
        """The leader epoch of the oldest batch, -1 without one."""
        return self._stored[0].leader_epoch if self._stored else -1

    def end_of_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the last epoch that is not later than this.

        Without one it is the epoch itself, which ends where the log begins.
        Source: Kafka `LeaderEpochFileCache.endOffsetFor`.
        """
        last = leader_epoch
        for stored in self._stored:
            if stored.leader_epoch > leader_epoch:
                return last, stored.base_offset
            last = stored.leader_epoch
        return last, self.end_offset


def _first_in(stored: _Stored, timestamp_ms: int, stamps: Stamps) -> Timed:
    """The record in this batch; the batch as a whole where its records cannot be read."""
    for offset, at_ms in stamps(stored.data):
        if at_ms >= timestamp_ms:
            return Timed(offset, at_ms, stored.leader_epoch)
    return Timed(stored.base_offset, stored.max_timestamp_ms, stored.leader_epoch)
