"""Lines on stdout and stderr: each is whole, and a log line never waits for whoever reads it."""

from __future__ import annotations

import copy
import json
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from ksim.core.errors import ConfigError

STDOUT, STDERR = 1, 2
LOG_LINES: Final = 1_000
MOST_BYTES: Final = 4_096  # a pipe that is ready takes so many at once, and in one piece
# Of a message and of a traceback, where both together are too long: four bytes each, and quoted.
MOST_CHARS: Final = 300
CUT: Final = "[...]"
GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """One JSON object as a line."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def plain_line(text: str) -> bytes:
    """A line without a layout."""
    return f"ksim: {text}\n".encode()


def check_stdout() -> None:
    """Raises ConfigError where there is none to write to."""
    if sys.stdout is None:
        raise ConfigError("standard output is closed; to discard messages use >/dev/null")


def reader_is_gone(descriptor: int) -> bool:
    """Nobody will ever read what is written there."""
    return bool(_poll(descriptor, 0) & GONE)


def _poll(descriptor: int, wanted: int) -> int:
    poll = select.poll()
    poll.register(descriptor, wanted)
    return next((mask for _, mask in poll.poll(0)), 0)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # whoever made the pipe wants no waiting; here it is wanted
            select.select([], [descriptor], [])


class Output:
    """What this process writes, line by line, from any thread.

    Messages and events wait until they are written. Log lines come from the owner, which must not
    wait: they are kept while the reader is slow, the oldest dropped and counted.
    """

    def __init__(self, stdout: int = STDOUT, stderr: int = STDERR) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._lock = threading.Lock()
        self._logs: deque[bytes] = deque(maxlen=LOG_LINES)
        self._dropped = 0
        self.line_of: Callable[[str], bytes] = plain_line  # of what it says by itself

    def message(self, data: bytes) -> None:
        """To stdout. Raises OSError."""
        with self._lock:
            _write_all(self._stdout, data)
        self._write_logs()

    def event(self, content: Mapping[str, Any]) -> None:
        """To stderr; where nobody reads that, nobody can be told."""
        try:
            with self._lock:
                _write_all(self._stderr, json_bytes(content))
        except OSError:
            return
        self._write_logs()

    def log(self, data: bytes) -> None:
        """To stderr, as soon as that takes it."""
        self._dropped += len(self._logs) == LOG_LINES
        self._logs.append(data)
        self._write_logs()

    def _write_logs(self) -> None:
        """Who writes now also writes what comes meanwhile; so nobody waits for the lock."""
        while self._logs and self._lock.acquire(blocking=False):
            try:
                if not self._write_one():
                    return
            finally:
                self._lock.release()

    def _write_one(self) -> bool:
        if not _poll(self._stderr, select.POLLOUT) & (select.POLLOUT | GONE):
            return False
        data = self._logs.popleft()
        if self._dropped:
            said = self.line_of(f"{self._dropped} log lines were dropped: nobody read them")
            self._logs.appendleft(data)
            data, self._dropped = said, 0
        try:
            os.write(self._stderr, data[:MOST_BYTES])
        except OSError:
            return False
        return True


class LogHandler(logging.Handler):
    """The handler of the command line; the library installs none."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises and never waits; a line that is too long for a pipe loses its middle."""
        try:
            data = self._line(record)
            self._output.log(data if len(data) <= MOST_BYTES else self._line(shortened(record)))
        except Exception:  # noqa: BLE001 - as all handlers of the standard library
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "replace") + b"\n"

    def line_of(self, text: str) -> bytes:
        """A line of this process itself, as any other."""
        record = logging.LogRecord("ksim.cli", logging.WARNING, "", 0, text, (), None)
        return self._line(record)


def shortened(record: logging.LogRecord) -> logging.LogRecord:
    """The same with the beginning of what it says, and the end of its traceback."""
    found = copy.copy(record)
    found.msg, found.args = record.getMessage()[:MOST_CHARS] + CUT, ()
    if record.exc_info:
        text = logging.Formatter().formatException(record.exc_info)
        found.exc_info, found.exc_text = None, CUT + text[-MOST_CHARS:]
    return found


def set_up_logs(output: Output, formatter: logging.Formatter, level: str) -> None:
    """What ksim says from `level` on, and warnings of others.

    kafka-python shows the bytes that it cannot read, which may be anybody's data; ksim says without
    them which broker sent what cannot be read.
    """
    handler = LogHandler(output)
    handler.setFormatter(formatter)
    output.line_of = handler.line_of
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    logging.getLogger("ksim").setLevel(level.upper())
    logging.captureWarnings(True)
