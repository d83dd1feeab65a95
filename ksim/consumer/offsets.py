"""Where committed offsets are kept: on the broker, or in a store of the user's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ksim.consumer import checked
from ksim.consumer.message import Message, message_of
from ksim.core import events as e
from ksim.core.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from ksim.core.values import TopicPartition

if TYPE_CHECKING:
    from ksim.consumer.consumer import Consumer


class Committed(NamedTuple):
    """What was committed last for a partition: the offset to read next, and the metadata string."""

    offset: int
    metadata: str


class OffsetStore(Protocol):
    """A place for offsets. Its methods are called one after the other, in a thread of the store's.

    A fetch is where a member takes its claim on partitions: it says who asks (`member_id`,
    `generation_id`). A store keeps the newest claim of each partition and refuses the commits of
    any other claimant with ILLEGAL_GENERATION (22): generations alone cannot fence, as a forgotten
    group counts from 1 again. What it raises is tried again like a lost answer, and so is what is
    no answer: another type, an offset below -1, or nothing of a partition that it was asked for.
    """

    def commit_offset(self, request: OffsetCommitRequest) -> OffsetCommitResponse:
        """Keep these offsets, or refuse, with an error code for each partition."""

    def fetch_offset(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """The last committed offsets of all that is asked for; -1 where there is none."""

    def close(self) -> None:
        """The consumer is done with it."""


def ask_store(
    store: OffsetStore, order: e.SendRequest, exits: tuple[type[BaseException], ...] = ()
) -> e.MemberFact:
    """What the store answers; what it raises, or cannot be used, is an answer that did not come.

    `exits` are what ends its thread from outside.
    """
    request = order.request
    try:
        if isinstance(request, OffsetCommitRequest):
            taken = checked.commit_answer(store.commit_offset(request))
            _check_all_are_told("commit_offset", request.offsets, taken.partitions)
            return e.ResponseReceived(order.request_id, taken)
        assert isinstance(request, OffsetFetchRequest), request
        found = checked.fetch_answer(store.fetch_offset(request))
        if not found.error_code:
            _check_all_are_told("fetch_offset", request.partitions or (), found.partitions)
        return e.ResponseReceived(order.request_id, found)
    except exits:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's code; the member asks again
        return e.RequestFailed(order.request_id, f"{type(error).__name__}: {error}")


def _check_all_are_told(what: str, asked: Iterable[Any], answers: Iterable[Any]) -> None:
    """To take what is missing for not committed would lose records, or repeat them."""
    told = {TopicPartition(each.topic, each.partition) for each in answers}
    places = (TopicPartition(each.topic, each.partition) for each in asked)
    missing = ", ".join(str(tp) for tp in places if tp not in told)
    if missing:
        hint = "; -1 says that there is none" if what == "fetch_offset" else ""
        raise LookupError(f"{what} says nothing of {missing}{hint}")


class OffsetStoreFactory(Protocol):
    """Makes the store of one consumer."""

    def gen_offset_store(self, consumer: Consumer) -> OffsetStore | None:
        """The store, once for each consumer; None for the broker's own."""


class BrokerOffsetStore:
    """Offsets kept by the group's coordinator: what every consumer has unless told otherwise.

    The member itself commits and fetches without it. Whoever calls it, from any thread, gets the
    coordinator's own answer, refusals included. Without an answer every error code is
    REQUEST_TIMED_OUT (7): it may have been done or not.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def commit_offset(self, request: OffsetCommitRequest) -> OffsetCommitResponse:
        """Raises MisuseError for another group, and after `close`."""
        found = self._consumer.ask_offsets(request)
        assert isinstance(found, OffsetCommitResponse), found
        return found

    def fetch_offset(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        """`partitions` None: all of the group. Raises MisuseError as `commit_offset` does."""
        found = self._consumer.ask_offsets(request)
        assert isinstance(found, OffsetFetchResponse), found
        return found

    def close(self) -> None:
        """Nothing is left to do: it ends with its consumer."""


class DefaultOffsetStoreFactory:
    """Offsets are kept by the group's coordinator."""

    def gen_offset_store(self, consumer: Consumer) -> BrokerOffsetStore:
        """The store of this consumer's group."""
        return BrokerOffsetStore(consumer)


class StashedMark(NamedTuple):
    """`tenure` and `reading` are those of the message; None: whichever is now."""

    offset: int
    tenure: int | None
    reading: int | None
    metadata: str

    def replaces(self, other: StashedMark) -> bool:
        """Whether it says more: it was handed out later, or is further; by name the offset says."""
        if self.tenure is None or other.tenure is None:
            return self.offset > other.offset
        mine = self.tenure, self.reading or 0, self.offset
        return mine > (other.tenure, other.reading or 0, other.offset)


class OffsetStash:
    """Collects marks, to be made together by `Consumer.mark_offsets`; what is absent stays so."""

    def __init__(self) -> None:
        self._marks: dict[TopicPartition, StashedMark] = {}

    def mark_offset(self, message: Message, metadata: str = "") -> None:
        """All up to and including this message is done."""
        tp = TopicPartition(message_of(message).topic, message.partition)
        metadata = checked.text("metadata", metadata)
        self._mark(tp, StashedMark(message.offset, message.tenure, message.reading, metadata))

    def mark_partition_offset(
        self, topic: str, partition: int, offset: int, metadata: str = ""
    ) -> None:
        """The same by name; `offset` is the one that was processed.

        Raises MisuseError for what Kafka cannot be told: an offset below 0, for one.
        """
        tp = checked.partition_of(topic, partition)
        offset, metadata = checked.mark_of(offset, metadata)
        self._mark(tp, StashedMark(offset, None, None, metadata))

    def _mark(self, tp: TopicPartition, mark: StashedMark) -> None:
        before = self._marks.get(tp)
        if before is None or mark.replaces(before):
            self._marks[tp] = mark

    def offsets(self) -> dict[str, int]:
        """The latest stashed offset of each, as `topic-partition`."""
        return {str(tp): mark.offset for tp, mark in sorted(self._marks.items())}

    def marks(self) -> list[tuple[TopicPartition, StashedMark]]:
        """All of them, in order."""
        return sorted(self._marks.items())
