"""Recordings: what a machine saw and decided, one JSON line each, chained by checksums.

Line 1 is the header, line 2 a snapshot of the machine, then one entry for each step, then `end`.
`docs/recording.md` is the format. Of each version that this reads, files stand in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from ksim.core.errors import DamagedRecordingError, UnsupportedRecordingError
from ksim.core.trace import MalformedTraceError, Plain
from ksim.core.values import Payload
from ksim.recording_payload import PayloadKeeper
from ksim.recording_shape import check_entry, check_header, check_payload, check_snapshot
from ksim.trace_text import plain_of_text, plain_once, text_of

FORMAT: Final = "ksim-recording"
VERSION: Final = "1.0"
READ_VERSIONS: Final = ("0.1", "1.0")
FEATURES: Final[tuple[str, ...]] = ()  # what a reader must know beside the version
CHECKSUM: Final = "c"
CHECKSUM_DIGITS: Final = 8
BEFORE_SUM, AFTER_SUM = f',"{CHECKSUM}":"'.encode(), b'"}\n'
TAIL: Final = len(BEFORE_SUM) + CHECKSUM_DIGITS + len(AFTER_SUM)
LONGEST_LINE: Final = 64 * 2**20
BROKER: Final = "broker"  # the vantage point of what a broker saw of one member: no machine
# Where the parts of an entry begin, as the writer puts them.
TIME_AT, FACT_AT, ORDERS_AT, PAYLOAD_AT = '{"t":', ',"fact":', ',"orders":', ',"payload":'
END_AT: Final = b'{"end":'
BEYOND_T: Final = 1 << 63  # numbers have up to 64 bits
LONGEST_T: Final = 20  # digits, of those that are told


def line_of(chain: str, body: str) -> tuple[bytes, str]:
    """The line of a JSON object after the line with this checksum, and its own checksum."""
    head = body[:-1].encode()
    chain = _checksum(chain, head)
    return b"".join((head, BEFORE_SUM, chain.encode(), AFTER_SUM)), chain


def _checksum(before: str, head: bytes) -> str:
    """Of this line without its last brace, and all before it."""
    return blake2b(
        b"".join((before.encode(), head, b"}")), digest_size=CHECKSUM_DIGITS // 2
    ).hexdigest()


def entry_text(now_ms: int, fact: Any, orders: Sequence[Any], payload: Plain = None) -> str:
    """The JSON object of one step."""
    content = {"t": now_ms, "fact": fact, "orders": orders}
    if payload is not None:
        content["payload"] = payload
    return text_of(content)


class Chain:
    """The lines of one recording, in order: each is given as bytes for a file."""

    def __init__(self) -> None:
        self.digest = ""
        self.entries = 0

    def begin(self, header: dict[str, Any], snapshot: Plain) -> bytes:
        """Header and snapshot."""
        head = {"format": FORMAT, "version": VERSION, "features": list(FEATURES), **header}
        return self._line(text_of(head)) + self._line(text_of({"snapshot": snapshot}))

    def entry(self, text: str) -> bytes:
        """One entry, as `entry_text` gives it."""
        self.entries += 1
        return self._line(text)

    def end(self) -> bytes:
        """The end line."""
        return self._line(text_of({"end": self.entries, "digest": self.digest}))

    def _line(self, body: str) -> bytes:
        line, self.digest = line_of(self.digest, body)
        return line


class RecordingWriter:
    """A `StepListener` that writes each step as one whole line; `close` writes the end.

    Give it a file opened with `buffering=0`: each line is one write, so that a process that is
    killed leaves whole lines and at most one torn tail. `keeper` says what is kept of payloads.
    A disk that is full ends the recording and not who is recorded; `close` then raises the OSError.
    """

    def __init__(
        self,
        file: BinaryIO,
        header: dict[str, Any],
        snapshot: Plain,
        keeper: PayloadKeeper | None = None,
    ) -> None:
        self._file = file
        self._keeper = keeper
        self._payload: Plain = None
        self._chain = Chain()
        self._closed = False
        self._failed: OSError | None = None
        self._write(self._chain.begin(header, snapshot))

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Write one entry; nothing after `close`."""
        payload, self._payload = self._payload, None
        if not self._closed:
            self._write(self._chain.entry(entry_text(now_ms, fact, orders, payload)))

    def on_payload(self, payload: Payload) -> None:
        """The next step is the fetch that brought this."""
        if self._keeper is not None:
            self._payload = self._keeper.keep(payload)

    def close(self) -> None:
        """Write the end line and close the file; may be called again.

        Raises the OSError that ended the recording, if one did.
        """
        if self._closed:
            return
        self._closed = True
        self._write(self._chain.end())
        self._file.close()
        if self._failed is not None:
            raise self._failed

    def _write(self, line: bytes) -> None:
        if self._failed is not None:
            return
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failed = error


@dataclass(frozen=True, slots=True)
class Entry:
    """One step; `line` is where it stands in the file, counted from 1."""

    line: int
    now_ms: int
    fact: Plain
    orders: list[Plain]
    payload: Plain = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file held; `complete` means that its end line is there, which has the `digest`."""

    header: dict[str, Any]
    snapshot: Plain
    entries: tuple[Entry, ...]
    complete: bool
    torn_bytes: int
    digest: str = ""


class EntryText(NamedTuple):
    """An entry whose parts are still text; `rest` is from the orders on, and ends with a brace."""

    line: int
    now_ms: int
    fact: str
    rest: str

    def parts(self) -> Plain:
        """Orders and payload as plain data. Raises MalformedTraceError."""
        return plain_once('{"orders":' + self.rest)


class RecordingReader:
    """One file, read and verified line by line; iterate it once for its entries.

    Raises UnsupportedRecordingError for what another release made, DamagedRecordingError for all
    else that is wrong, with its line. A torn tail is dropped: `complete` and `torn_bytes` are known
    when the entries are over.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lines = self._verified()
        self._entries = 0
        self._now_ms = 0
        self.complete = False
        self.torn_bytes = 0
        self.digest = ""
        self.header = self._first(1)
        _check_header(self._path, self.header)
        self.snapshot = self._first(2).get("snapshot")
        if self.snapshot is None and self.header.get("vantage") != BROKER:
            raise DamagedRecordingError(f"{path}: line 2: no snapshot")

    def _first(self, at: int) -> dict[str, Any]:
        found = next(self._lines, None)
        if found is None:
            raise DamagedRecordingError(f"{self._path}: line {at}: no header and snapshot")
        return self._object(at, found[1])

    def _object(self, at: int, line: bytes) -> dict[str, Any]:
        try:
            content = plain_once(line)
        except MalformedTraceError as error:
            raise DamagedRecordingError(f"{self._path}: line {at}: {error}") from None
        if not isinstance(content, dict):
            raise DamagedRecordingError(f"{self._path}: line {at}: not an object")
        return content

    def _verified(self) -> Iterator[tuple[int, bytes, str]]:
        """Number, bytes and checksum of each whole line."""
        chain, at = "", 0
        try:
            with Path(self._path).open("rb") as file:
                while line := file.readline(LONGEST_LINE):
                    at += 1
                    if line[-1] != ord("\n"):
                        self._torn(at, line)
                        return
                    before, chain = chain, _checksum(chain, line[:-TAIL])
                    if line[-TAIL:] != b"".join((BEFORE_SUM, chain.encode(), AFTER_SUM)):
                        raise DamagedRecordingError(
                            f"{self._path}: line {at}: the checksum does not fit"
                        )
                    yield at, line, before
        except OSError as error:
            raise DamagedRecordingError(
                f"{self._path}: cannot be read: {error.strerror}"
            ) from error
        except ValueError as error:
            raise DamagedRecordingError(f"{self._path}: cannot be read: {error}") from error

    def _torn(self, at: int, line: bytes) -> None:
        if len(line) >= LONGEST_LINE:
            raise DamagedRecordingError(
                f"{self._path}: line {at}: longer than {LONGEST_LINE >> 20} MiB"
            )
        self.torn_bytes = len(line)

    def __iter__(self) -> Iterator[EntryText]:
        for at, line, before in self._lines:
            if line.startswith(END_AT):
                self._end(at, line, before)
                return
            self._entries += 1
            yield self._entry(at, line)

    def _entry(self, at: int, line: bytes) -> EntryText:
        try:
            head, _, rest = line[:-TAIL].decode("ascii").partition(ORDERS_AT)
            begin, _, fact = head.partition(FACT_AT)
            now_ms = int(begin[len(TIME_AT) :])
        except ValueError:
            raise self._no_entry(at) from None
        if not rest or begin != f"{TIME_AT}{now_ms}":
            raise self._no_entry(at)
        if not self._now_ms <= now_ms < BEYOND_T:
            raise DamagedRecordingError(
                f"{self._path}: line {at}: t goes from {self._now_ms} to "
                f"{str(now_ms)[:LONGEST_T]}: it never goes back, and has up to 64 bits"
            )
        self._now_ms = now_ms
        return EntryText(at, now_ms, fact, rest + "}")

    def _no_entry(self, at: int) -> DamagedRecordingError:
        return DamagedRecordingError(f"{self._path}: line {at}: not an entry")

    def _end(self, at: int, line: bytes, before: str) -> None:
        content = self._object(at, line)
        if content["end"] != self._entries:
            raise DamagedRecordingError(
                f"{self._path}: line {at}: end says {content['end']!r} entries, not {self._entries}"
            )
        if content.get("digest") != before:
            raise DamagedRecordingError(f"{self._path}: line {at}: the digest does not fit")
        if next(self._lines, None) is not None or self.torn_bytes:
            raise DamagedRecordingError(f"{self._path}: line {at + 1}: something after the end")
        self.complete, self.digest = True, before


def _check_header(path: str, header: dict[str, Any]) -> None:
    found = header.get("version")
    if header.get("format") != FORMAT:
        raise DamagedRecordingError(f"{path}: line 1: {header.get('format')!r} is no {FORMAT}")
    if found not in READ_VERSIONS:
        raise UnsupportedRecordingError(
            f"{path}: line 1: {FORMAT} {found!r}; this reads {', '.join(READ_VERSIONS)}"
        )
    features = header.get("features", [])
    if not isinstance(features, list) or any(each not in FEATURES for each in features):
        known = ", ".join(FEATURES) or "none"
        raise UnsupportedRecordingError(
            f"{path}: line 1: features {features!r}; this knows {known}"
        )


def read_recording(path: str | Path) -> Recording:
    """Read and verify, and see that each value is of its type.

    A torn tail is dropped; raises DamagedRecordingError for all else.
    """
    reader = RecordingReader(path)
    vantage = str(reader.header.get("vantage"))
    with _at(path, 1):
        check_header(reader.header)
    with _at(path, 2):
        check_snapshot(vantage, reader.snapshot)
    entries = tuple(_plain_entry(path, vantage, each) for each in reader)
    return Recording(
        reader.header,
        reader.snapshot,
        entries,
        reader.complete,
        reader.torn_bytes,
        reader.digest,
    )


@contextmanager
def _at(path: str | Path, line: int) -> Iterator[None]:
    try:
        yield
    except MalformedTraceError as error:
        raise DamagedRecordingError(f"{path}: line {line}: {error}") from error


def _plain_entry(path: str | Path, vantage: str, found: EntryText) -> Entry:
    with _at(path, found.line):
        parts = found.parts()
        fact = plain_of_text(found.fact)
        if not isinstance(parts["orders"], list):
            raise MalformedTraceError("orders are a list")
        check_entry(vantage, fact, parts["orders"])
        check_payload(parts.get("payload"))
    return Entry(found.line, found.now_ms, fact, parts["orders"], parts.get("payload"))
