"""Links between nodes: latency, loss, hold and partition; first in, first out like TCP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksim.sim.world import US_PER_MS, World

LOSS_SCALE = 1_000_000


class Link:
    """One direction between two nodes."""

    __slots__ = ("cut", "held", "holding", "last_us", "stream")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
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
            found = self._links[source, target] = Link(stream)
        return found

    def carry(
        self,
        source: str,
        target: str,
        connection: str,
        function: Callable[..., None],
        *arguments: Any,
        delay_ms: int = 0,
    ) -> None:
        """Call `function` at the target after the latency, unless the message is lost."""
        self.messages += 1
        link = self.link(source, target)
        draw = link.stream
        latency_us = draw.randint(self._low_us, self._high_us) + delay_ms * US_PER_MS
        lost = self._loss > 0 and draw.randrange(LOSS_SCALE) < self._loss
        if link.cut or lost:
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

    def heal_all(self) -> None:
        """Every link carries again, and nothing is lost from now on."""
        self._loss = 0
        for one, other in sorted(self._links):
            self._links[one, other].cut = 0
            self.release(one, other)
