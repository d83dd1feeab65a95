"""Virtual time, seeded streams and the schedule. Times inside are microseconds."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import simpy
from simpy.events import EventPriority

US_PER_MS = 1_000
PRIORITY_BITS = 30


class _Call(simpy.Event):
    """A callback on SimPy's schedule, without a process."""

    __slots__ = ("arguments", "function")

    def __init__(
        self, env: simpy.Environment, function: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.env = env
        self.callbacks = [_run_call]
        self._value = None
        self._ok = True
        self._defused = False
        self.function: Callable[..., object] | None = function
        self.arguments = arguments


def _run_call(call: _Call) -> None:
    if call.function is not None:
        call.function(*call.arguments)


class Handle:
    """A scheduled call that can be taken back."""

    __slots__ = ("_call",)

    def __init__(self, call: _Call) -> None:
        self._call = call

    def cancel(self) -> None:
        self._call.function = None
        # A tuple of nothing but a running greenlet is lost to the collector for ever.
        self._call.arguments = ()


class EventsSpentError(Exception):
    """The run has had more events than it may have."""


def _spent() -> None:
    raise EventsSpentError


class World:
    """One seed, one clock. Equal seeds give equal runs, in any process.

    Once there were more than `max_events`, `run_until` raises EventsSpentError.
    """

    def __init__(self, seed: int, max_events: int | None = None) -> None:
        self.seed = seed
        self._max_events = max_events
        self.env = simpy.Environment(initial_time=0)
        self._streams: dict[str, random.Random] = {}
        self._tie = self.stream("order of one instant").getrandbits
        self._apart = self.stream("order of faults").getrandbits
        self.events = 0

    @property
    def now_us(self) -> int:
        return int(self.env.now)

    @property
    def now_ms(self) -> int:
        return int(self.env.now) // US_PER_MS

    def stream(self, name: str) -> random.Random:
        """The random numbers of one purpose: drawing here never shifts another stream."""
        found = self._streams.get(name)
        if found is None:
            key = blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
            found = self._streams[name] = random.Random(int.from_bytes(key, "big"))
        return found

    def call_at(self, at_us: int, function: Callable[..., object], *arguments: Any) -> Handle:
        """Run `function` at this time; calls of one instant run in a seeded order."""
        return self._schedule(at_us, self._tie(PRIORITY_BITS), function, arguments)

    def call_apart(self, at_us: int, function: Callable[..., object], *arguments: Any) -> Handle:
        """The same for what a scenario does: it does not shift the order of other calls."""
        return self._schedule(at_us, self._apart(PRIORITY_BITS), function, arguments)

    def _schedule(
        self,
        at_us: int,
        priority: int,
        function: Callable[..., object],
        arguments: tuple[Any, ...],
    ) -> Handle:
        call = _Call(self.env, function, arguments)
        delay_us = max(0, at_us - int(self.env.now))
        self.events += 1
        if self.events == self._max_events:
            # Not raised here: this may be a member's own greenlet.
            self.env.schedule(_Call(self.env, _spent, ()), EventPriority(0), 0)
        self.env.schedule(call, EventPriority(priority), delay_us)
        return Handle(call)

    def call_after(self, after_us: int, function: Callable[..., object], *arguments: Any) -> Handle:
        """Run `function` after so many microseconds."""
        return self.call_at(int(self.env.now) + after_us, function, *arguments)

    def run_until(self, until_us: int) -> None:
        """Let the world go on until this time, inclusive of what happens before it."""
        if until_us > self.now_us:
            self.env.run(until=until_us)
