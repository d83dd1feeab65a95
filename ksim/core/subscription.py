"""The embedded consumer protocol: subscription and assignment bytes.

Source: Kafka's ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json; not
flexible, big-endian. A reader given a higher version takes the fields it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from ksim.core.values import TopicPartition, value

PROTOCOL_TYPE = "consumer"
SUBSCRIPTION_VERSION = 1
FNV_OFFSET, FNV_PRIME, FNV_MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


@value
class Subscription:
    """What one member wants: topics, and its instance id for the order of members."""

    member_id: str
    group_instance_id: str | None
    topics: tuple[str, ...]
    user_data: bytes | None = None


class MalformedProtocolError(ValueError):
    """A peer's bytes do not follow the consumer protocol."""


class Reader:
    """Takes bytes of the consumer protocol apart; raises MalformedProtocolError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at(self) -> int:
        """How far it has read."""
        return self._at

    def integer(self, code: str) -> int:
        size = struct.calcsize(code)
        if self._at + size > len(self._data):
            raise MalformedProtocolError(f"truncated at byte {self._at} of {len(self._data)}")
        (number,) = struct.unpack_from(code, self._data, self._at)
        self._at += size
        return int(number)

    def string(self) -> str:
        size = self.integer(">h")
        if size < 0 or self._at + size > len(self._data):
            raise MalformedProtocolError(f"string of {size} bytes at byte {self._at}")
        self._at += size
        try:
            return self._data[self._at - size : self._at].decode()
        except UnicodeDecodeError as error:
            raise MalformedProtocolError(str(error)) from error

    def nullable_bytes(self) -> bytes | None:
        """Bytes behind their length; null, or nothing more to read, is None."""
        if self._at == len(self._data):
            return None
        size = self.integer(">i")
        if size < 0:
            return None
        if self._at + size > len(self._data):
            raise MalformedProtocolError(f"{size} bytes at byte {self._at} of {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def count(self) -> int:
        count = self.integer(">i")
        if not 0 <= count <= len(self._data):
            raise MalformedProtocolError(f"array of {count}")
        return count


def packed_string(text: str) -> bytes:
    """Behind its length."""
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def packed_bytes(data: bytes | None) -> bytes:
    """Behind their length, -1 for null."""
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def _topic_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for tp in sorted(partitions):
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    parts = [struct.pack(">i", len(by_topic))]
    for topic, numbers in by_topic.items():
        parts.append(
            packed_string(topic) + struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)
        )
    return b"".join(parts)


def encode_subscription(
    topics: Iterable[str],
    owned: Iterable[TopicPartition] = (),
    *,
    user_data: bytes | None = None,
) -> bytes:
    """Version 1: sorted topics, user data, owned partitions."""
    names = sorted(topics)
    head = struct.pack(">hi", SUBSCRIPTION_VERSION, len(names))
    return (
        head
        + b"".join(packed_string(name) for name in names)
        + packed_bytes(user_data)
        + _topic_partitions(owned)
    )


def decode_subscription(member_id: str, group_instance_id: str | None, data: bytes) -> Subscription:
    """Read topics and user data; what later versions add is not needed.

    Raises MalformedProtocolError.
    """
    reader = Reader(data)
    version = reader.integer(">h")
    if version < 0:
        raise MalformedProtocolError(f"version {version}")
    topics = tuple(reader.string() for _ in range(reader.count()))
    return Subscription(
        member_id, group_instance_id, tuple(sorted(topics)), reader.nullable_bytes()
    )


def user_data_span(data: bytes) -> tuple[int, int]:
    """Where the user data of a subscription begins and ends; nowhere is where it would be.

    Raises MalformedProtocolError.
    """
    reader = Reader(data)
    reader.integer(">h")
    for _ in range(reader.count()):
        reader.string()
    found = reader.nullable_bytes()
    return reader.at - len(found or b""), reader.at


def encode_assignment(
    partitions: Iterable[TopicPartition], user_data: bytes | None = None
) -> bytes:
    """Version 1; partitions sorted by topic and number."""
    return struct.pack(">h", 1) + _topic_partitions(partitions) + packed_bytes(user_data)


def decode_assignment(data: bytes) -> tuple[TopicPartition, ...]:
    """The partitions, sorted; zero bytes mean none. Raises MalformedProtocolError."""
    return read_assignment(data)[0]


def counts_digest(counts: Mapping[str, int]) -> bytes:
    """Eight bytes that tell sets of (topic, partition count) apart. Source: FNV-1a, 64 bits."""
    found = FNV_OFFSET
    for topic in sorted(counts):
        for byte in f"{topic}:{counts[topic]};".encode():
            found = (found ^ byte) * FNV_PRIME & FNV_MASK
    return found.to_bytes(8, "big")


def read_assignment(data: bytes) -> tuple[tuple[TopicPartition, ...], bytes | None]:
    """The partitions and the user data. Raises MalformedProtocolError."""
    if not data:
        return (), None
    reader = Reader(data)
    if reader.integer(">h") < 0:
        raise MalformedProtocolError("negative version")
    found: list[TopicPartition] = []
    for _ in range(reader.count()):
        topic = reader.string()
        found.extend(TopicPartition(topic, reader.integer(">i")) for _ in range(reader.count()))
    return tuple(sorted(found)), reader.nullable_bytes()
