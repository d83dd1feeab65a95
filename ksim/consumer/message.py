"""What the application reads, and whom it can ask to be told of ownership."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ksim.core.errors import error_name
from ksim.core.values import Record, TopicPartition


class Message:
    """One record handed out under one tenure; mark it with `Consumer.mark_offset` when done."""

    __slots__ = ("partition", "record", "tenure", "topic")

    def __init__(self, topic: str, partition: int, tenure: int, record: Record) -> None:
        self.topic = topic
        self.partition = partition
        self.tenure = tenure
        self.record = record

    @property
    def offset(self) -> int:
        return self.record.offset

    @property
    def timestamp_ms(self) -> int:
        return self.record.timestamp_ms

    @property
    def key(self) -> bytes | None:
        return self.record.key

    @property
    def value(self) -> bytes | None:
        return self.record.value

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        return self.record.headers

    def __repr__(self) -> str:
        return f"Message({self.topic}-{self.partition}@{self.offset})"


class RebalanceListener(Protocol):
    """Called in the user's thread, when nothing of these partitions is in flight."""

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """The full set of a new generation, before its first message."""

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """After the last message of these; marks and commits still count."""

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Others may own these already; marks of them no longer count."""


class NotificationType(StrEnum):
    """What a notification says."""

    UNKNOWN = "unknown"
    REBALANCE_START = "rebalance start"
    REBALANCE_OK = "rebalance OK"
    REBALANCE_ERROR = "rebalance error"


@dataclass(frozen=True, slots=True)
class Notification:
    """A rebalance as the application sees it; claimed and released are net differences."""

    type: NotificationType
    generation_id: int
    claimed: tuple[TopicPartition, ...]
    released: tuple[TopicPartition, ...]
    current: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class ConsumerError:
    """A refusal by the broker that did not end the consumer."""

    error_code: int
    context: str

    def __str__(self) -> str:
        return f"{self.context} ({error_name(self.error_code)}, {self.error_code})"
