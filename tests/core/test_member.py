"""The member as a machine: what it orders, what a refusal does, and that its state is all of it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member import Member
from ksim.core.member_state import ClientState
from ksim.core.subscription import (
    counts_digest,
    decode_assignment,
    encode_assignment,
    encode_subscription,
)
from ksim.core.trace import plain
from ksim.core.values import TopicPartition
from ksim.recording import Recording, read_recording
from ksim.scenario import load
from ksim.sim.runner import run
from tests.core.desk import TOPIC, Desk, rejoin

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.fixture
def desk() -> Desk:
    found = Desk()
    found.feed(e.Started())
    return found


def test_it_looks_for_its_coordinator_before_it_joins(desk: Desk) -> None:
    assert desk.requests(m.FindCoordinatorRequest) == [m.FindCoordinatorRequest("g")]
    assert not desk.requests(m.JoinGroupRequest)


def test_it_joins_in_two_steps_and_announces_what_it_owns(desk: Desk) -> None:
    desk.join()
    first, second = desk.requests(m.JoinGroupRequest)
    assert (first.member_id, second.member_id) == ("", "c-1")
    assert first.protocols == (("range", encode_subscription((TOPIC,))),)
    (assigned,) = desk.of(e.AssignPartitions)
    assert assigned.generation_id == 1
    assert [(a.partition, a.offset) for a in assigned.partitions] == [(0, 10), (1, 10)]
    (fetch,) = desk.requests(m.FetchRequest)
    assert [(p.partition, p.fetch_offset) for p in fetch.partitions] == [(0, 10), (1, 10)]


def test_a_tenure_number_is_never_used_again(desk: Desk) -> None:
    desk.join()
    rejoin(desk)
    desk.join(generation_id=2)
    first, second = desk.of(e.AssignPartitions)
    tenures = [a.tenure for a in (*first.partitions, *second.partitions)]
    assert len(set(tenures)) == 4


def test_marks_are_committed_before_it_joins_again(desk: Desk) -> None:
    desk.join()
    (assigned,) = desk.of(e.AssignPartitions)
    tenure = assigned.partitions[0].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure, 14, "m"),)))
    joins = len(desk.requests(m.JoinGroupRequest))
    rejoin(desk)
    (commit,) = desk.requests(m.OffsetCommitRequest)
    assert commit.offsets == (m.OffsetAndMetadata(TOPIC, 0, 15, -1, "m"),)
    assert commit.generation_id == 1
    assert len(desk.requests(m.JoinGroupRequest)) == joins
    response = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, response)
    assert len(desk.requests(m.JoinGroupRequest)) == joins + 1


def test_the_dwell_ends_the_wait_for_a_handler() -> None:
    desk = Desk(dwell_time_ms=2_000)
    desk.feed(e.Started())
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    began_ms = desk.now_ms
    (order,) = desk.of(e.RevokePartitions)
    desk.timers_until(began_ms + 2_000)
    assert desk.of(e.AbandonPartitions) == [e.AbandonPartitions(order.revocation_id)]
    assert desk.now_ms == began_ms + 2_000


def test_a_mark_of_another_tenure_is_counted_and_not_committed(desk: Desk) -> None:
    desk.join()
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, 99, 14, ""),)))
    assert desk.member.state.stale_marks == 1
    desk.feed(e.CommitRequested(1))
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, 0)]
    assert not desk.requests(m.OffsetCommitRequest)


def test_without_confirmation_its_partitions_are_lost_when_the_session_ends(desk: Desk) -> None:
    desk.join()
    lease = desk.of(e.SetDeliverUntil)[-1].deliver_until_ms
    session_ms = desk.member.state.timers["session"]
    desk.feed(e.TimerFired(), session_ms - desk.now_ms)
    assert [order.partitions for order in desk.of(e.LosePartitions)] == [
        (TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1))
    ]
    assert lease <= session_ms
    assert not desk.requests(m.OffsetCommitRequest)


def test_a_member_that_wakes_late_knows_that_it_is_dead_before_anything_else(desk: Desk) -> None:
    desk.join()
    (assigned,) = desk.of(e.AssignPartitions)
    mark = e.MarksTaken((e.Mark(TOPIC, 0, assigned.partitions[0].tenure, 14, ""),))
    orders = desk.feed(mark, 60_000)
    assert isinstance(orders[0], e.LosePartitions)
    assert not desk.requests(m.OffsetCommitRequest)


def test_nothing_is_announced_before_the_loss_is_known(desk: Desk) -> None:
    desk.join()
    desk.feed(e.TimerFired(), 60_000)
    (lost,) = desk.of(e.LosePartitions)
    desk.timers_until(desk.now_ms + 1_000)
    desk.join(generation_id=2)
    assert len(desk.of(e.AssignPartitions)) == 1
    desk.feed(e.PartitionsLost(lost.revocation_id))
    assert len(desk.of(e.AssignPartitions)) == 2


@pytest.mark.parametrize(
    ("code", "member_id"),
    [(KafkaError.ILLEGAL_GENERATION, "c-1"), (KafkaError.UNKNOWN_MEMBER_ID, "")],
)
def test_what_a_refused_heartbeat_does_to_the_identity(
    desk: Desk, code: KafkaError, member_id: str
) -> None:
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(code))
    assert len(desk.of(e.LosePartitions)) == 1
    assert desk.requests(m.JoinGroupRequest)[-1].member_id == member_id
    assert desk.member.state.client_state == ClientState.PREPARING_REBALANCE


def test_an_answer_to_an_older_generation_changes_nothing(desk: Desk) -> None:
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    stale = desk.open.pop(m.HeartbeatRequest)
    rejoin_by_commit_until_join(desk)
    desk.join(generation_id=2)
    refused = m.HeartbeatResponse(KafkaError.UNKNOWN_MEMBER_ID)
    desk.feed(e.ResponseReceived(stale.request_id, refused))
    assert desk.member.state.member_id == "c-1"
    assert not desk.of(e.LosePartitions)


def rejoin_by_commit_until_join(desk: Desk) -> None:
    """A refused commit says that a rebalance is on; then JoinGroup goes out."""
    (assigned,) = desk.of(e.AssignPartitions)
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, assigned.partitions[0].tenure, 14, ""),)))
    desk.feed(e.CommitRequested(1))
    code = KafkaError.REBALANCE_IN_PROGRESS
    desk.answer(m.OffsetCommitRequest, m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, code),)))
    (order,) = desk.of(e.RevokePartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    accepted = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, accepted)


def test_a_lost_offset_fetch_is_asked_again(desk: Desk) -> None:
    desk.join(owned=())
    rejoin_empty(desk)
    asked = desk.open.pop(m.OffsetFetchRequest)
    desk.feed(e.RequestFailed(asked.request_id, "timed out"))
    desk.timers_until(desk.now_ms + 1_000)
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    desk.timers_until(desk.now_ms + 1_000)
    assert len(desk.requests(m.OffsetFetchRequest)) == 2
    assert len(desk.of(e.AssignPartitions)) == 1


def rejoin_empty(desk: Desk) -> None:
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    for order in desk.of(e.RevokePartitions):
        desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    desk.answer(
        m.JoinGroupRequest,
        m.JoinGroupResponse(0, 2, "consumer", "range", "other", "c-1", ()),
    )
    assignment = encode_assignment([TopicPartition(TOPIC, 0)])
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", assignment))


def test_nothing_is_announced_while_it_waits_to_join_again(desk: Desk) -> None:
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    code = KafkaError.REBALANCE_IN_PROGRESS
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(code))
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    moved = m.HeartbeatResponse(KafkaError.NOT_COORDINATOR)
    desk.answer(m.HeartbeatRequest, moved)
    (order,) = desk.of(e.RevokePartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    assert len(desk.of(e.AssignPartitions)) == 1


def test_a_join_that_is_answered_while_the_coordinator_is_unknown_syncs_later(desk: Desk) -> None:
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    heartbeat = desk.open.pop(m.HeartbeatRequest)
    rejoin_by_commit_until_join(desk)
    desk.feed(e.RequestFailed(heartbeat.request_id, "connection closed"))
    syncs = len(desk.requests(m.SyncGroupRequest))
    answer = m.JoinGroupResponse(0, 2, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, answer)
    assert len(desk.requests(m.SyncGroupRequest)) == syncs
    desk.timers_until(desk.now_ms + 200)
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 2, "broker-2", 9092))
    assert len(desk.requests(m.SyncGroupRequest)) == syncs + 1
    assert desk.open[m.SyncGroupRequest].node_id == 2


def test_hand_outs_end_with_the_shorter_of_session_and_rebalance() -> None:
    for rebalance_ms, lease_ms in ((8_000, 8_000), (60_000, 30_000)):
        desk = Desk(rebalance_timeout_ms=rebalance_ms)
        desk.feed(e.Started())
        desk.join()
        sent_ms = 0
        while m.HeartbeatRequest not in desk.open:
            desk.timer()
            sent_ms = desk.now_ms
        desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))
        assert desk.of(e.SetDeliverUntil)[-1].deliver_until_ms == sent_ms + lease_ms


def test_a_heartbeat_that_tells_of_a_rebalance_does_not_lengthen_the_lease(desk: Desk) -> None:
    desk.join()
    before = desk.of(e.SetDeliverUntil)
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    assert desk.of(e.SetDeliverUntil) == before


def test_close_revokes_commits_leaves_and_says_so(desk: Desk) -> None:
    desk.join()
    (assigned,) = desk.of(e.AssignPartitions)
    desk.feed(e.CloseRequested(5_000, True))
    (order,) = desk.of(e.RevokePartitions)
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, assigned.partitions[0].tenure, 14, ""),)))
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    assert not desk.requests(m.LeaveGroupRequest)
    accepted = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, accepted)
    assert desk.requests(m.LeaveGroupRequest) == [
        m.LeaveGroupRequest("g", (m.MemberIdentity("c-1", None),))
    ]
    desk.answer(m.LeaveGroupRequest, m.LeaveGroupResponse(0))
    assert desk.orders[-1] == e.Closed()
    assert desk.member.deadline_ms is None


def test_close_ends_in_time_even_if_nobody_answers(desk: Desk) -> None:
    desk.join()
    desk.feed(e.CloseRequested(5_000, True))
    began_ms = desk.now_ms
    while e.Closed() not in desk.orders:
        desk.timer()
    assert desk.now_ms == began_ms + 5_000


def test_a_second_close_leaves_at_once(desk: Desk) -> None:
    desk.join()
    desk.feed(e.CloseRequested(5_000, True))
    assert desk.of(e.RevokePartitions)
    assert not desk.requests(m.LeaveGroupRequest), "the handler is not done yet"
    desk.feed(e.CloseRequested(500, True))
    assert len(desk.requests(m.LeaveGroupRequest)) == 1
    assert desk.of(e.LosePartitions)[-1].reason == "closed at once"
    desk.feed(e.CloseRequested(500, True))
    assert len(desk.requests(m.LeaveGroupRequest)) == 1
    desk.answer(m.LeaveGroupRequest, m.LeaveGroupResponse(0))
    assert desk.orders[-1] == e.Closed()


def test_a_second_close_waits_no_longer_than_it_says(desk: Desk) -> None:
    desk.join()
    desk.feed(e.CloseRequested(5_000, True))
    desk.feed(e.CloseRequested(500, True))
    began_ms = desk.now_ms
    while e.Closed() not in desk.orders:
        desk.timer()
    assert desk.now_ms == began_ms + 500


def test_a_busy_user_that_called_in_is_not_thrown_out() -> None:
    desk = Desk(max_poll_interval_ms=10_000)
    desk.feed(e.Started())
    desk.join()
    called_ms = desk.now_ms + 8_000
    desk.feed(e.UserPolled(False, called_ms), 12_000)
    assert not desk.of(e.LosePartitions)
    assert desk.member.state.timers["poll"] == called_ms + 10_000


def test_a_user_that_does_not_call_in_makes_the_member_leave() -> None:
    desk = Desk(max_poll_interval_ms=2_000)
    desk.feed(e.Started())
    desk.join()
    desk.timers_until(desk.now_ms + 2_500)
    assert len(desk.requests(m.LeaveGroupRequest)) == 1
    (lost,) = desk.of(e.LosePartitions)
    joins = len(desk.requests(m.JoinGroupRequest))
    desk.feed(e.PartitionsLost(lost.revocation_id))
    assert len(desk.requests(m.JoinGroupRequest)) == joins
    desk.feed(e.UserPolled(True, desk.now_ms))
    assert len(desk.requests(m.JoinGroupRequest)) == joins + 1


@cache
def recorded(name: str, folder: Path) -> Recording:
    from ksim.cli.run import Recorders

    recorders = Recorders(folder, 3)
    run(load(SCENARIOS / f"{name}.scenario.toml"), 3, recorder=recorders)
    recorders.close()
    return read_recording(folder / "g-2.ksim")


@settings(max_examples=20)
@given(data=st.data())
def test_restore_and_the_rest_of_the_facts_are_the_whole_run(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from ksim.core.trace import value_of

    name = "slow-handler"
    folder = tmp_path_factory.getbasetemp() / "restore"
    found = recorded(name, folder)
    entries = found.entries
    at = data.draw(st.integers(0, len(entries)))
    machine = Member.restore(found.snapshot)
    for number, entry in enumerate(entries):
        if number == at:
            machine = Member.restore(json.loads(json.dumps(machine.snapshot())))
        orders = machine.step(value_of(entry.fact), now_ms=entry.now_ms)
        assert [plain(order) for order in orders] == entry.orders


def test_neither_a_join_nor_a_sync_gives_a_lease() -> None:
    """A JoinGroup that is answered at once in Stable does not restart the coordinator's session.

    A member that came back so, after a pause, handed out for a session that had ended long before.
    """
    desk = Desk()
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    desk.learn()
    joined = m.JoinGroupResponse(0, 3, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, joined)
    share = encode_assignment([TopicPartition(TOPIC, 0)])
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", share))
    assert not desk.of(e.SetDeliverUntil)
    sent_ms = desk.now_ms
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0), after_ms=40)
    assert desk.of(e.SetDeliverUntil) == [e.SetDeliverUntil(sent_ms + 30_000)]


@pytest.mark.parametrize(
    ("buffer_bytes", "asked"), [(67_108_864, 1_048_576), (400_000, 100_000), (1, 1)]
)
def test_partitions_share_the_buffer(buffer_bytes: int, asked: int) -> None:
    desk = Desk(fetch_buffer_bytes=buffer_bytes)
    desk.feed(e.Started())
    desk.join(owned=(0, 1))
    (request,) = desk.requests(m.FetchRequest)
    assert request.partition_max_bytes == asked


@pytest.mark.parametrize(
    "code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_GROUP_ID]
)
def test_a_member_that_has_ended_wants_no_timer(desk: Desk, code: KafkaError) -> None:
    desk.join(owned=())
    rejoin_empty(desk)
    desk.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(code, ()))
    assert desk.of(e.Closed)
    assert desk.member.deadline_ms is None


def test_who_slept_asks_before_it_says_that_it_owns_anything() -> None:
    """It was answered before it fell asleep; by now others may own what it was given."""
    desk = Desk(rebalance_timeout_ms=3_000, heartbeat_interval_ms=1_000)
    desk.feed(e.Started())
    desk.join(owned=())
    rejoin_empty(desk)
    beat = desk.open[m.HeartbeatRequest]
    found = (m.CommittedOffset(TOPIC, 0, 10, -1, "", 0),)
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0), after_ms=4_000)
    announced = len(desk.of(e.AssignPartitions))
    desk.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(0, found))
    assert len(desk.of(e.AssignPartitions)) == announced
    assert desk.open[m.HeartbeatRequest] != beat
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))
    assert len(desk.of(e.AssignPartitions)) == announced + 1


@pytest.mark.parametrize("kept", [{TOPIC: 2}, {}])
def test_a_leader_whose_assignment_was_not_taken_joins_again(kept: dict[str, int]) -> None:
    """A coordinator keeps what it was sent first, though nobody has heard of it."""
    desk = Desk()
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    desk.learn()
    required = m.JoinGroupResponse(KafkaError.MEMBER_ID_REQUIRED, -1, None, None, "", "c-1", ())
    desk.answer(m.JoinGroupRequest, required)
    ((_, subscription),) = desk.requests(m.JoinGroupRequest)[-1].protocols
    peers = (m.JoinedMember("c-1", None, subscription),)
    desk.answer(
        m.JoinGroupRequest, m.JoinGroupResponse(0, 1, "consumer", "range", "c-1", "c-1", peers)
    )
    desk.learn()
    (sent,) = desk.requests(m.SyncGroupRequest)
    assert [decode_assignment(shares) for _, shares in sent.assignments] == [
        (TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1))
    ]
    owned = [TopicPartition(topic, at) for topic, count in kept.items() for at in range(count)]
    answer = encode_assignment(owned, counts_digest(kept))
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", answer))
    assert (m.JoinGroupRequest in desk.open) == (not kept)
