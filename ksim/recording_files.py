"""The files of one recording: where they stand, where they end, which of the oldest go."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from ksim.core.trace import Plain
from ksim.recording import FORMAT, Chain, entry_text
from ksim.recording_hiding import Step, hidden, hidden_state
from ksim.recording_payload import PayloadMode

try:
    import fcntl
except ImportError:  # as on Windows: nothing can be locked there
    fcntl = None  # type: ignore[assignment]

LOG: Final = logging.getLogger("ksim.recording")
LONGEST_HEADER: Final = 2**20
LONGEST_END: Final = 200
NS_IN_MS: Final = 1_000_000


def clock_of(now_ms: int) -> dict[str, int]:
    """Which time of the day a time of the recording is."""
    return {"now_ms": now_ms, "unix_ms": time.time_ns() // NS_IN_MS}


def numbered(path: Path) -> Iterator[Path]:
    """This path, then the same with 2, 3 and so on before its suffix."""
    yield path
    yield from (path.with_stem(f"{path.stem}.{number}") for number in count(2))


def is_made(path: Path) -> bool:
    """An empty file, where nothing was."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Segment:
    """From here on another file: the machine's snapshot, and when it was taken."""

    snapshot: Plain
    now_ms: int
    why: str


class Files:
    """The files of one recording, one after the other; after an error, none.

    Each is locked (flock) while it is written, and until the next one is: so another process that
    is told the same name knows which recordings still go on, and deletes nothing of them.
    """

    def __init__(
        self, path: Path, header: dict[str, Any], numbered: bool, keep: int | None
    ) -> None:
        self._path = path
        self._header = header
        self._numbered = numbered
        self._keep = keep
        self._hides = header["payload"] != PayloadMode.FULL
        self._made: deque[Path] = deque()
        self._segment = 0
        self._file: Any = None
        self._chain = Chain()
        self._after: str | None = None
        self.begun = 0
        self.bytes = 0
        self.all_bytes = 0
        self.dropped = 0
        self.failed = False

    def begin(self, segment: Segment) -> None:
        """Another file."""
        if self.failed:
            return
        self.begun += 1
        self.bytes = 0
        self._chain = Chain()
        before = self._file
        try:
            self._open()
            about = {"clock": clock_of(segment.now_ms), "segment": self._segment}
            about |= {"after": self._after} | ({"why": segment.why} if segment.why else {})
            snapshot = hidden_state(segment.snapshot) if self._hides else segment.snapshot
            self._put(self._chain.begin(self._header | about, snapshot))
            if before is not None:
                before.close()
            while self._keep is not None and len(self._made) > self._keep:
                self._made.popleft().unlink(missing_ok=True)
        except OSError as error:
            self._fail(error, 0)
            if before is not None:
                _close(before)

    def _open(self) -> None:
        """The next file that is not there yet."""
        asked, self._file = self._path, None
        first = self.begun == 1 and not self._numbered
        if self.begun == 1 and self._numbered:
            earlier = _numbered_like(asked)
            self._segment = max(earlier, default=0)
            if self._keep is not None:
                self._made.extend(_left_behind(earlier, self._header["member"]))
        while self._file is None:
            self._segment += 1
            if first:
                number = f".{self._segment}" if self._segment > 1 else ""
                self._path = asked.with_stem(f"{asked.stem}{number}")
            path = self._path if first else asked.with_stem(f"{asked.stem}-{self._segment:04}")
            self._file = _opened(path)
        self._made.append(path)
        if first:
            self._segment = 1
        if first and path != asked:
            LOG.warning("%s is there already: the recording is %s", asked, path)

    def write(self, steps: Sequence[Step]) -> None:
        """Whole lines, in one write."""
        if self.failed or not steps:
            self.dropped += len(steps)
            return
        begun = self.bytes
        lines: list[bytes] = []
        try:
            lines = [self._chain.entry(self._text(step)) for step in steps]
            self._put(b"".join(lines))
        except Exception as error:  # noqa: BLE001 - whatever it is, the consumer goes on
            self._fail(error, len(steps) - _whole(lines, self.bytes - begun))

    def _text(self, step: Step) -> str:
        return entry_text(*(hidden(step) if self._hides else step))

    def end(self) -> None:
        """The end of this file."""
        if self.failed:
            return
        self._after = self._chain.digest
        try:
            self._put(self._chain.end())
        except OSError as error:
            self._fail(error, 0)

    def close(self, missing: int = 0) -> None:
        """The end of the recording; where entries are missing at its end, it has no end line."""
        if not missing:
            self.end()
        if self.failed:
            return
        if missing:
            LOG.error(
                "the last %d entries of the recording %s were dropped: it has no end",
                missing,
                self._made[-1],
            )
        try:
            self._file.close()
        except OSError as error:
            self._fail(error, 0)

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._file.write(left)
            self.bytes += written
            self.all_bytes += written
            left = left[written:]

    def _fail(self, error: Exception, dropped: int) -> None:
        self.failed = True
        self.dropped += dropped
        name = self._path if self._file is None else self._made[-1]
        why = error.strerror if isinstance(error, OSError) else repr(error)
        LOG.error("cannot write the recording %s: %s; goes on without it", name, why)
        if self._file is not None:
            _close(self._file)


def _close(file: Any) -> None:
    """After an error that is said already."""
    with suppress(OSError):
        file.close()


def _whole(lines: Sequence[bytes], written: int) -> int:
    """How many of these lines are in the file, where so much was written of them."""
    count = 0
    for line in lines:
        written -= len(line)
        if written < 0:
            break
        count += 1
    return count


def _opened(path: Path) -> Any:
    """The file, to be written, and locked; None: it is somebody else's."""
    try:
        file, mine = path.open("xb", buffering=0), True
    except FileExistsError:
        if not path.is_file():
            return path.open("wb", buffering=0)  # a device
        if path.stat().st_size:
            return None
        file, mine = path.open("ab", buffering=0), False  # an empty file that was made for it
    # Another process may have found it empty in between, or has made it and not written yet.
    locked = _lock(file)
    if os.fstat(file.fileno()).st_size or not (mine if locked is None else locked):
        file.close()
        return None
    return file


def _lock(file: Any) -> bool | None:
    """Until it is closed. False: another process has it. None: files cannot be locked here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_written(path: Path) -> bool:
    """Some process has it open, or there are no locks to ask."""
    if fcntl is None:
        return True
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _numbered_like(path: Path) -> dict[int, Path]:
    """The files that are numbered like those of `path`."""
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d{{4,}}){re.escape(path.suffix)}")
    found = ((pattern.fullmatch(each.name), each) for each in path.parent.iterdir())
    return dict(sorted((int(match[1]), each) for match, each in found if match))


def _left_behind(numbered: Mapping[int, Path], member: str) -> list[Path]:
    """Of these, what ended processes recorded of this member."""
    headers = ((each, _header_of(each, member, at)) for at, each in numbered.items())
    after = {each: header.get("after") for each, header in headers if header is not None}
    in_use = _of_the_living(after)
    return [each for each in after if each not in in_use]


def _of_the_living(after: Mapping[Path, str | None]) -> set[Path]:
    """Files that are written, and those before them; each names the digest of the last one."""
    ends = {digest: each for each in after if (digest := _digest_of(each)) is not None}
    found = set[Path]()
    for each in filter(_is_written, after):
        at: Path | None = each
        while at is not None and at not in found:
            found.add(at)
            before = after[at]
            at = None if before is None else ends.get(before)
    return found


def _header_of(path: Path, member: str, number: int) -> dict[str, Any] | None:
    """The header, if it is a file of this member and has this number."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(LONGEST_HEADER))
        about = [header[key] for key in ("format", "member", "segment")]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    return header if about == [FORMAT, member, number] else None


def _digest_of(path: Path) -> str | None:
    """The digest in its end line."""
    try:
        with path.open("rb") as file:
            file.seek(-min(LONGEST_END, os.fstat(file.fileno()).st_size), os.SEEK_END)
            end = json.loads(file.read().splitlines()[-1])
        return end["digest"] if "end" in end else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
