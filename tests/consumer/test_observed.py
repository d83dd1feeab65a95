"""What can be told of a member by its facts and orders alone."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.consumer.observed import Change, Histogram, Kind, Observed
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import ClientState
from ksim.core.turn import STORE
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk, rejoin

TP0, TP1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


class Watched(Desk):
    """A desk with an observer, which must always agree with the member about its state."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.changes: list[Change] = []
        self.seen = Observed(self.now_ms, self.changes.append)
        self.feed(e.Started())

    def feed(self, fact: e.MemberFact, after_ms: int = 1) -> list[Any]:
        orders = super().feed(fact, after_ms)
        self.seen.on_step(self.now_ms, fact, orders)
        state = self.member.state
        assert self.seen.state == state.client_state or state.closed
        assert self.seen.ready == (state.announced and state.release == "NONE")
        return orders

    def tenure(self, partition: int) -> int:
        (assigned,) = [
            item
            for item in self.of(e.AssignPartitions)[-1].partitions
            if item.partition == partition
        ]
        return int(assigned.tenure)

    def fetched(self, end: int, count: int) -> None:
        header = m.FetchedPartition(TOPIC, 0, 0, end, 0, 10 + count, count)
        self.answer(m.FetchRequest, m.FetchResponse(0, (header,)))

    def kinds(self) -> list[Kind]:
        return [change.kind for change in self.changes]


@pytest.fixture
def desk() -> Watched:
    return Watched()


def test_a_first_join(desk: Watched) -> None:
    desk.join()
    assert desk.seen.state == ClientState.STABLE
    assert (desk.seen.reason, desk.seen.rebalances) == ("start", {"start": 1})
    assert (desk.seen.member_id, desk.seen.generation_id) == ("c-1", 1)
    assert desk.kinds() == [
        Kind.COORDINATOR, Kind.JOINING, Kind.JOINING, Kind.JOINED, Kind.ASSIGNED,
    ]  # fmt: skip
    assert desk.changes[-1].partitions == 2
    assert desk.seen.rebalance_times.sum_ms == desk.changes[-1].duration_ms
    progress = desk.seen.partitions[TP0]
    assert (progress.owned, progress.position, progress.committed) == (True, 10, 10)
    assert progress.high_watermark == -1, "no fetch has told the end yet"


def test_what_is_handed_out_marked_and_committed(desk: Watched) -> None:
    desk.join()
    desk.fetched(end=30, count=5)
    desk.seen.took(TP0, 5, 500)
    progress = desk.seen.partitions[TP0]
    assert progress.high_watermark == 30
    assert (progress.records, progress.bytes) == (5, 500)
    desk.feed(e.RecordsHandedOut(TOPIC, 0, desk.tenure(0), 10, 14), 100)
    desk.feed(e.BufferDrained(TOPIC, 0, desk.tenure(0)))
    assert (progress.position, progress.moved_ms) == (15, desk.now_ms - 1)
    assert progress.backpressure_ms == 101
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, desk.tenure(0), 14, ""),)))
    assert (progress.mark, progress.committed) == (15, 10)
    while m.OffsetCommitRequest not in desk.open:
        desk.timer()
    desk.answer(m.OffsetCommitRequest, m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),)), 7)
    assert progress.committed == 15
    assert (desk.seen.commits, desk.seen.commit_times.sum_ms) == ({"ok": 1}, 7)


def test_a_rebalance_has_a_reason_a_duration_and_a_gap(desk: Watched) -> None:
    desk.join()
    began_ms = desk.now_ms
    rejoin(desk)
    assert not desk.seen.ready
    assert not desk.seen.partitions[TP0].owned
    desk.join(generation_id=2, owned=(0,))
    assert desk.seen.rebalances == {"start": 1, "rebalance_in_progress": 1}
    took_ms = desk.changes[-1].duration_ms
    assert took_ms is not None
    assert 0 < took_ms <= desk.now_ms - began_ms
    assert desk.seen.partitions[TP0].returns == 1
    assert desk.seen.partitions[TP0].unowned_ms == took_ms
    assert not desk.seen.partitions[TP1].owned
    assert desk.kinds().count(Kind.IN_PROGRESS) == 1


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
def test_a_member_that_was_forgotten(desk: Watched, code: KafkaError) -> None:
    desk.join()
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(code))
    assert desk.seen.rebalances[code.name.lower()] == 1
    assert desk.kinds()[-1] == Kind.JOINING
    assert desk.changes[-2].reason == f"heartbeat refused: {code.name}"


def test_a_session_that_ran_out() -> None:
    desk = Watched(session_timeout_ms=6_000, heartbeat_interval_ms=1_000)
    desk.join()
    desk.timers_until(desk.now_ms + 10_000)
    assert desk.seen.rebalances["session_timeout"] == 1
    assert Kind.LOST in desk.kinds()


def test_errors_are_counted_by_name(desk: Watched) -> None:
    desk.join()
    while m.MetadataRequest not in desk.open:
        if m.HeartbeatRequest in desk.open:
            desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))
        desk.timer()
    gone = m.TopicMetadata(KafkaError.UNKNOWN_TOPIC_OR_PARTITION, TOPIC, ())
    desk.answer(m.MetadataRequest, m.MetadataResponse((), (gone,)))
    assert desk.seen.errors == {"unknown_topic_or_partition": 1}
    assert Kind.FATAL not in desk.kinds()


def test_a_broker_is_lost_once_and_found_once(desk: Watched) -> None:
    desk.join()
    for _ in range(3):
        desk.feed(e.RequestFailed(desk.open.pop(m.FetchRequest).request_id, "connection closed"))
        while m.FetchRequest not in desk.open:
            desk.timer()
    assert desk.kinds().count(Kind.BROKER_LOST) == 1
    assert desk.seen.errors == {"request_failed": 3}
    desk.fetched(end=30, count=0)
    assert desk.kinds()[-1] == Kind.BROKER_FOUND
    assert desk.changes[-1].detail == "node 1"


def test_a_store_of_the_users_is_no_broker() -> None:
    changes: list[Change] = []
    seen = Observed(0, changes.append)
    asks = [
        e.SendRequest(number, e.ANY_NODE, STORE, m.OffsetFetchRequest("g", (TP0,)), 1_000)
        for number in range(3)
    ]
    seen.on_step(1, e.Started(), asks[:1])
    for number in (0, 1):
        failed = e.RequestFailed(number, "OSError: the disk is away")
        seen.on_step(2, failed, [asks[number + 1]])
    seen.on_step(3, e.ResponseReceived(2, m.OffsetFetchResponse(0, ())), [])
    told = [(change.kind, change.reason, change.detail) for change in changes]
    assert told == [
        (Kind.STORE_LOST, "OSError: the disk is away", ""), (Kind.STORE_FOUND, "", ""),
    ]  # fmt: skip


def test_refusals_of_commits_are_counted_by_name(desk: Watched) -> None:
    desk.join()
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, desk.tenure(0), 14, ""),)))
    while m.OffsetCommitRequest not in desk.open:
        desk.timer()
    code = KafkaError.INVALID_COMMIT_OFFSET_SIZE
    desk.answer(m.OffsetCommitRequest, m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, code),)))
    assert desk.seen.commits == {"invalid_commit_offset_size": 1}
    assert Kind.COMMIT_REFUSED in desk.kinds()


def test_the_end(desk: Watched) -> None:
    desk.join()
    desk.feed(e.CloseRequested(5_000, True))
    (order,) = desk.of(e.RevokePartitions)
    assert (desk.seen.reason, desk.changes[-1].kind) == ("close", Kind.REVOKING)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
    desk.answer(m.LeaveGroupRequest, m.LeaveGroupResponse(0))
    assert desk.kinds()[-2:] == [Kind.LEAVING, Kind.CLOSED]
    assert desk.seen.closed


def test_a_histogram_counts_up_to_each_bound() -> None:
    found = Histogram((10, 20))
    for took_ms in (0, 10, 11, 20, 21, 1_000):
        found.add(took_ms)
    assert (found.counts, found.sum_ms) == ([2, 2, 2], 1_062)
