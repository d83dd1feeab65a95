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
from types import FrameType, FunctionType
from typing import Any, Final

from ksim.kit.errors import BlockingCallError
from ksim.sim.process import current_life

Guard = Callable[..., Any]
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


def _holders(true: object, guard: Guard) -> Iterator[tuple[Any, str, Any, Any]]:
    """Everywhere that this object is known: object, attribute, what is there, what shall be.

    By a name of any module; in the user's own also by a name of a class, or as a default.
    """
    for module in list(sys.modules.values()):
        for name, found in list(getattr(module, "__dict__", {}).items()):
            if found is true:
                yield module, name, true, guard
    for held in _users_own():
        if isinstance(held, type):
            for name, found in list(vars(held).items()):
                if found is true or getattr(found, "__func__", None) is true:
                    yield held, name, found, staticmethod(guard)
        else:
            yield from _defaults(held, true, guard)


def _defaults(
    function: FunctionType, true: object, guard: Guard
) -> Iterator[tuple[Any, str, Any, Any]]:
    given = function.__defaults__ or ()
    if any(each is true for each in given):
        safe = tuple(guard if each is true else each for each in given)
        yield function, "__defaults__", given, safe
    named = function.__kwdefaults__ or {}
    if any(each is true for each in named.values()):
        kept = {name: guard if each is true else each for name, each in named.items()}
        yield function, "__kwdefaults__", named, kept


def _users_own() -> Iterator[type | FunctionType]:
    """Classes, their functions, and functions of modules that are neither ksim nor a library."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or str(file).startswith((HERE, *LIBRARIES)):
            continue
        for found in list(vars(module).values()):
            if isinstance(found, FunctionType):
                yield found
            elif isinstance(found, type) and found.__module__ == module.__name__:
                yield found
                yield from (each for each in vars(found).values() if isinstance(each, FunctionType))


@contextmanager
def guarded() -> Iterator[None]:
    """While this lasts, simulated applications cannot block, and their signals are their own."""
    makers: dict[Any, Callable[[Any], Guard]] = {
        getattr(time, "sleep"): _sleep,  # noqa: B009 - the name itself is banned
        _thread.start_new_thread: _start_new_thread,
        signal.signal: _signal,
    }
    places: list[tuple[Any, str, Any, Any]] = []
    for true, make in makers.items():
        places += _holders(true, make(true))
    start = threading.Thread.start
    places.append((threading.Thread, "start", start, _start(start)))
    for holder, name, _, guard in places:
        setattr(holder, name, guard)
    try:
        yield
    finally:
        for holder, name, true, _ in places:
            setattr(holder, name, true)
