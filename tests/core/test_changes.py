"""A leader whose brokers differ about how many partitions there are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, pairwise, repeat

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.positions import CHANGE_HOLD_MOST_MS, CHANGE_HOLD_MS
from ksim.core.subscription import encode_subscription
from tests.core.desk import TOPIC, Desk

LONG = {"session_timeout_ms": 600_000, "rebalance_timeout_ms": 600_000}
BROKERS = (m.BrokerEndpoint(1, "broker-1", 9092),)
MEMBERS = (m.JoinedMember("c-1", None, encode_subscription((TOPIC,))),)


class Night:
    """A lone member in a group of its own, that looks each 50 ms; all is granted."""

    def __init__(self) -> None:
        self.desk = Desk(metadata_max_age_ms=50, heartbeat_interval_ms=1_000, **LONG)
        self.desk.feed(e.Started())
        self.generation_id = 0
        self.made_ms: list[int] = []
        self.are_silent = False  # about topics

    def until(self, at_ms: int, counts: Iterator[int]) -> None:
        """With these numbers of partitions, one after the other."""
        while self.desk.now_ms < at_ms:
            if not self._answered(counts):
                self.desk.timer()

    def _answered(self, counts: Iterator[int]) -> bool:
        desk = self.desk
        revoked = desk.of(e.RevokePartitions)
        if revoked and revoked[-1].revocation_id == desk.member.state.next_revocation_id:
            desk.feed(e.PartitionsRevoked(revoked[-1].revocation_id, ()))
            desk.orders.clear()
        for kind in list(desk.open):
            if kind is m.MetadataRequest and not self.are_silent:
                found = tuple(m.PartitionMetadata(0, p, 1, 0) for p in range(next(counts)))
                topic = m.TopicMetadata(0, TOPIC, found)
                desk.answer(kind, m.MetadataResponse(BROKERS, (topic,)))
            elif kind is m.JoinGroupRequest:
                self.generation_id += 1
                self.made_ms.append(desk.now_ms)
                answer = m.JoinGroupResponse(
                    0, self.generation_id, "consumer", "range", "c-1", "c-1", MEMBERS
                )
                desk.answer(kind, answer)
            elif kind is m.SyncGroupRequest:
                sent = dict(desk.open[kind].request.assignments)
                answer_ = m.SyncGroupResponse(0, "consumer", "range", sent["c-1"])
                desk.answer(kind, answer_)
            elif kind is m.HeartbeatRequest:
                desk.answer(kind, m.HeartbeatResponse(0))
            elif kind is m.FindCoordinatorRequest:
                desk.answer(kind, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
            else:
                continue
            return True
        return False


def test_brokers_that_differ_for_long_cost_few_rebalances() -> None:
    night = Night()
    night.until(21_000, cycle((1, 2)))
    apart_ms = [after - before for before, after in pairwise(night.made_ms)]
    assert 4 <= len(night.made_ms) <= 9, night.made_ms
    assert apart_ms[1] >= CHANGE_HOLD_MS
    assert apart_ms[-1] >= CHANGE_HOLD_MOST_MS / 2


def test_what_is_so_in_the_end_is_shared_out() -> None:
    night = Night()
    night.until(21_000, cycle((1, 2)))
    night.until(21_000 + 2 * CHANGE_HOLD_MOST_MS, repeat(3))
    assert night.desk.member.state.assigned_counts == {TOPIC: 3}
    assert not night.desk.member.state.rejoin_needed


def test_one_change_is_seen_to_at_once_and_so_is_the_next_one_long_after() -> None:
    night = Night()
    for count in (1, 2, 3):
        night.until(night.desk.now_ms + 5_000, repeat(count))
    first_ms, second_ms, third_ms = night.made_ms
    assert second_ms - 6_000 < CHANGE_HOLD_MS
    assert third_ms - 11_000 < CHANGE_HOLD_MS
    assert first_ms < CHANGE_HOLD_MS * 3


def test_a_change_that_is_held_back_is_seen_to_though_nobody_tells_it_again() -> None:
    night = Night()
    night.until(5_000, repeat(1))
    night.until(5_200, repeat(2))
    night.until(5_300, repeat(3))
    assert len(night.made_ms) == 2
    night.are_silent = True
    night.until(6_500, repeat(3))
    assert len(night.made_ms) == 3
    assert night.made_ms[2] - night.made_ms[1] >= CHANGE_HOLD_MS
