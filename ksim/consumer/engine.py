"""Between the member and the user's thread: buffers, what is in flight, marks, owed callbacks.

The owner feeds facts and performs orders here; the user's thread takes messages. Both hold the
driver's lock. Nothing here decides about the group: it answers the member's orders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from ksim.consumer.config import Config
from ksim.consumer.message import ConsumerError, Message, RebalanceListener
from ksim.consumer.port import Driver
from ksim.core import events as e
from ksim.core.errors import GroupFatalError
from ksim.core.member import Member
from ksim.core.messages import FetchResponse
from ksim.core.session import Session, StepListener
from ksim.core.trace import Plain
from ksim.core.values import Payload, Record, TopicPartition

QUEUE_LIMIT = 1_000
TAKES_MARKS = (e.TimerFired, e.CommitRequested, e.PartitionsRevoked)

Tap = Callable[[Plain], StepListener]


class Stream:
    """One tenure on this side: what is buffered, handed out and marked."""

    __slots__ = ("first_out", "last_out", "mark", "metadata", "paused", "queue", "tenure", "tp")

    def __init__(self, tp: TopicPartition, tenure: int) -> None:
        self.tp = tp
        self.tenure = tenure
        self.queue: deque[Record] = deque()
        self.mark = -1
        self.metadata = ""
        self.paused = False
        self.first_out = -1
        self.last_out = -1


class Owed:
    """A callback that the user's thread runs at its next safe point, and what it answers then."""

    __slots__ = ("answer", "kind", "partitions")

    def __init__(
        self, kind: str, partitions: tuple[TopicPartition, ...], answer: e.MemberFact | None
    ) -> None:
        self.kind = kind
        self.partitions = partitions
        self.answer = answer


class Engine:
    """Implements `port.Feedable`; `Consumer` is its only other user."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        listener: RebalanceListener | None,
        taps: Sequence[Tap],
    ) -> None:
        self.driver = driver
        self.listener = listener
        member = Member(config.member_config(), driver.entropy())
        self.session = Session(member, self, [tap(member.snapshot()) for tap in taps])
        self.streams: dict[TopicPartition, Stream] = {}
        self.ready: deque[Stream] = deque()
        self.in_flight: Message | None = None
        self.owed: deque[Owed] = deque()
        self.revoking: e.RevokePartitions | None = None
        self.generation_id = -1
        self.deliver_until_ms = 0
        self.finished_commits: dict[int, int] = {}
        self.high_water_marks: dict[TopicPartition, int] = {}
        self.errors: deque[ConsumerError] = deque(maxlen=QUEUE_LIMIT)
        self.notifications: deque[e.Notify] = deque(maxlen=QUEUE_LIMIT)
        self.fatal: GroupFatalError | None = None
        self.closed = False
        self.stale_marks = 0
        self.waiting = False
        self._polled_ms = self._told_polled_ms = driver.now_ms()
        self._member = member
        self._dirty: dict[TopicPartition, Stream] = {}
        self._payload: Payload | None = None

    # The owner's side

    @property
    def deadline_ms(self) -> int | None:
        """When the member wants TimerFired."""
        return self._member.deadline_ms

    def feed(self, fact: e.MemberFact, payload: Payload | None = None) -> None:
        """By the owner: one fact of the driver or of the user's thread."""
        with self.driver.lock:
            if isinstance(fact, TAKES_MARKS):
                self._take_marks()
            if isinstance(fact, e.TimerFired) and self._polled_ms > self._told_polled_ms:
                self._told_polled_ms = self._polled_ms
                self.session.feed(e.UserPolled(self.waiting, self._polled_ms), self.driver.now_ms())
            if isinstance(fact, e.ResponseReceived) and isinstance(fact.response, FetchResponse):
                for found in fact.response.partitions:
                    tp = TopicPartition(found.topic, found.partition)
                    self.high_water_marks[tp] = found.high_watermark
            self._payload = payload
            self.session.feed(fact, self.driver.now_ms())
            self._payload = None
            if isinstance(fact, e.PartitionsRevoked) and self._is_open(fact.revocation_id):
                self._end_tenures()
            if self.listener is None and self.in_flight is None:
                while self.owed:
                    self.answer(self.owed.popleft())

    def _is_open(self, revocation_id: int) -> bool:
        return self.revoking is not None and self.revoking.revocation_id == revocation_id

    def _take_marks(self) -> None:
        if self._dirty:
            marks = tuple(
                e.Mark(s.tp.topic, s.tp.partition, s.tenure, s.mark, s.metadata)
                for s in self._dirty.values()
            )
            self._dirty.clear()
            self.session.feed(e.MarksTaken(marks), self.driver.now_ms())

    def perform(self, order: e.MemberOrder, now_ms: int) -> None:  # noqa: C901 - one arm each
        """Do what the member ordered; never runs user code, never switches to it."""
        del now_ms
        match order:
            case e.SendRequest():
                self.driver.send(order)
                return
            case e.BufferRecords():
                self._buffer(order)
            case e.RevokePartitions():
                self._revoke(order)
            case e.LosePartitions():
                self._lose(order)
            case e.AbandonPartitions():
                self._abandon(order)
            case e.AssignPartitions():
                self._assign(order)
            case e.DropBuffered():
                self._drop_buffered(order)
            case e.SetDeliverUntil():
                self.deliver_until_ms = order.deliver_until_ms
            case e.CommitFinished():
                self.finished_commits[order.ticket] = order.error_code
            case e.Notify():
                self.notifications.append(order)
            case e.ReportError():
                self._report(order)
            case e.Closed():
                self.closed = True
                self._stop_hand_outs()
            case _:
                assert_never(order)
        self.driver.notify()

    def _buffer(self, order: e.BufferRecords) -> None:
        assert self._payload is not None, f"request {order.request_id} came without its records"
        for kept in order.partitions:
            tp = TopicPartition(kept.topic, kept.partition)
            stream = self.streams.get(tp)
            assert stream is not None, f"{tp} is not owned"
            assert stream.tenure == kept.tenure, f"{tp}: tenure {kept.tenure} is over"
            assert not stream.queue, f"{tp}: fetched again before its buffer was empty"
            stream.queue.extend(r for r in self._payload[tp] if r.offset >= kept.offset)
            if stream.queue:
                self.ready.append(stream)
            else:
                self._drained(stream)

    def _revoke(self, order: e.RevokePartitions) -> None:
        assert self.revoking is None, f"revocation {order.revocation_id} while one is open"
        self.revoking = order
        self._stop_hand_outs()
        answer = e.PartitionsRevoked(order.revocation_id, ())
        self.owed.append(Owed("revoked", order.partitions, answer))

    def _abandon(self, order: e.AbandonPartitions) -> None:
        """The user's thread did not come in time; what it holds is no longer protected."""
        if self.revoking is None or not self._is_open(order.revocation_id):
            return
        held = self.in_flight
        abandoned = () if held is None else (TopicPartition(held.topic, held.partition),)
        self._forget_owed("revoked")
        self.owed.append(Owed("lost", self.revoking.partitions, None))
        self.driver.post(e.PartitionsRevoked(order.revocation_id, abandoned))

    def _lose(self, order: e.LosePartitions) -> None:
        self._stop_hand_outs()
        self._forget_owed("revoked")
        self._end_tenures()
        answer = e.PartitionsLost(order.revocation_id)
        self.owed.append(Owed("lost", order.partitions, answer))

    def _forget_owed(self, kind: str) -> None:
        self.owed = deque(item for item in self.owed if item.kind != kind)

    def _assign(self, order: e.AssignPartitions) -> None:
        assert not self.streams, f"assigned while {sorted(self.streams)} are owned"
        self.generation_id = order.generation_id
        for item in order.partitions:
            tp = TopicPartition(item.topic, item.partition)
            self.streams[tp] = Stream(tp, item.tenure)
        self.owed.append(Owed("assigned", tuple(self.streams), None))

    def _drop_buffered(self, order: e.DropBuffered) -> None:
        stream = self.streams.get(TopicPartition(order.topic, order.partition))
        if stream is not None and stream.tenure == order.tenure:
            stream.queue.clear()
            self.ready = deque(item for item in self.ready if item is not stream)

    def _report(self, order: e.ReportError) -> None:
        if order.fatal:
            self.fatal = GroupFatalError(order.error_code, order.context)
        else:
            self.errors.append(ConsumerError(order.error_code, order.context))

    def _stop_hand_outs(self) -> None:
        self.ready.clear()
        for stream in self.streams.values():
            stream.queue.clear()

    def _end_tenures(self) -> None:
        self.streams.clear()
        self._dirty.clear()
        self.revoking = None

    # The user's side; each of these holds the lock

    def settle(self) -> None:
        """The user asks for the next one: it is done with the one before."""
        self.in_flight = None
        self._polled_ms = self.driver.now_ms()

    def set_waiting(self, waiting: bool) -> None:
        """Tell the member that the user's thread sits inside the call, or leaves it."""
        if waiting != self.waiting:
            self.waiting = waiting
            self._told_polled_ms = self._polled_ms = self.driver.now_ms()
            self.driver.post(e.UserPolled(waiting, self._polled_ms))

    def next_message(self) -> Message | None:
        """Hand out the next record that this member may still handle; None: there is none now."""
        while self.ready:
            stream = self.ready[0]
            if stream.paused:
                self.ready.popleft()
                continue
            if self.driver.now_ms() >= self.deliver_until_ms:
                return None
            record = stream.queue.popleft()
            if stream.first_out < 0:
                stream.first_out = record.offset
            stream.last_out = record.offset
            if not stream.queue:
                self.ready.popleft()
                self._drained(stream)
            self.in_flight = Message(stream.tp.topic, stream.tp.partition, stream.tenure, record)
            return self.in_flight
        return None

    def _drained(self, stream: Stream) -> None:
        self._tell_range(stream)
        self.driver.post(e.BufferDrained(stream.tp.topic, stream.tp.partition, stream.tenure))

    def _tell_range(self, stream: Stream) -> None:
        if stream.first_out >= 0:
            topic, partition = stream.tp
            first, last = stream.first_out, stream.last_out
            stream.first_out = stream.last_out = -1
            self.driver.post(e.RecordsHandedOut(topic, partition, stream.tenure, first, last))

    def take_owed(self) -> Owed | None:
        """The next callback that is due, nothing being in flight."""
        assert self.in_flight is None, f"{self.in_flight} is still in flight"
        return self.owed.popleft() if self.owed else None

    def answer(self, owed: Owed) -> None:
        """The callback has run: tell the member what it waits for."""
        if owed.answer is None:
            return
        if isinstance(owed.answer, e.PartitionsRevoked):
            if not self._is_open(owed.answer.revocation_id):
                return
            for stream in self.streams.values():
                self._tell_range(stream)
        self.driver.post(owed.answer)

    def mark(self, tp: TopicPartition, tenure: int | None, offset: int, metadata: str) -> None:
        """Note that all up to `offset` is done; a tenure that is over is only counted."""
        stream = self.streams.get(tp)
        if stream is None or (tenure is not None and stream.tenure != tenure):
            self.stale_marks += 1
            return
        if offset <= stream.mark:
            return
        stream.mark = offset
        stream.metadata = metadata
        if not self._dirty:
            topic, partition = tp
            self.driver.post(
                e.MarksTaken((e.Mark(topic, partition, stream.tenure, offset, metadata),))
            )
        self._dirty[tp] = stream

    def resume(self, tp: TopicPartition) -> None:
        stream = self.streams.get(tp)
        if stream is not None and stream.paused:
            stream.paused = False
            if stream.queue:
                self.ready.append(stream)
