"""What the user gives to a call, checked where it is given: what cannot be sent is misuse.

The owner would find it when it makes a request of it, and end with all that is marked by then.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, Final

from ksim.core.errors import MisuseError
from ksim.core.messages import (
    CommittedOffset,
    OffsetAndMetadata,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
)
from ksim.core.values import TopicPartition
from ksim.texts import shown

FIRST_NUMBER, LAST_OFFSET = -(2**63), 2**63 - 1
LAST_MARK: Final = LAST_OFFSET - 1  # what is committed is the one after it
LEAST, MOST = -(2**31), 2**31 - 1
LONGEST_TEXT: Final = 32_767
LOWEST_CODE, HIGHEST_CODE = -(2**15), 2**15 - 1
PAIR: Final = 2
PAIRS: Final = "several partitions are needed, such as [TopicPartition('orders', 0)]"


def whole(what: str, found: Any, least: int, most: int) -> int:
    """A whole number of this range; a truth is none. Raises MisuseError."""
    try:
        number = None if isinstance(found, bool) else operator.index(found)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        valid = f"a whole number is needed, {least} to {most}"
        raise MisuseError(f"{what} = {shown(found)}: {valid}")
    return number


def text(what: str, found: Any) -> str:
    """A text that Kafka's requests can say. Raises MisuseError."""
    if not isinstance(found, str):
        raise MisuseError(f"{what} = {shown(found)}: a text is needed")
    try:
        size = len(found.encode())
    except UnicodeEncodeError as error:
        at = f"half a character at {error.start}"
        raise MisuseError(f"{what} = {shown(found)}: {at}, which UTF-8 cannot say") from None
    if size > LONGEST_TEXT:
        raise MisuseError(f"{what} = {shown(found)}: {size} bytes, at most {LONGEST_TEXT}")
    return found


def text_or_none(what: str, found: Any) -> str | None:
    """The same, or nothing."""
    return None if found is None else text(what, found)


def partition_of(topic: Any, partition: Any) -> TopicPartition:
    """Raises MisuseError."""
    return TopicPartition(text("topic", topic), whole("partition", partition, 0, MOST))


def partitions_of(what: str, found: Any) -> tuple[TopicPartition, ...]:
    """Several partitions. Raises MisuseError; a text would be its letters."""
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise MisuseError(f"{what} = {shown(found)}: {PAIRS}")
    pairs = tuple(found)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != PAIR:
            raise MisuseError(f"{what} with {shown(pair)}: {PAIRS}")
    return tuple(partition_of(*pair) for pair in pairs)


def mark_of(offset: Any, metadata: Any) -> tuple[int, str]:
    """What a mark says. Raises MisuseError."""
    return whole("offset", offset, 0, LAST_MARK), text("metadata", metadata)


def timeout(what: str, found: Any) -> int:
    """Milliseconds; 5e3 is as good as 5_000. Raises MisuseError."""
    is_whole = isinstance(found, float) and found.is_integer()
    return whole(what, int(found) if is_whole else found, 0, MOST)


def timeout_or_none(what: str, found: Any) -> int | None:
    """Milliseconds, or None for as long as it takes. Raises MisuseError."""
    return None if found is None else whole(f"{what} (None: no limit)", found, 0, MOST)


# What goes to a store and comes from it


def request_of(found: Any) -> OffsetCommitRequest | OffsetFetchRequest:
    """A request for offsets as a broker can be sent it. Raises MisuseError."""
    if isinstance(found, OffsetCommitRequest):
        return OffsetCommitRequest(
            text("group_id", found.group_id),
            whole("generation_id", found.generation_id, LEAST, MOST),
            text("member_id", found.member_id),
            text_or_none("group_instance_id", found.group_instance_id),
            tuple(map(_offset_to_commit, _several("offsets", found.offsets))),
            whole("retention_time_ms", found.retention_time_ms, FIRST_NUMBER, LAST_OFFSET),
        )
    if isinstance(found, OffsetFetchRequest):
        wanted = found.partitions
        return OffsetFetchRequest(
            text("group_id", found.group_id),
            None if wanted is None else partitions_of("partitions", wanted),
            text("member_id", found.member_id),
            whole("generation_id", found.generation_id, LEAST, MOST),
        )
    raise MisuseError(f"{shown(found)}: an OffsetCommitRequest or an OffsetFetchRequest is needed")


def _several(what: str, found: Any) -> tuple[Any, ...]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise MisuseError(f"{what} = {shown(found)}: a tuple is needed")
    return tuple(found)


def _offset_to_commit(found: Any) -> OffsetAndMetadata:
    if not isinstance(found, OffsetAndMetadata):
        raise MisuseError(f"offsets with {shown(found)}: OffsetAndMetadata is needed")
    return OffsetAndMetadata(
        *partition_of(found.topic, found.partition),
        whole("offset", found.offset, FIRST_NUMBER, LAST_OFFSET),
        whole("leader_epoch", found.leader_epoch, LEAST, MOST),
        text("metadata", found.metadata),
    )


def commit_answer(found: Any) -> OffsetCommitResponse:
    """What a store says to a commit. Raises MisuseError."""
    if not isinstance(found, OffsetCommitResponse):
        raise MisuseError(f"commit_offset returned {shown(found)}: OffsetCommitResponse is needed")
    return OffsetCommitResponse(
        tuple(
            PartitionError(*partition_of(each.topic, each.partition), _code(each.error_code))
            for each in _answers(PartitionError, found.partitions)
        )
    )


def fetch_answer(found: Any) -> OffsetFetchResponse:
    """What a store says to a fetch; -1 is no offset. Raises MisuseError."""
    if not isinstance(found, OffsetFetchResponse):
        raise MisuseError(f"fetch_offset returned {shown(found)}: OffsetFetchResponse is needed")
    return OffsetFetchResponse(
        _code(found.error_code),
        tuple(
            CommittedOffset(
                *(tp := partition_of(each.topic, each.partition)),
                whole(f"offset of {tp}", each.offset, -1, LAST_OFFSET),
                whole(f"leader_epoch of {tp}", each.leader_epoch, -1, MOST),
                text_or_none(f"metadata of {tp}", each.metadata) or "",
                _code(each.error_code),
            )
            for each in _answers(CommittedOffset, found.partitions)
        ),
    )


def _code(found: Any) -> int:
    return whole("error_code", found, LOWEST_CODE, HIGHEST_CODE)


def _answers(kind: type[Any], found: Any) -> tuple[Any, ...]:
    several = _several("partitions", found)
    wrong = [each for each in several if not isinstance(each, kind)]
    if wrong:
        raise MisuseError(f"partitions with {shown(wrong[0])}: {kind.__name__} is needed")
    return several
