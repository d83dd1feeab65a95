"""Record batches as a broker sees them: headers and checksums, never records.

Source: Kafka `DefaultRecordBatch` (magic 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import crc32c

from ksim.broker.batches import Batch
from ksim.wire.errors import WireError

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_AT: Final = 8
_CHECKED_FROM: Final = 21
_MAGIC: Final = 2


def read_batches(data: bytes) -> Iterator[Batch]:
    """The batches of one partition of a Produce request. Raises WireError for damage."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEADER.size:
            raise WireError(f"{len(data) - at} bytes are no record batch")
        (
            _,
            length,
            _,
            magic,
            crc,
            _,
            last_delta,
            _,
            max_ms,
            producer_id,
            epoch,
            sequence,
            count,
        ) = _HEADER.unpack_from(data, at)
        end = at + 12 + length
        if magic != _MAGIC or length < _HEADER.size - 12 or end > len(data):
            raise WireError(f"record batch of magic {magic} and {length} bytes")
        raw = bytes(data[at:end])
        if crc32c.crc32c(raw[_CHECKED_FROM:]) != crc:
            raise WireError("checksum of a record batch")
        if count <= 0 or last_delta != count - 1:
            raise WireError(f"{count} records up to delta {last_delta}")
        yield Batch(raw, count, max_ms, producer_id, epoch, sequence)
        at = end
