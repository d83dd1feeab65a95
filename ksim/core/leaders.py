"""Partitions that have no leader: the others of their member do not wait for them.

Java's client assigns before it knows positions, so one partition that is offline holds nothing up
there. Here an assignment is announced with its positions, and without those that cannot be asked.
"""

from __future__ import annotations

from typing import Final

from ksim.core.errors import KafkaError
from ksim.core.events import DropBuffered
from ksim.core.member_state import MemberState, Position, Tenure
from ksim.core.messages import MetadataResponse
from ksim.core.turn import Turn

# A leader that moves is missing from one answer now and then.
LEADERLESS_ANSWERS: Final = 2
SETTLED: Final = (Position.READY, Position.STOPPED)
# What a leader alone can say.
WITHOUT: Final = (Position.LIST_OFFSETS, Position.EPOCH_END)
# What says that the topic is there, or may be, but not whom to ask about its partitions.
THERE: Final = (KafkaError.NONE, KafkaError.TOPIC_AUTHORIZATION_FAILED)


def note_leaderless(turn: Turn, response: MetadataResponse) -> None:
    """Count how often in a row nobody led what is owned; the second time the application is told.

    A topic that nobody may look at is told as such, elsewhere.
    """
    there = {topic.topic: topic.error_code for topic in response.topics}
    for tp, tenure in turn.state.owned.items():
        if tp in turn.state.leaders:
            tenure.leaderless = 0
        elif there.get(tp.topic, KafkaError.UNKNOWN_TOPIC_OR_PARTITION) in THERE:
            tenure.leaderless += 1
            if tenure.leaderless == LEADERLESS_ANSWERS and not there[tp.topic]:
                context = f"{tp} has no leader: nothing of it comes until it has one"
                turn.report(KafkaError.LEADER_NOT_AVAILABLE, context, about=tp)


def is_open(state: MemberState) -> bool:
    """Whether a position is still to be found or confirmed."""
    return any(tenure.waits_for not in SETTLED for tenure in state.owned.values())


def holds_up(state: MemberState) -> bool:
    """Whether the assignment waits for a position.

    One that is stopped without a position is not announced: its application is told to leave.
    """
    return any(_is_waited_for(tenure) for tenure in state.owned.values())


def _is_waited_for(tenure: Tenure) -> bool:
    if tenure.leaderless >= LEADERLESS_ANSWERS and tenure.waits_for in WITHOUT:
        return False
    return tenure.waits_for not in SETTLED or tenure.position < 0


def found_late(turn: Turn, tenure: Tenure, offset: int) -> None:
    """A partition that was announced without a position has one now."""
    if turn.state.announced and tenure.position < 0:
        order = DropBuffered(tenure.topic, tenure.partition, tenure.tenure, offset)
        turn.orders.append(order)
