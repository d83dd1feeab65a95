"""The public consumer: what sarama-cluster's Consumer is in Go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from ksim.consumer import checked
from ksim.consumer.client import Client
from ksim.consumer.config import Acknowledge, Config, ConsumerMode
from ksim.consumer.engine import Engine, Tap
from ksim.consumer.insight import Insight
from ksim.consumer.message import (
    Message,
    RebalanceListener,
    message_of,
)
from ksim.consumer.offsets import (
    BrokerOffsetStore,
    DefaultOffsetStoreFactory,
    OffsetStash,
    OffsetStore,
    OffsetStoreFactory,
)
from ksim.consumer.partitions import PartitionConsumer
from ksim.consumer.pool import Handler, Readers, WorkerPool
from ksim.consumer.port import Driver
from ksim.consumer.stream import Stream, let_go
from ksim.core import events as e
from ksim.core.asks import refusal
from ksim.core.errors import CommitFailedError, KafkaError, MisuseError
from ksim.core.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from ksim.core.values import TopicPartition
from ksim.texts import shown
from ksim.wiring import driver_for

CLOSE_TIMEOUT_MS = 30_000
CLOSE_MARGIN_MS = 1_000
ABANDON_MS = 500
LOOK_MS = 100
MAX_BATCH_RECORDS = 500
DEFAULT_STORE_FACTORY = DefaultOffsetStoreFactory()


class Consumer(Insight):
    """A member of a consumer group. Iterate it, `mark_offset` what is done, `close` it.

    As a context manager it closes itself: marks are committed, the group is left, and an
    exception goes on. Its methods are for one thread of the user, but for those that end it and
    those that only look. Raises GroupFatalError where the group refuses for good, NoBrokerError
    where no broker answers at the start.
    """

    def __init__(
        self,
        config: Config,
        *,
        offset_store_factory: OffsetStoreFactory = DEFAULT_STORE_FACTORY,
        listener: RebalanceListener | None = None,
        driver: Driver | None = None,
        taps: Sequence[Tap] = (),
    ) -> None:
        self.config = config
        self._driver = driver or driver_for(config)
        self._client: Client | None = None
        self._store = offset_store_factory.gen_offset_store(self) or BrokerOffsetStore(self)
        self._engine = Engine(config, self._driver, listener, taps, self._store)
        self._listener = listener
        self._tickets = 0
        self._closing = False
        self._closer: object | None = None  # the thread that does the work of `close`
        self._shut = False
        self._stopping = False
        self._in_callback: object | None = None  # the thread that runs one
        self._driver.open(self._engine)
        self._driver.post(e.Started())

    @classmethod
    def from_client(
        cls,
        client: Client,
        group_id: str,
        topics: Sequence[str],
        *,
        offset_store_factory: OffsetStoreFactory = DEFAULT_STORE_FACTORY,
        listener: RebalanceListener | None = None,
    ) -> Consumer:
        """With the client's configuration, for this group and these topics.

        Raises ClientInUseError while a consumer of this client is not closed, ConfigError for
        topics that `Config` does not take.
        """
        several = isinstance(topics, Iterable) and not isinstance(topics, str)
        wanted: Any = tuple(topics) if several else topics  # a text would be its letters
        config = replace(client.config, group_id=group_id, topics=wanted)
        client.begin_use()
        try:
            made = cls(config, offset_store_factory=offset_store_factory, listener=listener)
        except BaseException:
            client.end_use()
            raise
        made._client = client
        return made

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        self.dump_on_error(error)
        with self._driver.lock:
            self._engine.give_up_unfinished()  # nobody is left to acknowledge it
        try:
            self.close()
        except Exception as closing:  # noqa: BLE001 - what ended the block is what its owner asks for
            error.add_note(f"close() raised {type(closing).__name__}: {closing}")

    def __iter__(self) -> Iterator[Message]:
        """Messages until the consumer is closed; asking for the next one ends the one before.

        One that is closed already has none: another thread may have closed it at any moment.
        """
        return self.messages()

    def messages(self, timeout_ms: int | None = None) -> Iterator[Message]:
        """Messages until none comes for `timeout_ms` (None: until closed)."""
        self._check_mode(ConsumerMode.MULTIPLEX, "messages()")
        limit_ms = checked.timeout_or_none("timeout_ms", timeout_ms)
        return (found[0] for found in self._several(1, limit_ms))

    def batches(
        self, max_records: int = MAX_BATCH_RECORDS, timeout_ms: int | None = None
    ) -> Iterator[Sequence[Message]]:
        """As `messages`, but several at once, all of one partition; the whole batch is in flight.

        Mark its last message when all of it is done.
        """
        self._check_mode(ConsumerMode.MULTIPLEX, "messages()")
        most = checked.whole("max_records", max_records, 1, checked.MOST)
        return self._several(most, checked.timeout_or_none("timeout_ms", timeout_ms))

    def _several(self, most: int, timeout_ms: int | None) -> Iterator[Sequence[Message]]:
        while found := self._take(most, timeout_ms):
            yield found

    def partitions(self) -> Iterator[PartitionConsumer]:
        """Each partition that this member gets, as long as it has it; ends with the consumer.

        In partitions mode only. Read it for the whole life of the consumer: callbacks run in the
        thread that does, and a rebalance waits for them. Give each to a thread of its own.
        """
        self._check_mode(ConsumerMode.PARTITIONS, "partitions()")
        return self._partitions()

    def _partitions(self) -> Iterator[PartitionConsumer]:
        while (stream := self._next_partition()) is not None:
            yield PartitionConsumer(self._engine, stream, self._is_ending)

    def _is_ending(self) -> bool:
        return self._closing or self._stopping

    def _next_partition(self) -> Stream | None:
        self._check_thread_use()
        engine, driver = self._engine, self._driver
        with driver.lock:
            engine.called_in()
            while not self._shut:
                self._run_owed()
                if engine.fatal is not None:
                    raise engine.fatal
                if engine.closed or self._is_ending():
                    return None
                if engine.fresh:
                    return engine.fresh.popleft()
                engine.set_waiting(not engine.held)
                driver.wait(None)
            return None

    def run(self, handler: Handler[Any], *, workers: int = 1) -> None:
        """Call `handler(message)` in so many workers; each message is acknowledged by itself.

        Returns after `stop` or `close`; raises what a handler raised, once the others are done with
        theirs. Messages of one partition run beside each other. Needs `acknowledge="each"`.
        In partitions mode: `handler(partition)`, in a worker of its own for each that comes, until
        it ends. One that returns before gives it back, as `partition.close()` does.
        """
        if self.config.mode == ConsumerMode.PARTITIONS:
            readers = Readers(self._driver, handler, self._is_ending)
            readers.run(self.partitions(), self.stop)
            return
        if self.config.acknowledge != Acknowledge.EACH:
            raise MisuseError('run() needs acknowledge = "each"')
        count = checked.whole("workers", workers, 1, checked.MOST)
        pool = WorkerPool(self._driver, handler, count)
        pool.run(lambda: self._take(1, None, pool), self._engine.give_up_unfinished)

    def _take(
        self, most: int, timeout_ms: int | None, pool: WorkerPool | None = None
    ) -> Sequence[Message]:
        """What is handed out next, into the pool if there is one; nothing at the end or in time."""
        self._check_thread_use()
        engine, driver = self._engine, self._driver
        with driver.lock:
            engine.settle()
            until_ms = None if timeout_ms is None else driver.now_ms() + timeout_ms
            found: Sequence[Message] = []
            while not self._shut:
                self._run_owed()
                ready = self._is_ready(pool)
                found = engine.next_batch(most) if ready else []
                if found or self._has_ended(pool):
                    break
                if until_ms is not None and driver.now_ms() >= until_ms:
                    break
                engine.set_waiting(ready)  # a pool that is busy does not wait for messages
                driver.wait(until_ms)
            engine.set_waiting(False)
            if engine.fatal is not None and not self._shut:
                raise engine.fatal
            if pool is not None and found:
                pool.put(found[0])
            return found

    def _is_ready(self, pool: WorkerPool | None) -> bool:
        """Something may be handed out: not while another thread still runs a callback."""
        ending = self._has_ended(pool) or self._in_callback is not None
        return not ending and (pool is None or pool.takes)

    def _has_ended(self, pool: WorkerPool | None) -> bool:
        engine = self._engine
        ended = engine.closed or self._is_ending() or engine.fatal is not None
        return ended or (pool is not None and pool.failure is not None)

    def _check_mode(self, needed: ConsumerMode, what: str) -> None:
        if self.config.mode != needed:
            raise MisuseError(f"{what} needs mode = {needed.value!r}")

    def _check_thread_use(self) -> None:
        if self._in_callback == self._driver.current():
            raise MisuseError("reading inside a rebalance callback")

    def _run_owed(self) -> None:
        """Run what the member waits for, in this thread; one callback at a time."""
        while self._in_callback is None and (owed := self._engine.take_owed()) is not None:
            self._in_callback = self._driver.current()
            try:
                with self._driver.unlocked():
                    owed.tell(self._listener)
            finally:
                self._in_callback = None
                self._engine.answer(owed)
                self._driver.notify()  # whoever closes meanwhile has waited for it

    # Marks and commits

    def mark_offset(self, message: Message, metadata: str = "") -> None:
        """All up to and including this message is done; committed at the next interval."""
        self._check_marks()
        tp = TopicPartition(message_of(message).topic, message.partition)
        metadata = checked.text("metadata", metadata)
        with self._driver.lock:
            self._engine.mark(tp, message.tenure, message.offset, metadata, message.reading)

    def mark_partition_offset(
        self, topic: str, partition: int, offset: int, metadata: str = ""
    ) -> None:
        """The same by name; `offset` is the one that was processed.

        Raises MisuseError for what Kafka cannot be told: an offset below 0, for one.
        """
        self._check_marks()
        tp = checked.partition_of(topic, partition)
        offset, metadata = checked.mark_of(offset, metadata)
        with self._driver.lock:
            self._engine.mark(tp, None, offset, metadata)

    def mark_offsets(self, stash: OffsetStash) -> None:
        """Mark all that was stashed."""
        self._check_marks()
        if not isinstance(stash, OffsetStash):
            raise MisuseError(f"stash = {shown(stash)}: an OffsetStash is needed")
        with self._driver.lock:
            for tp, mark in stash.marks():
                self._engine.mark(tp, mark.tenure, mark.offset, mark.metadata, mark.reading)

    def _check_marks(self) -> None:
        if self.config.acknowledge == Acknowledge.EACH:
            raise MisuseError('acknowledge = "each": call message.ack() instead of a mark')

    def commit_offsets(self, timeout_ms: int = CLOSE_TIMEOUT_MS) -> None:
        """Commit what is marked and wait for the answer. Raises CommitFailedError.

        Marks that came after their tenure was over are not part of it: see `stale_marks`.
        """
        limit_ms = checked.timeout("timeout_ms", timeout_ms)
        with self._driver.lock:
            self._engine.called_in()
            until_ms = self._driver.now_ms() + limit_ms
            error_code = self._asked(e.CommitRequested, until_ms)
        if error_code != KafkaError.NONE:
            raise CommitFailedError(error_code or KafkaError.REQUEST_TIMED_OUT)

    def _asked(self, ask: Callable[[int], e.MemberFact], until_ms: int) -> Any:
        """Holding the lock: post what asks, wait for its answer; None: it came too late."""
        driver, answers = self._driver, self._engine.answers
        self._tickets += 1
        ticket = self._tickets
        answers[ticket] = None
        driver.post(ask(ticket))
        while answers[ticket] is None and driver.now_ms() < until_ms and not self._engine.closed:
            driver.wait(until_ms)
        return answers.pop(ticket)

    # The store's requests

    @property
    def offset_store(self) -> OffsetStore:
        """The store that the factory made; a BrokerOffsetStore where the coordinator keeps them."""
        return self._store

    def ask_offsets(
        self, request: OffsetCommitRequest | OffsetFetchRequest
    ) -> OffsetCommitResponse | OffsetFetchResponse:
        """For BrokerOffsetStore: carry it to the coordinator, and wait for its answer."""
        request = checked.request_of(request)
        if request.group_id != self.config.group_id:
            group_id = self.config.group_id
            raise MisuseError(f"offsets of group {request.group_id!r}: this is {group_id!r}")
        with self._driver.lock:
            if self._engine.closed:
                raise MisuseError("offsets after close()")
            until_ms = self._driver.now_ms() + self.config.request_timeout_ms
            found = self._asked(lambda ticket: e.OffsetsRequested(ticket, request), until_ms)
        return refusal(request, KafkaError.REQUEST_TIMED_OUT) if found is None else found

    @property
    def ended(self) -> bool:
        """The iteration is over for good: by `stop`, by `close`, or by the group."""
        return self._stopping or self._closing or self._engine.closed

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing of these until `resume`, or as long as they are owned.

        What is not owned is left out: who gets it later gets it unpaused.
        """
        wanted = checked.partitions_of("pause", partitions)
        with self._driver.lock:
            self._engine.called_in()
            owned = tuple(tp for tp in wanted if tp in self._engine.streams)
            for tp in owned:
                self._engine.streams[tp].paused = True
            self._driver.post(e.Paused(owned))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out these again, from where they stood."""
        wanted = checked.partitions_of("resume", partitions)
        with self._driver.lock:
            for tp in wanted:
                self._engine.resume(tp)
            self._driver.post(e.Resumed(wanted))

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """The next message of this partition is the one at `offset`, marks count from there.

        Raises MisuseError for a partition that is not owned, or an offset below 0.
        """
        tp = checked.partition_of(topic, partition)
        offset = checked.whole(f"seek of {tp}: offset", offset, 0, checked.LAST_OFFSET)
        with self._driver.lock:
            if not self._engine.seek(tp, offset):
                owned = ", ".join(map(str, sorted(self._engine.streams))) or "none"
                raise MisuseError(f"seek of {tp}: owned are {owned}")

    # The end

    def stop(self) -> None:
        """From any thread or a signal handler: the iteration ends; `close` is still to come."""
        with self._driver.lock:
            self._stopping = True
            self._driver.notify()

    def abandon(self) -> None:
        """From any thread: be out of the group at once, whatever is in flight or not committed.

        Returns at once; what was not committed will be handled again by somebody.
        """
        leave = self.config.group_instance_id is None
        if not self._closing:
            self._closing = True
            self._driver.post(e.CloseRequested(ABANDON_MS, leave))
        self._driver.post(e.CloseRequested(ABANDON_MS, leave))

    @property
    def closed(self) -> bool:
        """The member has left, or gave up leaving; without a lock, for any thread."""
        return self._engine.closed

    def close(self, timeout_ms: int = CLOSE_TIMEOUT_MS, leave_group: bool | None = None) -> None:
        """Revoke, commit marks, leave the group; from any thread, may be called again.

        Reading ends. What another thread holds is waited for until it asks for the next one. In a
        callback it only says so and returns; the next `messages` ends, and the call from outside
        does the work. A static member stays in the group unless told to leave.
        """
        limit_ms = checked.timeout("timeout_ms", timeout_ms)
        if self._shut:
            return
        with self._driver.lock:
            if not self._closing:
                self._closing = True
                leave = (
                    self.config.group_instance_id is None if leave_group is None else leave_group
                )
                self._driver.post(e.CloseRequested(limit_ms, leave))
            if self._driver.current() in (self._in_callback, self._closer):
                return
            until_ms = self._driver.now_ms() + limit_ms + CLOSE_MARGIN_MS
            if self._closer is not None:
                # The one that closes it waits for what this thread holds.
                self._let_go()
                self._driver.notify()
                while not self._shut and self._driver.now_ms() < until_ms:
                    self._driver.wait(until_ms)
                return
        try:
            self._closer = self._driver.current()
            with self._driver.lock:
                self._wait_closed(until_ms)
        finally:
            self._shut_all()

    def _shut_all(self) -> None:
        store_is_free = True
        try:
            store_is_free = self._driver.shut()
        finally:
            try:
                if store_is_free:
                    self._store.close()
            finally:
                if self._client is not None:
                    self._client.end_use()
                with self._driver.lock:
                    self._shut = True
                    self._driver.notify()

    def _wait_closed(self, until_ms: int) -> None:
        """Raises the first that a callback raised, after the member has left all the same."""
        engine, driver = self._engine, self._driver
        raised: list[Exception] = []
        engine.called_in()
        while not engine.closed and driver.now_ms() < until_ms:
            others = self._let_go()
            self._run_owed_at_the_end(raised)
            if not engine.closed:
                # A thread that holds something may end, of which nobody tells.
                driver.wait(min(until_ms, driver.now_ms() + LOOK_MS) if others else until_ms)
        self._run_owed_at_the_end(raised)
        if raised:
            raise raised[0]

    def _let_go(self) -> bool:
        """Whether another thread is busy with what it was handed out."""
        if self.config.acknowledge == Acknowledge.EACH:
            return False
        return let_go(self._engine.streams.values(), self._driver.current())

    def _run_owed_at_the_end(self, raised: list[Exception]) -> None:
        """A callback that raises keeps none of those behind it from being told."""
        while True:
            try:
                self._run_owed()
            except Exception as error:  # noqa: BLE001 - the user's code; raised when all is closed
                raised.append(error)
            else:
                return
