"""Offsets that the user asks for himself, past the member's own marks."""

from __future__ import annotations

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.asks import refusal
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

FETCH = m.OffsetFetchRequest("g", (TopicPartition(TOPIC, 0),))
COMMIT = m.OffsetCommitRequest("g", -1, "", None, (m.OffsetAndMetadata(TOPIC, 0, 7, -1, "seven"),))
KEPT = m.OffsetFetchResponse(0, (m.CommittedOffset(TOPIC, 0, 7, -1, "seven", 0),))


def test_it_waits_for_the_coordinator_and_is_carried_as_it_is() -> None:
    desk = Desk()
    desk.feed(e.Started())
    desk.feed(e.OffsetsRequested(5, FETCH))
    assert m.OffsetFetchRequest not in desk.open
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "h", 9092))
    assert desk.open[m.OffsetFetchRequest].request == FETCH
    desk.answer(m.OffsetFetchRequest, KEPT)
    assert desk.of(e.OffsetsAnswered) == [e.OffsetsAnswered(5, KEPT)]


def test_a_refusal_is_the_callers_and_a_coordinator_that_moved_is_looked_for() -> None:
    desk = Desk()
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "h", 9092))
    desk.feed(e.OffsetsRequested(1, COMMIT))
    refused = refusal(COMMIT, KafkaError.NOT_COORDINATOR)
    assert refused == m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 16),))
    desk.answer(m.OffsetCommitRequest, refused)
    assert desk.of(e.OffsetsAnswered) == [e.OffsetsAnswered(1, refused)]
    assert desk.member.state.coordinator == -1


def test_without_an_answer_it_may_have_been_done() -> None:
    desk = Desk()
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "h", 9092))
    desk.feed(e.OffsetsRequested(1, FETCH))
    desk.feed(e.RequestFailed(desk.open[m.OffsetFetchRequest].request_id, "gone"))
    (answer,) = desk.of(e.OffsetsAnswered)
    assert answer == e.OffsetsAnswered(1, refusal(FETCH, KafkaError.REQUEST_TIMED_OUT))
    assert desk.member.state.asked == {}


def test_a_closed_member_refuses_at_once() -> None:
    desk = Desk()
    desk.feed(e.CloseRequested(1_000, True))
    desk.feed(e.OffsetsRequested(2, FETCH))
    expected = refusal(FETCH, KafkaError.COORDINATOR_NOT_AVAILABLE)
    assert desk.of(e.OffsetsAnswered) == [e.OffsetsAnswered(2, expected)]
