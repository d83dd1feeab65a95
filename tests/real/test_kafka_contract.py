"""What ksim relies on in kafka-python, name by name: an upgrade that breaks us fails here first.

The names are found in ksim's own sources, so that none can be used that is not pinned here.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ksim.real.sasl import Credentials
from ksim.wire.server import VERSIONS

ROOT = Path(__file__).parents[2]
ALIASES = {"kc": "kafka.protocol.consumer", "km": "kafka.protocol.metadata"}  # in wire.requests
Check = Callable[[Any], None]


def imported(source: str) -> Iterator[str]:
    """Each name of kafka-python that a source imports, or takes from the rooms of messages."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "kafka")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kafka":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ALIASES:
            yield f"{ALIASES[ast.unparse(node.value)]}.{node.attr}"


def used() -> set[str]:
    sources = sorted((ROOT / "ksim").rglob("*.py"))
    return {name for path in sources for name in imported(path.read_text("utf-8"))}


def found(name: str) -> Any:
    """A module, or a name in one."""
    parent, _, leaf = name.rpartition(".")
    module = import_module(parent)
    return getattr(module, leaf) if hasattr(module, leaf) else import_module(name)


def a_request() -> Any:
    return found("kafka.protocol.metadata.MetadataRequest")(
        topics=None, allow_auto_topic_creation=False, min_version=4, max_version=9
    )


def answer_to(request_name: str, api_version: int, correlation_id: int, **body: Any) -> bytes:
    made = found(request_name)(version=api_version, **body)
    made.with_header(correlation_id=correlation_id)
    return bytes(made.encode(framed=True, header=True))


def is_error(cls: Any) -> None:
    assert issubclass(cls, found("kafka.errors.KafkaError"))
    assert str(cls("told")).endswith("told")


def is_base_of_errors(cls: Any) -> None:
    assert issubclass(cls, Exception)
    for name in ("InvalidReceiveError", "CorrelationIdError", "KafkaProtocolError"):
        assert issubclass(found(f"kafka.errors.{name}"), cls)


def chooses_versions(cls: Any) -> None:
    request = a_request()
    assert cls(api_versions={3: (0, 7)}).api_version(request) == 7
    assert cls(api_versions={3: (0, 99)}).api_version(request) == 9
    with pytest.raises(found("kafka.errors.IncompatibleBrokerVersion")):
        cls(api_versions={3: (0, 3)}).api_version(request)


def asks_for_versions(cls: Any) -> None:
    request = cls(version=3, client_software_name="ksim", client_software_version="1")
    protocol = found("kafka.protocol.parser.KafkaProtocol")(client_id="c")
    for correlation_id, spoken in ((1, 3), (2, 0)):  # a broker may answer in version 0
        assert protocol.send_request(request) == correlation_id
        keys = [{"api_key": 3, "min_version": 0, "max_version": 9}]
        response = found("kafka.protocol.metadata.ApiVersionsResponse")
        entry = response.fields["api_keys"].data_class
        entries = [entry(version=spoken, **key) for key in keys]
        code = 0 if spoken else 35
        data = answer_to(
            "kafka.protocol.metadata.ApiVersionsResponse",
            spoken,
            correlation_id,
            error_code=code,
            api_keys=entries,
        )
        ((_, read),) = protocol.receive_bytes(data)
        (key,) = read.api_keys
        assert (read.error_code, read.API_VERSION) == (code, spoken)
        assert (key.api_key, key.min_version, key.max_version) == (3, 0, 9)


def frames(cls: Any) -> None:
    protocol = cls(client_id="c")
    request = a_request()
    request.API_VERSION = 9
    assert [protocol.send_request(request) for _ in range(2)] == [1, 2]
    sent = protocol.send_bytes()
    assert sent[4:8] == b"\0\3\0\x09"
    assert protocol.send_bytes() == b""
    one = answer_to("kafka.protocol.metadata.MetadataResponse", 9, 1, cluster_id="x")
    assert protocol.receive_bytes(one[:7]) == []
    ((correlation_id, response),) = protocol.receive_bytes(one[7:])
    assert (correlation_id, response.cluster_id) == (1, "x")
    for nonsense in (one, b"\x7f\xff\xff\xff"):  # the answer to another request, and too large
        other = cls(client_id="c")
        other.send_request(request, correlation_id=7)
        with pytest.raises(found("kafka.errors.KafkaError")):
            other.receive_bytes(nonsense)


def reads_batches(cls: Any) -> None:
    builder = found("kafka.record.MemoryRecordsBuilder")(2, 0, 10_000)
    for number in range(2):
        builder.append(timestamp=7 + number, key=None, value=b"v", headers=[("h", b"x")])
    builder.close()
    batches = cls(bytes(builder.buffer()))
    batch = batches.next_batch()
    assert batch.validate_crc()
    shown = (batch.magic, batch.leader_epoch, batch.is_control_batch, batch.next_offset)
    assert shown == (2, 0, False, 2)
    records = list(batch)
    assert [(r.offset, r.timestamp, r.key, r.value) for r in records] == [
        (0, 7, None, b"v"),
        (1, 8, None, b"v"),
    ]
    assert list(records[0].headers) == [("h", b"x")]
    assert batches.next_batch() is None


def makes_mechanisms(get: Any) -> None:
    plain = get("PLAIN")(sasl_mechanism="PLAIN", sasl_plain_username="u", sasl_plain_password="p")
    assert plain.auth_bytes() == b"u\0u\0p"
    plain.receive(b"")
    assert plain.is_done()
    assert plain.is_authenticated()
    for name, digest in (("SCRAM-SHA-256", "sha256"), ("SCRAM-SHA-512", "sha512")):
        for honest in (True, False):
            knows_the_password(name, digest, honest)


def knows_the_password(name: str, digest: str, honest: bool) -> None:
    """A whole exchange by RFC 5802, with a broker that has the password or claims to."""
    client = Credentials(name, "a,b=c", "p").begin()
    first = client.auth_bytes()
    assert first.startswith(b"n,,n=a=2Cb=3Dc,r=")
    salt, nonce = b"salt", first.rpartition(b"r=")[2] + b"more"
    told = b"r=" + nonce + b",s=" + base64.b64encode(salt) + b",i=4096"
    client.receive(told)
    assert not client.is_done()
    salted = hashlib.pbkdf2_hmac(digest, b"p", salt, 4_096)
    final, _, proof = client.auth_bytes().rpartition(b",p=")
    signed = b",".join((first[3:], told, final))
    key = hmac.digest(salted, b"Client Key", digest)
    signature = hmac.digest(hashlib.new(digest, key).digest(), signed, digest)
    assert base64.b64decode(proof) == bytes(a ^ b for a, b in zip(key, signature, strict=True))
    server = hmac.digest(salted if honest else b"x", b"Server Key", digest)
    verifier = b"v=" + base64.b64encode(hmac.digest(server, signed, digest))
    if not honest:
        with pytest.raises(ValueError, match="signature"):
            client.receive(verifier)
        return
    client.receive(verifier)
    assert client.is_done()
    assert client.is_authenticated()


def is_handshake(cls: Any) -> None:
    request = cls(version=1, mechanism="PLAIN")
    request.with_header(correlation_id=5, client_id="x")
    sent = b"\0\x11\0\1\0\0\0\5\0\1x\0\5PLAIN"
    assert bytes(request.encode(framed=True, header=True)) == b"\0\0\0\x12" + sent


def answers_handshake(cls: Any) -> None:
    read = cls.decode(b"\0\0\0\5\0\x21\0\0\0\1\0\1A", version=1, header=True)
    assert (read.header.correlation_id, read.error_code, read.mechanisms) == (5, 33, ["A"])


def is_authentication(cls: Any) -> None:
    assert cls.max_version == 2
    request = cls(version=2, auth_bytes=b"abc")
    request.with_header(correlation_id=5, client_id="x")
    sent = b"\0\x24\0\2\0\0\0\5\0\1x\0\4abc\0"
    assert bytes(request.encode(framed=True, header=True)) == b"\0\0\0\x11" + sent


def answers_authentication(cls: Any) -> None:
    frame = b"\0\0\0\5\0\0\x3a\3no\3zz" + bytes(7) + b"\7\0"
    read = cls.decode(frame, version=2, header=True)
    assert (read.header.correlation_id, read.error_code, read.error_message) == (5, 58, "no")
    assert (bytes(read.auth_bytes), read.session_lifetime_ms) == (b"zz", 7)


def is_request(cls: Any) -> None:
    made = cls()
    assert made.is_request()
    assert made.name == cls.__name__
    assert made.expect_response()
    assert cls.min_version <= cls.max_version


def administrates(cls: Any) -> None:
    for name in ("create_topics", "describe_groups", "remove_group_members", "close"):
        assert callable(getattr(cls, name))


def produces(cls: Any) -> None:
    for name in ("send", "flush", "close"):
        assert callable(getattr(cls, name))


def is_member_to_remove(cls: Any) -> None:
    assert cls("an id").member_id == "an id"


def is_room(module: Any) -> None:
    """Messages of both directions, in all versions that ksim serves."""
    names = [name for name in VERSIONS if hasattr(module, f"{name}Request")]
    assert names, f"no message of {', '.join(VERSIONS)} is in {module.__name__}"
    for name in names:
        request, response = (getattr(module, name + kind) for kind in ("Request", "Response"))
        assert request.API_KEY == response.API_KEY
        low, high = VERSIONS[name]
        for cls in (request, response):
            assert cls.min_version <= low <= high <= cls.max_version, f"{cls}"
            for spoken in range(low, high + 1):
                data = bytes(cls(version=spoken).encode(version=spoken))
                again = cls.decode(data, version=spoken)
                assert isinstance(again.to_dict(), dict)
                assert isinstance(cls.flexible_version_q(spoken), bool)
            for field in cls.fields.values():
                assert isinstance(field.for_version_q(low), bool)
                assert isinstance(field.nullable_for_version_q(low), bool)
                assert isinstance(field.is_struct(), bool)
                assert not field.is_struct_array() or field.data_class.fields


REQUESTS = {
    name: ("a request that is encoded by its fields", is_request)
    for name in used()
    if name.endswith("Request") and name.startswith(("kafka.protocol.c", "kafka.protocol.m"))
}
PINNED: dict[str, tuple[str, Check]] = {
    **REQUESTS,
    "kafka.errors.KafkaError": ("the base of what the parser raises", is_base_of_errors),
    "kafka.errors.IncompatibleBrokerVersion": ("no common version", is_error),
    "kafka.errors.CorruptRecordError": ("a damaged batch", is_error),
    "kafka.errors.UnsupportedCodecError": ("a compression that is not installed", is_error),
    "kafka.record.MemoryRecords": ("batches and records of a fetch", reads_batches),
    "kafka.protocol.broker_version_data.BrokerVersionData": (
        "the highest version that both know",
        chooses_versions,
    ),
    "kafka.protocol.metadata.ApiVersionsRequest": ("a broker's versions", asks_for_versions),
    "kafka.protocol.parser.KafkaProtocol": ("frames, in order, ids from 1 on", frames),
    "kafka.net.sasl.get_sasl_mechanism": ("mechanisms without sockets", makes_mechanisms),
    "kafka.protocol.sasl.SaslHandshakeRequest": ("bytes of version 1", is_handshake),
    "kafka.protocol.sasl.SaslHandshakeResponse": ("read from bytes", answers_handshake),
    "kafka.protocol.sasl.SaslAuthenticateRequest": ("bytes of version 2", is_authentication),
    "kafka.protocol.sasl.SaslAuthenticateResponse": ("read from bytes", answers_authentication),
    "kafka.KafkaAdminClient": ("topics and members, for tests", administrates),
    "kafka.KafkaProducer": ("records, for tests", produces),
    "kafka.admin.MemberToRemove": ("a member of a group, by its id", is_member_to_remove),
    "kafka.protocol.admin": ("messages of tools", is_room),
    "kafka.protocol.consumer": ("messages of consumers", is_room),
    "kafka.protocol.metadata": ("messages of every client", is_room),
    "kafka.protocol.producer": ("messages of producers", is_room),
}


def broken(name: str, thing: Any) -> str:
    """Why a thing is not what is relied on; empty if it is."""
    what, check = PINNED[name]
    try:
        check(thing)
    except BaseException as error:  # noqa: BLE001 - pytest's own failures are no Exception
        told = f"{type(error).__name__}: {error}"
        return f"kafka-python {version('kafka-python')}: {name} is no longer {what}: {told}"
    return ""


def test_every_name_that_is_used_is_pinned() -> None:
    names = used()
    assert not names - set(PINNED), "used and not pinned: " + ", ".join(names - set(PINNED))
    assert not set(PINNED) - names, "pinned and not used: " + ", ".join(set(PINNED) - names)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_kafka_python_is_what_ksim_relies_on(name: str) -> None:
    try:
        thing = found(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"kafka-python {version('kafka-python')}: {name} is gone: {error}")
    assert not broken(name, thing), broken(name, thing)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_each_pin_notices_a_change(name: str) -> None:
    class Changed:
        """Has none of what is relied on."""

    assert f"{name} is no longer" in broken(name, Changed)


def test_the_scan_sees_each_way_to_use_a_name() -> None:
    source = "import kafka.a\nfrom kafka.b import c as d\ndef f():\n    from kafka import e\nkc.F\n"
    names = {"kafka.a", "kafka.b.c", "kafka.e", "kafka.protocol.consumer.F"}
    assert set(imported(source)) == names
