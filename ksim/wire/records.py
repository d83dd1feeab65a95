"""Record batches to records: what the application reads of the bytes of one partition."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final, NamedTuple

from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record import MemoryRecords

from ksim.core.values import Record

CORRUPT_MESSAGE: Final = 2
UNSUPPORTED_COMPRESSION_TYPE: Final = 76
MAGIC_WITH_HEADER: Final = 2
NO_TIMESTAMP: Final = -1
# Damage shows in many ways once a batch passed its checksum: lengths, offsets, compressed data.
DAMAGE: Final = (CorruptRecordError, struct.error, zlib.error, ValueError, LookupError, OSError)
MEMORY_RECORDS: Final[Any] = MemoryRecords


class DecodedRecords(NamedTuple):
    """Records from the asked offset on; `next_offset` is past all that was read, holes included."""

    records: tuple[Record, ...]
    next_offset: int
    error_code: int


def decode_records(data: bytes | None, fetch_offset: int) -> DecodedRecords:
    """Decode the batches of one partition; those below `fetch_offset` and control ones are skipped.

    What stands before a damaged batch is returned without error: the next fetch starts at the
    damage, and has its error and nothing else, so that good records never wait behind bad ones.
    """
    assert fetch_offset >= 0, f"fetch_offset = {fetch_offset}"
    records: list[Record] = []
    next_offset, error_code = fetch_offset, 0
    batches = MEMORY_RECORDS(data or b"")
    try:
        while (batch := batches.next_batch()) is not None:
            found, batch_end = _decode_batch(batch, next_offset)
            records.extend(found)
            next_offset = max(next_offset, batch_end)
    except UnsupportedCodecError:
        error_code = UNSUPPORTED_COMPRESSION_TYPE
    except DAMAGE:
        error_code = CORRUPT_MESSAGE
    assert next_offset >= fetch_offset
    assert all(record.offset < next_offset for record in records[-1:])
    return DecodedRecords(
        tuple(records), next_offset, error_code if next_offset == fetch_offset else 0
    )


def _decode_batch(batch: Any, from_offset: int) -> tuple[list[Record], int]:
    """Give the records of a batch from `from_offset` on, and the offset after the batch."""
    if not batch.validate_crc():
        raise CorruptRecordError("checksum of a batch")
    has_header = batch.magic >= MAGIC_WITH_HEADER
    if has_header and batch.is_control_batch:
        return [], batch.next_offset
    records, batch_end = [], from_offset
    for raw in batch:
        batch_end = raw.offset + 1
        if raw.offset >= from_offset:
            records.append(_record(raw))
    # Compaction may have removed the last records of a batch; its header still counts them.
    return records, batch.next_offset if has_header else batch_end


def _record(raw: Any) -> Record:
    timestamp = NO_TIMESTAMP if raw.timestamp is None else raw.timestamp
    return Record(raw.offset, timestamp, raw.key, raw.value, tuple(raw.headers or ()))
