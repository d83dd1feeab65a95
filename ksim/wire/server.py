"""The server's side of the wire: frames of any client to kafka-python's objects, answers to bytes.

An answer is given as plain data in Kafka's own field names; what it leaves out has the default of
Kafka's message definition, and what its version does not know is not sent.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from kafka.errors import KafkaError
from kafka.protocol import admin, consumer, metadata, producer

from ksim.wire.errors import WireError

_HEADER: Final = struct.Struct(">hhih")
_ANSWER: Final = struct.Struct(">ii")
_API_VERSIONS: Final = 18
_MAX_TAGS: Final = 16
UNREADABLE: Final = (
    KafkaError, WireError, LookupError, ValueError, TypeError, struct.error, MemoryError,
    OverflowError, RecursionError, AssertionError,
)  # fmt: skip

_ROOMS: Final[tuple[Any, ...]] = (producer, consumer, metadata, admin)
# The versions that are spoken; the least is what current clients still use.
VERSIONS: Final = {
    "Produce": (3, 9),
    "Fetch": (4, 12),
    "ListOffsets": (1, 7),
    "Metadata": (0, 9),
    "OffsetCommit": (2, 9),
    "OffsetFetch": (1, 9),
    "FindCoordinator": (0, 5),
    "JoinGroup": (2, 9),
    "Heartbeat": (0, 4),
    "LeaveGroup": (0, 5),
    "SyncGroup": (0, 5),
    "DescribeGroups": (0, 6),
    "ListGroups": (0, 5),
    "ApiVersions": (0, 4),
    "CreateTopics": (2, 6),
    "DeleteTopics": (1, 5),
    "InitProducerId": (0, 4),
    "OffsetForLeaderEpoch": (2, 4),
    "CreatePartitions": (0, 3),
    "DeleteGroups": (0, 2),
    "OffsetDelete": (0, 0),
    "DescribeCluster": (0, 0),
    "DescribeConfigs": (1, 4),
}


class Api(NamedTuple):
    """One kind of request and the versions of it that are spoken."""

    name: str
    api_key: int
    min_version: int
    max_version: int
    request: Any
    response: Any


class Header(NamedTuple):
    """Who asks what; the body begins at `body_at`."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str
    body_at: int


def _find(name: str) -> Any:
    return next(vars(room)[name] for room in _ROOMS if name in vars(room))


def _table() -> dict[int, Api]:
    table: dict[int, Api] = {}
    for name, (low, high) in VERSIONS.items():
        request = _find(f"{name}Request")
        table[request.API_KEY] = Api(
            name, request.API_KEY, low, high, request, _find(f"{name}Response")
        )
    return dict(sorted(table.items()))


APIS: Final = _table()


def read_header(frame: bytes) -> Header:
    """The header of a request. Raises WireError where it cannot be read, or the key is unknown."""
    if len(frame) < _HEADER.size:
        raise WireError(f"a frame of {len(frame)} bytes is shorter than a header")
    api_key, api_version, correlation_id, size = _HEADER.unpack_from(frame)
    at = _HEADER.size + max(size, 0)
    if at > len(frame):
        raise WireError(f"client id of {size} bytes in a frame of {len(frame)}")
    try:
        client_id = frame[_HEADER.size : at].decode()
    except UnicodeDecodeError as error:
        raise WireError(f"client id: {error}") from error
    api = APIS.get(api_key)
    if api is None:
        raise WireError(f"unknown api key {api_key}")
    if is_spoken(api, api_version) and api.request.flexible_version_q(api_version):
        at = _skip_tags(frame, at)
    return Header(api_key, api_version, correlation_id, client_id, at)


def is_spoken(api: Api, version: int) -> bool:
    return api.min_version <= version <= api.max_version


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 35, 7):
        if at >= len(frame):
            break
        byte = frame[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
    raise WireError("a number without end in a header")


def _skip_tags(frame: bytes, at: int) -> int:
    count, at = _varint(frame, at)
    if count > _MAX_TAGS:
        raise WireError(f"{count} tagged fields in a header")
    for _ in range(count):
        _, at = _varint(frame, at)
        size, at = _varint(frame, at)
        at += size
    if at > len(frame):
        raise WireError("a tagged field beyond the frame")
    return at


def read_request(header: Header, frame: bytes) -> Any:
    """The body as kafka-python's object. Raises WireError where it cannot be read."""
    api = APIS[header.api_key]
    assert is_spoken(api, header.api_version), f"{api.name} {header.api_version}"
    try:
        found = api.request.decode(memoryview(frame)[header.body_at :], version=header.api_version)
        _require_values(found, header.api_version)
        return found
    except UNREADABLE as error:
        text = str(error) or type(error).__name__
        raise WireError(f"{api.name} {header.api_version}: {text}") from error


def _require_values(message: Any, version: int) -> None:
    """Refuse null where Kafka's definition has none; kafka-python takes it everywhere."""
    for name, field in message.fields.items():
        if not field.for_version_q(version):
            continue
        item = getattr(message, name)
        if item is None:
            if not field.nullable_for_version_q(version):
                raise WireError(f"{name} is null")
        elif field.is_struct_array():
            for each in item:
                _require_values(each, version)
        elif field.is_struct():
            _require_values(item, version)
        elif isinstance(item, list) and None in item:
            raise WireError(f"{name} has a null in it")


def as_data(message: Any) -> dict[str, Any]:
    """Every field by its name, with its default where the message's version has none."""
    found: dict[str, Any] = {}
    for name, field in message.fields.items():
        item = getattr(message, name)
        if field.is_struct_array() and item is not None:
            found[name] = [as_data(each) for each in item]
        elif field.is_struct() and item is not None:
            found[name] = as_data(item)
        else:
            found[name] = item
    return found


def write_response(header: Header, answer: dict[str, Any]) -> bytes:
    """The whole frame of an answer."""
    api = APIS[header.api_key]
    body = encoded(api.response, answer, header.api_version)
    tagged = api.response.flexible_version_q(header.api_version) and api.api_key != _API_VERSIONS
    tags = b"\0" if tagged else b""
    return _ANSWER.pack(4 + len(tags) + len(body), header.correlation_id) + tags + body


def unsupported_version(header: Header) -> bytes | None:
    """What Kafka says to a version it does not speak: 35 and the table to ApiVersions only."""
    if header.api_key != _API_VERSIONS:
        return None
    body = encoded(APIS[_API_VERSIONS].response, version_table(35), 0)
    return _ANSWER.pack(4 + len(body), header.correlation_id) + body


def version_table(error_code: int) -> dict[str, Any]:
    return {
        "error_code": error_code,
        "api_keys": [
            {
                "api_key": api.api_key,
                "min_version": api.min_version,
                "max_version": api.max_version,
            }
            for api in APIS.values()
        ],
    }


def encoded(cls: Any, answer: dict[str, Any], version: int) -> bytes:
    """The bytes of a message of this class and version."""
    found: bytes = _built(cls, answer, version).encode(version=version)
    return bytes(found)


def _built(cls: Any, given: dict[str, Any], version: int) -> Any:
    values: dict[str, Any] = {}
    for name, item in given.items():
        field = cls.fields[name]
        if not field.for_version_q(version):
            continue
        if field.is_struct_array() and item is not None:
            values[name] = [_built(field.data_class, each, version) for each in item]
        elif field.is_struct() and item is not None:
            values[name] = _built(field.data_class, item, version)
        else:
            values[name] = item
    return cls(version=version, **values)
