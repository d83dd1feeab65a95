"""The public consumer: what sarama-cluster's Consumer is in Go, in multiplex mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType

from ksim.consumer.config import Config, ConsumerMode
from ksim.consumer.engine import Engine, Owed, Tap
from ksim.consumer.message import (
    ConsumerError,
    Message,
    Notification,
    NotificationType,
    RebalanceListener,
)
from ksim.consumer.port import Driver
from ksim.core import events as e
from ksim.core.errors import CommitFailedError, ConfigError, MisuseError
from ksim.core.values import TopicPartition
from ksim.wiring import driver_for

CLOSE_TIMEOUT_MS = 30_000
CLOSE_MARGIN_MS = 1_000
NOTIFICATION_TYPES = {
    "rebalance_start": NotificationType.REBALANCE_START,
    "rebalance_ok": NotificationType.REBALANCE_OK,
}


class Consumer:
    """A member of a consumer group. Iterate it, `mark_offset` what is done, `close` it.

    As a context manager it closes itself: marks are committed, the group is left, and an
    exception goes on. All methods are for one thread of the user. Raises GroupFatalError where
    the group refuses for good, NoBrokerError where no broker answers at the start.
    """

    def __init__(
        self,
        config: Config,
        *,
        listener: RebalanceListener | None = None,
        driver: Driver | None = None,
        taps: Sequence[Tap] = (),
    ) -> None:
        if config.mode != ConsumerMode.MULTIPLEX:
            raise ConfigError(f"mode = {config.mode.value!r}: only 'multiplex' is there yet")
        self.config = config
        self._driver = driver or driver_for(config)
        self._engine = Engine(config, self._driver, listener, taps)
        self._listener = listener
        self._tickets = 0
        self._closing = False
        self._shut = False
        self._stopping = False
        self._in_callback = False
        self._seen: tuple[TopicPartition, ...] = ()
        self._driver.open(self._engine)
        self._driver.post(e.Started())

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        """Messages until the consumer is closed; asking for the next one ends the one before."""
        return self.messages()

    def messages(self, timeout_ms: int | None = None) -> Iterator[Message]:
        """Messages until none comes for `timeout_ms` (None: until closed)."""
        while (message := self._next(timeout_ms)) is not None:
            yield message

    def _next(self, timeout_ms: int | None) -> Message | None:
        self._check_thread_use()
        engine, driver = self._engine, self._driver
        with driver.lock:
            engine.settle()
            until_ms = None if timeout_ms is None else driver.now_ms() + timeout_ms
            while True:
                self._run_owed()
                ending = self._closing or self._stopping
                message = None if ending else engine.next_message()
                if message is not None or engine.closed or ending:
                    break
                if until_ms is not None and driver.now_ms() >= until_ms:
                    break
                engine.set_waiting(True)
                driver.wait(until_ms)
            engine.set_waiting(False)
            if engine.fatal is not None:
                raise engine.fatal
            return message

    def _check_thread_use(self) -> None:
        if self._in_callback:
            raise MisuseError("messages() inside a rebalance callback")
        if self._shut:
            raise MisuseError("messages() after close()")

    def _run_owed(self) -> None:
        """Run what the member waits for, in this thread, which is the user's."""
        while (owed := self._engine.take_owed()) is not None:
            try:
                self._call_back(owed)
            finally:
                self._engine.answer(owed)

    def _call_back(self, owed: Owed) -> None:
        if self._listener is None:
            return
        self._in_callback = True
        try:
            match owed.kind:
                case "assigned":
                    self._listener.on_partitions_assigned(owed.partitions)
                case "revoked":
                    self._listener.on_partitions_revoked(owed.partitions)
                case _:
                    self._listener.on_partitions_lost(owed.partitions)
        finally:
            self._in_callback = False

    # Marks and commits

    def mark_offset(self, message: Message, metadata: str = "") -> None:
        """All up to and including this message is done; committed at the next interval."""
        tp = TopicPartition(message.topic, message.partition)
        with self._driver.lock:
            self._engine.mark(tp, message.tenure, message.offset, metadata)

    def mark_partition_offset(
        self, topic: str, partition: int, offset: int, metadata: str = ""
    ) -> None:
        """The same by name; `offset` is the one that was processed."""
        with self._driver.lock:
            self._engine.mark(TopicPartition(topic, partition), None, offset, metadata)

    def commit_offsets(self, timeout_ms: int = CLOSE_TIMEOUT_MS) -> None:
        """Commit what is marked and wait for the answer. Raises CommitFailedError."""
        driver, finished = self._driver, self._engine.finished_commits
        with driver.lock:
            self._tickets += 1
            ticket = self._tickets
            until_ms = driver.now_ms() + timeout_ms
            driver.post(e.CommitRequested(ticket))
            while ticket not in finished:
                if driver.now_ms() >= until_ms or self._engine.closed:
                    raise CommitFailedError(7)
                driver.wait(until_ms)
            error_code = finished.pop(ticket)
        if error_code:
            raise CommitFailedError(error_code)

    # What is known

    def subscriptions(self) -> dict[str, list[int]]:
        """Topic to partitions that this member owns now."""
        with self._driver.lock:
            found: dict[str, list[int]] = {}
            for tp in sorted(self._engine.streams):
                found.setdefault(tp.topic, []).append(tp.partition)
            return found

    def high_water_marks(self) -> dict[TopicPartition, int]:
        """The end of each partition as last seen by a fetch."""
        with self._driver.lock:
            return dict(self._engine.high_water_marks)

    @property
    def ended(self) -> bool:
        """The iteration is over for good: by `stop`, by `close`, or by the group."""
        return self._stopping or self._closing or self._engine.closed

    @property
    def generation_id(self) -> int:
        """The generation of the last assignment; -1 before the first."""
        return self._engine.generation_id

    @property
    def stale_marks(self) -> int:
        """Marks that came after their tenure was over and were ignored."""
        return self._engine.stale_marks

    def errors(self) -> list[ConsumerError]:
        """Refusals since the last call, oldest first; at most 1,000 are kept."""
        with self._driver.lock:
            found = list(self._engine.errors)
            self._engine.errors.clear()
            return found

    def notifications(self) -> list[Notification]:
        """Rebalances since the last call, oldest first; at most 1,000 are kept."""
        with self._driver.lock:
            orders = list(self._engine.notifications)
            self._engine.notifications.clear()
        return [self._notification(order) for order in orders]

    def _notification(self, order: e.Notify) -> Notification:
        kind = NOTIFICATION_TYPES.get(order.kind, NotificationType.UNKNOWN)
        before, current = self._seen, order.partitions
        if kind == NotificationType.REBALANCE_OK:
            self._seen = current
        return Notification(
            kind,
            order.generation_id,
            tuple(tp for tp in current if tp not in before),
            tuple(tp for tp in before if tp not in current),
            current,
        )

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out nothing of these until `resume`."""
        with self._driver.lock:
            for tp in partitions:
                if tp in self._engine.streams:
                    self._engine.streams[tp].paused = True
            self._driver.post(e.Paused(tuple(partitions)))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out these again, from where they stood."""
        with self._driver.lock:
            for tp in partitions:
                self._engine.resume(tp)
            self._driver.post(e.Resumed(tuple(partitions)))

    # The end

    def stop(self) -> None:
        """From any thread or a signal handler: the iteration ends; `close` is still to come."""
        with self._driver.lock:
            self._stopping = True
            self._driver.notify()

    def close(self, timeout_ms: int = CLOSE_TIMEOUT_MS, leave_group: bool | None = None) -> None:
        """Revoke, commit marks, leave the group; may be called again, and in a callback.

        In a callback it only says so and returns; the next `messages` ends, and the call from
        outside does the work. A static member stays in the group unless told to leave.
        """
        if self._shut:
            return
        with self._driver.lock:
            if not self._closing:
                self._closing = True
                leave = (
                    self.config.group_instance_id is None if leave_group is None else leave_group
                )
                self._driver.post(e.CloseRequested(timeout_ms, leave))
            if self._in_callback:
                return
            self._wait_closed(timeout_ms)
        self._shut = True
        self._driver.shut()

    def _wait_closed(self, timeout_ms: int) -> None:
        until_ms = self._driver.now_ms() + timeout_ms + CLOSE_MARGIN_MS
        self._engine.settle()
        while not self._engine.closed and self._driver.now_ms() < until_ms:
            self._run_owed()
            if not self._engine.closed:
                self._driver.wait(until_ms)
        self._run_owed()
