"""Between the member and the user's thread: buffers, what is in flight, marks, owed callbacks.

The owner feeds facts and performs orders here; the user's thread takes messages. Both hold the
driver's lock. Nothing here decides about the group: it answers the member's orders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

from ksim.consumer.config import Acknowledge, Config, ConsumerMode
from ksim.consumer.message import ConsumerError, Message, RebalanceListener
from ksim.consumer.news import News, consumer_error
from ksim.consumer.observed import Observed
from ksim.consumer.offsets import BrokerOffsetStore, OffsetStore, ask_store
from ksim.consumer.port import Driver
from ksim.consumer.stream import Owed, Stream, offers_streams, takes_marks
from ksim.core import events as e
from ksim.core.acks import NOTHING
from ksim.core.errors import GroupFatalError
from ksim.core.member import Member
from ksim.core.messages import OffsetCommitRequest
from ksim.core.session import PayloadListener, Session, StepListener
from ksim.core.trace import Plain
from ksim.core.turn import STORE
from ksim.core.values import Payload, Record, SizedPayload, TopicPartition
from ksim.recorder import Recorder, flight_recorder_of

# Made with a way to take snapshots, when the member is made.
Tap = Callable[[Callable[[], Plain]], StepListener]


class Engine:
    """Implements `port.Feedable`; `Consumer` is its only other user."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        listener: RebalanceListener | None,
        taps: Sequence[Tap],
        store: OffsetStore | None = None,
    ) -> None:
        self.driver = driver
        self.listener = listener
        self.store = store
        own_store = store is not None and not isinstance(store, BrokerOffsetStore)
        wanted = config.member_config(own_offset_store=own_store)
        member = Member(wanted, driver.entropy())
        self.observed = Observed(driver.now_ms(), driver.tell)
        self.flight_recorder = flight_recorder_of(config)
        taps = taps if self.flight_recorder is None else (*taps, self.flight_recorder)
        tapped = [tap(member.snapshot) for tap in taps]
        self.session = Session(member, self, [self.observed, *tapped])
        self.recorders = [tap for tap in tapped if isinstance(tap, Recorder)]
        self.on_payload = [t.on_payload for t in tapped if isinstance(t, PayloadListener)]
        self.streams: dict[TopicPartition, Stream] = {}
        self.ready: deque[Stream] = deque()
        self._each = config.acknowledge == Acknowledge.EACH
        self._apart = config.mode == ConsumerMode.PARTITIONS
        self.fresh: deque[Stream] = deque()
        self._max_in_flight = config.max_in_flight
        self._current: list[Stream] = []
        self.owed: deque[Owed] = deque()
        self.revoking: e.RevokePartitions | None = None
        self._end_is_told = False
        self.generation_id = -1
        self.deliver_until_ms = 0
        self.answers: dict[int, Any] = {}  # by ticket; None: somebody waits for it
        self.news = News(config)
        self.fatal: GroupFatalError | None = None
        self.closed = False
        self.stale_marks = 0
        self.waiting = False
        self.polled_ms = self._told_polled_ms = driver.now_ms()
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
            if takes_marks(fact):
                self._take_marks()
            if isinstance(fact, e.TimerFired) and (at_ms := self._newly_polled_ms()) >= 0:
                self.session.feed(e.UserPolled(self.waiting, at_ms), self.driver.now_ms())
            elif isinstance(fact, e.UserPolled):
                self._told_polled_ms = max(self._told_polled_ms, fact.at_ms)
            self.news.learn(fact)
            self._payload = payload
            if payload is not None:
                for told in self.on_payload:
                    told(payload)
            self.session.feed(fact, self.driver.now_ms())
            self._payload = None
            if isinstance(fact, e.MarksTaken) and not self._member.will_commit:
                self._take_marks()
            if isinstance(fact, e.PartitionsRevoked) and self._is_open(fact.revocation_id):
                self._end_tenures()
            if self.listener is None:
                while (owed := self.take_owed()) is not None:
                    self.answer(owed)

    def _is_open(self, revocation_id: int) -> bool:
        return self.revoking is not None and self.revoking.revocation_id == revocation_id

    def _take_marks(self) -> None:
        if self._dirty:
            dirty = self._dirty.values()
            marks = tuple(e.Mark(*s.tp, s.tenure, s.mark, s.metadata) for s in dirty)
            self._dirty.clear()
            taken = e.MarksTaken(marks, self.waiting, self._newly_polled_ms())
            self.session.feed(taken, self.driver.now_ms())

    def _newly_polled_ms(self) -> int:
        """When the user last called in, for the member to be told now; -1: it knows."""
        told_ms, self._told_polled_ms = self._told_polled_ms, self.polled_ms
        return self.polled_ms if self.polled_ms > told_ms else -1

    def perform(self, order: e.MemberOrder, now_ms: int) -> None:  # noqa: C901 - one arm each
        """Do what the member ordered; never runs user code, never switches to it."""
        del now_ms
        match order:
            case e.SendRequest():
                self._send(order)
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
                self._answer(order.ticket, order.error_code)
            case e.OffsetsAnswered():
                self._answer(order.ticket, order.response)
            case e.Notify():
                self.news.notify(order)
            case e.ReportError():
                self._report(order)
            case e.Closed():
                self.closed = True
                self._stop_hand_outs()
            case _:
                assert_never(order)
        self.driver.notify()

    def _answer(self, ticket: int, answer: Any) -> None:
        if ticket in self.answers:
            self.answers[ticket] = answer

    def _send(self, order: e.SendRequest) -> None:
        store, request = self.store, order.request
        if isinstance(request, OffsetCommitRequest):
            self.news.commit_sent(order.request_id, request)
        if order.channel != STORE:
            self.driver.send(order)
            return
        assert store is not None, f"no store for request {order.request_id}"
        self.driver.call(partial(ask_store, store, order, self.driver.exits))

    def _buffer(self, order: e.BufferRecords) -> None:
        assert self._payload is not None, f"request {order.request_id} came without its records"
        sizes = self._payload.sizes if isinstance(self._payload, SizedPayload) else {}
        for kept in order.partitions:
            tp = TopicPartition(kept.topic, kept.partition)
            stream = self.streams.get(tp)
            assert stream is not None, f"{tp} is not owned"
            assert stream.tenure == kept.tenure, f"{tp}: tenure {kept.tenure} is over"
            assert not stream.queue, f"{tp}: fetched again before its buffer was empty"
            stream.queue.extend(r for r in self._payload[tp] if r.offset >= kept.offset)
            self.observed.took(tp, len(stream.queue), sizes.get(tp, 0))
            if stream.ended:
                stream.queue.clear()  # its reader has given it back
            elif not stream.queue:
                self._drained(stream)
            elif not self._apart:
                self.ready.append(stream)

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
        abandoned = tuple(tp for tp, stream in self.streams.items() if stream.held)
        if not self._end_is_told:
            self._owe_lost(self.revoking.partitions, None)
        self.driver.post(e.PartitionsRevoked(order.revocation_id, abandoned))

    def _lose(self, order: e.LosePartitions) -> None:
        self._stop_hand_outs()
        self._end_tenures()
        answer = e.PartitionsLost(order.revocation_id)
        if self._end_is_told:
            self.driver.post(answer)  # lost between the revocation and the last commit
        else:
            self._owe_lost(order.partitions, answer)

    def _owe_lost(
        self, partitions: tuple[TopicPartition, ...], answer: e.MemberFact | None
    ) -> None:
        """Instead of a revocation that has not been told yet; each end is told once."""
        self._end_is_told = True
        self.owed = deque(item for item in self.owed if item.kind != "revoked")
        self.owed.append(Owed("lost", partitions, answer))

    def _assign(self, order: e.AssignPartitions) -> None:
        assert not self.streams, f"assigned while {sorted(self.streams)} are owned"
        self.generation_id = order.generation_id
        self._end_is_told = False
        for item in order.partitions:
            tp = TopicPartition(item.topic, item.partition)
            self.streams[tp] = Stream(tp, item.tenure, item.offset)
        self.owed.append(Owed("assigned", tuple(self.streams), None))

    def _drop_buffered(self, order: e.DropBuffered) -> None:
        stream = self.streams.get(TopicPartition(order.topic, order.partition))
        if stream is not None and stream.tenure == order.tenure:
            if order.sought:
                stream.seeking -= 1
                self._empty(stream)  # an answer to a fetch may have come between
            elif not stream.seeking:
                self._cut(stream, order.offset)

    def _cut(self, stream: Stream, end_offset: int) -> None:
        """The log ends here now; what stands before is there, and goes on."""
        buffered = bool(stream.queue)
        stream.cut(end_offset)
        if self._each:
            stream.held = len(stream.unfinished)
        if not stream.queue:
            self._empty(stream)
            if buffered:
                self._drained(stream)

    def _empty(self, stream: Stream) -> None:
        stream.queue.clear()
        self.ready = deque(item for item in self.ready if item is not stream)
        if stream.mark < 0:
            self._dirty.pop(stream.tp, None)

    def _report(self, order: e.ReportError) -> None:
        if order.fatal:
            self.fatal = GroupFatalError(order.error_code, order.context)
            return
        stream = self.streams.get(TopicPartition(order.topic, order.partition))
        self.news.report(consumer_error(order), stream if self._apart else None)

    def _stop_hand_outs(self) -> None:
        self.ready.clear()
        for stream in self.streams.values():
            stream.queue.clear()

    def _end_tenures(self) -> None:
        for stream in self.streams.values():
            stream.ended = True
        self.streams.clear()
        self.fresh.clear()
        self._dirty.clear()
        self.revoking = None

    # The user's side; each of these holds the lock

    def settle(self) -> None:
        """The user asks for the next one: it is done with the one before."""
        self.called_in()
        if not self._each:
            for stream in self._current:
                stream.held = 0
            self._current.clear()

    def called_in(self) -> None:
        """The user's code is alive."""
        self.polled_ms = self.driver.now_ms()

    @property
    def held(self) -> int:
        """How many messages are in flight in all."""
        return sum(stream.held for stream in self.streams.values())

    def set_waiting(self, waiting: bool) -> None:
        """Tell the member that the user's thread sits inside the call, or leaves it."""
        if waiting != self.waiting:
            self.waiting = waiting
            self.polled_ms = self.driver.now_ms()
            self.driver.post(e.UserPolled(waiting, self.polled_ms))

    def next_batch(self, most: int) -> list[Message]:
        """Hand out at most so many records of one partition, which this member may still handle."""
        stream = self._next_stream()
        found = [] if stream is None else self.next_of(stream, most)
        if found and stream is not None:
            if not stream.queue:
                self.ready.popleft()
            if not self._each:
                self._current.append(stream)
        return found

    def next_of(self, stream: Stream, most: int) -> list[Message]:
        """The same of this partition alone."""
        now_ms = self.driver.now_ms()
        if now_ms >= self.deliver_until_ms or stream.paused or stream.seeking:
            return []
        if self._each:
            most = min(most, self._max_in_flight - self.held)
        found: list[Message] = []
        while stream.queue and len(found) < most:
            found.append(self._hand_out(stream, stream.queue.popleft()))
        if found:
            self.news.handed_out(len(found), stream)
            self.driver.handed_out(found)
            stream.reader = self.driver.current()
            stream.moved_ms = self.driver.now_ms()  # it may have been stopped since it looked
            if not stream.queue:
                self._drained(stream)
        return found

    def settle_of(self, stream: Stream) -> None:
        """The reader of one partition asks for its next: it is done with the one before."""
        self.called_in()
        if stream.held and not self._each:
            stream.held = 0
            self.driver.notify()

    def give_back(self, stream: Stream) -> list[ConsumerError]:
        """The reader of one partition is done with it: the group shares anew."""
        found = list(stream.errors)
        stream.errors.clear()
        if not stream.ended:
            stream.ended = True
            stream.held = 0
            self._empty(stream)
            self._tell_range(stream)
            self.driver.post(e.PartitionClosed(*stream.tp, stream.tenure))
        self.driver.notify()
        return found

    def _next_stream(self) -> Stream | None:
        """The first that has something to hand out; paused ones wait for `resume`."""
        while self.ready and not self._gives(self.ready[0]):
            self.ready.popleft()
        return self.ready[0] if self.ready else None

    def _gives(self, stream: Stream) -> bool:
        return bool(stream.queue) and not stream.paused and not stream.seeking

    def _hand_out(self, stream: Stream, record: Record) -> Message:
        if stream.first_out < 0:
            stream.first_out = record.offset
        stream.last_out = record.offset
        if stream.ceiling is not None:
            stream.ceiling = record.offset
        stream.held += 1
        if not self._each:
            return Message(*stream.tp, stream.tenure, record, reading=stream.reading)
        stream.unfinished.add(record.offset)
        return Message(*stream.tp, stream.tenure, record, self._acknowledge, stream.reading)

    def _drained(self, stream: Stream) -> None:
        self._tell_range(stream)
        self.driver.post(e.BufferDrained(stream.tp.topic, stream.tp.partition, stream.tenure))

    def _tell_range(self, stream: Stream) -> None:
        if stream.first_out >= 0:
            first, last = stream.first_out, stream.last_out
            stream.first_out = stream.last_out = -1
            told = e.RecordsHandedOut(*stream.tp, stream.tenure, first, last, stream.moved_ms)
            self.driver.post(told)

    def take_owed(self) -> Owed | None:
        """The next callback that is due; a revocation waits until nothing is in flight."""
        if not self.owed or (self.owed[0].kind == "revoked" and self.held):
            return None
        owed = self.owed.popleft()
        self._end_is_told = self._end_is_told or owed.kind == "revoked"
        self.driver.told(owed.kind, owed.partitions)
        return owed

    def answer(self, owed: Owed) -> None:
        """The callback has run: tell the member what it waits for."""
        if self._apart and offers_streams(owed, self.owed):
            self.fresh.extend(self.streams.values())
        if owed.answer is None:
            return
        if isinstance(owed.answer, e.PartitionsRevoked):
            if not self._is_open(owed.answer.revocation_id):
                return
            for stream in self.streams.values():
                self._tell_range(stream)
        self.driver.post(owed.answer)

    def mark(
        self,
        tp: TopicPartition,
        tenure: int | None,
        offset: int,
        metadata: str,
        reading: int | None = None,
    ) -> None:
        """Note that all up to `offset` is done; a tenure that is over is only counted.

        So is a record from before a seek back: what comes after the seek was asked for again.
        """
        self.called_in()
        stream = self._stream_of(tp, tenure, reading, offset)
        if stream is not None and stream.ceiling is not None and offset > stream.ceiling:
            self.stale_marks += 1
        elif stream is not None and offset > stream.mark:
            self._raise_mark(stream, offset, metadata)

    def _stream_of(
        self, tp: TopicPartition, tenure: int | None, reading: int | None, offset: int
    ) -> Stream | None:
        stream = self.streams.get(tp)
        if stream is not None and stream.takes(tenure, reading, offset):
            return stream
        self.stale_marks += 1
        return None

    def _raise_mark(self, stream: Stream, offset: int, metadata: str) -> None:
        self.news.marked()
        stream.mark = offset
        stream.metadata = metadata
        if not self._dirty:
            self.driver.post(e.MarksTaken((e.Mark(*stream.tp, stream.tenure, offset, metadata),)))
        self._dirty[stream.tp] = stream

    def _acknowledge(self, message: Message, metadata: str) -> None:
        """From any thread: this one record is done."""
        with self.driver.lock:
            self.called_in()
            tp = TopicPartition(message.topic, message.partition)
            stream = self._stream_of(tp, message.tenure, message.reading, message.offset)
            if stream is None:
                return
            prefix = stream.unfinished.finish(message.offset)
            stream.held = len(stream.unfinished)
            if prefix != NOTHING and prefix > stream.mark:
                self._raise_mark(stream, prefix, metadata)
            self.driver.notify()

    def _start_anew(self, stream: Stream, offset: int) -> None:
        """What was handed out before does not hold anything back any more."""
        self._tell_range(stream)
        known = self.news.committed.get(stream.tp)
        stream.start = offset
        stream.start_anew(offset, -1 if known is None else known.offset)
        self._empty(stream)

    def give_up_unfinished(self) -> None:
        """Nobody is left who could acknowledge what was handed out."""
        for stream in self.streams.values():
            stream.held = 0

    def seek(self, tp: TopicPartition, offset: int) -> bool:
        """The next record of this partition is the one at `offset`; false: it is not owned."""
        self.called_in()
        stream = self.streams.get(tp)
        if stream is None:
            return False
        stream.seeking += 1
        self._start_anew(stream, offset)
        self.driver.post(e.Sought(tp.topic, tp.partition, stream.tenure, offset))
        return True

    def resume(self, tp: TopicPartition) -> None:
        stream = self.streams.get(tp)
        if stream is not None and stream.paused:
            stream.paused = False
            if stream.queue and not self._apart and stream not in self.ready:
                self.ready.append(stream)
            self.driver.notify()
