"""The first difference of two recordings of one member, ignoring what may differ.

Two runs of the same thing have other ids, ports and times, and what comes at idle times comes in
another order. So ids are numbered as they appear, and the steps of each kind are compared with
those of the same kind, one after the other.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from ksim.after.lives import Life, Step
from ksim.core import events as e
from ksim.core.subscription import (
    MalformedProtocolError,
    decode_subscription,
    read_assignment,
    user_data_span,
)
from ksim.core.trace import VALUE, Plain, plain
from ksim.recording import RecordingReader

UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FIRST_ENTRY: Final = 3  # the line, after header and snapshot
NOTHING: Final = "nothing"
# What differs from run to run, whatever the group does.
NAMELESS: Final = frozenset(
    {"request_id", "revocation_id", "ticket", "host", "port", "at_ms", "deliver_until_ms", "tenure"}
)
# What depends on how much was read by then.
MOVING: Final = frozenset({"offset", "offsets", "leader_epoch", "metadata"})
# Fields of bytes, by what they are: an empty one of one kind may be read as the other.
SUBSCRIPTIONS: Final = ("protocols", "metadata", "subscription")
ASSIGNMENTS: Final = ("assignments", "assignment")
# What goes on at any time and says nothing about the group.
IDLE: Final = frozenset(
    {
        "TimerFired",
        "UserPolled",
        "BufferDrained",
        "BufferRecords",
        "RecordsHandedOut",
        "MarksTaken",
        "SetDeliverUntil",
        "DropBuffered",
    }
)
# How a request is sent; the node last: which broker is asked for the coordinator is any.
BESIDE: Final = ("channel", "request_timeout_ms", "node_id")
# Of the configuration: where the brokers are, and who it is.
OF_RUN: Final = ("bootstrap_servers", "client_id", "flight_recorder_dir")
OF_GROUP: Final = ("FindCoordinator", "JoinGroup", "SyncGroup", "LeaveGroup")
REFUSED_ONLY: Final = ("Heartbeat", "OffsetCommit", "OffsetFetch")


@dataclass(frozen=True, slots=True)
class Item:
    """One fact or order, made comparable; `number` is that of its step, from 0."""

    kind: str
    content: Plain
    number: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two lives part: the `nth` item of this kind, and which fields."""

    member: str
    kind: str
    nth: int
    one: Item | None
    other: Item | None
    fields: tuple[tuple[str, Plain, Plain], ...]


def first_difference(one: Life, other: Life, *, everything: bool = False) -> Difference | None:
    """The earliest by the steps of the first; None: there is none.

    `everything` compares also what was fetched, offsets, and what goes on at idle times.
    """
    ours, theirs = _by_kind(one, everything), _by_kind(other, everything)
    found = [
        difference
        for kind in dict.fromkeys([*ours, *theirs])
        if (difference := _of_kind(one.name, kind, ours.get(kind, []), theirs.get(kind, [])))
    ]
    return min(found, key=_number, default=None)


def other_configuration(one: Life, other: Life) -> tuple[tuple[str, Plain, Plain], ...]:
    """What differs of headers and snapshots; a key that one of the releases did not know is none.

    All else in snapshots is what steps have made of it, or where a ring begins.
    """
    found: dict[str, tuple[str, Plain, Plain]] = {}
    for mine, yours in zip(_configurations(one), _configurations(other), strict=True):
        for name in mine.keys() & yours.keys() - {*OF_RUN}:
            for path, ours, theirs in _fields(name, mine[name], yours[name]):
                found.setdefault(path, (path, ours, theirs))
    return tuple(found[path] for path in sorted(found))


def _configurations(life: Life) -> tuple[dict[str, Plain], dict[str, Plain]]:
    return life.header.get("config", {}), plain(life.state.config)


def place_of(life: Life, files: Sequence[Path], number: int) -> tuple[Path, int]:
    """File and line of a step of this life; `files` may have those that it goes on in."""
    headers = ((path, RecordingReader(path).header) for path in files)
    goes_on = {header["after"]: path for path, header in headers if _follows(header)}
    path = life.path
    while True:
        reader = RecordingReader(path)
        count = sum(1 for _ in reader)
        if number < count or reader.digest not in goes_on:
            return path, number + FIRST_ENTRY
        number -= count
        path = goes_on[reader.digest]


def _follows(header: Mapping[str, Any]) -> bool:
    return bool(header.get("after")) and not header.get("why")


def _number(difference: Difference) -> int:
    item = difference.one or difference.other
    assert item is not None, "a difference of nothing"
    return item.number


def pairs(
    ones: Sequence[Life], others: Sequence[Life]
) -> Iterator[tuple[str, Life | None, Life | None]]:
    """The lives of two runs by their names; two single files are a pair whatever their names."""
    if len(ones) == len(others) == 1:
        yield ones[0].name, ones[0], others[0]
        return
    there = {life.name: life for life in others}
    for life in ones:
        yield life.name, life, there.pop(life.name, None)
    for name, life in there.items():
        yield name, None, life


def _of_kind(
    member: str, kind: str, ours: Sequence[Item], theirs: Sequence[Item]
) -> Difference | None:
    for nth, (one, other) in enumerate(zip_longest(ours, theirs), 1):
        content = NOTHING if one is None else one.content
        fields = tuple(_fields("", content, NOTHING if other is None else other.content))
        if fields:
            return Difference(member, kind, nth, one, other, fields)
    return None


def _fields(path: str, one: Plain, other: Plain) -> Iterator[tuple[str, Plain, Plain]]:
    """Each field that is not the same, with its path."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        for name in one:
            yield from _fields(f"{path}.{name}".lstrip("."), one[name], other[name])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (mine, yours) in enumerate(zip(one, other, strict=True)):
            yield from _fields(f"{path}[{at}]", mine, yours)
    elif one != other:
        yield path, one, other


def _by_kind(life: Life, everything: bool) -> Mapping[str, list[Item]]:
    names, found = _Names(everything), defaultdict[str, list[Item]](list)
    asked = {each.request_id: type(each.request).__name__ for each in life.exchanges}
    for number, step in enumerate(life.steps):
        for kind, thing in _things(step, asked, everything):
            found[kind].append(Item(kind, names.of(thing), number, step.at_ms))
    return found


def _things(
    step: Step, asked: Mapping[int, str], everything: bool
) -> Iterator[tuple[str, dict[str, Plain]]]:
    """What happened, by its kind, as plain data."""
    fact = step.fact
    if isinstance(fact, e.ResponseReceived):
        kind = type(fact.response).__name__
        if everything or _counts(kind.removesuffix("Response"), fact.response):
            yield f"answer {kind.removesuffix('Response')}", plain(fact.response)
    elif isinstance(fact, e.RequestFailed):
        kind = asked.get(fact.request_id, "Request").removesuffix("Request")
        if everything or kind in (*OF_GROUP, *REFUSED_ONLY):
            yield f"no answer to {kind}", {"reason": fact.reason}
    elif everything or type(fact).__name__ not in IDLE:
        yield type(fact).__name__, plain(fact)
    for order in step.orders:
        if isinstance(order, e.SendRequest):
            kind = type(order.request).__name__.removesuffix("Request")
            if everything or kind in OF_GROUP:
                beside = BESIDE if everything else BESIDE[:-1]
                how = {name: getattr(order, name) for name in beside}
                yield f"request {kind}", plain(order.request) | how
        elif everything or type(order).__name__ not in IDLE:
            yield type(order).__name__, plain(order)


def _counts(kind: str, response: Any) -> bool:
    """How often a member is told that all is well depends on how long it ran."""
    if kind not in REFUSED_ONLY:
        return kind in OF_GROUP
    parts = getattr(response, "partitions", ())
    codes = (getattr(response, "error_code", 0), *(each.error_code for each in parts))
    return any(codes)


@dataclass(slots=True)
class _Names:
    """Ids by the order in which they appear, bytes as what they say."""

    everything: bool
    known: dict[str, str] = field(default_factory=dict[str, str])

    def of(self, data: Plain, name: str = "") -> Plain:
        """`name` is that of the field which this is, or is in."""
        if isinstance(data, str):
            return UUID.sub(lambda found: self._numbered(found.group()), data)
        if isinstance(data, list):
            return [self.of(item, name) for item in data]
        if not isinstance(data, dict):
            return data
        if set(data) == {"b64"}:
            return self._read(data, name)
        return {
            ("kind" if name == VALUE else name): self.of(item, name)
            for name, item in data.items()
            if not self._is_left_out(name, item)
        }

    def _is_left_out(self, name: str, item: Plain) -> bool:
        """What commits have as metadata is text; that of members is what they want."""
        moves = name in MOVING and not isinstance(item, dict) and not self.everything
        return name in NAMELESS or moves

    def _numbered(self, found: str) -> str:
        return self.known.setdefault(found, f"#{len(self.known) + 1}")

    def _read(self, data: dict[str, Any], name: str) -> Plain:
        raw = base64.b64decode(data["b64"])
        try:
            if name in SUBSCRIPTIONS:
                return self._subscription(raw)
            return self._assignment(raw) if name in ASSIGNMENTS else data
        except MalformedProtocolError:
            return data

    def _subscription(self, raw: bytes) -> Plain:
        begin, end = user_data_span(raw)
        topics = list(decode_subscription("", None, raw).topics)
        if not self.everything:
            return topics
        # The bytes that are left have the order of the topics, and what was owned before.
        beside = {"user_data": plain(raw[begin:end]), "bytes": plain(raw[:begin] + raw[end:])}
        return {"topics": topics, **beside}

    def _assignment(self, raw: bytes) -> Plain:
        found, user_data = read_assignment(raw)
        partitions = [str(tp) for tp in found]
        if not self.everything:
            return partitions
        return {"partitions": partitions, "user_data": plain(user_data)}
