"""Which strings of plain data are names, and of what; and the bytes that have names inside."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ksim.core.subscription import (
    MalformedProtocolError,
    Reader,
    counts_digest,
    packed_bytes,
    packed_string,
)
from ksim.core.trace import LIST, MAP, PARTITION, VALUE, MalformedTraceError, Plain, plain, value_of
from ksim.mask_texts import EITHER, GROUP_WORDS, INSTANCE, MASKED, MEMBER, PROTOCOLS, parts_of
from ksim.recording_hiding import SUBSCRIPTIONS, Stars

GROUP, TOPIC, CLIENT, HOST, RACK = "group", "topic", "client", "host", "rack"
PROTOCOL, NOTE, TEXT, TIMER, WORD = "protocol", "note", "text", "timer", "word"
KINDS: Final = (GROUP, TOPIC, MEMBER, INSTANCE, CLIENT, HOST, RACK, PROTOCOL)
# What the strings in a field are, at whatever depth; keys of a map too.
FIELDS: Final = {
    "group_id": GROUP, "groups": GROUP, "offsets": GROUP,
    "topic": TOPIC, "topics": TOPIC, "group_topics": TOPIC, "subscribed": TOPIC,
    "joined_topics": TOPIC, "counts": TOPIC, "assigned_counts": TOPIC, "topic_errors": TOPIC,
    "member_id": MEMBER, "leader": MEMBER, "members": MEMBER, "fresh_member_id": MEMBER,
    "pending_joins": MEMBER, "pending_syncs": MEMBER, "before_id": MEMBER, "assignments": MEMBER,
    "group_instance_id": INSTANCE,
    "client_id": CLIENT, "client_host": HOST, "host": HOST,
    "metadata": NOTE, "reason": TEXT, "context": TEXT, "detail": TEXT, "error_message": TEXT,
    "live": TIMER, "heap": TIMER,
    "protocol_type": PROTOCOL, "protocol_name": PROTOCOL, "protocol_data": PROTOCOL,
    "protocols": PROTOCOL, "before_protocols": PROTOCOL, "supported": PROTOCOL,
    "states": WORD, "types": WORD, "group_state": WORD, "group_type": WORD,
    "from_state": WORD, "to_state": WORD,
}  # fmt: skip
STATIC_MEMBERS: Final = "static_members"
ASSIGNMENTS: Final = ("assignments", "assignment")
STAR: Final = "*"
# The versions of a subscription from which it has partitions, their generation, and a rack.
WITH_OWNED, WITH_GENERATION, WITH_RACK = 1, 2, 3
GENERATION_BYTES: Final = 4
NULL: Final = b"\xff\xff"  # the length of a string that is none


@dataclass(frozen=True, slots=True)
class Renaming:
    """What becomes of names (kind and name), of texts for people, and of user data.

    `data` is of assignments, `user_data` of subscriptions.
    """

    name: Callable[[str, str], str]
    text: Callable[[str], str]
    data: Callable[[bytes], bytes]
    user_data: Callable[[bytes], bytes] = lambda data: STAR.encode() * len(data)

    def of(self, found: Plain, field: str = "") -> Plain:
        """Plain data with other names; `field` is where it stands."""
        if isinstance(found, str):
            return self._string(found, field)
        if isinstance(found, list):
            if FIELDS.get(field) == TIMER and found and isinstance(found[0], str):
                return self._timer(found)
            return [self.of(each, field) for each in found]
        if isinstance(found, dict):
            return self._object(found, field)
        return found

    def _object(self, found: dict[str, Any], field: str) -> Plain:
        if VALUE in found:
            return {name: self._field(item, name) for name, item in found.items()}
        ((tag, inner),) = found.items()
        match tag:
            case "tp":
                return {PARTITION: [self.name(TOPIC, inner[0]), inner[1]]}
            case "b64":
                return self._octets(found, field)
            case "list":
                return {LIST: self.of(inner, field)}
            case _:
                return {MAP: [[self.of(part, field) for part in pair] for pair in inner]}

    def _field(self, item: Plain, name: str) -> Plain:
        if name == VALUE:
            return item
        if name == STATIC_MEMBERS:
            pairs = [[self.name(INSTANCE, one), self.name(MEMBER, id_)] for one, id_ in item[MAP]]
            return {MAP: pairs}
        return self.of(item, name)

    def _timer(self, key: list[Any]) -> list[Any]:
        """A kind of timer, and whose it is."""
        whose = zip((GROUP, MEMBER), key[1:], strict=False)
        return [key[0], *(self.name(kind, part) for kind, part in whose)]

    def _string(self, found: str, field: str) -> str:
        kind = FIELDS.get(field)
        if kind == PROTOCOL and found in PROTOCOLS:
            return found
        if kind in KINDS:
            return self.name(kind, found) if found else ""
        if kind == NOTE:
            return STAR * (len(found.encode("utf-16-le")) // 2)  # a coordinator counts these
        hides = kind == TEXT or (kind == WORD and found.lower() not in GROUP_WORDS)
        return self.text(found) if hides else found

    def _octets(self, found: Plain, field: str) -> Plain:
        data = value_of(found)
        if field in SUBSCRIPTIONS:
            return plain(self._subscription(data))
        if field in ASSIGNMENTS:
            return plain(self._assignment(data))
        return plain(STAR.encode() * len(data))

    def _subscription(self, data: bytes) -> bytes:
        if not data:
            return data
        try:
            reader = Reader(data)
            version = reader.integer(">h")
            topics = [self.name(TOPIC, reader.string()) for _ in range(reader.count())]
            head = struct.pack(">hi", version, len(topics)) + b"".join(map(packed_string, topics))
            if reader.at == len(data):
                return head
            user_data = reader.nullable_bytes()
            hidden = None if user_data is None else self.user_data(user_data)
            owned = b""
            if version >= WITH_OWNED and reader.at < len(data):
                owned = self._partitions(reader)
            return head + packed_bytes(hidden) + owned + self._later(version, data[reader.at :])
        except MalformedProtocolError:
            return self.user_data(data)

    def _later(self, version: int, data: bytes) -> bytes:
        """What later versions have added; of those that are not known here, stars."""
        generation = data[:GENERATION_BYTES] if version >= WITH_GENERATION else b""
        rest, rack = data[len(generation) :], b""
        if version >= WITH_RACK and rest.startswith(NULL):
            rack, rest = NULL, rest[len(NULL) :]
        elif version >= WITH_RACK and rest:
            reader = Reader(rest)
            rack = packed_string(self.name(RACK, reader.string()))
            rest = rest[reader.at :]
        return generation + rack + STAR.encode() * len(rest)

    def _assignment(self, data: bytes) -> bytes:
        if not data:
            return data
        try:
            reader = Reader(data)
            head = struct.pack(">h", reader.integer(">h")) + self._partitions(reader)
            if reader.at == len(data):
                return head
            found = reader.nullable_bytes()
            new = None if found is None else self.data(found)
            return head + packed_bytes(new) + STAR.encode() * (len(data) - reader.at)
        except MalformedProtocolError:
            return STAR.encode() * len(data)

    def _partitions(self, reader: Reader) -> bytes:
        parts = [struct.pack(">i", count := reader.count())]
        for _ in range(count):
            parts.append(packed_string(self.name(TOPIC, reader.string())))
            numbers = [reader.integer(">i") for _ in range(reader.count())]
            parts.append(struct.pack(f">i{len(numbers)}i", len(numbers), *numbers))
        return b"".join(parts)


class Names:
    """All names of some recordings, and the new one of each: of their kind, in the same order."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self._new: dict[str, dict[str, str]] = {}
        self._either: set[str] = set()
        self._counts: dict[bytes, dict[str, int]] = {}
        self._digests: dict[bytes, bytes] = {}
        self._ends: dict[str, str] = {}
        self._stars = Stars()

    def note(self, kind: str, name: str) -> str:
        """While they are collected: remember it. Raises MalformedTraceError for what is none."""
        if not isinstance(name, str):
            raise MalformedTraceError(f"{name!r} is no name of a {kind}")
        self._found[kind].add(name)
        return name

    def note_reason(self, reason: str) -> str:
        """While they are collected: the names in a coordinator's sentence."""
        for kind, part in parts_of(reason):
            if kind:
                (self._either if kind == EITHER else self._found[kind]).add(part)
        return reason

    def note_counts(self, counts: dict[str, int]) -> None:
        """While they are collected: a leader may write the digest of these."""
        self._counts[counts_digest(counts)] = counts

    def note_end(self, old: str, new: str) -> None:
        """A copy is made: the digests of the original and of the copy."""
        self._ends[old] = new

    def decide(self) -> None:
        """All are known; assignments hang on the order of names, so it is kept."""
        self._found[MEMBER] |= self._either - self._found[INSTANCE]
        for kind, names in self._found.items():
            names.discard("")
            width = len(str(len(names)))
            self._new[kind] = {
                name: f"{kind}-{at:0{width}}" for at, name in enumerate(sorted(names), 1)
            }
        self._digests = {
            old: counts_digest({self.new(TOPIC, name): count for name, count in counts.items()})
            for old, counts in self._counts.items()
        }

    def all_of(self, kind: str) -> list[str]:
        """The names of a kind, as they were."""
        return sorted(self._new[kind])

    def new(self, kind: str, name: str) -> str:
        """The name that stands for it."""
        return self._new[kind].get(name, "") if name else ""

    def data(self, data: bytes) -> bytes:
        """The user data of an assignment: the digest that its leader writes in its copy, or stars.

        It is the same in the copies of all who were told it.
        """
        return self._digests.get(data, STAR.encode() * len(data))

    def user_data(self, data: bytes) -> bytes:
        """What stands for the user data of a subscription."""
        return self._stars.of(data)

    def end(self, digest: str) -> str:
        """The digest of the copy that stands for the file before; of none, what it was."""
        return self._ends.get(digest, digest)

    def reason(self, reason: str) -> str:
        """A coordinator's sentence with the new names in it; of anything else nothing is left."""
        parts = parts_of(reason)
        if not parts:
            return reason and MASKED
        return "".join(self._part(kind, part) for kind, part in parts)

    def _part(self, kind: str, part: str) -> str:
        if kind == EITHER:
            kind = MEMBER if part in self._found[MEMBER] else INSTANCE
        return self.new(kind, part) if kind else part

    def pattern(self, pattern: str | None) -> str | None:
        """A pattern that takes the new names of just the topics that this one takes."""
        if pattern is None:
            return None
        taken = [new for name, new in self._new[TOPIC].items() if re.search(pattern, name)]
        return f"^(?:{'|'.join(taken)})$" if taken else "(?!)"
