"""Who notices that an application does not hand control back: a timer of the real clock."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from ksim.kit.guards import users_frames
from ksim.sim.process import current_life

LIMIT_S: Final = 10.0
TICKS: Final = 10


class Blocked(BaseException):
    """Raised inside the application that blocks; no `except Exception` of it may swallow this."""


class Watchdog:
    """While it is entered, virtual time must go on; else `Blocked` is raised where it stands.

    `tell` is told first. An application that swallows that, and goes on as before, is left where it
    stands for good.

    It counts ticks that were delivered, so that a machine that stood still is not blamed. Where
    somebody else has set the timer, or outside of the main thread, it does nothing.
    """

    def __init__(
        self,
        progress: Callable[[], int],
        tell: Callable[[Blocked], None],
        limit_s: float = LIMIT_S,
    ) -> None:
        self.limit_s = limit_s
        self._tell = tell
        self._told: set[int] = set()
        self._progress = progress
        self._last = -1
        self._still = 0
        self._before: object = None
        self._armed = False

    def __enter__(self) -> None:
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
            return
        self._last, self._still, self._armed = -1, 0, True
        self._before = signal.signal(signal.SIGALRM, self._tick)
        every_s = self.limit_s / TICKS
        signal.setitimer(signal.ITIMER_REAL, every_s, every_s)

    def __exit__(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]

    def _tick(self, number: int, frame: FrameType | None) -> None:
        del number
        now = self._progress()
        self._still = self._still + 1 if now == self._last else 0
        self._last = now
        if self._still >= TICKS:
            self._still = 0
            life = current_life()
            if life is not None and id(life) in self._told:
                life.strand()
                return
            self._told.add(id(life))
            error = Blocked(self._words(frame))
            self._tell(error)
            raise error

    def _words(self, frame: FrameType | None) -> str:
        life = current_life()
        who = "the simulation" if life is None else f"{life.name} blocks the simulation: it"
        stack = "".join(traceback.format_list(users_frames(frame)[::-1]))
        return (
            f"{who} has not handed control back for {self.limit_s:g} s. Wait by the consumer or "
            "by ksim.sleep_ms, not by locks, queues, sockets, or loops that ask again and again "
            f"(messages(timeout_ms=0)). It stands at:\n{stack}"
        )
