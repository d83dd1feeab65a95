"""The member as a machine: what it orders, what a refusal does, and that its state is all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member import Member
from ksim.core.member_state import ClientState
from ksim.core.subscription import encode_assignment, encode_subscription
from ksim.core.trace import plain
from ksim.core.values import TopicPartition
from ksim.recording import Recording, read_recording
from ksim.scenario import load
from ksim.sim.runner import run

TOPIC = "orders"
SCENARIOS = Path(__file__).parents[2] / "scenarios"


class Desk:
    """A member and who answers it: the last request of each kind, and time."""

    def __init__(self, **options: Any) -> None:
        config = Config(
            group_id="g", topics=(TOPIC,), client_id="c", auto_offset_reset="earliest", **options
        )
        self.member = Member(config.member_config(), 1)
        self.now_ms = 1_000
        self.orders: list[Any] = []
        self.open: dict[type[Any], e.SendRequest] = {}

    def feed(self, fact: e.MemberFact, after_ms: int = 1) -> list[Any]:
        self.now_ms += after_ms
        orders: list[Any] = list(self.member.step(fact, now_ms=self.now_ms))
        for order in orders:
            if isinstance(order, e.SendRequest):
                self.open[type(order.request)] = order
        self.orders += orders
        return orders

    def answer(self, kind: type[Any], response: m.Response, after_ms: int = 1) -> list[Any]:
        return self.feed(e.ResponseReceived(self.open.pop(kind).request_id, response), after_ms)

    def timer(self) -> list[Any]:
        """Let time pass up to the deadline."""
        deadline_ms = self.member.deadline_ms
        assert deadline_ms is not None, "no timer is armed"
        return self.feed(e.TimerFired(), max(0, deadline_ms - self.now_ms))

    def timers_until(self, at_ms: int) -> None:
        while self.member.deadline_ms is not None and self.member.deadline_ms <= at_ms:
            self.timer()

    def join(self, generation_id: int = 1, owned: Sequence[int] = (0, 1)) -> None:
        """From nothing, or from any JoinGroup, to an announced assignment."""
        if m.FindCoordinatorRequest in self.open:
            self.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
        self.learn()
        if self.member.state.member_id == "":
            code = KafkaError.MEMBER_ID_REQUIRED
            self.answer(
                m.JoinGroupRequest, m.JoinGroupResponse(code, -1, None, None, "", "c-1", ())
            )
        self.answer(
            m.JoinGroupRequest,
            m.JoinGroupResponse(0, generation_id, "consumer", "range", "other", "c-1", ()),
        )
        assignment = encode_assignment(TopicPartition(TOPIC, p) for p in owned)
        self.answer(m.SyncGroupRequest, m.SyncGroupResponse(0, "consumer", "range", assignment))
        if owned:
            found = tuple(m.CommittedOffset(TOPIC, p, 10, -1, "", 0) for p in owned)
            self.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(0, found))

    def learn(self) -> None:
        if m.MetadataRequest in self.open:
            partitions = tuple(m.PartitionMetadata(0, p, 1, 0) for p in range(2))
            topic = m.TopicMetadata(0, TOPIC, partitions)
            brokers = (m.BrokerEndpoint(1, "broker-1", 9092),)
            self.answer(m.MetadataRequest, m.MetadataResponse(brokers, (topic,)))

    def of(self, kind: type[Any]) -> list[Any]:
        return [order for order in self.orders if isinstance(order, kind)]

    def requests(self, kind: type[Any]) -> list[Any]:
        return [o.request for o in self.of(e.SendRequest) if isinstance(o.request, kind)]


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


def rejoin(desk: Desk) -> None:
    """A heartbeat says that a rebalance is on; the user gives everything back at once."""
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    (*_, order) = desk.of(e.RevokePartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))


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


@settings(deadline=None, max_examples=20)
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
