"""The log of bytes: offsets, retention, and producers that send twice."""

from __future__ import annotations

import pytest

from ksim.broker.batches import Batch, BatchLog, unread

HEADER = 61


def batch(
    count: int = 1, *, size: int = 100, at_ms: int = 0, producer: int = -1, epoch: int = 0,
    sequence: int = -1,
) -> Batch:  # fmt: skip
    return Batch(bytes(size), count, at_ms, producer, epoch, sequence)


def filled(*counts: int, retention_bytes: int = 10_000) -> BatchLog:
    log = BatchLog(retention_bytes)
    for count in counts:
        assert log.append(batch(count), 0).error_code == 0
    return log


def test_offsets_follow_the_records() -> None:
    log = BatchLog(10_000)
    assert log.append(batch(3), 7) == (0, 0)
    assert log.append(batch(2), 7) == (0, 3)
    assert (log.start_offset, log.end_offset) == (0, 5)
    second = log.read(3, 1_000, at_least_one=False)
    assert int.from_bytes(second[:8], "big") == 3
    assert int.from_bytes(second[12:16], "big") == 7


def test_reads_are_whole_batches() -> None:
    log = filled(3, 2, 1)
    assert len(log.read(0, 10_000, at_least_one=False)) == 300
    assert len(log.read(2, 250, at_least_one=False)) == 200
    assert len(log.read(5, 250, at_least_one=False)) == 100
    assert log.read(0, 99, at_least_one=False) == b""
    assert len(log.read(0, 99, at_least_one=True)) == 100
    assert log.read(6, 1_000, at_least_one=True) == b""


def test_retention_drops_the_oldest() -> None:
    log = filled(*[1] * 50, retention_bytes=1_000)
    assert (log.start_offset, log.end_offset, log.bytes_kept) == (40, 50, 1_000)
    tiny = filled(1, 1, retention_bytes=10)
    assert (tiny.start_offset, tiny.end_offset) == (1, 2)


def test_what_is_sent_again_is_not_appended_again() -> None:
    log = BatchLog(10_000)
    first = batch(2, producer=9, sequence=0)
    assert log.append(first, 0) == (0, 0)
    assert log.append(batch(1, producer=9, sequence=2), 0) == (0, 2)
    assert log.append(first, 0) == (0, 0)
    assert log.end_offset == 3


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (batch(1, producer=9, epoch=2, sequence=4), 45),
        (batch(1, producer=9, epoch=1, sequence=5), 47),
        (batch(1, producer=9, epoch=3, sequence=5), 45),
        (batch(1, producer=9, epoch=3, sequence=0), 0),
        (batch(1, producer=9, epoch=2, sequence=2), 0),
        (batch(1, producer=8, sequence=0), 0),
    ],
)
def test_producers_are_held_to_their_sequence(late: Batch, expected: int) -> None:
    log = BatchLog(10_000)
    log.append(batch(2, producer=9, epoch=2, sequence=0), 0)
    assert log.append(late, 0).error_code == expected


def test_times_are_found_in_the_records_of_a_batch() -> None:
    log = BatchLog(10_000)
    log.append(batch(2, at_ms=100), 0)
    log.append(batch(2, at_ms=200), 3)
    log.append(batch(1, at_ms=150), 3)

    def stamps(data: bytes) -> list[tuple[int, int]]:
        base = int.from_bytes(data[:8], "big")
        return {0: [(0, 90), (1, 100)], 2: [(2, 200), (3, 180)], 4: [(4, 150)]}[base]

    assert log.offset_at(0, stamps) == (0, 90, 0)
    assert log.offset_at(91, stamps) == (1, 100, 0)
    assert log.offset_at(101, stamps) == (2, 200, 3)
    assert log.offset_at(201, stamps) == (-1, -1, -1)
    assert log.newest(stamps) == (2, 200, 3)
    assert log.offset_at(91, unread) == (0, 100, 0), "a batch that cannot be read counts as a whole"
    assert BatchLog(1).newest(stamps) == (-1, -1, -1)


def test_ends_of_epochs_are_found() -> None:
    log = BatchLog(10_000)
    assert log.first_epoch() == -1
    log.append(batch(2), 1)
    log.append(batch(2), 3)
    assert log.first_epoch() == 1
    assert log.end_of_epoch(0) == (0, 0)
    assert log.end_of_epoch(1) == (1, 2)
    assert log.end_of_epoch(2) == (1, 2)
    assert log.end_of_epoch(3) == (3, 4)
    assert BatchLog(1).end_of_epoch(4) == (4, 0)
