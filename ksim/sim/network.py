"""Links between nodes: latency, loss, hold and partition; first in, first out like TCP."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from ksim.sim.world import US_PER_MS, World

LOSS_SCALE = 1_000_000


class Fate(Enum):
    """What becomes of a message by a fault.

    A lost one draws as if it were sent, and a copy draws from a stream of its own, so that a fault
    does not shift the draws of other messages. A late one is passed by those behind it.
    """

    USUAL = "usual"
    LOST = "lost"
    COPY = "copy"
    LATE = "late"


class Link:
    """One direction between two nodes."""

    __slots__ = ("copies", "cut", "held", "holding", "last_us", "stream")

    def __init__(self, stream: Any, copies: Any) -> None:
        self.stream = stream
        self.copies = copies
        self.cut = 0
        self.holding = False
        self.held: list[tuple[str, int, Callable[..., None], tuple[Any, ...]]] = []
        self.last_us: dict[str, int] = {}


class Network:
    """Carries calls from node to node. A lost message is lost: its sender learns by a timeout."""

    def __init__(self, world: World, latency_ms: tuple[int, int], loss: float) -> None:
        self._world = world
        self._low_us = latency_ms[0] * US_PER_MS
        self._high_us = latency_ms[1] * US_PER_MS
        self._loss = round(loss * LOSS_SCALE)
        self._links: dict[tuple[str, str], Link] = {}
        self.messages = 0

    def link(self, source: str, target: str) -> Link:
        found = self._links.get((source, target))
        if found is None:
            stream = self._world.stream(f"link {source} {target}")
            copies = self._world.stream(f"copies {source} {target}")
            found = self._links[source, target] = Link(stream, copies)
        return found

    def carry(
        self,
        source: str,
        target: str,
        connection: str,
        function: Callable[..., None],
        *arguments: Any,
        delay_ms: int = 0,
        fate: Fate = Fate.USUAL,
    ) -> None:
        """Call `function` at the target after the latency, unless the message is lost."""
        self.messages += 1
        link = self.link(source, target)
        draw = link.copies if fate == Fate.COPY else link.stream
        latency_us = draw.randint(self._low_us, self._high_us) + delay_ms * US_PER_MS
        lost = self._loss > 0 and draw.randrange(LOSS_SCALE) < self._loss
        if link.cut or lost or fate == Fate.LOST:
            return
        if fate == Fate.LATE:
            self._world.call_at(self._world.now_us + latency_us, function, *arguments)
            return
        if link.holding:
            link.held.append((connection, latency_us, function, arguments))
            return
        self._send(link, connection, latency_us, function, arguments)

    def _send(
        self,
        link: Link,
        connection: str,
        latency_us: int,
        function: Callable[..., None],
        arguments: tuple[Any, ...],
    ) -> None:
        at_us = max(self._world.now_us + latency_us, link.last_us.get(connection, 0) + 1)
        link.last_us[connection] = at_us
        self._world.call_at(at_us, function, *arguments)

    def partition(self, one: str, other: str) -> None:
        """Lose every message between these two until `heal`; partitions nest."""
        self.link(one, other).cut += 1
        self.link(other, one).cut += 1

    def heal(self, one: str, other: str) -> None:
        for link in (self.link(one, other), self.link(other, one)):
            link.cut = max(0, link.cut - 1)

    def hold(self, one: str, other: str) -> None:
        """Keep every message between these two until `release`."""
        self.link(one, other).holding = self.link(other, one).holding = True

    def release(self, one: str, other: str) -> None:
        for link in (self.link(one, other), self.link(other, one)):
            link.holding = False
            held, link.held = link.held, []
            for connection, latency_us, function, arguments in held:
                self._send(link, connection, latency_us, function, arguments)

    def heal_all(self, is_core: Callable[[str], bool]) -> None:
        """Links between nodes of the core carry again, and nothing is lost by chance any more."""
        self._loss = 0
        for one, other in sorted(self._links):
            if is_core(one) and is_core(other):
                self._links[one, other].cut = 0
                self.release(one, other)
