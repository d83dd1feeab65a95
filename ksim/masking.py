"""A copy of recordings with other names, which replays to what the original replays to.

Two machines run side by side: the original one on what was recorded, and another on the same facts
with other names. As long as the first decides what was recorded, the copy has what the second
decides, which must be the recorded orders but for the names: sentences and digests that a machine
makes of names come out right. After a divergence, names are put in their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Final

from ksim.core.errors import DamagedRecordingError
from ksim.core.member import Member
from ksim.core.session import Machine
from ksim.core.subscription import counts_digest, read_assignment
from ksim.core.trace import MalformedTraceError, Plain, plain, value_of
from ksim.mask_names import CLIENT, GROUP, HOST, INSTANCE, STAR, TOPIC, Names, Renaming
from ksim.recording import BROKER, Chain, EntryText, RecordingReader, entry_text
from ksim.recording_payload import PayloadMode
from ksim.replay import RESTORERS
from ksim.trace_text import plain_of_text

# Configuration that may say where or who somebody is, beside what has a name of its own.
HIDDEN_KEYS: Final = (
    "user_data", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile",
    "sasl_plain_username", "host", "flight_recorder_dir",
)  # fmt: skip
HIDDEN: Final = "***"
MASKED: Final = "masked"
DROPPED: Final = ("format", "version", "features", "c")


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
    noting = Renaming(names.note, str, bytes)
    for path in paths:
        reader = RecordingReader(path)
        _note_config(names, reader.header)
        noting.of(reader.snapshot)
        for entry in reader:
            fact, parts = _parts(path, entry)
            noting.of(fact)
            noting.of(parts["orders"])
            for part in parts.get("payload") or ():
                names.note(TOPIC, part["topic"])
    names.decide()
    return names


def _parts(path: Path, entry: EntryText) -> tuple[Plain, dict[str, Any]]:
    try:
        return plain_of_text(entry.fact), entry.parts()
    except MalformedTraceError as error:
        raise DamagedRecordingError(f"{path}: line {entry.line}: {error}") from error


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
        self._digests: dict[bytes, bytes] = {}
        self._rename = Renaming(names.new, names.in_text, self._digest)
        self._compare = Renaming(names.new, lambda _: "", lambda _: b"")
        self._same = Renaming(lambda _, name: name, lambda _: "", lambda _: b"")
        self._facts = Renaming(names.new, lambda text: text and MASKED, self._digest)
        self.entries = 0
        self._machines: tuple[Machine, Machine] | None = None

    def _digest(self, data: bytes) -> bytes:
        return self._digests.get(data, STAR.encode() * len(data))

    def write(self, file: BinaryIO) -> int:
        """All lines; the first line that is not what the other machine decides, or 0."""
        snapshot = self._snapshot(self._reader.snapshot)
        self._begin(snapshot)
        chain, unlike = Chain(), 0
        file.write(chain.begin(self._header(), snapshot))
        for entry in self._reader:
            self.entries += 1
            fact, parts = _parts(self._source, entry)
            self._learn_digests()
            new_fact = self._facts.of(fact)
            orders, good = self._orders(entry.now_ms, (fact, new_fact), parts["orders"])
            if not good and not unlike:
                unlike = entry.line
            payload = self._payload(parts.get("payload"))
            file.write(chain.entry(entry_text(entry.now_ms, new_fact, orders, payload)))
        if self._reader.complete:
            file.write(chain.end())
        return unlike

    def _header(self) -> dict[str, Any]:
        names = self._names
        header = {key: value for key, value in self._reader.header.items() if key not in DROPPED}
        header["member"] = names.new(CLIENT, str(header.get("member") or ""))
        config = header.get("config") or {}
        header["config"] = {key: self._setting(key, value) for key, value in config.items()}
        if header.get("payload") == PayloadMode.FULL:
            header["payload"] = str(PayloadMode.DIGEST)
        if "why" in header:
            header["why"] = names.in_text(header["why"])
        return header | {"masked": True}

    def _setting(self, key: str, value: Any) -> Any:
        names = self._names
        match key:
            case "client_id" | "group_id" | "group_instance_id":
                kind = {"client_id": CLIENT, "group_id": GROUP}.get(key, INSTANCE)
                return value and names.new(kind, value)
            case "topics":
                return [names.new(TOPIC, each) for each in value]
            case "topics_whitelist" | "topics_blacklist":
                return names.pattern(value)
            case "bootstrap_servers":
                parts = (each.rpartition(":") for each in value)
                return [f"{names.new(HOST, host)}:{port}" for host, _, port in parts]
            case _:
                return HIDDEN if key in HIDDEN_KEYS and value is not None else value

    def _snapshot(self, found: Plain) -> Plain:
        """The state with other names; patterns take the same topics under their new ones."""
        new = self._facts.of(found)
        if isinstance(found, dict) and "topics_whitelist" in (config := found.get("config") or {}):
            patterns = {
                key: self._names.pattern(config[key])
                for key in ("topics_whitelist", "topics_blacklist")
            }
            new["config"] = new["config"] | patterns
        return new

    def _begin(self, snapshot: Plain) -> None:
        vantage = self._reader.header.get("vantage")
        if vantage == BROKER:
            return
        try:
            restore = RESTORERS[str(vantage)]
            self._machines = restore(self._reader.snapshot), restore(snapshot)
        except Exception as error:
            raise DamagedRecordingError(f"{self._source}: line 2: {error!r}") from error

    def _orders(
        self, now_ms: int, facts: tuple[Plain, Plain], recorded: list[Plain]
    ) -> tuple[list[Plain], bool]:
        """What the copy has, and whether it is what was recorded under other names."""
        if self._machines is None:
            return self._rename.of(recorded), True
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
        self._learn_from_orders(old, new)
        if self._compare.of(old) != self._same.of(new):
            self._machines = None
            return self._rename.of(recorded), False
        return new, True

    def _learn_digests(self) -> None:
        """A leader compares what it once wrote with what it knows now."""
        if self._machines is None:
            return
        old, new = self._machines
        if isinstance(old, Member) and isinstance(new, Member):
            one, other = old.state.assigned_counts, new.state.assigned_counts
            self._digests[counts_digest(one)] = counts_digest(other)

    def _learn_from_orders(self, old: list[Plain], new: list[Plain]) -> None:
        for one, other in zip(_assignments(old), _assignments(new), strict=False):
            before, after = read_assignment(one)[1], read_assignment(other)[1]
            if before is not None and after is not None:
                self._digests[before] = after

    def _payload(self, found: Plain) -> Plain:
        if found is None:
            return None
        return [
            {key: value for key, value in part.items() if key != "records"}
            | {"topic": self._names.new(TOPIC, part["topic"])}
            for part in found
        ]


RAISED: Final[Plain] = {"raised": True}


def _assignments(orders: list[Plain]) -> Iterator[bytes]:
    """What a leader gives out."""
    for order in orders:
        request = order.get("request")
        for _, data in (request or {}).get("assignments", ()):
            yield value_of(data)
