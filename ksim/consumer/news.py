"""What the user may ask for: errors, notifications, ends of partitions, committed offsets."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from ksim.consumer.config import Config
from ksim.consumer.message import ConsumerError, Notification, NotificationType
from ksim.consumer.offsets import Committed
from ksim.consumer.stream import QUEUE_LIMIT, Stream
from ksim.core import events as e
from ksim.core.errors import KafkaError, RefusedError, UnreadableBatchError
from ksim.core.messages import (
    FetchResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchResponse,
)
from ksim.core.values import TopicPartition

T = TypeVar("T")
LOGGER: Final = logging.getLogger("ksim.consumer")
UNMARKED_LIMIT: Final = 1_000
UNREADABLE: Final = (KafkaError.CORRUPT_MESSAGE, KafkaError.UNSUPPORTED_COMPRESSION_TYPE)
TYPES: Final = {
    "rebalance_start": NotificationType.REBALANCE_START,
    "rebalance_ok": NotificationType.REBALANCE_OK,
    "rebalance_error": NotificationType.REBALANCE_ERROR,
}


class Bounded(Generic[T]):
    """A queue that nobody has to read: the oldest are dropped, and counted."""

    def __init__(self) -> None:
        self._items: deque[T] = deque(maxlen=QUEUE_LIMIT)
        self.dropped = 0

    def add(self, item: T) -> None:
        self.dropped += len(self._items) == QUEUE_LIMIT
        self._items.append(item)

    def take(self) -> list[T]:
        """All of them, oldest first."""
        found = list(self._items)
        self._items.clear()
        return found


def consumer_error(order: e.ReportError) -> ConsumerError:
    """The order as the user sees it."""
    kind = UnreadableBatchError if order.error_code in UNREADABLE else RefusedError
    cause = kind(order.error_code, order.topic, order.partition, order.offset, order.detail)
    return ConsumerError(order.context, cause)


class News:
    """Kept by the engine, under the driver's lock."""

    def __init__(self, config: Config) -> None:
        self.errors: Bounded[ConsumerError] = Bounded()
        self.notifications: Bounded[Notification] = Bounded()
        self.high_water_marks: dict[TopicPartition, int] = {}
        self.committed: dict[TopicPartition, Committed] = {}
        self._config = config
        self._stable_ends: dict[TopicPartition, int] = {}
        self._commits_sent: dict[int, dict[TopicPartition, Committed]] = {}
        self._held: tuple[TopicPartition, ...] = ()
        self._unmarked = 0

    def learn(self, fact: e.MemberFact) -> None:
        """Ends of partitions, and what was committed."""
        if not isinstance(fact, e.ResponseReceived | e.RequestFailed):
            return
        match fact:
            case e.ResponseReceived(response=FetchResponse(partitions=fetched)):
                for end in fetched:
                    tp = TopicPartition(end.topic, end.partition)
                    self.high_water_marks[tp] = end.high_watermark
                    self._stable_ends[tp] = end.last_stable_offset
            case e.ResponseReceived(response=OffsetFetchResponse(partitions=kept)):
                for item in kept:
                    tp = TopicPartition(item.topic, item.partition)
                    if item.error_code == 0:
                        self.committed.pop(tp, None)  # it may be gone from where it was
                    if item.error_code == 0 and item.offset >= 0:
                        self.committed[tp] = Committed(item.offset, item.metadata)
            case e.ResponseReceived(request_id, OffsetCommitResponse(partitions=answers)):
                sent = self._commits_sent.pop(request_id, {})
                taken = {TopicPartition(a.topic, a.partition) for a in answers if not a.error_code}
                self.committed.update((tp, sent[tp]) for tp in sorted(taken) if tp in sent)
            case e.RequestFailed(request_id):
                self._commits_sent.pop(request_id, None)
            case _:
                pass

    def commit_sent(self, request_id: int, request: OffsetCommitRequest) -> None:
        """Remember what its answer will be about."""
        self._commits_sent[request_id] = {
            TopicPartition(o.topic, o.partition): Committed(o.offset, o.metadata)
            for o in request.offsets
        }

    def notify(self, order: e.Notify) -> None:
        """Differences are taken here, so that what is dropped later does not falsify them."""
        kind = TYPES.get(order.kind, NotificationType.UNKNOWN)
        before = self._held
        if kind != NotificationType.REBALANCE_START:
            self._held = order.partitions
        if not self._config.return_notifications:
            return
        self.notifications.add(
            Notification(
                kind,
                order.generation_id,
                tuple(tp for tp in self._held if tp not in before),
                tuple(tp for tp in before if tp not in self._held),
                self._held,
            )
        )

    def report(self, error: ConsumerError, stream: Stream | None) -> None:
        """To the reader of its partition, if there is one; into the log if nobody wants it."""
        if stream is not None:
            stream.errors.append(error)
        if not self._config.return_errors:
            LOGGER.error("group %s: %s", self._config.group_id, error)
        elif stream is None:
            self.errors.add(error)

    def lag(self, streams: Iterable[Stream]) -> dict[TopicPartition, int]:
        """What is not marked yet of each partition whose end was told by a fetch."""
        committed_only = self._config.isolation_level == "read_committed"
        ends = self._stable_ends if committed_only else self.high_water_marks
        return {
            stream.tp: max(0, ends[stream.tp] - max(stream.mark + 1, stream.start))
            for stream in sorted(streams, key=lambda each: each.tp)
            if ends.get(stream.tp, -1) >= 0
        }

    def handed_out(self, count: int, stream: Stream) -> None:
        """Tell once who has read many records and marked none: nothing would be committed."""
        if self._unmarked < 0:
            return
        self._unmarked += count
        if self._unmarked >= UNMARKED_LIMIT:
            self._unmarked = -1
            LOGGER.warning(
                "group %s: %d records were read and none was marked, the last of %s; "
                "call mark_offset() or message.ack(), or all of them come again",
                self._config.group_id, UNMARKED_LIMIT, stream.tp,
            )  # fmt: skip

    def marked(self) -> None:
        """This user marks."""
        self._unmarked = -1
