"""The consumer's driver in virtual time: its owner is a set of callbacks, its user a greenlet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import Protocol

import greenlet

from ksim.broker.faults import kind_of
from ksim.consumer.message import Message
from ksim.consumer.observed import Change
from ksim.consumer.port import Feedable, Pulse
from ksim.core.events import (
    ANY_NODE,
    MemberFact,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimerFired,
)
from ksim.core.messages import Response
from ksim.core.values import Payload, TopicPartition
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
        self._waiting: dict[greenlet.greenlet, Handle | None] = {}
        self._woken = False
        self._spawned: list[greenlet.greenlet] = []
        self._calls: deque[Callable[[], MemberFact]] = deque()

    # The port

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Nothing runs at the same time here."""
        return nullcontext()

    def unlocked(self) -> AbstractContextManager[object]:
        return nullcontext()

    def pulse(self) -> Pulse:
        return Pulse(not self.ended, 0)

    def tell(self, change: Change) -> None:
        """Timelines and narratives say it here."""

    def told(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        """For those who watch an application."""

    def handed_out(self, messages: Sequence[Message]) -> None:
        """For those who watch an application."""

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
        user = greenlet.getcurrent()
        assert user not in self._waiting, f"{self.name} waits twice"
        assert user.parent is not None, f"{self.name} waits outside a greenlet"
        wake: Handle | None = None
        if until_ms is not None:
            wake = self.world.call_at(until_ms * US_PER_MS, self._resume_user, user)
        self._waiting[user] = wake
        user.parent.switch()

    def current(self) -> object:
        return greenlet.getcurrent()

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        return (greenlet.GreenletExit,)

    def spawn(self, function: Callable[[], None]) -> None:
        """One more greenlet of this node; it is ended with the others when the run is over."""
        user = greenlet.getcurrent()
        assert user.parent is not None, f"{self.name} spawns outside a greenlet"
        spawned = greenlet.greenlet(function, user.parent)
        spawned.gr_context = copy_context()
        self._spawned.append(spawned)
        self.world.call_after(0, self.gate.enter, "user", spawned.switch)

    def call(self, function: Callable[[], MemberFact]) -> None:
        """In a greenlet of the store, one after the other; it may wait for an answer."""
        self.world.call_after(0, self.gate.enter, "store", self._call, function)

    def _call(self, function: Callable[[], MemberFact]) -> None:
        self._calls.append(function)
        if len(self._calls) == 1:
            store = greenlet.greenlet(self._work_off)
            store.gr_context = copy_context()
            self._spawned.append(store)
            store.switch()

    def _work_off(self) -> None:
        while self._calls and not self.ended:
            self.post(self._calls[0]())
            self._calls.popleft()
        self._spawned.remove(greenlet.getcurrent())

    def bury(self) -> None:
        """After the run: end what was spawned; nothing that it does reaches anything."""
        self.ended = True
        for spawned in self._spawned:
            if not spawned.dead and spawned.gr_frame is not None:
                spawned.throw(greenlet.GreenletExit)
        self._spawned.clear()
        for wake in self._waiting.values():
            if wake is not None:
                wake.cancel()
        self._waiting.clear()

    def sleep_us(self, after_us: int) -> None:
        """The user's thread is busy for so long: a handler's cost."""
        user = greenlet.getcurrent()
        hub = user.parent
        assert hub is not None, f"{self.name} sleeps outside a greenlet"
        self.world.call_after(after_us, self.gate.enter, "user", user.switch)
        hub.switch()

    def interrupt(self, user: greenlet.greenlet) -> None:
        """It waits no more: whoever calls this wakes it up by an exception."""
        wake = self._waiting.pop(user, None)
        if wake is not None:
            wake.cancel()

    def notify(self) -> None:
        if self._waiting and not self._woken:
            self._woken = True
            self.world.call_after(0, self._resume_all)

    def shut(self) -> bool:
        self.ended = True
        self._posted.clear()
        self._sent.clear()
        return not self._calls

    # What the world calls

    def _resume_all(self) -> None:
        self._woken = False
        for user in list(self._waiting):
            self._resume_user(user)

    def _resume_user(self, user: greenlet.greenlet) -> None:
        self.gate.enter("user", self._switch_to, user)

    def _switch_to(self, user: greenlet.greenlet) -> None:
        if user in self._waiting:
            wake = self._waiting.pop(user)
            if wake is not None:
                wake.cancel()
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

    def reset(self, node_id: int, reason: str, channel: str | None = None) -> None:
        """The connection is gone, or all to this broker: what waits there has failed."""
        self.gate.enter("owner", self._fail_all, node_id, channel, reason)

    @property
    def unanswered(self) -> list[tuple[str, int]]:
        """Kind of request and node id of all that is sent and not answered."""
        return [(kind_of(order.request), node_id) for order, node_id, _ in self._sent.values()]

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
