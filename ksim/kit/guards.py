"""Calls that would stop the whole simulation: the application is told, with the line.

While a simulation runs, these are replaced everywhere; whoever is in no simulated application gets
the true ones.
"""

from __future__ import annotations

import _thread
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ksim.kit.errors import BlockingCallError
from ksim.sim.process import current_life

HERE: Final = str(Path(__file__).parents[1])
LIBRARIES: Final = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib"))
SLEEP: Final = "call ksim.sleep_ms({ms}), which waits in the time of the world it runs in"
THREADS: Final = (
    "use consumer.run(handler, workers=N), or run(handler) in partitions mode: threads in "
    "production, and part of the simulation here"
)


def users_frames(frame: FrameType | None) -> list[traceback.FrameSummary]:
    """The part of a stack that is neither ksim nor a library, innermost first."""
    stack = traceback.extract_stack(frame)
    return [each for each in reversed(stack) if not each.filename.startswith((HERE, *LIBRARIES))]


def users_line(frame: FrameType | None) -> str:
    """`file:line` of the application's own code."""
    found = users_frames(frame)
    return f"{found[0].filename}:{found[0].lineno}" if found else "a library"


def _refuse(call: str, instead: str) -> None:
    """Tell the application that runs here; outside of all, nothing happens."""
    life = current_life()
    if life is None:
        return
    where = users_line(sys._getframe(2))
    error = BlockingCallError(
        f"{life.name}: {where} calls {call}: the whole simulation would stop for it; {instead}"
    )
    life.host.failed(life.name, error)
    raise error


def _sleep(true: Callable[[float], None]) -> Callable[[float], None]:
    def sleep(seconds: float, /) -> None:
        _refuse(f"time.sleep({seconds})", SLEEP.format(ms=round(seconds * 1_000)))
        true(seconds)

    return sleep


def _start_new_thread(true: Callable[..., int]) -> Callable[..., int]:
    def start_new_thread(*arguments: Any, **named: Any) -> int:
        _refuse("start_new_thread()", THREADS)
        return true(*arguments, **named)

    return start_new_thread


def _start(true: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def start(thread: threading.Thread) -> None:
        _refuse(f"{type(thread).__name__}.start()", THREADS)
        true(thread)

    return start


def _signal(true: Callable[..., Any]) -> Callable[..., Any]:
    def set_handler(number: int, handler: Any, /) -> Any:
        life = current_life()
        if life is None:
            return true(number, handler)
        before = life.handlers.get(number, signal.SIG_DFL)
        life.handlers[number] = handler
        return before

    return set_handler


def _holders(true: object) -> Iterator[tuple[Any, str]]:
    """Everywhere that this object is known by a name of a module."""
    for module in list(sys.modules.values()):
        for name, found in list(getattr(module, "__dict__", {}).items()):
            if found is true:
                yield module, name


@contextmanager
def guarded() -> Iterator[None]:
    """While this lasts, simulated applications cannot block, and their signals are their own."""
    makers: dict[Any, Callable[[Any], Any]] = {
        getattr(time, "sleep"): _sleep,  # noqa: B009 - the name itself is banned
        _thread.start_new_thread: _start_new_thread,
        signal.signal: _signal,
    }
    places: list[tuple[Any, str, Any, Any]] = []
    for true, make in makers.items():
        places += [(holder, name, true, make(true)) for holder, name in _holders(true)]
    start = threading.Thread.start
    places.append((threading.Thread, "start", start, _start(start)))
    for holder, name, _, guard in places:
        setattr(holder, name, guard)
    try:
        yield
    finally:
        for holder, name, true, _ in places:
            setattr(holder, name, true)
