"""The commit pipeline: one in flight, a budget of retries, and refusals that are for good."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import ClientState
from tests.core.desk import TOPIC, Desk, rejoin

RETRIED = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.UNKNOWN_TOPIC_OR_PARTITION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
)
FOR_GOOD = (
    KafkaError.OFFSET_METADATA_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_GROUP_ID,
)


@pytest.fixture
def desk() -> Desk:
    found = Desk(commit_retry_max=2, commit_interval_ms=5_000)
    found.feed(e.Started())
    found.join()
    return found


def mark(desk: Desk, offset: int, partition: int = 0) -> None:
    assigned = desk.of(e.AssignPartitions)[-1]
    tenure = assigned.partitions[partition].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, partition, tenure, offset, ""),)))


def refuse(desk: Desk, *codes: int) -> None:
    """Answer the commit that is open; the coordinator is found again if need be."""
    answers = tuple(m.PartitionError(TOPIC, at, code) for at, code in enumerate(codes))
    desk.answer(m.OffsetCommitRequest, m.OffsetCommitResponse(answers))


def next_commit(desk: Desk) -> None:
    while m.OffsetCommitRequest not in desk.open:
        if m.FindCoordinatorRequest in desk.open:
            found = m.FindCoordinatorResponse(0, 1, "broker-1", 9092)
            desk.answer(m.FindCoordinatorRequest, found)
        elif m.HeartbeatRequest in desk.open:
            desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))
        else:
            desk.timer()


@pytest.mark.parametrize("code", RETRIED)
def test_within_the_budget_a_commit_is_tried_again_and_then_told(desk: Desk, code: int) -> None:
    mark(desk, 14)
    desk.feed(e.CommitRequested(1))
    for _ in range(3):
        assert not desk.of(e.CommitFinished)
        next_commit(desk)
        refuse(desk, code)
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, code)]
    assert [order.error_code for order in desk.of(e.ReportError)] == [code]
    assert desk.member.state.client_state == ClientState.STABLE


def test_after_the_budget_the_marks_wait_for_their_interval(desk: Desk) -> None:
    mark(desk, 14)
    desk.feed(e.CommitRequested(1))
    for _ in range(3):
        next_commit(desk)
        refuse(desk, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    spent_ms = desk.now_ms
    next_commit(desk)
    assert desk.now_ms - spent_ms >= 5_000
    refuse(desk, 0)
    assert desk.member.state.owned[min(desk.member.state.owned)].committed == 15


@pytest.mark.parametrize("code", FOR_GOOD)
def test_what_is_refused_for_good_is_asked_again_only_with_another_mark(
    desk: Desk, code: int
) -> None:
    mark(desk, 14)
    mark(desk, 20, partition=1)
    desk.feed(e.CommitRequested(1))
    refuse(desk, code, 0)
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, code)]
    commits = len(desk.requests(m.OffsetCommitRequest))
    desk.feed(e.CommitRequested(2))
    assert desk.of(e.CommitFinished)[-1] == e.CommitFinished(2, code)
    assert len(desk.requests(m.OffsetCommitRequest)) == commits
    mark(desk, 15)
    desk.feed(e.CommitRequested(3))
    (asked,) = desk.requests(m.OffsetCommitRequest)[-1].offsets
    assert (asked.partition, asked.offset) == (0, 16)
    refuse(desk, 0)
    assert desk.of(e.CommitFinished)[-1] == e.CommitFinished(3, 0)


def test_one_partition_refused_for_good_does_not_hide_a_lost_membership(desk: Desk) -> None:
    mark(desk, 14)
    mark(desk, 20, partition=1)
    desk.feed(e.CommitRequested(1))
    refuse(desk, KafkaError.OFFSET_METADATA_TOO_LARGE, KafkaError.UNKNOWN_MEMBER_ID)
    assert desk.of(e.LosePartitions)
    assert desk.member.state.member_id == ""


def test_only_one_commit_is_in_flight(desk: Desk) -> None:
    mark(desk, 14)
    desk.feed(e.CommitRequested(1))
    mark(desk, 16)
    desk.feed(e.CommitRequested(2))
    assert [c.offsets[0].offset for c in desk.requests(m.OffsetCommitRequest)] == [15]
    refuse(desk, 0)
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, 0)]
    assert [c.offsets[0].offset for c in desk.requests(m.OffsetCommitRequest)] == [15, 17]
    refuse(desk, 0)
    assert desk.of(e.CommitFinished)[-1] == e.CommitFinished(2, 0)


def test_a_rebalance_goes_on_when_the_budget_is_spent(desk: Desk) -> None:
    mark(desk, 14)
    joins = len(desk.requests(m.JoinGroupRequest))
    rejoin(desk)
    for _ in range(3):
        next_commit(desk)
        refuse(desk, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert len(desk.requests(m.JoinGroupRequest)) == joins + 1
    assert [order.error_code for order in desk.of(e.ReportError)] == [14]


def test_a_commit_without_an_answer_counts_against_the_budget(desk: Desk) -> None:
    mark(desk, 14)
    desk.feed(e.CommitRequested(1))
    for _ in range(3):
        next_commit(desk)
        request_id = desk.open.pop(m.OffsetCommitRequest).request_id
        desk.feed(e.RequestFailed(request_id, "no answer"))
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, KafkaError.REQUEST_TIMED_OUT)]


def test_a_seek_back_commits_what_is_done_below_it_and_not_committed(desk: Desk) -> None:
    tenure = desk.of(e.AssignPartitions)[-1].partitions[0].tenure
    mark(desk, 19)
    desk.feed(e.Sought(TOPIC, 0, tenure, 15))
    desk.feed(e.CommitRequested(1))
    request = desk.open[m.OffsetCommitRequest].request
    assert [item.offset for item in request.offsets] == [15]
    refuse(desk, 0)
    # What is committed already is not committed again, at a lower offset.
    desk.feed(e.Sought(TOPIC, 0, tenure, 12))
    desk.feed(e.CommitRequested(2))
    assert m.OffsetCommitRequest not in desk.open


def goes_back(desk: Desk) -> int:
    """All up to 20 is committed; it goes back to 12 and marks 15. Returns its tenure."""
    tenure = desk.of(e.AssignPartitions)[-1].partitions[0].tenure
    mark(desk, 19)
    desk.feed(e.CommitRequested(1))
    refuse(desk, 0)
    desk.feed(e.Sought(TOPIC, 0, tenure, 12))
    mark(desk, 15)
    return tenure


@pytest.mark.parametrize("code", [None, *RETRIED])
def test_what_was_acknowledged_before_a_commit_of_unknown_end_is_committed_again(
    desk: Desk, code: int | None
) -> None:
    """The lower one of after a seek back may stand in its place."""
    goes_back(desk)
    desk.feed(e.CommitRequested(2))
    mark(desk, 19)
    if code is None:
        desk.feed(e.RequestFailed(desk.open.pop(m.OffsetCommitRequest).request_id, "no answer"))
    else:
        refuse(desk, code)
    next_commit(desk)
    request = desk.open[m.OffsetCommitRequest].request
    assert [item.offset for item in request.offsets] == [20]


@pytest.mark.parametrize("stale", [True, False])
def test_who_asked_for_a_commit_of_a_generation_that_is_over_is_told(
    desk: Desk, stale: bool
) -> None:
    mark(desk, 19)
    desk.feed(e.CommitRequested(7))
    sent = desk.open.pop(m.OffsetCommitRequest)
    if stale:
        while m.HeartbeatRequest not in desk.open:
            desk.timer()
        desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.UNKNOWN_MEMBER_ID))
    refused = (m.PartitionError(TOPIC, 0, KafkaError.UNKNOWN_MEMBER_ID),)
    desk.feed(e.ResponseReceived(sent.request_id, m.OffsetCommitResponse(refused)))
    assert desk.of(e.CommitFinished) == [e.CommitFinished(7, KafkaError.UNKNOWN_MEMBER_ID)]


def test_who_goes_back_and_forward_again_does_not_commit_what_it_marked_on_the_way(
    desk: Desk,
) -> None:
    tenure = goes_back(desk)
    desk.feed(e.Sought(TOPIC, 0, tenure, 20))
    desk.feed(e.CommitRequested(2))
    assert m.OffsetCommitRequest not in desk.open
