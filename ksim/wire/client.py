"""Requests of an exact version from plain data, and answers as plain data: for comparisons."""

from __future__ import annotations

import struct
from typing import Any, Final

from kafka.protocol import admin

from ksim.wire.errors import WireError
from ksim.wire.server import APIS, UNREADABLE, Api, encoded

_HEADER: Final = struct.Struct(">hhih")
_CONFIGS: Final[Any] = admin
BY_NAME: Final = {api.name: api for api in APIS.values()} | {
    "DescribeConfigs": Api(
        "DescribeConfigs",
        32,
        1,
        1,
        _CONFIGS.DescribeConfigsRequest,
        _CONFIGS.DescribeConfigsResponse,
    )
}


def write_request(
    name: str, version: int, correlation_id: int, client_id: str, data: dict[str, Any]
) -> bytes:
    """The whole frame of a request."""
    api = BY_NAME[name]
    client = client_id.encode()
    head = _HEADER.pack(api.api_key, version, correlation_id, len(client)) + client
    tags = b"\0" if api.request.flexible_version_q(version) else b""
    body = encoded(api.request, data, version)
    size = len(head) + len(tags) + len(body)
    return size.to_bytes(4, "big") + head + tags + body


def read_response(name: str, version: int, frame: bytes) -> tuple[int, dict[str, Any]]:
    """Correlation id and answer. Raises WireError where it cannot be read."""
    api = BY_NAME[name]
    tagged = api.response.flexible_version_q(version) and name != "ApiVersions"
    try:
        (correlation_id,) = struct.unpack_from(">i", frame)
        return correlation_id, as_data(name, version, frame[5 if tagged else 4 :])
    except UNREADABLE as error:
        raise WireError(f"{name} {version}: {error}") from error


def as_data(name: str, version: int, body: bytes) -> dict[str, Any]:
    """The fields that this version has."""
    found: dict[str, Any] = BY_NAME[name].response.decode(body, version=version).to_dict()
    return found


def rewritten(name: str, version: int, answer: dict[str, Any]) -> dict[str, Any]:
    """What a client would read of this answer."""
    return as_data(name, version, encoded(BY_NAME[name].response, answer, version))
