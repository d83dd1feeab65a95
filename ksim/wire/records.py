"""Record batches to records: what the application reads of the bytes of one partition."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record import MemoryRecords

from ksim.core.errors import KafkaError
from ksim.core.values import Record

MAGIC_WITH_HEADER: Final = 2
NO_TIMESTAMP: Final = -1
# What a record takes beside its bytes, in memory as in time to decode: smaller ones count as this.
LEAST_RECORD_BYTES: Final = 64
NO_EPOCH: Final = -1
ABORT: Final = 0  # the type of a control record
BATCH_LENGTH: Final = struct.Struct(">8xI4xB")  # and the magic; what counts is behind the length
LENGTH_END: Final = 12
CHECKSUM_BYTES: Final = 4
CONTROL_KEY: Final = struct.Struct(">hh")  # version and type
# Each codec but gzip needs an extra of this name to be installed.
CODECS: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
MEMORY_RECORDS: Final[Any] = MemoryRecords

Aborted = Sequence[tuple[int, int]]


class DecodedRecords(NamedTuple):
    """Records from the asked offset on; `next_offset` is past all that was read, holes included.

    `leader_epoch` is that of the last batch, -1 where batches do not tell. `detail` says more of
    an error.
    """

    records: tuple[Record, ...]
    next_offset: int
    error_code: int
    leader_epoch: int
    detail: str = ""


class _Transactions:
    """Which batches belong to aborted transactions. Source: KIP-98, the broker's list of them."""

    def __init__(self, aborted: Aborted) -> None:
        self._coming = deque(sorted(aborted))
        self._open: set[int] = set()

    def skips(self, batch: Any) -> bool:
        """Holding batches in order: this one was aborted, or is the mark of an end."""
        while self._coming and self._coming[0][0] <= batch.last_offset:
            self._open.add(self._coming.popleft()[1])
        if batch.is_control_batch:
            if self._open and _is_abort(batch):
                self._open.discard(batch.producer_id)
            return True
        return batch.is_transactional and batch.producer_id in self._open


def _is_abort(batch: Any) -> bool:
    keys = [raw.key for raw in batch]
    return len(keys) == 1 and CONTROL_KEY.unpack_from(keys[0])[1] == ABORT


def decode_records(
    data: bytes | None, fetch_offset: int, aborted: Aborted = (), most_bytes: int | None = None
) -> DecodedRecords:
    """Decode the batches of one partition; those below `fetch_offset` and control ones are skipped.

    So are transactions that are `aborted`, given as (first offset, producer id). What stands before
    a damaged batch is returned without error: the next fetch starts at the damage, and has its
    error and nothing else, so that good records never wait behind bad ones. No batch is opened
    once the records have `most_bytes`: compressed ones may be a thousand times what came, and a
    member that decodes a million tiny ones sends no heartbeat meanwhile; what is left is fetched
    again.
    """
    assert fetch_offset >= 0, f"fetch_offset = {fetch_offset}"
    records: list[Record] = []
    next_offset, error_code, leader_epoch, detail = fetch_offset, 0, NO_EPOCH, ""
    transactions = _Transactions(aborted)
    left = math.inf if most_bytes is None else most_bytes
    batches = MEMORY_RECORDS(data or b"")
    batch: Any = None
    opened = 0
    try:
        while left > 0 and (batch := batches.next_batch()) is not None:
            opened += 1
            found, batch_end = _decode_batch(batch, next_offset, transactions)
            records.extend(found)
            left -= sum(map(_size, found))
            next_offset = max(next_offset, batch_end)
            if batch.magic >= MAGIC_WITH_HEADER:
                leader_epoch = batch.leader_epoch
        if data and not opened:
            # Brokers send the first batch whole, whatever its size (KIP-74).
            raise CorruptRecordError(f"{len(data)} bytes hold no batch")
    except UnsupportedCodecError:
        error_code, detail = KafkaError.UNSUPPORTED_COMPRESSION_TYPE, _codec_advice(batch)
    except Exception as error:  # noqa: BLE001 - codecs raise anything where bytes are damaged
        error_code = KafkaError.CORRUPT_MESSAGE
        detail = _told(error)
    assert next_offset >= fetch_offset
    assert all(record.offset < next_offset for record in records[-1:])
    if next_offset > fetch_offset:
        error_code, detail = 0, ""
    return DecodedRecords(tuple(records), next_offset, int(error_code), leader_epoch, detail)


def _told(error: Exception) -> str:
    """Without the bytes, which are the user's."""
    if isinstance(error, UnicodeDecodeError) or isinstance(error.__context__, UnicodeDecodeError):
        return "the name of a header is no UTF-8"
    return f"{type(error).__name__}: {error}"


def _codec_advice(batch: Any) -> str:
    codec = CODECS.get(batch.compression_type)
    if codec is None:
        return f"codec {batch.compression_type} is unknown; known are {', '.join(CODECS.values())}"
    return f"codec {codec}: pip install 'kafka-ksim[{codec}]'"


def batch_checksums(data: bytes) -> bytes:
    """Those that the batches carry, one after the other. Source: Kafka's DefaultRecordBatch."""
    found: list[bytes] = []
    at = 0
    while at + BATCH_LENGTH.size <= len(data):
        length, magic = BATCH_LENGTH.unpack_from(data, at)
        checksum_at = at + (BATCH_LENGTH.size if magic >= MAGIC_WITH_HEADER else LENGTH_END)
        found.append(data[checksum_at : checksum_at + CHECKSUM_BYTES])
        at += LENGTH_END + length
    return b"".join(found)


def record_stamps(data: bytes) -> list[tuple[int, int]]:
    """(offset, timestamp) of each record of these batches; nothing where they cannot be read."""
    decoded = decode_records(data, 0)
    return [(record.offset, record.timestamp_ms) for record in decoded.records]


def _decode_batch(
    batch: Any, from_offset: int, transactions: _Transactions
) -> tuple[list[Record], int]:
    """Give the records of a batch from `from_offset` on, and the offset after the batch."""
    if not batch.validate_crc():
        raise CorruptRecordError("checksum of a batch")
    has_header = batch.magic >= MAGIC_WITH_HEADER
    if has_header and transactions.skips(batch):
        return [], batch.next_offset
    records, batch_end = [], from_offset
    for raw in batch:
        batch_end = raw.offset + 1
        if raw.offset >= from_offset:
            records.append(_record(raw))
    if has_header and batch_end > batch.next_offset:
        raise CorruptRecordError(f"a record behind the end of its batch, {batch.next_offset}")
    # Compaction may have removed the last records of a batch; its header still counts them.
    return records, batch.next_offset if has_header else batch_end


def _size(record: Record) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return max(LEAST_RECORD_BYTES, len(record.key or b"") + len(record.value or b"") + headers)


def _record(raw: Any) -> Record:
    timestamp = NO_TIMESTAMP if raw.timestamp is None else raw.timestamp
    return Record(raw.offset, timestamp, raw.key, raw.value, tuple(raw.headers or ()))
