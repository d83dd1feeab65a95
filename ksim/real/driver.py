"""The driver of production: one owner thread that steps the engine between sockets and timers."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ksim.consumer.config import Config
from ksim.consumer.message import Message
from ksim.consumer.observed import Change
from ksim.consumer.port import Feedable, Pulse
from ksim.core.events import (
    MemberFact,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimerFired,
)
from ksim.core.messages import Response
from ksim.core.values import Payload, TopicPartition
from ksim.real import clock
from ksim.real.logs import log_change
from ksim.real.security import security_of
from ksim.real.store_thread import StoreThread
from ksim.real.transport import LONGEST_WAIT_MS, Transport
from ksim.trace_text import know_all_values
from ksim.wire.compiled import compile_messages

LOG = logging.getLogger("ksim.config")
OWNER_NAME = "ksim-owner"
WORKER_NAME = "ksim-worker"

# Done here, it is no part of the time from a member's start to its first record.
compile_messages()
know_all_values()


class RealDriver:
    """Implements `ksim.consumer.port.Driver` with kafka-python's wire format and real time."""

    def __init__(self, config: Config) -> None:
        self._lock = threading.Condition(threading.RLock())
        self._config = config
        self._posted: deque[MemberFact] = deque()
        for warning in config.warnings():
            LOG.warning(warning)
        self._transport = Transport(
            config.bootstrap_servers, config.client_id, self._on_result, security_of(config)
        )
        self._engine: Feedable | None = None
        self._thread: threading.Thread | None = None
        self._store: StoreThread | None = None
        self._turned_ms = clock.now_ms()
        self._stopping = False
        self._ended = False
        self.failure: BaseException | None = None

    @property
    def lock(self) -> threading.Condition:
        """Guards what the owner and the user's threads share; can be held more than once."""
        return self._lock

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """The user's callbacks run so: heartbeats go on for as long as they take."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def pulse(self) -> Pulse:
        """The owner looks up from its sockets at least once a second."""
        alive = self._thread is not None and self._thread.is_alive() and self.failure is None
        return Pulse(alive, self.now_ms() - self._turned_ms)

    def tell(self, change: Change) -> None:
        """One line in the log."""
        log_change(self._config.group_id, change)

    def told(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        """For those who watch an application."""

    def handed_out(self, messages: Sequence[Message]) -> None:
        """For those who watch an application."""

    def entropy(self) -> int:
        """A seed for one member, from the operating system."""
        return secrets.randbits(63)

    def now_ms(self) -> int:
        """Monotonic milliseconds that count suspend."""
        return clock.now_ms()

    def open(self, engine: Feedable) -> None:
        """Find a broker within `bootstrap_timeout_ms`, then start the owner.

        Raises NoBrokerError and AuthenticationError.
        """
        assert self._thread is None, "open is for once"
        assert not self._stopping, "open after shut"
        try:
            self._transport.bootstrap(self._config.bootstrap_timeout_ms)
        except BaseException:
            self._transport.close()
            raise
        self._engine = engine
        self._thread = threading.Thread(target=self._own, name=OWNER_NAME, daemon=True)
        self._thread.start()

    def post(self, fact: MemberFact) -> None:
        """From any thread: the owner will feed this fact, in order."""
        self._posted.append(fact)
        self._transport.wake()

    def send(self, order: SendRequest) -> None:
        """By the owner: send; exactly one ResponseReceived or RequestFailed is fed later."""
        assert threading.current_thread() is self._thread, "only the owner sends"
        self._transport.send(order)

    def current(self) -> object:
        """The calling thread; its number may be another one's when it has ended."""
        return threading.current_thread()

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        return ()  # nobody ends threads

    def spawn(self, function: Callable[[], None]) -> None:
        """Run a function in a thread of its own."""
        threading.Thread(target=function, name=WORKER_NAME, daemon=True).start()

    def call(self, function: Callable[[], MemberFact]) -> None:
        """Run a function on the store's thread, which is started with the first of them."""
        if self._store is None:
            self._store = StoreThread(self.post)
        self._store.call(function)

    def wait(self, until_ms: int | None) -> None:
        """Holding `lock`: release it until notified or until this time; raises `failure`.

        The condition's own timeouts do not count suspend, so long waits are cut in pieces.
        """
        notified = False
        while not notified and self.failure is None:
            left_ms = LONGEST_WAIT_MS if until_ms is None else until_ms - self.now_ms()
            if left_ms <= 0:
                break
            notified = self._lock.wait(min(left_ms, LONGEST_WAIT_MS) / 1_000)
        if self.failure is not None:
            raise self.failure

    def notify(self) -> None:
        """Holding `lock`: wake whoever waits."""
        self._lock.notify_all()

    def shut(self) -> bool:
        """End the owner and close connections; from the owner itself, as soon as it returns.

        False where the store's thread does not come back from its call within a while.
        """
        self._stopping = True
        store_is_free = self._store is None or self._store.end()
        self._end_owner()
        return store_is_free

    def _end_owner(self) -> None:
        if self._thread is None:
            self._transport.close()
            return
        if threading.current_thread() is self._thread:
            return
        self._transport.wake()
        # By the condition and not by join alone: the caller may hold the lock that the owner needs.
        with self._lock:
            while not self._ended:
                self._lock.wait(LONGEST_WAIT_MS / 1_000)
        self._thread.join()

    def _own(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - kept for `wait`, which raises it
            self.failure = error
        finally:
            self._transport.close()
            with self._lock:
                self._ended = True
                self._lock.notify_all()

    def _turn(self) -> None:
        self._turned_ms = self.now_ms()
        self._fire_timer()
        for _ in range(len(self._posted)):
            self._feed(self._posted.popleft())
        if not self._stopping:
            self._transport.poll(self._wait_ms())

    def _wait_ms(self) -> int | None:
        assert self._engine is not None
        if self._posted:
            return 0
        deadline_ms = self._engine.deadline_ms
        return None if deadline_ms is None else max(0, deadline_ms - self.now_ms())

    def _on_result(
        self, request_id: int, response: Response | None, payload: Payload | None, reason: str
    ) -> None:
        if response is None:
            assert reason, "a request fails for a reason"
            self._feed(RequestFailed(request_id, reason))
        else:
            self._feed(ResponseReceived(request_id, response), payload)

    def _fire_timer(self) -> None:
        assert self._engine is not None
        deadline_ms = self._engine.deadline_ms
        if deadline_ms is not None and deadline_ms <= self.now_ms() and not self._stopping:
            self._engine.feed(TimerFired())

    def _feed(self, fact: MemberFact, payload: Payload | None = None) -> None:
        """Feed, after the timer where it is due: a member that was stopped must first see that
        time has passed, before an old answer tells it that all is well.
        """
        self._fire_timer()
        if not self._stopping:
            assert self._engine is not None
            self._engine.feed(fact, payload)
