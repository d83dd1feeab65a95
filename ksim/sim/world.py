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
        self, env: simpy.Environment, function: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self.env = env
        self.callbacks = [_run_call]
        self._value = None
        self._ok = True
        self._defused = False
        self.function: Callable[..., None] | None = function
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


class World:
    """One seed, one clock. Equal seeds give equal runs, in any process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.env = simpy.Environment(initial_time=0)
        self._streams: dict[str, random.Random] = {}
        self._tie = self.stream("order of one instant").getrandbits
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

    def call_at(self, at_us: int, function: Callable[..., None], *arguments: Any) -> Handle:
        """Run `function` at this time; calls of one instant run in a seeded order."""
        call = _Call(self.env, function, arguments)
        delay_us = max(0, at_us - int(self.env.now))
        self.events += 1
        self.env.schedule(call, EventPriority(self._tie(PRIORITY_BITS)), delay_us)
        return Handle(call)

    def call_after(self, after_us: int, function: Callable[..., None], *arguments: Any) -> Handle:
        """Run `function` after so many microseconds."""
        return self.call_at(int(self.env.now) + after_us, function, *arguments)

    def run_until(self, until_us: int) -> None:
        """Let the world go on until this time, inclusive of what happens before it."""
        if until_us > self.now_us:
            self.env.run(until=until_us)
