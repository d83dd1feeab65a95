"""How far a recording can reach: what it says of records must be of some that were fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ksim.after.lives import Life
from ksim.core import events as e
from ksim.core.errors import DamagedRecordingError
from ksim.core.values import TopicPartition


def refuse_what_was_never_fetched(life: Life, ends: Mapping[TopicPartition, int]) -> None:
    """Raises DamagedRecordingError for records, or marks, beyond all that any member was told of.

    `ends` is how far the logs went. A number that is none of an offset would be counted up to.
    """
    for number, what, tp, offset in _reached(life):
        had = life.state.owned.get(tp)
        end = max(ends.get(tp, 0), had.position if had is not None else 0)
        if offset >= end:
            raise DamagedRecordingError(
                f"{life.path}: entry {number}: offset {offset} of {tp} was {what}, "
                f"but nothing from {end} on was fetched"
            )


def _reached(life: Life) -> Iterator[tuple[int, str, TopicPartition, int]]:
    for number, step in enumerate(life.steps, 1):
        if isinstance(step.fact, e.RecordsHandedOut):
            tp = TopicPartition(step.fact.topic, step.fact.partition)
            yield number, "handed out", tp, step.fact.last
        elif isinstance(step.fact, e.MarksTaken):
            for mark in step.fact.marks:
                yield number, "marked", TopicPartition(mark.topic, mark.partition), mark.offset
