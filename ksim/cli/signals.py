"""What signals do to `ksim consume`. A handler does nothing but wake a thread.

The first SIGTERM, SIGINT or SIGHUP drains, commits and leaves; the second leaves at once. The
thread is what keeps both promises while the main thread is stuck in a write or in a lookup.
SIGUSR1 writes what the flight recorder holds.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ksim.consumer.consumer import Consumer

STDERR: Final = 2
NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DUMP: Final = signal.SIGUSR1
FORCED: Final = 128
MOMENT_S: Final = 1.0  # for the LeaveGroup of somebody who leaves at once
LOOK_S: Final = 0.02
MARGIN_S: Final = 2.0  # what `close` may take beyond its timeout


class Signals:
    """One for the process; make it in the main thread, before what takes long to import.

    It is a tap too: `on_step` tells it that the member has begun, and is left by no shortcut.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.forced = 0
        self.consumer: Consumer | None = None
        self.limit_s = 0.0
        self.dump: Callable[[], object] | None = None
        self.as_json = wants_json(sys.argv)  # until the options are read
        self._began = False
        self._lock = threading.Lock()
        _fill_descriptors()
        self._out, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (*NUMBERS, DUMP):
            # Whoever began this with nohup wants SIGHUP to do nothing.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _only_wake)
        threading.Thread(target=self._watch, name="ksim-signals", daemon=True).start()

    def __call__(self, snapshot: object) -> Signals:
        """As a tap of a consumer."""
        del snapshot
        return self

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """With the first step there is somebody who has to leave."""
        del now_ms, fact, orders
        if not self._began:
            with self._lock:
                self._began = True

    def _watch(self) -> None:
        first = self._next(None)
        assert first is not None, "it waits for as long as it takes"
        self._stop(first)
        second = self._next(self.limit_s + MARGIN_S)
        if second is None:
            self._say(f"not drained within {self.limit_s:g} s of {first.name}, leaves at once")
        self._leave(second or first)

    def _next(self, limit_s: float | None) -> signal.Signals | None:
        """The next one that ends something; SIGUSR1 does not."""
        until_s = time.monotonic() + (limit_s or 0.0)
        while True:
            left_s = None if limit_s is None else max(0.0, until_s - time.monotonic())
            if not select.select([self._out], [], [], left_s)[0]:
                return None
            number = signal.Signals(os.read(self._out, 1)[0])
            if number != DUMP:
                return number
            if self.dump is not None:
                threading.Thread(target=self.dump, daemon=True).start()

    def _stop(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._began:
                self._say(f"ended by {number.name} before it joined the group")
                os._exit(0)
            self.stopping = True
        if self.consumer is not None:
            # Beside this thread, which has to hear the next signal whatever lock is held.
            threading.Thread(target=self.consumer.stop, daemon=True).start()

    def _leave(self, number: signal.Signals) -> None:
        self.forced = FORCED + number
        consumer = self.consumer
        if consumer is not None:
            consumer.abandon()
            for _ in range(int(MOMENT_S / LOOK_S)):
                if consumer.closed or self._next(LOOK_S) is not None:
                    break
        os._exit(self.forced)

    def _say(self, text: str) -> None:
        """As all other lines, but by nothing that may be stuck, or not loaded yet."""
        line = f"ksim: {text}"
        if self.as_json:
            content = {"t": round(time.time(), 3), "level": "WARNING", "logger": "ksim.cli"}
            line = json.dumps({**content, "message": text}, separators=(",", ":"))
        os.write(STDERR, f"{line}\n".encode())


def _fill_descriptors() -> None:
    """Whoever closed one of the three must not find a pipe or a socket under its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(number)


def _only_wake(number: int, frame: FrameType | None) -> None:
    """The interpreter has written the number to the pipe already."""
    del number, frame


def wants_json(arguments: Sequence[str]) -> bool:
    """What `--log-format` will be, before it can be asked for: a signal may come at any moment."""
    wanted = ""
    for before, argument in pairwise(("", *arguments)):
        if before == "--log-format":
            wanted = argument
        elif argument.startswith("--log-format="):
            wanted = argument.partition("=")[2]
    return wanted == "json"


_made: list[Signals] = []


def signals() -> Signals:
    """The one of this process."""
    if not _made:
        _made.append(Signals())
    return _made[0]
