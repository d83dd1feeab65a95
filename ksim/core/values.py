"""How every value of the core is declared: slotted, compared by content, never assigned to.

Values are not frozen at run time because creation is five times cheaper without it; the type
checkers see them as frozen, so that an assignment is refused before it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Declare a value. Use it on a class with annotated fields only; never assign to a field."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


class TopicPartition(NamedTuple):
    """One partition of a topic. Sorts by topic, then by partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Record(NamedTuple):
    """One record as the application reads it; timestamps in ms."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


Payload = dict[TopicPartition, tuple[Record, ...]]


class SizedPayload(Payload):
    """A payload that came as bytes: `sizes` are how many, of each partition.

    `checksums` are those that the batches carry, one after the other.
    """

    __slots__ = ("checksums", "sizes")

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[TopicPartition, int] = {}
        self.checksums: dict[TopicPartition, bytes] = {}
