"""A copy of recordings with other names, which replays to what the original replays to.

Two machines run side by side: the original one on what was recorded, and another on the same facts
with other names. As long as the first decides what was recorded, the copy has what the second
decides, which must be the recorded orders but for the names: sentences and digests that a machine
makes of names come out right. After a divergence, names are put in their places.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from ksim.core.errors import DamagedRecordingError, UnsupportedRecordingError
from ksim.core.member import Member
from ksim.core.session import Machine
from ksim.core.trace import VALUE, MalformedTraceError, Plain, plain, value_of
from ksim.mask_names import CLIENT, GROUP, HOST, TOPIC, Names, Renaming
from ksim.mask_texts import INSTANCE, MASKED
from ksim.recording import BROKER, Chain, EntryText, RecordingReader, entry_text
from ksim.recording_payload import PayloadMode
from ksim.recording_shape import check_payload
from ksim.replay import RESTORERS, short
from ksim.trace_text import plain_of_text

# What a header says of nobody; keys that are not known here are left out.
KEPT: Final = ("ksim", "vantage", "seed", "clock", "segment", "after")
# Configuration that is one of some words; of all others only numbers stay.
KEPT_WORDS: Final = (
    "partition_strategy", "mode", "acknowledge", "auto_offset_reset", "isolation_level",
    "security_protocol", "sasl_mechanism", "differences",
)  # fmt: skip
KEPT_PARTS: Final = ("topic", "partition", "first", "last", "count", "bytes", "digest")
WHYS: Final = ("asked for", "SIGUSR1", "entries before were dropped")
EXCEPTION: Final = re.compile(r"[A-Za-z_]\w*(?:Error|Exception|Timeout|Exit)(?=:|$)")
HIDDEN: Final = "***"
# What comes of plain data that is not what it stands for.
MALFORMED: Final = (
    TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError,
    re.error, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mask:
    """What one copy came to; `line` is the first whose orders could not be made anew, or 0."""

    source: Path
    target: Path
    entries: int
    line: int


def names_of(paths: Iterable[Path]) -> Names:
    """All names in these recordings. Raises DamagedRecordingError."""
    names = Names()
    for path in paths:
        _note(names, path)
    names.decide()
    return names


def _note(names: Names, path: Path) -> None:
    reader = RecordingReader(path)
    seen = reader.header.get("vantage") == BROKER
    noting = Renaming(names.note, names.note_reason if seen else str, bytes)
    with _line(path, 1):
        _note_config(names, reader.header)
    with _line(path, 2):
        noting.of(reader.snapshot)
        leads = _Leading(path, reader, names)
    for entry in reader:
        with _line(path, entry.line):
            fact, parts = _parts(entry)
            noting.of(fact)
            noting.of(parts["orders"])
            for part in parts.get("payload") or ():
                names.note(TOPIC, part["topic"])
            leads.step(entry.now_ms, fact)


@contextmanager
def _line(path: Path, at: int) -> Iterator[None]:
    """What stands in this line may be anything that has the right checksum."""
    try:
        yield
    except MALFORMED as error:
        what = str(error)
        if isinstance(error, RecursionError):
            what = "nested too deeply"
        elif not isinstance(error, MalformedTraceError):
            what = f"{type(error).__name__}: {error}"
        raise DamagedRecordingError(f"{path}: line {at}: {what}") from error


class _Leading:
    """A member that may lead: of what counts it writes digests, which only it can tell."""

    def __init__(self, path: Path, reader: RecordingReader, names: Names) -> None:
        self._names = names
        machine = None if reader.header.get("vantage") == BROKER else _restored(path, reader)
        self._machine = machine if isinstance(machine, Member) else None
        self._counts: dict[str, int] = {}
        self._note()

    def _note(self) -> None:
        if self._machine is not None and self._counts is not self._machine.state.assigned_counts:
            self._counts = self._machine.state.assigned_counts
            self._names.note_counts(self._counts)

    def step(self, now_ms: int, fact: Plain) -> None:
        """One entry; a machine that breaks decides nothing more."""
        if self._machine is None:
            return
        try:
            self._machine.step(value_of(fact), now_ms=now_ms)
            self._note()
        except Exception:  # noqa: BLE001 - what replay calls a divergence
            self._machine = None


def _restored(path: Path, reader: RecordingReader, snapshot: Plain = None) -> Machine:
    """The machine of a recording, with this snapshot or its own."""
    vantage = reader.header.get("vantage")
    restore = RESTORERS.get(str(vantage))
    if restore is None:
        known = ", ".join(sorted((*RESTORERS, BROKER)))
        raise UnsupportedRecordingError(f"{path}: line 1: vantage {vantage!r}; this masks {known}")
    try:
        return restore(reader.snapshot if snapshot is None else snapshot)
    except Exception as error:
        raise DamagedRecordingError(f"{path}: line 2: {error!r}") from error


def _parts(entry: EntryText) -> tuple[Plain, dict[str, Any]]:
    """The fact, and what else an entry has. Raises MalformedTraceError."""
    fact, parts = plain_of_text(entry.fact), entry.parts()
    if not isinstance(parts["orders"], list):
        raise MalformedTraceError("orders are a list")
    for each in (fact, *parts["orders"]):
        value_of(each)
        if each is not None and VALUE not in each:
            raise MalformedTraceError(f"{short(each)} is neither fact nor order")
    if parts.get("payload") is not None:
        parts["payload"] = [
            {key: value for key, value in part.items() if key in KEPT_PARTS}
            for part in parts["payload"]
        ]
        check_payload(parts["payload"])
    return fact, parts


def _note_config(names: Names, header: dict[str, Any]) -> None:
    config = header.get("config") or {}
    names.note(CLIENT, str(header.get("member") or ""))
    names.note(CLIENT, config.get("client_id") or "")
    names.note(GROUP, config.get("group_id") or "")
    names.note(INSTANCE, config.get("group_instance_id") or "")
    for name in config.get("topics") or ():
        names.note(TOPIC, name)
    for address in config.get("bootstrap_servers") or ():
        names.note(HOST, address.rpartition(":")[0])


def mask(source: Path, target: Path, names: Names) -> Mask:
    """Write the copy. Raises DamagedRecordingError for the source, OSError for the target."""
    reader = RecordingReader(source)
    work = _Masking(source, reader, names)
    with target.open("wb") as file:
        line = work.write(file)
    return Mask(source, target, work.entries, line)


def in_order(sources: Iterable[Path]) -> list[Path]:
    """As to be masked: the files of one recording one after the other, as each names the last."""
    numbers = {path: RecordingReader(path).header.get("segment") for path in sources}
    known = {path: at if isinstance(at, int) else 0 for path, at in numbers.items()}
    return sorted(known, key=known.__getitem__)


def masked_name(source: Path, names: Names) -> str:
    """What to call the copy: as its member."""
    member = RecordingReader(source).header.get("member")
    return names.new(CLIENT, str(member or "")) or MASKED


class _Masking:
    """One copy."""

    def __init__(self, source: Path, reader: RecordingReader, names: Names) -> None:
        self._source = source
        self._reader = reader
        self._names = names
        self._compare = Renaming(names.new, lambda _: "", lambda _: b"")
        self._same = Renaming(lambda _, name: name, lambda _: "", lambda _: b"")
        self._rename = Renaming(
            names.new, lambda text: text and MASKED, names.data, names.user_data
        )
        # What a broker saw has the sentences of its coordinator, with names in them.
        self._seen = Renaming(names.new, names.reason, names.data, names.user_data)
        self.entries = 0
        self._machines: tuple[Machine, Machine] | None = None

    def write(self, file: BinaryIO) -> int:
        """All lines; the first line that is not what the other machine decides, or 0."""
        with _line(self._source, 1):
            header = self._header()
        with _line(self._source, 2):
            snapshot = self._snapshot(self._reader.snapshot)
            self._begin(snapshot)
        chain, unlike = Chain(), 0
        file.write(chain.begin(header, snapshot))
        for entry in self._reader:
            self.entries += 1
            with _line(self._source, entry.line):
                text, good = self._entry(entry)
            if not good and not unlike:
                unlike = entry.line
            file.write(chain.entry(text))
        if self._reader.complete:
            self._names.note_end(self._reader.digest, chain.digest)
            file.write(chain.end())
        return unlike

    def _entry(self, entry: EntryText) -> tuple[str, bool]:
        """The text of the copy, and whether its orders could be made anew."""
        fact, parts = _parts(entry)
        new_fact = self._rename.of(fact)
        orders, good = self._orders(entry.now_ms, (fact, new_fact), parts["orders"])
        payload = self._payload(parts.get("payload"))
        return entry_text(entry.now_ms, new_fact, orders, payload), good

    def _header(self) -> dict[str, Any]:
        names, old = self._names, self._reader.header
        header = {
            key: value if isinstance(value, str) else _setting(key, value)
            for key, value in old.items()
            if key in KEPT
        }
        header["member"] = names.new(CLIENT, str(old.get("member") or ""))
        config = old.get("config") or {}
        header["config"] = {key: self._setting(key, value) for key, value in config.items()}
        if "payload" in old:
            mode = PayloadMode(old["payload"])
            header["payload"] = str(PayloadMode.DIGEST if mode == PayloadMode.FULL else mode)
        if header.get("after"):
            header["after"] = names.end(header["after"])
        if "why" in old:
            header["why"] = _why(str(old["why"]))
        return {key: header[key] for key in old if key in header} | {"masked": True}

    def _setting(self, key: str, value: Any) -> Any:
        names = self._names
        match key:
            case "client_id" | "group_id" | "group_instance_id":
                kind = {"client_id": CLIENT, "group_id": GROUP}.get(key, INSTANCE)
                return value and names.new(kind, value)
            case "topics":
                return value and [names.new(TOPIC, each) for each in value]
            case "topics_whitelist" | "topics_blacklist":
                return names.pattern(value)
            case "bootstrap_servers":
                parts = (each.rpartition(":") for each in value or ())
                return [f"{names.new(HOST, host)}:{port}" for host, _, port in parts]
            case _:
                return _setting(key, value)

    def _snapshot(self, found: Plain) -> Plain:
        """The state with other names; patterns take the same topics under their new ones."""
        new = self._rename.of(found)
        if isinstance(found, dict) and "topics_whitelist" in (config := found.get("config") or {}):
            patterns = {
                key: self._names.pattern(config[key])
                for key in ("topics_whitelist", "topics_blacklist")
            }
            new["config"] = new["config"] | patterns
        return new

    def _begin(self, snapshot: Plain) -> None:
        if self._reader.header.get("vantage") != BROKER:
            old, new = (_restored(self._source, self._reader, each) for each in (None, snapshot))
            self._machines = old, new

    def _orders(
        self, now_ms: int, facts: tuple[Plain, Plain], recorded: list[Plain]
    ) -> tuple[list[Plain], bool]:
        """What the copy has, and whether it is what was recorded under other names."""
        if self._machines is None:
            seen = self._reader.header.get("vantage") == BROKER
            return (self._seen if seen else self._rename).of(recorded), True
        try:
            old, new = (
                [plain(order) for order in machine.step(value_of(fact), now_ms=now_ms)]
                for machine, fact in zip(self._machines, facts, strict=True)
            )
        except Exception:  # noqa: BLE001 - what replay calls a divergence too
            old, new = [RAISED], []
        was = [plain(value_of(order)) for order in recorded]
        if old != was:
            self._machines = None
            # What both still agree on has the words of the machine here too.
            same = [one == other for one, other in zip(old, was, strict=False)]
            pairs = zip_longest(self._rename.of(recorded), new[: len(same)], same)
            return [one if not good else other for one, other, good in pairs][: len(was)], True
        if self._compare.of(old) != self._same.of(new):
            self._machines = None
            return self._rename.of(recorded), False
        return new, True

    def _payload(self, found: Plain) -> Plain:
        if found is None:
            return None
        return [part | {"topic": self._names.new(TOPIC, part["topic"])} for part in found]


RAISED: Final[Plain] = {"raised": True}


def _why(found: str) -> str:
    """Of an exception its type: what it says may be anything."""
    if found in WHYS:
        return found
    kind = EXCEPTION.match(found)
    return f"{kind.group()}: {MASKED}" if kind else found and MASKED


def _setting(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        return {name: _setting(name, each) for name, each in inner.items()}
    kept = value is None or isinstance(value, int) or key in KEPT_WORDS
    return value if kept else HIDDEN
