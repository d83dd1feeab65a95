"""What a node lets happen: everything, nothing for now, or nothing ever again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksim.sim.world import World


class Gate:
    """One for each node: deliveries, timers and wake-ups all pass here.

    Paused, it keeps them and lets them out in a seeded order on resume, as a stopped process
    finds sockets, timers and threads all ready at once. Cut, it drops them.
    """

    __slots__ = ("_kept", "_world", "cut", "name", "paused")

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.paused = False
        self.cut = False
        self._world = world
        self._kept: list[tuple[str, Callable[..., None], tuple[Any, ...]]] = []

    def enter(self, lane: str, function: Callable[..., None], *arguments: Any) -> None:
        """Run now, or when the pause is over; things of one lane keep their order."""
        if self.cut:
            return
        if self.paused:
            self._kept.append((lane, function, arguments))
        else:
            function(*arguments)

    @property
    def kept(self) -> int:
        """How many things wait for the end of the pause."""
        return len(self._kept)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Let out what was kept; lanes are merged by a draw."""
        if not self.paused:
            return
        self.paused = False
        lanes: dict[str, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}
        for lane, function, arguments in self._kept:
            lanes.setdefault(lane, []).append((function, arguments))
        self._kept.clear()
        draw = self._world.stream(f"resume {self.name}")
        order = [lane for lane in lanes for _ in lanes[lane]]
        draw.shuffle(order)
        for step, lane in enumerate(order):
            function, arguments = lanes[lane].pop(0)
            self._world.call_after(step, self.enter, lane, function, *arguments)

    def shut(self) -> None:
        """A crash: nothing passes any more."""
        self.cut = True
        self._kept.clear()
