"""A member as a machine, and who answers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member import Member
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition

TOPIC = "orders"


class Desk:
    """A member and who answers it: the last request of each kind, and time."""

    def __init__(self, **options: Any) -> None:
        options = {"auto_offset_reset": "earliest", **options}
        config = Config(group_id="g", topics=(TOPIC,), client_id="c", **options)
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

    def join(
        self, generation_id: int = 1, owned: Sequence[int] = (0, 1), committed: int = 10
    ) -> None:
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
        self.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))
        if owned:
            found = tuple(m.CommittedOffset(TOPIC, p, committed, -1, "", 0) for p in owned)
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


def rejoin(desk: Desk) -> None:
    """A heartbeat says that a rebalance is on; the user gives everything back at once."""
    while m.HeartbeatRequest not in desk.open:
        desk.timer()
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS))
    (*_, order) = desk.of(e.RevokePartitions)
    desk.feed(e.PartitionsRevoked(order.revocation_id, ()))
