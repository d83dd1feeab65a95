"""What a member does with refusals that say nothing of its membership, and with other protocols."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import ClientState
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

FOUND = m.FindCoordinatorResponse(0, 1, "broker-1", 9092)
MET = m.JoinGroupResponse(KafkaError.MEMBER_ID_REQUIRED, -1, None, None, "", "c-1", ())


@pytest.fixture
def desk() -> Desk:
    found = Desk()
    found.feed(e.Started())
    return found


def until(desk: Desk, kind: type) -> None:
    while kind not in desk.open:
        desk.timer()


def told(desk: Desk) -> list[tuple[int, bool]]:
    return [(order.error_code, order.fatal) for order in desk.of(e.ReportError)]


@pytest.mark.parametrize(
    ("code", "is_told"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, True),
        (KafkaError.INVALID_GROUP_ID, True),
        (KafkaError.UNKNOWN_SERVER_ERROR, True),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, False),
    ],
)
def test_a_heartbeat_that_is_refused_is_asked_again_until_the_session_is_over(
    desk: Desk, code: int, is_told: bool
) -> None:
    desk.join()
    lease_ms, session_ms = desk.member.state.deliver_until_ms, desk.member.state.timers["session"]
    refused = 0
    while not desk.of(e.LosePartitions):
        if m.HeartbeatRequest in desk.open:
            desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(code))
            refused += 1
        else:
            desk.timer()
    assert refused > 2
    assert told(desk) == ([(code, False)] * refused if is_told else [])
    assert desk.member.state.deliver_until_ms == lease_ms
    assert desk.now_ms == session_ms
    assert desk.member.state.client_state != ClientState.STABLE


def offset_fetch(desk: Desk) -> None:
    desk.answer(m.FindCoordinatorRequest, FOUND)
    desk.learn()
    desk.answer(m.JoinGroupRequest, MET)
    joined = m.JoinGroupResponse(0, 1, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, joined)
    data = encode_assignment(TopicPartition(TOPIC, p) for p in range(2))
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", data))
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))


@pytest.mark.parametrize(
    ("code", "is_told"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PARTITION, True),
        (KafkaError.REQUEST_TIMED_OUT, False),
        (KafkaError.UNSTABLE_OFFSET_COMMIT, False),
    ],
)
def test_an_offset_that_is_not_said_is_asked_again(desk: Desk, code: int, is_told: bool) -> None:
    offset_fetch(desk)
    refused = (
        m.CommittedOffset(TOPIC, 0, 7, -1, "", 0),
        m.CommittedOffset(TOPIC, 1, -1, -1, "", code),
    )
    desk.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(0, refused))
    until(desk, m.OffsetFetchRequest)
    assert [(each.topic, each.partition) for each in desk.of(e.ReportError)] == [
        (TOPIC, 1)
    ] * is_told
    assert told(desk) == [(code, False)] * is_told
    assert not desk.requests(m.ListOffsetsRequest)
    assert not desk.of(e.AssignPartitions)
    assert len(desk.requests(m.OffsetFetchRequest)[-1].partitions) == 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.COORDINATOR_NOT_AVAILABLE, []),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, []),
        (KafkaError.UNKNOWN_SERVER_ERROR, [(-1, False)]),
        (KafkaError.UNSUPPORTED_VERSION, [(35, True)]),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, [(30, True)]),
        (KafkaError.INVALID_GROUP_ID, [(24, True)]),
    ],
)
def test_what_find_coordinator_is_refused_with(
    desk: Desk, code: int, expected: list[tuple[int, bool]]
) -> None:
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(code, -1, "", -1))
    assert told(desk) == expected
    is_final = any(fatal for _, fatal in expected)
    assert bool(desk.of(e.Closed)) == is_final
    if not is_final:
        until(desk, m.FindCoordinatorRequest)


@pytest.mark.parametrize(
    ("of_join", "of_sync", "name", "ends_at"),
    [
        ("consumer", "consumer", "range", None),
        (None, None, None, None),
        ("", "", "", None),
        ("connect", "consumer", "range", "join"),
        ("consumer", "connect", "range", "sync"),
        ("consumer", "consumer", "roundrobin", "sync"),
    ],
)
def test_a_group_of_another_protocol_is_no_group_of_this_member(
    desk: Desk, of_join: str | None, of_sync: str | None, name: str | None, ends_at: str | None
) -> None:
    desk.answer(m.FindCoordinatorRequest, FOUND)
    desk.learn()
    desk.answer(m.JoinGroupRequest, MET)
    joined = m.JoinGroupResponse(0, 1, of_join, "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, joined)
    if not desk.of(e.Closed):
        data = encode_assignment([TopicPartition(TOPIC, 0)])
        desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, of_sync, name, data))
    fatal = [order for order in desk.of(e.ReportError) if order.fatal]
    assert [order.context for order in fatal] == ([ends_at] if ends_at else [])
    assert {order.error_code for order in fatal} <= {KafkaError.INCONSISTENT_GROUP_PROTOCOL}
    assert bool(desk.member.state.owned) is (ends_at is None)
