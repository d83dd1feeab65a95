"""What is of one generation, or of one instance: late answers, requests that hold nothing back."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk, rejoin

INSTANCE = "instance-1"
ALL_OF_IT = encode_assignment(TopicPartition(TOPIC, p) for p in range(2))


def joined(desk: Desk, generation_id: int) -> None:
    """Up to the OffsetFetch of this generation, which stays without an answer."""
    if m.FindCoordinatorRequest in desk.open:
        desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    desk.learn()
    granted = m.JoinGroupResponse(0, generation_id, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, granted)
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", ALL_OF_IT))
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))


def committed(offset: int) -> m.OffsetFetchResponse:
    return m.OffsetFetchResponse(
        0, tuple(m.CommittedOffset(TOPIC, p, offset, -1, "", 0) for p in range(2))
    )


def starts(**options: object) -> Desk:
    desk = Desk(**options)
    desk.feed(e.Started())
    desk.join()
    return desk


def test_committed_offsets_of_an_earlier_generation_are_no_positions() -> None:
    """Others may have committed since they were read."""
    desk = starts(session_timeout_ms=60_000)
    rejoin(desk)
    joined(desk, 2)
    old = desk.open.pop(m.OffsetFetchRequest)
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    joined(desk, 3)
    desk.orders.clear()
    desk.feed(e.ResponseReceived(old.request_id, committed(20)))
    assert not desk.of(e.AssignPartitions)
    desk.answer(m.OffsetFetchRequest, committed(60))
    (assigned,) = desk.of(e.AssignPartitions)
    assert [item.offset for item in assigned.partitions] == [60, 60]


def test_an_assignment_of_an_earlier_generation_is_not_taken() -> None:
    desk = starts(session_timeout_ms=60_000)
    rejoin(desk)
    granted = m.JoinGroupResponse(0, 2, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, granted)
    old = desk.open.pop(m.SyncGroupRequest)
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.ILLEGAL_GENERATION))
    granted = m.JoinGroupResponse(0, 3, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, granted)
    one = encode_assignment([TopicPartition(TOPIC, 1)])
    desk.feed(e.ResponseReceived(old.request_id, m.SyncGroupResponse(0, "consumer", "range", one)))
    assert not desk.member.state.owned
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", ALL_OF_IT))
    assert len(desk.member.state.owned) == 2


@pytest.mark.parametrize("kind", [m.OffsetCommitRequest, m.HeartbeatRequest])
def test_a_request_of_an_earlier_generation_holds_nothing_back(kind: type) -> None:
    """Its answer may come in half a minute, or never."""
    desk = starts(session_timeout_ms=60_000, commit_interval_ms=200)
    tenure = desk.of(e.AssignPartitions)[-1].partitions[0].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure, 14, ""),)))
    while m.OffsetCommitRequest not in desk.open or m.HeartbeatRequest not in desk.open:
        desk.timer()
    late = desk.open.pop(kind)
    other, answer = {
        m.OffsetCommitRequest: (
            m.HeartbeatRequest,
            m.HeartbeatResponse(KafkaError.UNKNOWN_MEMBER_ID),
        ),
        m.HeartbeatRequest: (
            m.OffsetCommitRequest,
            m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, KafkaError.UNKNOWN_MEMBER_ID),)),
        ),
    }[kind]
    desk.answer(other, answer)
    lost = desk.of(e.LosePartitions)[-1]
    desk.feed(e.PartitionsLost(lost.revocation_id))
    desk.join(2)
    tenure = desk.of(e.AssignPartitions)[-1].partitions[0].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure, 15, ""),)))
    desk.timers_until(desk.now_ms + 10_000)
    assert kind in desk.open
    assert desk.open[kind].request_id != late.request_id
    assert desk.open[kind].request.generation_id == 2


def test_what_a_static_member_asks_for_names_its_instance() -> None:
    """Else a process that was replaced is not told so, and takes its place back."""
    desk = starts(group_instance_id=INSTANCE, commit_interval_ms=200)
    tenure = desk.of(e.AssignPartitions)[-1].partitions[0].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure, 14, ""),)))
    desk.timers_until(desk.now_ms + 5_000)
    kinds = (m.JoinGroupRequest, m.SyncGroupRequest, m.HeartbeatRequest, m.OffsetCommitRequest)
    named = {
        kind.__name__: {request.group_instance_id for request in desk.requests(kind)}
        for kind in kinds
    }
    assert named == {kind.__name__: {INSTANCE} for kind in kinds}
