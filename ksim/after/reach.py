"""How far a recording can reach: it tells of records that were fetched, and when they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ksim.after.lives import Life
from ksim.core import events as e
from ksim.core.errors import DamagedRecordingError
from ksim.core.values import TopicPartition

# A batch of records has 32 bits for the distance of its last offset from its first.
MOST_AT_ONCE: Final = 1 << 31


def refuse_what_was_never_fetched(life: Life, ends: Mapping[TopicPartition, int]) -> None:
    """Raises DamagedRecordingError for records, or marks, beyond all that any member was told of.

    `ends` is how far the logs went. A number that is none of an offset would be counted up to, or
    from.
    """
    for number, what, tp, first, last in _reached(life):
        had = life.state.owned.get(tp)
        end = max(ends.get(tp, 0), had.position if had is not None else 0)
        if last >= end:
            raise DamagedRecordingError(
                f"{life.path}: entry {number}: offset {last} of {tp} was {what}, "
                f"but nothing from {end} on was fetched"
            )
        if not 0 <= first <= last + 1 or last - first >= MOST_AT_ONCE:
            raise DamagedRecordingError(
                f"{life.path}: entry {number}: offsets {first} to {last} of {tp} were {what}; "
                f"they go up from 0, and no further at once than {MOST_AT_ONCE}"
            )


def refuse_what_was_told_before_it_was(life: Life) -> None:
    """Raises DamagedRecordingError for times beside the clock of the recording.

    Nothing is handed out before its tenure had fetched something, and nothing is told of before it
    was.
    """
    filled_ms: dict[tuple[str, int, int], int] = {}
    for number, step in enumerate(life.steps, 1):
        fact = step.fact
        at_ms = getattr(fact, "at_ms", -1)
        since_ms = -1
        if isinstance(fact, e.RecordsHandedOut):
            since_ms = filled_ms.get((fact.topic, fact.partition, fact.tenure), -1)
        if at_ms >= 0 and not since_ms <= at_ms <= step.at_ms:
            raise DamagedRecordingError(
                f"{life.path}: entry {number}: at_ms of {type(fact).__name__} is {at_ms}; "
                f"it was between {max(since_ms, 0)} and {step.at_ms}"
            )
        for order in step.orders:
            for item in order.partitions if isinstance(order, e.BufferRecords) else ():
                filled_ms.setdefault((item.topic, item.partition, item.tenure), step.at_ms)


def _reached(life: Life) -> Iterator[tuple[int, str, TopicPartition, int, int]]:
    """The number of the step, what it tells of, and the first and the last offset."""
    for number, step in enumerate(life.steps, 1):
        if isinstance(step.fact, e.RecordsHandedOut):
            tp = TopicPartition(step.fact.topic, step.fact.partition)
            yield number, "handed out", tp, step.fact.first, step.fact.last
        elif isinstance(step.fact, e.MarksTaken):
            for mark in step.fact.marks:
                tp = TopicPartition(mark.topic, mark.partition)
                yield number, "marked", tp, mark.offset, mark.offset
        for order in step.orders:
            for item in order.partitions if isinstance(order, e.AssignPartitions) else ():
                # Where nobody knows the first offset yet, it is -1; nothing is below it.
                if item.offset < -1:
                    tp = TopicPartition(item.topic, item.partition)
                    yield number, "assigned", tp, item.offset, -1
