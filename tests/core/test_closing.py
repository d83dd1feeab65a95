"""A member that closes: within the time it has, what is done is committed, and the group told."""

from __future__ import annotations

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from tests.core.desk import Desk, rejoin
from tests.core.test_member_commits import mark, next_commit, refuse


def desk_of(**options: int) -> Desk:
    """A member with two partitions whose session and rebalances take longer than its closing."""
    found = Desk(session_timeout_ms=60_000, rebalance_timeout_ms=60_000, **options)
    found.feed(e.Started())
    found.join()
    return found


def close(desk: Desk, timeout_ms: int) -> None:
    """Its application has nothing in flight."""
    desk.feed(e.CloseRequested(timeout_ms, True))
    (order,) = desk.of(e.RevokePartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))


def until(desk: Desk, kind: type) -> int:
    """Let time pass to the first order of this kind; returns when it was."""
    while not desk.of(kind):
        desk.timer()
    return desk.now_ms


def test_what_is_in_flight_costs_neither_the_commit_nor_the_leave() -> None:
    """The handler does not come back in time: what is done is committed all the same."""
    desk = desk_of(dwell_time_ms=50_000)
    mark(desk, 14)
    began_ms = desk.now_ms
    desk.feed(e.CloseRequested(3_000, True))
    assert until(desk, e.AbandonPartitions) - began_ms <= 2_100
    (order,) = desk.of(e.AbandonPartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    refuse(desk, 0)
    assert desk.requests(m.OffsetCommitRequest)[-1].offsets[0].offset == 15
    desk.answer(m.LeaveGroupRequest, m.LeaveGroupResponse(0, ()))
    assert desk.of(e.Closed)
    assert desk.now_ms - began_ms < 3_000


def test_a_revocation_that_is_under_way_has_no_longer_either() -> None:
    desk = desk_of(dwell_time_ms=50_000)
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    assert desk.of(e.RevokePartitions)
    began_ms = desk.now_ms
    desk.feed(e.CloseRequested(3_000, True))
    assert until(desk, e.AbandonPartitions) - began_ms <= 2_100


def test_a_dwell_that_ends_sooner_stays() -> None:
    desk = desk_of(dwell_time_ms=500)
    began_ms = desk.now_ms
    desk.feed(e.CloseRequested(3_000, True))
    assert until(desk, e.AbandonPartitions) - began_ms <= 510


def test_the_last_commit_is_tried_for_as_long_as_there_is_time() -> None:
    """A coordinator that comes back after some seconds takes it; nobody else would make it."""
    desk = desk_of(commit_retry_max=1)
    mark(desk, 14)
    close(desk, 30_000)
    for _ in range(8):
        next_commit(desk)
        refuse(desk, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    next_commit(desk)
    refuse(desk, 0)
    assert not desk.of(e.ReportError)
    assert m.LeaveGroupRequest in desk.open


def test_what_does_not_come_back_within_a_closing_has_its_budget() -> None:
    desk = desk_of(commit_retry_max=1)
    mark(desk, 14)
    close(desk, 30_000)
    for _ in range(2):
        next_commit(desk)
        refuse(desk, KafkaError.UNKNOWN_TOPIC_OR_PARTITION)
    assert [told.context for told in desk.of(e.ReportError)] == ["commit, 2 tries"]
    assert m.LeaveGroupRequest in desk.open


def test_a_commit_that_nobody_takes_leaves_time_to_leave_and_is_told() -> None:
    desk = desk_of(commit_retry_max=1)
    mark(desk, 14)
    began_ms = desk.now_ms
    close(desk, 6_000)
    while m.LeaveGroupRequest not in desk.open:
        if m.OffsetCommitRequest in desk.open:
            refuse(desk, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
        desk.timer()
    assert 4_900 <= desk.now_ms - began_ms <= 5_100
    (told,) = desk.of(e.ReportError)
    assert (told.error_code, told.context) == (
        KafkaError.REQUEST_TIMED_OUT,
        "commit, while closing",
    )


def test_a_rebalance_does_not_wait_for_a_commit_that_is_refused_again_and_again() -> None:
    desk = desk_of(commit_retry_max=1)
    mark(desk, 14)
    rejoin(desk)
    while m.JoinGroupRequest not in desk.open:
        next_commit(desk)
        refuse(desk, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert [told.context for told in desk.of(e.ReportError)] == ["commit, 2 tries"]
