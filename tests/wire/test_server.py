"""The server's side of the wire: headers that may be anything, and answers of every version."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksim.wire.batches import read_batches
from ksim.wire.errors import WireError
from ksim.wire.server import (
    APIS,
    Header,
    encoded,
    is_spoken,
    read_header,
    read_request,
    unsupported_version,
    version_table,
    write_response,
)

EVERY = [(api, v) for api in APIS.values() for v in range(api.min_version, api.max_version + 1)]


def frame(api_key: int, version: int, body: bytes = b"", client: bytes = b"me") -> bytes:
    head = struct.pack(">hhih", api_key, version, 7, len(client)) + client
    api = APIS.get(api_key)
    spoken = api is not None and is_spoken(api, version)
    flexible = spoken and api.request.flexible_version_q(version)  # type: ignore[union-attr]
    return head + (b"\0" if flexible else b"") + body


@pytest.mark.parametrize(("api", "version"), EVERY)
def test_every_version_is_read_and_answered(api: Any, version: int) -> None:
    body = api.request().encode(version=version)
    data = frame(api.api_key, version, body)
    header = read_header(data)
    assert header[:4] == (api.api_key, version, 7, "me")
    assert read_request(header, data).name == f"{api.name}Request"
    answer = write_response(header, {})
    assert struct.unpack_from(">ii", answer) == (len(answer) - 4, 7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        frame(999, 0),
        struct.pack(">hhih", 18, 3, 1, 500) + b"short",
        frame(18, 3, client=b"\xff\xfe"),
        frame(18, 3)[:-1],
        frame(18, 3)[:-1] + b"\xff\xff\xff\xff\xff\xff",
        frame(18, 3)[:-1] + b"\x7f",
    ],
)
def test_headers_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(WireError):
        read_request(read_header(data), data)


@given(st.sampled_from(EVERY), st.binary(max_size=200))
def test_any_body_is_read_or_refused(which: Any, body: bytes) -> None:
    api, version = which
    data = frame(api.api_key, version, body)
    try:
        found = read_request(read_header(data), data)
    except WireError:
        return
    assert found.name == f"{api.name}Request"


def test_unknown_version_is_answered_to_api_versions_alone() -> None:
    answer = unsupported_version(Header(18, 99, 5, "", 0))
    assert answer is not None
    size, correlation_id, error_code, count = struct.unpack_from(">iihi", answer)
    assert (size, correlation_id, error_code, count) == (len(answer) - 4, 5, 35, len(APIS))
    assert unsupported_version(Header(11, 99, 5, "", 0)) is None


def test_fields_that_do_not_exist_are_our_own_bug() -> None:
    with pytest.raises(KeyError):
        encoded(APIS[18].response, {"no_such_field": 1}, 0)
    assert encoded(APIS[18].response, version_table(0), 0)


def test_damaged_batches_are_refused() -> None:
    from kafka.record.default_records import DefaultRecordBatchBuilder

    builder: Any = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=5, producer_epoch=1,
        base_sequence=9, batch_size=999,
    )  # fmt: skip
    builder.append(0, timestamp=77, key=None, value=b"x", headers=[])
    builder.append(1, timestamp=78, key=None, value=b"y", headers=[])
    good = bytes(builder.build())
    (found,) = read_batches(good)
    assert found[1:] == (2, 78, 5, 1, 9)
    assert len(list(read_batches(good * 3))) == 3
    for damaged in (good[:-1], good[:30], good[:-1] + b"?", good[:16] + b"\1" + good[17:]):
        with pytest.raises(WireError):
            list(read_batches(damaged))
