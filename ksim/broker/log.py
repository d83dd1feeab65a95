"""The log of one partition."""

from __future__ import annotations

from collections.abc import Sequence

from ksim.core.values import Record

Headers = tuple[tuple[str, bytes | None], ...]
NewRecord = tuple[bytes | None, bytes | None, Headers]


class PartitionLog:
    """Records by offset, from `start_offset` up to but not including `end_offset`."""

    __slots__ = ("_epochs", "_records", "start_offset")

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._epochs: list[tuple[int, int]] = []  # (first offset, leader epoch), both rising
        self.start_offset = 0

    @property
    def end_offset(self) -> int:
        return self.start_offset + len(self._records)

    def append(self, records: Sequence[NewRecord], timestamp_ms: int, leader_epoch: int = 0) -> int:
        """Append (key, value, headers) each; returns the offset of the first."""
        base_offset = self.end_offset
        if records and (not self._epochs or leader_epoch > self._epochs[-1][1]):
            self._epochs.append((base_offset, leader_epoch))
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

    def truncate(self, end_offset: int) -> None:
        """Lose what stands from `end_offset` on."""
        assert self.start_offset <= end_offset, f"{end_offset} is before {self.start_offset}"
        del self._records[end_offset - self.start_offset :]
        self._epochs = [each for each in self._epochs if each[0] < end_offset]

    def epoch_at(self, offset: int) -> int:
        """The leader epoch that the record at `offset` was written in; -1 for none."""
        found = [epoch for first, epoch in self._epochs if first <= offset]
        return found[-1] if found else -1

    def end_of_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the last epoch that is not later than this.

        Without one it is the epoch itself, which ends where the log begins.
        Source: Kafka `LeaderEpochFileCache.endOffsetFor`.
        """
        ends = [first for first, _ in self._epochs[1:]] + [self.end_offset]
        known = [
            (epoch, end)
            for (_, epoch), end in zip(self._epochs, ends, strict=False)
            if epoch <= leader_epoch
        ]
        return known[-1] if known else (leader_epoch, self.start_offset)

    def offset_at(self, timestamp_ms: int) -> int:
        """The first offset written at or after this time; -1 if there is none."""
        return next((r.offset for r in self._records if r.timestamp_ms >= timestamp_ms), -1)
