"""Offsets that the user asks for himself: carried to the coordinator and back as they are."""

from __future__ import annotations

from ksim.core.errors import COORDINATOR_MOVED, KafkaError
from ksim.core.events import OffsetsAnswered, OffsetsRequested
from ksim.core.member_state import Pending
from ksim.core.messages import (
    CommittedOffset,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    PartitionError,
)
from ksim.core.turn import Turn


def on_requested(turn: Turn, fact: OffsetsRequested) -> None:
    turn.state.asks += (fact,)


def send(turn: Turn) -> None:
    """As soon as there is a coordinator; whatever it answers is the user's to judge."""
    state = turn.state
    if state.coordinator == -1:
        return
    for fact in state.asks:
        key = f"ask:{fact.ticket}"
        turn.send("ask", state.coordinator, fact.request, key=key)
        state.asked[key] = fact
    state.asks = ()


def on_answer(
    turn: Turn, pending: Pending, response: OffsetCommitResponse | OffsetFetchResponse
) -> None:
    ticket = turn.state.asked.pop(pending.key).ticket
    codes = [item.error_code for item in response.partitions]
    if isinstance(response, OffsetFetchResponse):
        codes.append(response.error_code)
    if any(code in COORDINATOR_MOVED for code in codes):
        turn.forget_coordinator()
        turn.back_off("find_backoff")
    turn.orders.append(OffsetsAnswered(ticket, response))


def on_failed(turn: Turn, pending: Pending, reason: str) -> None:
    """It may have been done or not; the caller asks again if he wants to know."""
    del reason
    turn.forget_coordinator()
    turn.back_off("find_backoff")
    refuse(turn, turn.state.asked.pop(pending.key), KafkaError.REQUEST_TIMED_OUT)


def refuse(turn: Turn, fact: OffsetsRequested, error_code: int) -> None:
    """Answer in the broker's place."""
    turn.orders.append(OffsetsAnswered(fact.ticket, refusal(fact.request, error_code)))


def refusal(
    request: OffsetCommitRequest | OffsetFetchRequest, error_code: int
) -> OffsetCommitResponse | OffsetFetchResponse:
    """What a broker would say that refuses all of it."""
    if isinstance(request, OffsetCommitRequest):
        return OffsetCommitResponse(
            tuple(PartitionError(o.topic, o.partition, error_code) for o in request.offsets)
        )
    partitions = tuple(
        CommittedOffset(tp.topic, tp.partition, -1, -1, "", error_code)
        for tp in request.partitions or ()
    )
    return OffsetFetchResponse(error_code, partitions)
