"""What the application does to positions: it is handed records, seeks, and pauses partitions."""

from __future__ import annotations

from ksim.core.events import BufferDrained, DropBuffered, RecordsHandedOut, Sought
from ksim.core.member_state import Position, Tenure
from ksim.core.truncation import skip_epochs
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition


def _tenure(turn: Turn, topic: str, partition: int, tenure: int) -> Tenure | None:
    found = turn.state.owned.get(TopicPartition(topic, partition))
    return found if found is not None and found.tenure == tenure else None


def on_drained(turn: Turn, fact: BufferDrained) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is not None:
        tenure.buffered = False
        turn.state.fetch_due = True


def on_handed_out(turn: Turn, fact: RecordsHandedOut) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is not None:
        assert fact.first <= fact.last, f"handed out {fact.first}..{fact.last}"


def on_sought(turn: Turn, fact: Sought) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is None:
        return
    skip_epochs(tenure, fact.offset)
    tenure.position = fact.offset
    tenure.waits_for = Position.READY
    if fact.offset < tenure.to_commit:
        # A seek back: lower marks count again, and what is done below is committed if it is not.
        done = tenure.committed < fact.offset
        tenure.to_commit, tenure.metadata = (fact.offset if done else -1), ""
    elif tenure.to_commit < tenure.committed <= fact.offset:
        # It had gone back and is at least where it was: what it marked on the way is done long ago.
        tenure.to_commit, tenure.metadata = -1, ""
    tenure.buffered = False
    turn.state.fetch_due = True
    turn.orders.append(
        DropBuffered(fact.topic, fact.partition, fact.tenure, fact.offset, sought=True)
    )


def set_paused(turn: Turn, partitions: tuple[TopicPartition, ...], paused: bool) -> None:
    for tp in partitions:
        if tp in turn.state.owned:
            turn.state.owned[tp].paused = paused
    turn.state.fetch_due = True
