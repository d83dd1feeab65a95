"""A coordinator and its members without IO: wires that hold messages back, and one clock.

Nothing happens by itself. Whoever plays delivers a message, breaks a connection, lets time go by,
or lets an application do something; what must never be is an assertion here (`check`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ksim.broker.broker import Broker
from ksim.broker.cluster import ClusterState
from ksim.broker.log import PartitionLog
from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.member import Member
from ksim.core.session import Session
from ksim.core.subscription import decode_assignment
from ksim.core.values import Payload, Record, TopicPartition

GROUP: Final = "g"
TOPIC: Final = "orders"
NODE: Final = 1
CLOSE_MS: Final = 5_000
MOST_TIMERS: Final = 10_000
CONSUMER: Final[dict[str, Any]] = {
    "session_timeout_ms": 6_000,
    "rebalance_timeout_ms": 6_000,
    "heartbeat_interval_ms": 2_000,
    "auto_offset_reset": "earliest",
}


@dataclass(slots=True)
class Tenure:
    """One partition in the hands of an application, and what it has not been given yet."""

    number: int
    buffer: deque[Record] = field(default_factory=deque[Record])


@dataclass(slots=True)
class Asked:
    """A request on its way, or its answer once there is one; `payload` are a fetch's records."""

    order: e.SendRequest
    due_ms: int
    arrived: bool = False
    response: m.Response | None = None
    payload: Payload | None = None


class Application:
    """A member with its application: it owns, handles and marks, and owes answers."""

    def __init__(self, group: PureGroup, name: str, seed: int) -> None:
        self.name = name
        self.paused = False
        self.closed = False
        self.deliver_until_ms = 0
        self.owned: dict[TopicPartition, Tenure] = {}
        self.revoking: int | None = None
        self.wires: dict[str, deque[Asked]] = {}
        self._group = group
        self._payload: Payload | None = None
        self.session = Session(Member(group.config(name).member_config(), seed), self)
        self.feed(e.Started())
        self.feed(e.UserPolled(True, group.now_ms))

    @property
    def member(self) -> Member:
        machine = self.session.machine
        assert isinstance(machine, Member), machine
        return machine

    @property
    def delivers(self) -> tuple[TopicPartition, ...]:
        """What it may hand out at this moment."""
        if self.revoking is not None or self._group.now_ms >= self.deliver_until_ms:
            return ()
        return tuple(self.owned)

    def feed(self, fact: e.MemberFact, payload: Payload | None = None) -> None:
        self._payload = payload
        self.session.feed(fact, self._group.now_ms)
        self._payload = None

    def restore(self) -> None:
        """Go on with the copy that the member's snapshot makes."""
        self.session.machine = Member.restore(self.member.snapshot())

    def perform(self, order: e.MemberOrder, now_ms: int) -> None:
        """What a driver would do; what needs the application waits for it."""
        match order:
            case e.SendRequest():
                asked = Asked(order, now_ms + order.request_timeout_ms)
                self.wires.setdefault(order.channel, deque()).append(asked)
            case e.BufferRecords():
                self._buffer(order)
            case e.RevokePartitions():
                self.revoking = order.revocation_id
            case e.AbandonPartitions():
                self.give_back()
            case e.LosePartitions():
                self.owned.clear()
                self.revoking = None
                self.session.feed(e.PartitionsLost(order.revocation_id), now_ms)
            case e.AssignPartitions():
                self._assign(order)
            case e.DropBuffered():
                self.owned[TopicPartition(order.topic, order.partition)].buffer.clear()
            case e.SetDeliverUntil():
                self.deliver_until_ms = order.deliver_until_ms
            case e.Closed():
                self.closed = True
                self.owned.clear()
            case _:
                pass  # news for people, and answers that this application never asks for

    def _assign(self, order: e.AssignPartitions) -> None:
        assert not self.owned, f"{self.name} is assigned {order}, and owns {list(self.owned)}"
        for each in order.partitions:
            self.owned[TopicPartition(each.topic, each.partition)] = Tenure(each.tenure)

    def _buffer(self, order: e.BufferRecords) -> None:
        assert self._payload is not None, f"request {order.request_id} came without its records"
        for kept in order.partitions:
            tp = TopicPartition(kept.topic, kept.partition)
            tenure = self.owned[tp]
            assert tenure.number == kept.tenure, f"{tp}: tenure {kept.tenure} is over"
            tenure.buffer.extend(r for r in self._payload[tp] if r.offset >= kept.offset)

    def give_back(self) -> None:
        """The application is told of the revocation, and nothing is in flight."""
        if self.revoking is not None:
            number, self.revoking = self.revoking, None
            self.owned.clear()
            self.session.feed(e.PartitionsRevoked(number, ()), self._group.now_ms)

    def handle(self, tp: TopicPartition) -> int:
        """Be handed the next record of the partition, handle it, mark it; returns its offset."""
        tenure = self.owned[tp]
        offset = tenure.buffer.popleft().offset
        self._group.handled(tp, offset)
        at_ms = self._group.now_ms
        self.feed(e.RecordsHandedOut(*tp, tenure.number, offset, offset, at_ms))
        self.feed(e.MarksTaken((e.Mark(*tp, tenure.number, offset, ""),)))
        if not tenure.buffer and tp in self.owned:
            self.feed(e.BufferDrained(*tp, tenure.number))
        return offset


class PureGroup:
    """The cluster of one group, with the truth about what was handled and committed."""

    def __init__(self, partitions: int, consumer: dict[str, Any] | None = None) -> None:
        self.now_ms = 1_000
        self.members: dict[str, Application] = {}
        self.partitions = tuple(TopicPartition(TOPIC, number) for number in range(partitions))
        self.committed = dict.fromkeys(self.partitions, 0)
        self.handled_up_to = dict.fromkeys(self.partitions, 0)
        self._consumer = {**CONSUMER, **(consumer or {})}
        self._cluster = ClusterState[PartitionLog](1, PartitionLog)
        self._cluster.create_topic(TOPIC, partitions)
        self._broker = Broker(NODE, self._cluster)
        config = CoordinatorConfig(initial_rebalance_delay_ms=0)
        self.coordinator = Session(Coordinator(config, 1), self)
        self._log: list[e.LogEntry] = []
        self._tokens: dict[int, Asked] = {}
        self._next = 0
        self.coordinator.feed(e.LogReplayed(()), self.now_ms)

    def config(self, name: str) -> Config:
        """Of a member."""
        return Config(group_id=GROUP, topics=(TOPIC,), client_id=name, **self._consumer)

    def _number(self) -> int:
        self._next += 1
        return self._next

    # Members

    def start(self, name: str) -> None:
        """A new process of this name."""
        self.members[name] = Application(self, name, self._number())

    def crash(self, name: str) -> None:
        """It is gone, and all that was on its way to it."""
        del self.members[name]

    def close(self, name: str) -> None:
        """It gives everything back, commits and leaves."""
        self.members[name].feed(e.CloseRequested(CLOSE_MS, True))

    # Messages

    def ready(self) -> list[tuple[str, str]]:
        """Member and channel of each message that can be delivered; in order on each channel."""
        return [
            (name, channel)
            for name, member in sorted(self.members.items())
            for channel, wire in sorted(member.wires.items())
            if wire and self._can_move(member, wire[0])
        ]

    def _can_move(self, member: Application, asked: Asked) -> bool:
        if asked.response is not None:
            return not member.paused
        if asked.arrived:
            return False
        request = asked.order.request
        if not isinstance(request, m.FetchRequest):
            return True
        # The broker holds a fetch until there is news, or for as long as it may.
        sent_ms = asked.due_ms - asked.order.request_timeout_ms
        return self._broker.has_news(request) or self.now_ms - sent_ms >= request.max_wait_ms

    def deliver(self, name: str, channel: str) -> str:
        """The next message of this channel arrives; returns what it was."""
        member = self.members[name]
        asked = member.wires[channel][0]
        kind = type(asked.order.request).__name__.removesuffix("Request")
        if asked.response is None:
            asked.arrived = True
            self._arrive(name, asked)
            return f"{kind} of {name}"
        member.wires[channel].popleft()
        answer = e.ResponseReceived(asked.order.request_id, asked.response)
        member.feed(answer, asked.payload)
        return f"{kind} answer to {name}"

    def _arrive(self, name: str, asked: Asked) -> None:
        request = asked.order.request
        match request:
            case m.MetadataRequest():
                asked.response = self._broker.metadata(request)
            case m.FindCoordinatorRequest():
                asked.response = self._broker.find_coordinator(request)
            case m.ListOffsetsRequest():
                asked.response = self._broker.list_offsets(request)
            case m.OffsetForLeaderEpochRequest():
                asked.response = self._broker.offset_for_leader_epoch(request)
            case m.FetchRequest():
                asked.response, asked.payload = self._broker.fetch(request)
            case _:
                token = self._number()
                self._tokens[token] = asked
                fact = e.RequestArrived(token, request, name, f"{name}-{token}")
                self.coordinator.feed(fact, self.now_ms)

    def cut(self, name: str) -> int:
        """Its connections break: what is on its way is lost, and it is told. Returns how many."""
        member = self.members[name]
        lost = [asked for _, wire in sorted(member.wires.items()) for asked in wire]
        member.wires.clear()
        for asked in lost:
            member.feed(e.RequestFailed(asked.order.request_id, "the connection broke"))
        return len(lost)

    def perform(self, order: e.CoordinatorOrder, now_ms: int) -> None:
        """What the coordinator orders; what it writes is stored at once."""
        match order:
            case e.SendResponse():
                self._tokens.pop(order.token).response = order.response
            case e.AppendRecords():
                for entry in order.entries:
                    self._stored(entry)
                self._log += order.entries
                self.coordinator.feed(e.RecordsAppended(order.append_id, 0), now_ms)
            case _:
                pass  # a change of state, for listeners

    def fail_over(self) -> None:
        """The coordinator ends, and another one reads its log."""
        self.coordinator.feed(e.Resigned(), self.now_ms)
        self.coordinator.feed(e.LogReplayed(tuple(self._log)), self.now_ms)

    def produce(self, tp: TopicPartition, count: int) -> None:
        """So many records more."""
        self._cluster.logs[tp].append([(None, None, ())] * count, self.now_ms)

    def end(self, tp: TopicPartition) -> int:
        """How many records the partition has."""
        return self._cluster.logs[tp].end_offset

    # Time

    def advance(self, by_ms: int) -> None:
        """Let time go by; timers fire when they are due, those of who is paused do not."""
        until_ms = self.now_ms + by_ms
        for _ in range(MOST_TIMERS):
            due = min(self._deadlines(), default=None)
            if due is None or due[0] > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = max(self.now_ms, due[0])
            self._fire(due[1])
        raise AssertionError(f"{MOST_TIMERS} timers within {by_ms} ms: {due}")

    def _deadlines(self) -> Iterator[tuple[int, str]]:
        """When which member has a timer, or a request that waits no longer; "" the coordinator."""
        at_ms = self.coordinator.machine.deadline_ms
        if at_ms is not None:
            yield at_ms, ""
        for name, each in self.members.items():
            if each.paused or each.closed:
                continue
            if each.member.deadline_ms is not None:
                yield each.member.deadline_ms, name
            yield from ((asked.due_ms, name) for wire in each.wires.values() for asked in wire)

    def _fire(self, name: str) -> None:
        if not name:
            self.coordinator.feed(e.TimerFired(), self.now_ms)
            return
        each = self.members[name]
        if any(asked.due_ms <= self.now_ms for wire in each.wires.values() for asked in wire):
            self.cut(name)
        else:
            each.feed(e.TimerFired())

    # What must never be

    def handled(self, tp: TopicPartition, offset: int) -> None:
        """The effect of a record has happened."""
        assert offset <= self.handled_up_to[tp], (
            f"{tp}: offset {offset} is handled, and {self.handled_up_to[tp]} was skipped"
        )
        self.handled_up_to[tp] = max(self.handled_up_to[tp], offset + 1)

    def _stored(self, entry: e.LogEntry) -> None:
        if isinstance(entry, e.OffsetRecord):
            tp = TopicPartition(entry.topic, entry.partition)
            before, done = self.committed[tp], self.handled_up_to[tp]
            assert before <= entry.offset, f"{tp}: committed {entry.offset} after {before}"
            assert entry.offset <= done, f"{tp}: committed {entry.offset}, handled up to {done}"
            self.committed[tp] = entry.offset
        elif isinstance(entry, e.GroupRecord):
            owner: dict[TopicPartition, str] = {}
            for each in entry.members:
                for tp in decode_assignment(each.assignment):
                    assert tp not in owner, (
                        f"generation {entry.generation_id} gives {tp} to {owner[tp]} and "
                        f"{each.member_id}"
                    )
                    owner[tp] = each.member_id

    def check(self) -> None:
        """No two applications may hand out the records of one partition. Raises AssertionError."""
        owner: dict[TopicPartition, str] = {}
        for name, each in self.members.items():
            for tp in each.delivers:
                assert tp not in owner, f"{tp} is handed out by {owner[tp]} and {name}"
                owner[tp] = name
