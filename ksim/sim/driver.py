"""The consumer's driver in virtual time: its owner is a set of callbacks, its user a greenlet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import greenlet

from ksim.consumer.port import Feedable
from ksim.core.events import (
    ANY_NODE,
    MemberFact,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimerFired,
)
from ksim.core.messages import Response
from ksim.core.values import Payload
from ksim.sim.gate import Gate
from ksim.sim.world import US_PER_MS, Handle, World

OnAnswer = Callable[[int, Response, Payload | None], None]
OnReset = Callable[[int, str], None]


class Cluster(Protocol):
    """What the driver needs of the simulated brokers."""

    def submit(self, client: SimDriver, node_id: int, order: SendRequest) -> None:
        """Carry a request to a broker; its answer comes by `client.answered`, or never."""

    def any_node(self, attempt: int) -> int:
        """A bootstrap choice; it may be one that is down."""


class SimDriver:
    """Implements `ksim.consumer.port.Driver` inside a World; one for each started member."""

    def __init__(
        self, world: World, cluster: Cluster, gate: Gate, name: str, client_id: str
    ) -> None:
        self.world = world
        self.name = name
        self.client_id = client_id
        self.gate = gate
        self.ended = False
        self._cluster = cluster
        self._engine: Feedable | None = None
        self._posted: deque[MemberFact] = deque()
        self._pumping = False
        self._sent: dict[int, tuple[SendRequest, int, int]] = {}
        self._timer: Handle | None = None
        self._timer_us = 0
        self._expiry: Handle | None = None
        self._expiry_us = 0
        self._attempt = 0
        self._user: greenlet.greenlet | None = None
        self._wake: Handle | None = None
        self._woken = False

    # The port

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Nothing runs at the same time here."""
        return nullcontext()

    def entropy(self) -> int:
        return self.world.stream(f"member {self.name}").getrandbits(63)

    def now_ms(self) -> int:
        return self.world.now_ms

    def open(self, engine: Feedable) -> None:
        self._engine = engine

    def post(self, fact: MemberFact) -> None:
        """The owner feeds it at this instant, but never inside the caller."""
        if self.ended:
            return
        self._posted.append(fact)
        if not self._pumping:
            self._pumping = True
            self.world.call_after(0, self.gate.enter, "owner", self._pump)

    def send(self, order: SendRequest) -> None:
        node_id = order.node_id
        if node_id == ANY_NODE:
            node_id = self._cluster.any_node(self._attempt)
            self._attempt += 1
        due_us = self.world.now_us + order.request_timeout_ms * US_PER_MS
        self._sent[order.request_id] = (order, node_id, due_us)
        self._arm_expiry()
        self._cluster.submit(self, node_id, order)

    def wait(self, until_ms: int | None) -> None:
        """Give the world its turn until `notify` or this time."""
        if self.ended:
            # Only the unwinding of a crashed member or of a finished run comes here.
            raise greenlet.GreenletExit
        assert self._user is None, f"{self.name} waits twice"
        self._user = greenlet.getcurrent()
        if until_ms is not None:
            self._wake = self.world.call_at(until_ms * US_PER_MS, self._resume_user, self._user)
        hub = self._user.parent
        assert hub is not None, f"{self.name} waits outside a greenlet"
        hub.switch()

    def sleep_us(self, after_us: int) -> None:
        """The user's thread is busy for so long: a handler's cost."""
        user = greenlet.getcurrent()
        hub = user.parent
        assert hub is not None, f"{self.name} sleeps outside a greenlet"
        self.world.call_after(after_us, self.gate.enter, "user", user.switch)
        hub.switch()

    def notify(self) -> None:
        if self._user is not None and not self._woken:
            self._woken = True
            self.world.call_after(0, self._resume_user, self._user)

    def shut(self) -> None:
        self.ended = True
        self._posted.clear()
        self._sent.clear()

    # What the world calls

    def _resume_user(self, user: greenlet.greenlet) -> None:
        self.gate.enter("user", self._switch_to, user)

    def _switch_to(self, user: greenlet.greenlet) -> None:
        if self._user is not None and self._user is user:
            self._user = None
            self._woken = False
            if self._wake is not None:
                self._wake.cancel()
                self._wake = None
            user.switch()

    def _pump(self) -> None:
        self._pumping = False
        for _ in range(len(self._posted)):
            if self._posted:
                self._feed(self._posted.popleft(), None)

    def _feed(self, fact: MemberFact, payload: Payload | None) -> None:
        if self.ended:
            return
        assert self._engine is not None, f"{self.name} is fed before open"
        deadline_ms = self._engine.deadline_ms
        if deadline_ms is not None and deadline_ms <= self.now_ms():
            self._engine.feed(TimerFired())
        if not isinstance(fact, TimerFired) and not self.ended:
            self._engine.feed(fact, payload)
        self._arm_timer()

    def _arm_timer(self) -> None:
        assert self._engine is not None, f"{self.name} has no engine"
        deadline_ms = self._engine.deadline_ms
        if deadline_ms is None or self.ended:
            return
        due_us = deadline_ms * US_PER_MS
        if self._timer is None or due_us < self._timer_us:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_us = due_us
            self._timer = self.world.call_at(due_us, self.gate.enter, "owner", self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.ended:
            return
        assert self._engine is not None, f"{self.name} has no engine"
        deadline_ms = self._engine.deadline_ms
        if deadline_ms is not None and deadline_ms <= self.now_ms():
            self._feed(TimerFired(), None)
        else:
            self._arm_timer()

    def answered(self, request_id: int, response: Response, payload: Payload | None) -> None:
        """An answer has arrived at this node; one that came too late is nobody's."""
        self.gate.enter("owner", self._answered, request_id, response, payload)

    def _answered(self, request_id: int, response: Response, payload: Payload | None) -> None:
        if self._sent.pop(request_id, None) is not None:
            self._feed(ResponseReceived(request_id, response), payload)

    def reset(self, node_id: int, reason: str) -> None:
        """The broker is gone: every request that waits for it has failed."""
        self.gate.enter("owner", self._fail_all, node_id, None, reason)

    def _fail_all(self, node_id: int, channel: str | None, reason: str) -> None:
        failed = [
            request_id
            for request_id, (order, at, _) in self._sent.items()
            if at == node_id and channel in (None, order.channel)
        ]
        for request_id in failed:
            if self._sent.pop(request_id, None) is not None:
                self._feed(RequestFailed(request_id, reason), None)

    def _arm_expiry(self) -> None:
        if not self._sent:
            return
        due_us = min(due for _, _, due in self._sent.values())
        if self._expiry is None or due_us < self._expiry_us:
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry_us = due_us
            self._expiry = self.world.call_at(due_us, self.gate.enter, "owner", self._expire)

    def _expire(self) -> None:
        """As in production, a timeout closes the connection, with all that waits on it."""
        self._expiry = None
        now_us = self.world.now_us
        for request_id, (order, node_id, due_us) in list(self._sent.items()):
            if due_us <= now_us and request_id in self._sent:
                self._fail_all(
                    node_id, order.channel, f"no answer in {order.request_timeout_ms} ms"
                )
        self._arm_expiry()
