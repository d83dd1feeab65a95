"""Batches that are aborted, compressed or damaged, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from kafka import codec as kafka_codec
from kafka.record import MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from ksim.core.errors import KafkaError
from ksim.wire.records import (
    CODECS,
    CONTROL_KEY,
    LEAST_RECORD_BYTES,
    DecodedRecords,
    decode_records,
)

COMMIT, ABORT = 1, 0


def batch(
    first: int, values: list[bytes], *, producer: int = -1, compression: int = 0, control: int = -1
) -> bytes:
    """One batch as a broker keeps it; transactional if it has a producer."""
    options = {"transactional": True, "producer_id": producer, "producer_epoch": 0}
    make_builder: Any = MemoryRecordsBuilder
    builder = make_builder(
        2, compression, 1 << 20, **(options | {"base_sequence": 0} if producer >= 0 else {})
    )
    for value in values:
        assert builder.append(1_000, CONTROL_KEY.pack(0, control) if control >= 0 else None, value)
    builder.close()
    data = bytearray(builder.buffer())
    data[:8] = first.to_bytes(8, "big")
    if control >= 0:
        data[22] |= 0x20
        crc: int = calc_crc32c(bytes(data[21:]))  # type: ignore[no-untyped-call]
        data[17:21] = crc.to_bytes(4, "big")
    return bytes(data)


def end(first: int, producer: int, kind: int) -> bytes:
    """The mark of a transaction's end."""
    return batch(first, [b"\0\0\0\0\0\1"], producer=producer, control=kind)


def offsets(decoded: DecodedRecords) -> list[int]:
    assert decoded.error_code == 0, decoded
    return [record.offset for record in decoded.records]


# Producer 7 aborts 0-1 and commits 6; producer 8 commits 2-3; 4 is of no transaction.
LOG = b"".join(
    (
        batch(0, [b"a", b"b"], producer=7),
        batch(2, [b"c", b"d"], producer=8),
        batch(4, [b"e"]),
        end(5, 7, ABORT),
        batch(6, [b"f"], producer=7),
        end(7, 7, COMMIT),
        end(8, 8, COMMIT),
    )
)


def test_aborted_records_are_left_out_and_the_offset_goes_on() -> None:
    found = decode_records(LOG, 0, [(0, 7)])
    assert offsets(found) == [2, 3, 4, 6]
    assert found.next_offset == 9


def test_without_a_list_of_aborted_ones_all_records_are_given() -> None:
    assert offsets(decode_records(LOG, 0)) == [0, 1, 2, 3, 4, 6]


def test_a_fetch_may_begin_within_an_aborted_transaction() -> None:
    assert offsets(decode_records(LOG, 1, [(0, 7)])) == [2, 3, 4, 6]


def test_a_producer_may_abort_again() -> None:
    again = LOG + batch(9, [b"g"], producer=7) + end(10, 7, ABORT)
    assert offsets(decode_records(again, 0, [(9, 7), (0, 7)])) == [2, 3, 4, 6]


def test_an_abort_of_a_later_batch_does_not_reach_back() -> None:
    assert offsets(decode_records(LOG, 0, [(6, 7)])) == [0, 1, 2, 3, 4]


def test_an_answer_of_aborted_records_alone_moves_the_offset() -> None:
    found = decode_records(batch(0, [b"a", b"b"], producer=7), 0, [(0, 7)])
    assert (found.records, found.next_offset, found.error_code) == ((), 2, 0)


@pytest.mark.parametrize("compression", sorted(CODECS))
def test_every_codec_is_read(compression: int) -> None:
    values = [b"value %d" % number * 20 for number in range(300)]
    found = decode_records(batch(3, values, compression=compression), 3)
    assert [record.value for record in found.records] == values
    assert found.next_offset == 303


@pytest.mark.parametrize("name", ["snappy", "lz4", "zstd"])
def test_a_codec_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (compression,) = [number for number, codec in CODECS.items() if codec == name]
    data = batch(3, [b"a" * 1_000], compression=compression)
    monkeypatch.setattr(kafka_codec, f"has_{name}", lambda: False)
    found = decode_records(batch(2, [b"z"]) + data, 2)
    assert (offsets(found), found.next_offset) == ([2], 3)
    found = decode_records(data, 3)
    assert found.error_code == KafkaError.UNSUPPORTED_COMPRESSION_TYPE
    assert (found.next_offset, found.records) == (3, ())
    assert found.detail == f"codec {name}: pip install 'kafka-ksim[{name}]'"


@pytest.mark.parametrize("compression", [0, *CODECS])
def test_damage_is_told_whatever_the_codec_raises(compression: int) -> None:
    data = bytearray(batch(0, [b"a" * 100, b"b" * 100], compression=compression))
    data[-8:] = b"\xff" * 8
    crc: int = calc_crc32c(bytes(data[21:]))  # type: ignore[no-untyped-call]
    data[17:21] = crc.to_bytes(4, "big")
    found = decode_records(bytes(data), 0)
    assert (found.error_code, found.next_offset, found.records) == (2, 0, ())
    assert found.detail


@pytest.mark.parametrize("compression", [0, 1])
def test_no_batch_is_opened_once_there_is_enough(compression: int) -> None:
    """A batch of zeros is a thousand times what comes over the wire."""
    data = b"".join(batch(at, [bytes(10_000)], compression=compression) for at in range(5))
    found = decode_records(data, 0, most_bytes=15_000)
    assert (offsets(found), found.next_offset) == ([0, 1], 2)
    assert offsets(decode_records(data, 2, most_bytes=1)) == [2]
    assert offsets(decode_records(data, 3, most_bytes=1 << 20)) == [3, 4]


def test_tiny_records_count_for_what_they_take() -> None:
    """A million of them would be decoded for seconds, in which no heartbeat is sent."""
    data = b"".join(batch(at * 100, [b"x"] * 100) for at in range(20))
    found = decode_records(data, 0, most_bytes=len(data))
    assert len(data) < 20 * 100 * 16
    assert 0 < found.next_offset <= len(data) // LEAST_RECORD_BYTES + 100
    assert offsets(found) == list(range(found.next_offset))


def test_a_length_that_is_damaged_is_told() -> None:
    """Nothing could be read of it ever, and it would be asked for again and again."""
    data = batch(0, [b"a", b"b"])
    for cut in (data[:-5], data[:8] + (10**6).to_bytes(4, "big") + data[12:], data[:10]):
        found = decode_records(cut, 0)
        assert (found.error_code, found.next_offset, found.records) == (2, 0, ())
        assert found.detail.endswith(f"{len(cut)} bytes hold no batch")
    behind = batch(2, [b"c"])[:-3]
    assert decode_records(data + behind, 0).next_offset == 2


def test_a_record_behind_the_end_of_its_batch_is_told() -> None:
    data = bytearray(batch(0, [b"a", b"b", b"c"]))
    data[23:27] = (0).to_bytes(4, "big")  # the last offset delta
    crc: int = calc_crc32c(bytes(data[21:]))  # type: ignore[no-untyped-call]
    data[17:21] = crc.to_bytes(4, "big")
    found = decode_records(bytes(data), 0)
    assert (found.error_code, found.next_offset, found.records) == (2, 0, ())
    assert "a record behind the end of its batch" in found.detail


def test_a_header_that_is_no_text_is_told_without_its_bytes() -> None:
    make_builder: Any = MemoryRecordsBuilder
    builder = make_builder(2, 0, 1 << 20)
    assert builder.append(1_000, None, b"v", headers=[("name", b"secret")])
    builder.close()
    data = bytearray(builder.buffer())
    at = data.index(b"name")
    data[at : at + 4] = b"\xff\xfe\xfd\xfc"
    crc: int = calc_crc32c(bytes(data[21:]))  # type: ignore[no-untyped-call]
    data[17:21] = crc.to_bytes(4, "big")
    found = decode_records(bytes(data), 0)
    assert found.error_code == KafkaError.CORRUPT_MESSAGE
    assert found.detail == "the name of a header is no UTF-8"
