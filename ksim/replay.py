"""Feed a recording to today's machine and compare each decision."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final, cast

from ksim.core.coordinator import Coordinator
from ksim.core.errors import DamagedRecordingError, UnsupportedRecordingError
from ksim.core.member import Member
from ksim.core.session import Machine
from ksim.core.trace import VALUE, MalformedTraceError, Plain, plain, value_of
from ksim.recording import (
    PAYLOAD_AT,
    Entry,
    EntryText,
    Recording,
    RecordingReader,
)
from ksim.recording_payload import USUAL
from ksim.trace_text import check_depth, once, plain_of_text, text_of, value_of_text

RESTORERS: dict[str, Callable[[Plain], Machine]] = {
    "member": Member.restore,
    "coordinator": Coordinator.restore,
}
KEPT: Final = 5  # of the entries that agreed
RAISED: Final = "raised"
NOTHING: Final = "nothing"
LONGEST_TEXT: Final = 200
PAYLOADS: Final = json.JSONDecoder(object_pairs_hook=once)
# What reading a value raises where it is none, or is nested too deeply to be one.
MALFORMED: Final = (MalformedTraceError, TypeError, RecursionError)


class ReplayVerdict(StrEnum):
    """SAME; INCOMPLETE: the same up to a torn tail; DIVERGED: another decision.

    UNSUPPORTED: made by another release, or there is no machine to replay it. DAMAGED: a line
    cannot be trusted.
    """

    SAME = "SAME"
    INCOMPLETE = "INCOMPLETE"
    DIVERGED = "DIVERGED"
    UNSUPPORTED = "UNSUPPORTED"
    DAMAGED = "DAMAGED"


@dataclass(frozen=True, slots=True)
class Difference:
    """One place inside the orders of a step, and both sides of it."""

    path: str
    recorded: Plain
    decided: Plain

    def __str__(self) -> str:
        return f"{self.path} was {short(self.recorded)}, is now {short(self.decided)}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step whose orders differ: where, after which fact, and both sides.

    `agreed` are the last entries before it; `state` is the machine's before this step.
    """

    entry: int
    line: int
    now_ms: int
    fact: Plain
    recorded: list[Plain]
    decided: list[Plain]
    agreed: tuple[Entry, ...] = ()
    state: Plain = None

    def differences(self) -> list[Difference]:
        """Every place where the two part, in the order of the orders."""
        pairs = enumerate(zip(self.recorded, self.decided, strict=False), 1)
        found = [each for at, pair in pairs for each in _differences(f"order {at}", *pair)]
        both = min(len(self.recorded), len(self.decided))
        more = enumerate(zip_longest(self.recorded[both:], self.decided[both:], fillvalue=NOTHING))
        return found + [Difference(f"order {both + at + 1}", *pair) for at, pair in more]

    def sentence(self) -> str:
        """Where the two part first, for people."""
        return (
            f"entry {self.entry} (line {self.line}) at {self.now_ms} ms, "
            f"after {short(self.fact)}: {self.differences()[0]}"
        )


def _differences(path: str, was: Plain, now: Plain) -> Iterator[Difference]:
    if same(was, now):
        return
    if isinstance(was, dict) and isinstance(now, dict) and list(was) == list(now):
        for key in was:
            name = " kind" if key == "_" else f".{key}"
            yield from _differences(path + name, was[key], now[key])
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for at, pair in enumerate(zip(was, now, strict=True)):
            yield from _differences(f"{path}[{at}]", *pair)
    else:
        yield Difference(path, was, now)


def same(one: Plain, other: Plain) -> bool:
    """Whether both are written alike; to Python, 1 equals true."""
    return text_of(one) == text_of(other)


def short(data: Plain) -> str:
    """Plain data as text of at most a few lines."""
    try:
        text = json.dumps(data, separators=(",", ":"))
    except ValueError:
        return "a number of more digits than are told"
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What a replay found; `problem` says why a file could not be read or replayed."""

    verdict: ReplayVerdict
    entries: int
    divergence: Divergence | None = None
    problem: str = ""
    torn_bytes: int = 0


def replay(recording: Recording) -> ReplayOutcome:
    """Step the machine that the recording began with through all of its facts.

    Raises DamagedRecordingError for what is no fact or no machine.
    """
    lines = map(_text_of_entry, recording.entries)
    found = _Replay("", recording.header, recording.snapshot)
    divergence = found.first_divergence(lines)
    if divergence is not None:
        return ReplayOutcome(ReplayVerdict.DIVERGED, found.entries, divergence)
    verdict = ReplayVerdict.SAME if recording.complete else ReplayVerdict.INCOMPLETE
    return ReplayOutcome(verdict, found.entries, torn_bytes=recording.torn_bytes)


def _text_of_entry(entry: Entry) -> EntryText:
    text = json.dumps({"fact": entry.fact, "orders": entry.orders}, separators=(",", ":"))
    fact, _, rest = text.removeprefix('{"fact":').partition(',"orders":')
    return EntryText(entry.line, entry.now_ms, fact, rest)


def replay_file(path: str | Path) -> ReplayOutcome:
    """The same line by line, so that a recording may be of any length; never raises for a file."""
    try:
        reader = RecordingReader(path)
        found = _Replay(f"{path}: ", reader.header, reader.snapshot)
        divergence = found.first_divergence(reader)
        if divergence is not None:
            return ReplayOutcome(ReplayVerdict.DIVERGED, found.entries, divergence)
    except UnsupportedRecordingError as error:
        return ReplayOutcome(ReplayVerdict.UNSUPPORTED, 0, problem=str(error))
    except DamagedRecordingError as error:
        return ReplayOutcome(ReplayVerdict.DAMAGED, 0, problem=str(error))
    verdict = ReplayVerdict.SAME if reader.complete else ReplayVerdict.INCOMPLETE
    return ReplayOutcome(verdict, found.entries, torn_bytes=reader.torn_bytes)


def state_before(path: str | Path, entry: int) -> Plain:
    """What the machine knows before this entry, without its configuration and what is empty."""
    return known_of(_before(path, entry)[0].machine)


def look_at(path: str | Path, entry: int) -> Divergence:
    """One entry as it was recorded and as it is decided now, whether they differ or not.

    Raises DamagedRecordingError where there is none of this number.
    """
    found, lines = _before(path, entry)
    state = known_of(found.machine)
    line = next(lines, None)
    if line is None:
        raise DamagedRecordingError(f"{path}: entry {entry}: there are {found.entries}")
    return replace(found.compare(line), state=state)


def _before(path: str | Path, entry: int) -> tuple[_Replay, Iterator[EntryText]]:
    reader = RecordingReader(path)
    found, lines = _Replay(f"{path}: ", reader.header, reader.snapshot), iter(reader)
    for each in islice(lines, entry - 1):
        found.entries += 1
        found.decide(each)
    return found, lines


def known_of(machine: Machine) -> Plain:
    """The state of a machine, as far as it says anything."""
    state: Any = machine.state  # type: ignore[attr-defined]
    return {
        field.name: plain(value)
        for field in fields(state)
        if field.name not in ("config", "seed")
        and (value := getattr(state, field.name)) not in (None, "", 0, -1, (), {}, [])
    }


class _Replay:
    """A machine, and where it stands in its recording. `where` begins each error."""

    def __init__(self, where: str, header: dict[str, Any], snapshot: Plain) -> None:
        self._where = where
        self.machine = _restored(where, header, snapshot)
        self.entries = 0
        self._agreed: deque[EntryText] = deque(maxlen=KEPT)

    def first_divergence(self, lines: Iterable[EntryText]) -> Divergence | None:
        """Step through the lines until the machine decides otherwise."""
        for found in lines:
            self.entries += 1
            text = self.decide(found)
            rest = found.rest
            alike = rest.startswith(text) and (
                len(rest) == len(text) + 1 or self._is_payload(found, len(text))
            )
            if not alike:
                divergence = self._divergence(found, plain_of_text(text))
                if not same(divergence.recorded, divergence.decided):
                    return divergence
            self._agreed.append(found)
        return None

    def compare(self, found: EntryText) -> Divergence:
        """Step through one more entry."""
        self.entries += 1
        return self._divergence(found, plain_of_text(self.decide(found)))

    def decide(self, found: EntryText) -> str:
        """The text of what is ordered now; the recorded machine did not raise."""
        fact = self.fact(found)
        try:
            orders = self.machine.step(fact, now_ms=found.now_ms)
            return text_of(orders) if orders else "[]"
        except Exception as error:  # noqa: BLE001 - a fact that is none, or a bug of the machine
            return text_of([{RAISED: f"{type(error).__name__}: {error}"}])

    def fact(self, found: EntryText) -> Any:
        """The fact of an entry. Raises DamagedRecordingError."""
        try:
            return value_of_text(found.fact)
        except MALFORMED as error:
            raise self._damaged(found, error) from error

    def _is_payload(self, found: EntryText, at: int) -> bool:
        """Whether the rest of an entry is a payload. Raises DamagedRecordingError for a bad one."""
        if not found.rest.startswith(PAYLOAD_AT, at):
            return False
        usual = USUAL.match(found.rest, at + len(PAYLOAD_AT))
        end = self._payload_end(found, at + len(PAYLOAD_AT)) if usual is None else usual.end()
        if end != len(found.rest) - 1:
            raise self._damaged(found, f"after the payload: {short(found.rest[end:-1])}")
        return True

    def _payload_end(self, found: EntryText, at: int) -> int:
        try:
            payload, end = PAYLOADS.raw_decode(found.rest, at)
            check_depth(payload)
        except MalformedTraceError as error:
            raise self._damaged(found, f"payload: {error}") from error
        except (ValueError, RecursionError) as error:
            raise self._damaged(found, f"payload: not JSON: {error}") from error
        return end

    def _damaged(self, found: EntryText, why: object) -> DamagedRecordingError:
        return DamagedRecordingError(f"{self._where}line {found.line}: {why}")

    def _recorded(self, found: EntryText) -> list[Plain]:
        """The orders as today's release would write them: fields it has added have defaults."""
        try:
            orders = found.parts()["orders"]
            if not isinstance(orders, list):
                raise MalformedTraceError("orders are a list")
            return [plain(value_of(_order(order))) for order in orders]
        except MALFORMED as error:
            raise self._damaged(found, error) from error

    def _entry(self, found: EntryText) -> Entry:
        """One that agreed, for people. Raises DamagedRecordingError."""
        try:
            orders = found.parts()["orders"]
            return Entry(found.line, found.now_ms, plain_of_text(found.fact), orders)
        except MALFORMED as error:
            raise self._damaged(found, error) from error

    def _divergence(self, found: EntryText, decided: list[Plain]) -> Divergence:
        agreed = tuple(map(self._entry, self._agreed))
        return Divergence(
            self.entries, found.line, found.now_ms, plain_of_text(found.fact),
            self._recorded(found), decided, agreed,
        )  # fmt: skip


def _order(found: Plain) -> Plain:
    """Raises MalformedTraceError for what is none, whatever its name."""
    if not (isinstance(found, dict) and VALUE in found):
        raise MalformedTraceError(f"{short(found)} is no order")
    return cast(Plain, found)


def _restored(where: str, header: dict[str, Any], snapshot: Plain) -> Machine:
    vantage = header.get("vantage")
    restore = RESTORERS.get(str(vantage))
    if restore is None:
        known = ", ".join(sorted(RESTORERS))
        raise UnsupportedRecordingError(f"{where}line 1: vantage {vantage!r}; this replays {known}")
    try:
        return restore(snapshot)
    except Exception as error:
        raise DamagedRecordingError(f"{where}line 2: {type(error).__name__}: {error}") from error
