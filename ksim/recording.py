"""Recordings: what a machine saw and decided, one JSON line each, chained by checksums.

Line 1 is the header, line 2 a snapshot of the machine, then one entry for each step, then `end`.
Format 0.x: readers and writers of one release only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final

from ksim.core.errors import DamagedRecordingError
from ksim.core.trace import Plain, plain

FORMAT: Final = "ksim-recording"
VERSION: Final = "0.1"
CHECKSUM: Final = "c"
CHECKSUM_DIGITS: Final = 8


def _body(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()


def _checksum(before: str, body: bytes) -> str:
    """Of this line and all before it."""
    return blake2b(before.encode() + body, digest_size=CHECKSUM_DIGITS // 2).hexdigest()


class RecordingWriter:
    """A `StepListener` that writes each step as one whole line; `close` writes the end.

    Give it a file opened with `buffering=0`: each line is one write, so that a process that is
    killed leaves whole lines and at most one torn tail.
    """

    def __init__(self, file: BinaryIO, header: dict[str, Any], snapshot: Plain) -> None:
        self._file = file
        self._chain = ""
        self._entries = 0
        self._closed = False
        self._write({"format": FORMAT, "version": VERSION, **header})
        self._write({"snapshot": snapshot})

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Write one entry; nothing after `close`."""
        if not self._closed:
            self._entries += 1
            self._write({"t": now_ms, "fact": plain(fact), "orders": [plain(o) for o in orders]})

    def close(self) -> None:
        """Write the end line and close the file; may be called again."""
        if not self._closed:
            self._closed = True
            self._write({"end": self._entries, "digest": self._chain})
            self._file.close()

    def _write(self, content: dict[str, Any]) -> None:
        body = _body(content)
        self._chain = _checksum(self._chain, body)
        self._file.write(body[:-1] + f',"{CHECKSUM}":"{self._chain}"}}\n'.encode())


@dataclass(frozen=True, slots=True)
class Entry:
    """One step; `line` is where it stands in the file, counted from 1."""

    line: int
    now_ms: int
    fact: Plain
    orders: list[Plain]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file held; `complete` means that its end line is there."""

    header: dict[str, Any]
    snapshot: Plain
    entries: tuple[Entry, ...]
    complete: bool
    torn_bytes: int


def read_recording(path: str | Path) -> Recording:
    """Read and verify. A torn tail is dropped; raises DamagedRecordingError for all else."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DamagedRecordingError(f"{path}: cannot be read: {error.strerror}") from error
    whole, newline, torn = data.rpartition(b"\n")
    lines = list(_verified(str(path), whole.split(b"\n") if newline else []))
    if len(lines) < 2:
        raise DamagedRecordingError(f"{path}: line {len(lines) + 1}: no header and snapshot")
    header = lines[0]
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        found = f"{header.get('format')} {header.get('version')}"
        raise DamagedRecordingError(f"{path}: line 1: {found}; this reads {FORMAT} {VERSION}")
    if "snapshot" not in lines[1]:
        raise DamagedRecordingError(f"{path}: line 2: no snapshot")
    complete = "end" in lines[-1]
    steps = lines[2:-1] if complete else lines[2:]
    entries = tuple(_entry(str(path), at, line) for at, line in enumerate(steps, 3))
    if complete and lines[-1]["end"] != len(entries):
        raise DamagedRecordingError(
            f"{path}: line {len(lines)}: end says {lines[-1]['end']} entries, not {len(entries)}"
        )
    if complete and torn:
        raise DamagedRecordingError(f"{path}: line {len(lines) + 1}: something after the end")
    return Recording(header, lines[1]["snapshot"], entries, complete, len(torn))


def _verified(path: str, lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    chain = ""
    for at, line in enumerate(lines, 1):
        tail = len(f',"{CHECKSUM}":""}}') + CHECKSUM_DIGITS
        body = line[:-tail] + b"}"
        chain = _checksum(chain, body)
        if line[-tail:] != f',"{CHECKSUM}":"{chain}"}}'.encode():
            raise DamagedRecordingError(f"{path}: line {at}: the checksum does not fit")
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DamagedRecordingError(f"{path}: line {at}: not JSON: {error}") from error
        yield content


def _entry(path: str, line: int, content: dict[str, Any]) -> Entry:
    try:
        return Entry(line, int(content["t"]), content["fact"], list(content["orders"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecordingError(f"{path}: line {line}: not an entry: {error!r}") from error
