"""What the application reads, and whom it can ask to be told of ownership."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from ksim.consumer import checked
from ksim.core.errors import KsimError, MisuseError, RefusedError
from ksim.core.values import Record, TopicPartition
from ksim.texts import shown


class Message:
    """One record handed out under one tenure.

    Mark it with `Consumer.mark_offset` when all up to it is done, or, with `acknowledge="each"`,
    call `ack` when it alone is.
    """

    __slots__ = ("_acknowledge", "partition", "reading", "record", "tenure", "topic")

    def __init__(
        self,
        topic: str,
        partition: int,
        tenure: int,
        record: Record,
        acknowledge: Callable[[Message, str], None] | None = None,
        reading: int = 0,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.tenure = tenure
        self.record = record
        self._acknowledge = acknowledge
        self.reading = reading

    def ack(self, metadata: str = "") -> None:
        """From any thread: this record is done. After its tenure it is ignored and counted.

        Raises MisuseError where the consumer was not made with `acknowledge="each"`, and for
        metadata that Kafka cannot be told.
        """
        if self._acknowledge is None:
            raise MisuseError('ack() needs acknowledge = "each"; use mark_offset()')
        self._acknowledge(self, checked.text("metadata", metadata))

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


def message_of(found: Any) -> Message:
    """The message of a mark. Raises MisuseError."""
    if not isinstance(found, Message):
        raise MisuseError(f"message = {shown(found)}: a Message is needed")
    return found


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
    """A rebalance as the application sees it; claimed and released are net differences.

    At its start `current` is what was held until then; when it failed, nothing is held.
    """

    type: NotificationType
    generation_id: int
    claimed: tuple[TopicPartition, ...]
    released: tuple[TopicPartition, ...]
    current: tuple[TopicPartition, ...]


class ConsumerError(KsimError):
    """What went wrong without ending the consumer: where, and the cause.

    The cause is a RefusedError with Kafka's `error_code`, or an UnreadableBatchError with topic,
    partition and offset.
    """

    def __init__(self, context: str, cause: RefusedError) -> None:
        super().__init__(context, cause)
        self.context = context
        self.cause = cause

    @property
    def error_code(self) -> int:
        """Kafka's number of the cause."""
        return self.cause.error_code

    def __str__(self) -> str:
        return f"{self.context}: {self.cause}"
