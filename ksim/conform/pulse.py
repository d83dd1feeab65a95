"""Whether this process or the broker stood still: then times cannot be compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

BEAT_S: Final = 0.02
# Two timers may be apart by this much for each of the two ways, and stay within the margin.
STALLED_MS: Final = 200


class Pulse:
    """One small write to the broker after the other; each that is late by far is a stall."""

    def __init__(self, beat: Callable[[], Awaitable[object]]) -> None:
        self._beat = beat
        self._planned_s: float | None = None
        self._stalls: list[tuple[float, int]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._planned_s = time.monotonic() + BEAT_S
            await asyncio.sleep(BEAT_S)
            await self._beat()
            self.note(self._late_ms())

    def _late_ms(self) -> int:
        """How late the beat is that was to come next."""
        return 0 if self._planned_s is None else int((time.monotonic() - self._planned_s) * 1_000)

    def note(self, late_ms: int) -> None:
        """A beat came so late."""
        if late_ms > STALLED_MS:
            self._stalls.append((time.monotonic(), late_ms))

    def worst_since_ms(self, since_s: float) -> int:
        """The longest stall that ended since then or still lasts; 0 if there was none."""
        late_ms = self._late_ms()
        found = [late_ms] if late_ms > STALLED_MS else []
        found += [each_ms for at_s, each_ms in self._stalls if at_s >= since_s]
        return max(found, default=0)
