"""kafka-python's messages, compiled before the first of them is under way.

It compiles what reads and writes a message when one of its kind and version is met for the first
time: some 70 ms in all, and without this all of it between the start of a member and its first
record. Source: `kafka.protocol.schemas.fields.struct.StructField.compiled_encode_into`.
"""

from __future__ import annotations

from typing import Any, Final

from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import ApiVersionsRequest

from ksim.core import messages as m
from ksim.wire.requests import encode_request
from ksim.wire.server import APIS, encoded

API_VERSIONS: Final[Any] = ApiVersionsRequest
API_VERSIONS_VERSION: Final = 3  # brokers that do not know it answer in version 0
VERSION_DATA: Final[Any] = BrokerVersionData
ANY_VERSION: Final = (0, 1_000)
RESPONSES: Final = {api.name: api.response for api in APIS.values()}
SAMPLES: Final[tuple[m.Request, ...]] = (
    m.MetadataRequest(("t",)),
    m.FindCoordinatorRequest("g"),
    m.JoinGroupRequest("g", 1, 1, "", None, "consumer", (("range", b""),)),
    m.SyncGroupRequest("g", 1, "m", None, "consumer", "range", ()),
    m.HeartbeatRequest("g", 1, "m", None),
    m.LeaveGroupRequest("g", (m.MemberIdentity("m", None),)),
    m.OffsetCommitRequest("g", 1, "m", None, (m.OffsetAndMetadata("t", 0, 0, -1, ""),)),
    m.OffsetFetchRequest("g", None),
    m.ListOffsetsRequest((m.ListOffsetsPartition("t", 0, -1),)),
    m.FetchRequest(1, 1, 1, 1, (m.FetchPartition("t", 0, 0, -1),)),
    m.OffsetForLeaderEpochRequest((m.EpochPartition("t", 0, 0, 0),)),
)


def api_versions_request(version: int) -> Any:
    """What a connection says first."""
    return API_VERSIONS(version=version, client_software_name="ksim", client_software_version="1")


def compile_messages() -> None:
    """Meet each message once, in the version that current brokers are spoken to."""
    newest = VERSION_DATA(api_versions=dict.fromkeys(APIS, ANY_VERSION))
    hello = api_versions_request(API_VERSIONS_VERSION)
    for message in (hello, *(encode_request(sample) for sample in SAMPLES)):
        version = message.API_VERSION if message is hello else newest.api_version(message)
        message.encode(version=version)
        response = RESPONSES[message.name.removesuffix("Request")]
        response.decode(encoded(response, {}, version), version=version)
