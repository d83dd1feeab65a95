"""The log of one partition."""

from __future__ import annotations

from collections.abc import Sequence

from ksim.core.values import Record

Headers = tuple[tuple[str, bytes | None], ...]
NewRecord = tuple[bytes | None, bytes | None, Headers]


class PartitionLog:
    """Records by offset, from `start_offset` up to but not including `end_offset`."""

    __slots__ = ("_records", "start_offset")

    def __init__(self) -> None:
        self._records: list[Record] = []
        self.start_offset = 0

    @property
    def end_offset(self) -> int:
        return self.start_offset + len(self._records)

    def append(self, records: Sequence[NewRecord], timestamp_ms: int) -> int:
        """Append (key, value, headers) each; returns the offset of the first."""
        base_offset = self.end_offset
        self._records += [
            Record(base_offset + at, timestamp_ms, key, value, headers)
            for at, (key, value, headers) in enumerate(records)
        ]
        return base_offset

    def read(self, offset: int, max_records: int) -> tuple[Record, ...]:
        """Records from `offset` on, at most so many. `offset` must be inside or at the end."""
        assert self.start_offset <= offset <= self.end_offset, f"offset {offset}"
        at = offset - self.start_offset
        return tuple(self._records[at : at + max_records])

    def offset_at(self, timestamp_ms: int) -> int:
        """The first offset written at or after this time; -1 if there is none."""
        return next((r.offset for r in self._records if r.timestamp_ms >= timestamp_ms), -1)
