"""The one way into a machine, and the one tap on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ksim.core.values import Payload


class Machine(Protocol):
    """What a session drives: `step` is pure, `deadline_ms` says when it wants TimerFired."""

    @property
    def deadline_ms(self) -> int | None: ...

    def step(self, fact: Any, *, now_ms: int) -> list[Any]: ...


class StepListener(Protocol):
    """Recording, checks, timelines and metrics: told of each step before its orders are done."""

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None: ...


@runtime_checkable
class PayloadListener(Protocol):
    """A StepListener that wants the records too, before the step of the fetch that brought them."""

    def on_payload(self, payload: Payload) -> None: ...


class Performer(Protocol):
    def perform(self, order: Any, now_ms: int) -> None: ...


class Session:
    """Feed facts in the order they came; one that comes while a step runs waits its turn."""

    __slots__ = ("_busy", "_performer", "_queue", "last_ms", "listeners", "machine")

    def __init__(
        self, machine: Machine, performer: Performer, listeners: Sequence[StepListener] = ()
    ) -> None:
        self.machine = machine
        self.listeners = list(listeners)
        self.last_ms = 0
        self._performer = performer
        self._queue: deque[tuple[Any, int]] = deque()
        self._busy = False

    def feed(self, fact: Any, now_ms: int) -> None:
        """Step the machine with `fact`, tell the listeners, perform the orders."""
        self._queue.append((fact, now_ms))
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                queued, at_ms = self._queue.popleft()
                self.last_ms = at_ms = max(at_ms, self.last_ms)
                orders = self.machine.step(queued, now_ms=at_ms)
                for listener in self.listeners:
                    listener.on_step(at_ms, queued, orders)
                for order in orders:
                    self._performer.perform(order, at_ms)
        finally:
            self._busy = False
