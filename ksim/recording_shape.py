"""Is plain data what the types say that a recording holds? Who reads on may then rely on it.

A replay does without: it compares decisions, and what no decision hangs on may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from ksim.core.coordinator_state import CoordinatorState
from ksim.core.events import CoordinatorFact, CoordinatorOrder, MemberFact, MemberOrder
from ksim.core.member_state import MemberState
from ksim.core.trace import (
    BYTES,
    LIST,
    MAP,
    PARTITION,
    VALUE,
    MalformedTraceError,
    Plain,
    values_by_name,
)
from ksim.core.values import TopicPartition

Check = Callable[[Plain], None]
LEAST, BEYOND = -(1 << 63), 1 << 64  # numbers have up to 64 bits, with a sign or without
LONGEST_TEXT: Final = 60
HEX: Final = re.compile("[0-9a-f]*")
MEMBER: Final = "member"
# By vantage point: the snapshot, facts and orders. A broker has no snapshot, and steps without one.
SHAPES: Final[dict[str, tuple[Any, Any, Any]]] = {
    MEMBER: (MemberState, MemberFact, MemberOrder),
    "coordinator": (CoordinatorState, CoordinatorFact, CoordinatorOrder),
    "broker": (None, CoordinatorFact | None, CoordinatorOrder),
}
HEADER: Final[dict[str, Any]] = {
    "member": str,
    "seed": int | None,
    "segment": int,
    "after": str | None,
}
# Of the configuration what is read again, and times; of other keys the values are for people.
CONFIG: Final[dict[str, Any]] = {
    "topics": tuple[str, ...],
    "partition_strategy": str | tuple[str, ...],
    "client_id": str,
    "auto_offset_reset": str,
    "acknowledge": str,
    "mode": str,
    "topics_whitelist": str | None,
    "topics_blacklist": str | None,
    "rebalance_timeout_ms": int | None,
    "dwell_time_ms": int | None,
}


def check_header(header: dict[str, Any]) -> None:
    """Raises MalformedTraceError for a value of another type than the format says."""
    for name, hint in HEADER.items():
        if name in header:
            _within(name, _check_of(hint), header[name])
    config: object = header.get("config", {})
    if not isinstance(config, dict):
        raise _wrong("config", config, "an object")
    for name, value in cast("dict[str, Plain]", config).items():
        hint = CONFIG.get(name, int if name.endswith("_ms") else None)
        if hint is not None:
            _within(f"config.{name}", _check_of(hint), value)


def check_snapshot(vantage: str, snapshot: Plain) -> None:
    """Raises MalformedTraceError for what is no state of such a machine."""
    wanted = SHAPES.get(vantage, (None,))[0]
    if wanted is not None:
        _check_of(wanted)(snapshot)


def check_entry(vantage: str, fact: Plain, orders: list[Plain]) -> None:
    """Raises MalformedTraceError for what is no fact or no order of such a machine."""
    if vantage in SHAPES:
        _, facts, known = SHAPES[vantage]
        _check_of(facts)(fact)
        for order in orders:
            _check_of(known)(order)


def check_payload(payload: Plain) -> None:
    """Raises MalformedTraceError for what does not say what was fetched; there may be none."""
    if payload is not None:
        _within("payload", _all(_part), payload)


def _wrong(what: str, found: object, wanted: str) -> MalformedTraceError:
    text = repr(found)
    text = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "..."
    return MalformedTraceError(f"{what}{': ' if what else ''}{text} is not {wanted}")


def _within(name: str, check: Check, found: Plain) -> None:
    try:
        check(found)
    except MalformedTraceError as error:
        raise MalformedTraceError(f"{name}: {error}") from None


@cache
def _check_of(hint: Any) -> Check:
    if hint in SCALARS:
        return SCALARS[hint]
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(parts)
    if kind is tuple:
        return _tuple(parts)
    if kind is list:
        return _tagged(LIST, _all(_check_of(parts[0])))
    if kind is dict:
        return _tagged(MAP, _all(_each((_check_of(parts[0]), _check_of(parts[1])))))
    if issubclass(hint, StrEnum):
        return _enum(frozenset(map(str, hint)))
    return _value(hint)


def _number(found: Plain) -> None:
    if type(found) is not int or not LEAST <= found < BEYOND:
        raise _wrong("", found, "a whole number of up to 64 bits")


def _text(found: Plain) -> None:
    if type(found) is not str:
        raise _wrong("", found, "a text")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise _wrong("", ascii(found), "a text: it has half a character") from None


def _truth(found: Plain) -> None:
    if type(found) is not bool:
        raise _wrong("", found, "true or false")


def _nothing(found: Plain) -> None:
    if found is not None:
        raise _wrong("", found, "null")


def _bytes(found: Plain) -> None:
    if type(found) is not dict or found.keys() != {BYTES} or type(found[BYTES]) is not str:
        raise _wrong("", found, f'bytes, {{"{BYTES}": ...}}')


def _partition(found: Plain) -> None:
    inner = found.get(PARTITION) if type(found) is dict and len(found) == 1 else None
    if type(inner) is not list or list(map(type, inner)) != [str, int]:
        raise _wrong("", found, f'a partition, {{"{PARTITION}": [topic, partition]}}')
    _text(inner[0])
    _number(inner[1])


SCALARS: Final[dict[Any, Check]] = {
    int: _number,
    str: _text,
    bool: _truth,
    None: _nothing,
    type(None): _nothing,
    bytes: _bytes,
    TopicPartition: _partition,
}


def _text_or_null(found: Plain) -> None:
    if found is not None:
        _text(found)


def _digest(found: Plain) -> None:
    if type(found) is not str or not HEX.fullmatch(found):
        raise _wrong("", found, "a digest in hexadecimal digits")


def _part(found: Plain) -> None:
    """What a payload says of one partition."""
    if type(found) is not dict:
        raise _wrong("", found, "an object")
    for name, value in cast("dict[str, Plain]", found).items():
        if name not in PAYLOAD:
            raise _wrong("", name, f"one of {', '.join(PAYLOAD)}")
        _within(name, PAYLOAD[name], value)
    lacking = [name for name in PAYLOAD if name not in found and name not in PAYLOAD_MAY]
    if lacking:
        raise _wrong("", found, f"whole: {', '.join(lacking)}")


def _enum(known: frozenset[str]) -> Check:
    def check(found: Plain) -> None:
        if type(found) is not str or found not in known:
            raise _wrong("", found, f"one of {', '.join(sorted(known))}")

    return check


def _tuple(parts: tuple[Any, ...]) -> Check:
    if parts[1:] == (Ellipsis,):
        return _all(_check_of(parts[0]))
    return _each(tuple(map(_check_of, parts)))


def _all(inner: Check) -> Check:
    def check(found: Plain) -> None:
        if type(found) is not list:
            raise _wrong("", found, "a list")
        for each in cast("list[Plain]", found):
            inner(each)

    return check


def _each(checks: tuple[Check, ...]) -> Check:
    def check(found: Plain) -> None:
        if type(found) is not list or len(cast("list[Plain]", found)) != len(checks):
            raise _wrong("", found, f"a list of {len(checks)}")
        for inner, each in zip(checks, cast("list[Plain]", found), strict=True):
            inner(each)

    return check


def _tagged(tag: str, inner: Check) -> Check:
    def check(found: Plain) -> None:
        if type(found) is not dict or found.keys() != {tag}:
            raise _wrong("", found, f'{{"{tag}": ...}}')
        inner(found[tag])

    return check


def _value(cls: type[Any]) -> Check:
    name, (_, names) = cls.__name__, values_by_name()[cls.__name__]
    hints = get_type_hints(cls)
    checks = [(each, _check_of(hints[each])) for each in names]

    def check(found: Plain) -> None:
        if type(found) is not dict or found.get(VALUE) != name:
            raise _wrong("", found, name)
        for each, inner in checks:
            if each in found:  # what is missing has a default, or `value_of` tells
                _within(f"{name}.{each}", inner, found[each])

    return check


def _one_of(parts: tuple[Any, ...]) -> Check:
    """By their names where they are values; of all else there are few."""
    named = {part.__name__: _check_of(part) for part in parts if part in _values()}
    others = [_check_of(part) for part in parts if part not in _values()]

    def check(found: Plain) -> None:
        name = found.get(VALUE) if type(found) is dict else None
        if isinstance(name, str) and name in named:
            return named[name](found)
        for other in others:
            try:
                return other(found)
            except MalformedTraceError:
                continue
        raise _wrong("", found, f"one of {len(parts)} kinds: {', '.join(map(_called, parts))}")

    return check


def _values() -> frozenset[Any]:
    return frozenset(cls for cls, _ in values_by_name().values())


def _called(part: Any) -> str:
    return getattr(part, "__name__", str(part))


_HEADERS: Final = _all(_each((_text, _text_or_null)))
_RECORD: Final = _each((_number, _number, _text_or_null, _text_or_null, _HEADERS))
# Of a payload, for each partition; then what may be missing.
PAYLOAD: Final[dict[str, Check]] = {
    "topic": _text,
    **dict.fromkeys(("partition", "first", "last", "count", "bytes"), _number),
    "digest": _digest,
    "records": _all(_RECORD),
}
PAYLOAD_MAY: Final = ("bytes", "digest", "records")
