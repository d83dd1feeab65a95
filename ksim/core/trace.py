"""Facts, orders and machine state as plain data, and back: what recordings and snapshots hold.

Plain data is what JSON can say: null, booleans, integers, strings, lists and objects. A tuple is a
list; everything else that JSON lacks is an object with one reserved key.
"""

from __future__ import annotations

import base64
from dataclasses import MISSING, fields
from enum import StrEnum
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from ksim.core import events, messages, subscription
from ksim.core.values import TopicPartition

T = TypeVar("T")
Plain = Any

VALUE: Final = "_"
BYTES: Final = "b64"
LIST: Final = "list"
MAP: Final = "map"
PARTITION: Final = "tp"

_TYPES: dict[str, type[Any]] = {}
_FIELDS: dict[type[Any], tuple[str, ...]] = {}
_NEEDED: dict[type[Any], frozenset[str]] = {}


class MalformedTraceError(ValueError):
    """Plain data that names no known value, or lacks one of its fields."""


def registered(cls: type[T]) -> type[T]:
    """Let a dataclass stand in plain data, by its name. For the state of machines."""
    assert _TYPES.setdefault(cls.__name__, cls) is cls, f"two values named {cls.__name__}"
    known = fields(cast(Any, cls))
    _FIELDS[cls] = tuple(field.name for field in known)
    _NEEDED[cls] = frozenset(
        field.name
        for field in known
        if field.default is MISSING and field.default_factory is MISSING
    )
    return cls


def values_by_name() -> dict[str, tuple[type[Any], tuple[str, ...]]]:
    """Every value that plain data can hold, with its fields."""
    return {name: (cls, _FIELDS[cls]) for name, cls in _TYPES.items()}


def default_fields(cls: type[Any]) -> frozenset[str]:
    """The fields of a value that older releases may not have written."""
    return frozenset(_FIELDS[cls]) - _NEEDED[cls]


def _register_values(module: ModuleType) -> None:
    for name in sorted(vars(module)):
        found = vars(module)[name]
        if isinstance(found, type) and hasattr(found, "__dataclass_fields__"):
            registered(cast(type[Any], found))


for _module in (events, messages, subscription):
    _register_values(_module)


def plain(thing: Any) -> Plain:
    """Plain data of a fact, an order or a machine's state. Raises TypeError for anything else."""
    if thing is None or type(thing) in (bool, int, str):
        return thing
    if isinstance(thing, StrEnum | int):
        return thing.value if isinstance(thing, StrEnum) else int(thing)
    if type(thing) in _FIELDS:
        data = {VALUE: type(thing).__name__}
        data |= {name: plain(getattr(thing, name)) for name in _FIELDS[type(thing)]}
        return data
    if isinstance(thing, bytes):
        return {BYTES: base64.b64encode(thing).decode()}
    if isinstance(thing, TopicPartition):
        return {PARTITION: [thing.topic, thing.partition]}
    return _plain_container(thing)


def _plain_container(thing: Any) -> Plain:
    if isinstance(thing, tuple):
        return [plain(item) for item in cast("tuple[Any, ...]", thing)]
    if isinstance(thing, list):
        return {LIST: [plain(item) for item in cast("list[Any]", thing)]}
    if isinstance(thing, dict):
        items = cast("dict[Any, Any]", thing).items()
        return {MAP: [[plain(key), plain(item)] for key, item in items]}
    raise TypeError(f"{thing!r} is not a value of a trace")


def value_of(data: Plain) -> Any:
    """The value of plain data. Raises MalformedTraceError."""
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, list):
        return tuple(value_of(item) for item in cast("list[Any]", data))
    if not isinstance(data, dict):
        raise MalformedTraceError(f"{data!r} is not plain data")
    found = cast("dict[str, Any]", data)
    if VALUE in found:
        return _named(found)
    if len(found) != 1:
        raise MalformedTraceError(f"an object with keys {sorted(found)}")
    ((tag, inner),) = found.items()
    try:
        return _tagged(tag, inner)
    except (TypeError, ValueError) as error:
        raise MalformedTraceError(f"{tag}: {error}") from error


def _named(data: dict[str, Any]) -> Any:
    """A field that is not there has its default: older releases did not know it."""
    name = data[VALUE]
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise MalformedTraceError(f"unknown value {name!r}")
    names = _FIELDS[cls]
    given = data.keys() - {VALUE}
    if not _NEEDED[cls] <= given <= set(names):
        raise MalformedTraceError(f"{name} has {', '.join(names)}; got {sorted(data)}")
    return cls(**{each: value_of(item) for each, item in data.items() if each != VALUE})


def _tagged(tag: str, inner: Any) -> Any:
    match tag:
        case "b64":
            return base64.b64decode(inner, validate=True)
        case "tp":
            return TopicPartition(*inner)
        case "list":
            return [value_of(item) for item in inner]
        case "map":
            return {value_of(key): value_of(item) for key, item in inner}
        case _:
            raise MalformedTraceError(f"unknown tag {tag!r}")
