"""The embedded consumer protocol: subscription and assignment bytes.

Source: Kafka's ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json; not
flexible, big-endian. A reader given a higher version takes the fields it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ksim.core.values import TopicPartition, value

PROTOCOL_TYPE = "consumer"
SUBSCRIPTION_VERSION = 1


@value
class Subscription:
    """What one member wants: topics, and its instance id for the order of members."""

    member_id: str
    group_instance_id: str | None
    topics: tuple[str, ...]


class MalformedProtocolError(ValueError):
    """A peer's bytes do not follow the consumer protocol."""


class _Reader:
    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

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

    def count(self) -> int:
        count = self.integer(">i")
        if not 0 <= count <= len(self._data):
            raise MalformedProtocolError(f"array of {count}")
        return count


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _topic_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    by_topic: dict[str, list[int]] = {}
    for tp in sorted(partitions):
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    parts = [struct.pack(">i", len(by_topic))]
    for topic, numbers in by_topic.items():
        parts.append(_string(topic) + struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
    return b"".join(parts)


def encode_subscription(topics: Iterable[str], owned: Iterable[TopicPartition] = ()) -> bytes:
    """Version 1: sorted topics, no user data, owned partitions."""
    names = sorted(topics)
    head = struct.pack(">hi", SUBSCRIPTION_VERSION, len(names))
    return (
        head
        + b"".join(_string(name) for name in names)
        + struct.pack(">i", -1)
        + _topic_partitions(owned)
    )


def decode_subscription(member_id: str, group_instance_id: str | None, data: bytes) -> Subscription:
    """Read the topics; what later versions add is not needed. Raises MalformedProtocolError."""
    reader = _Reader(data)
    version = reader.integer(">h")
    if version < 0:
        raise MalformedProtocolError(f"version {version}")
    topics = tuple(reader.string() for _ in range(reader.count()))
    return Subscription(
        member_id=member_id, group_instance_id=group_instance_id, topics=tuple(sorted(topics))
    )


def encode_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    """Version 1; partitions sorted by topic and number, no user data."""
    return struct.pack(">h", 1) + _topic_partitions(partitions) + struct.pack(">i", -1)


def decode_assignment(data: bytes) -> tuple[TopicPartition, ...]:
    """The partitions, sorted; zero bytes mean none. Raises MalformedProtocolError."""
    if not data:
        return ()
    reader = _Reader(data)
    if reader.integer(">h") < 0:
        raise MalformedProtocolError("negative version")
    found: list[TopicPartition] = []
    for _ in range(reader.count()):
        topic = reader.string()
        found.extend(TopicPartition(topic, reader.integer(">i")) for _ in range(reader.count()))
    return tuple(sorted(found))
