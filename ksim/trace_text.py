"""Facts and orders as JSON text, and back: what `core.trace` says, at the speed of recordings.

The text of a value is that of its plain data, letter by letter. How a value is taken apart and put
together follows from the types of its fields, which are looked at once; whatever is not as those
types say takes the slow way through plain data.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin, get_type_hints

from ksim.core.trace import (
    BYTES,
    PARTITION,
    VALUE,
    MalformedTraceError,
    Plain,
    plain,
    value_of,
    values_by_name,
)
from ksim.core.values import TopicPartition

SEPARATORS: Final = (",", ":")
SCALARS: Final = (int, str, bool, bytes, type(None))
DEEPEST: Final = 100  # no value comes near it


def _parts(hint: Any) -> tuple[Any, ...]:
    """What a type is made of: itself, or the types of a tuple or a union."""
    if get_origin(hint) in (tuple, Union, UnionType):
        return tuple(part for each in get_args(hint) for part in _parts(each))
    return (hint,)


def _holds_tuples(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(map(_holds_tuples, get_args(hint)))
    return get_origin(hint) is tuple


class _Writers(dict[type, Callable[[Any], Plain]]):
    """For each type, what JSON's encoder should write instead of it."""

    def __missing__(self, cls: type) -> Callable[[Any], Plain]:
        known = values_by_name()
        if cls.__name__ not in known or known[cls.__name__][0] is not cls:
            raise TypeError(f"{cls.__name__} is not a value of a trace")
        names = known[cls.__name__][1]
        hints = get_type_hints(cls)
        values = {value for value, _ in known.values()}
        direct = {*SCALARS, *values, Ellipsis}
        slow = [name for name in names if not direct.issuperset(_parts(hints[name]))]
        found = self[cls] = _writer(cls.__name__, names, slow)
        return found


def _writer(kind: str, names: Sequence[str], slow: Sequence[str]) -> Callable[[Any], Plain]:
    if not names:
        return lambda _: {VALUE: kind}
    keys = (VALUE, *names)
    get = attrgetter(*names) if len(names) > 1 else _tuple_of(attrgetter(*names))

    def write(thing: Any) -> Plain:
        found = dict(zip(keys, (kind, *get(thing)), strict=True))
        for name in slow:
            found[name] = plain(found[name])
        return found

    return write


def _tuple_of(get: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda thing: (get(thing),)


_WRITERS: Final = _Writers()
_WRITERS[bytes] = lambda data: {BYTES: base64.b64encode(data).decode()}


def know_all_values() -> None:
    """Prepare for all values at once what is otherwise prepared when one is met: some 20 ms."""
    for cls, _ in values_by_name().values():
        _WRITERS[cls]


def _instead(thing: Any) -> Plain:
    return _WRITERS[type(thing)](thing)


def _text_maker() -> Callable[[Any], str]:
    """`JSONEncoder.encode` makes its encoder anew at each call, which costs as much as an order."""
    encoder = json.JSONEncoder(separators=SEPARATORS, default=_instead, check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    chunks = make(
        None, _instead, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
    )
    return lambda thing: "".join(chunks(thing, 0))


text_of: Final = _text_maker()
"""The text of a fact, an order, or a list of them. Raises TypeError for anything else."""


class _Slow(Exception):  # noqa: N818 - not an error: the other way is taken
    """This text holds what only plain data can say."""


class _Readers(dict[Any, Callable[[dict[str, Any]], Any]]):
    """For each name of a value, how its fields become it."""

    def __missing__(self, name: Any) -> Callable[[dict[str, Any]], Any]:
        known = values_by_name()
        if name not in known:
            raise MalformedTraceError(f"unknown value {name!r}")
        cls, names = known[name]
        hints = get_type_hints(cls)
        tuples = [at for at, each in enumerate(names) if _holds_tuples(hints[each])]
        found = self[name] = _reader(cls, names, tuples)
        return found


def _reader(
    cls: type, names: Sequence[str], tuples: Sequence[int]
) -> Callable[[dict[str, Any]], Any]:
    size = len(names) + 1
    if not names:
        get: Callable[[Any], tuple[Any, ...]] = lambda _: ()  # noqa: E731 - one of three
    else:
        get = itemgetter(*names) if len(names) > 1 else _tuple_of(itemgetter(*names))

    def read(data: dict[str, Any]) -> Any:
        if len(data) != size:
            raise _Slow  # fields with defaults, or too many
        found = get(data)
        if tuples:
            parts = list(found)
            for at in tuples:
                parts[at] = _tuples(parts[at])
            return cls(*parts)
        return cls(*found)

    return read


def _tuples(found: Any) -> Any:
    return tuple(map(_tuples, cast("list[Any]", found))) if type(found) is list else found


_READERS: Final = _Readers()


def _value(data: dict[str, Any]) -> Any:
    if VALUE in data:
        return _READERS[data[VALUE]](data)
    if len(data) == 1:
        if BYTES in data:
            return base64.b64decode(data[BYTES], validate=True)
        if PARTITION in data:
            return TopicPartition(*data[PARTITION])
    raise _Slow


def _no_fraction(text: str) -> Any:
    raise MalformedTraceError(f"{text} is not plain data")


_decode: Final = json.JSONDecoder(
    object_hook=_value, parse_float=_no_fraction, parse_constant=_no_fraction
).raw_decode


def value_of_text(text: str) -> Any:
    """The value that this is the text of. Raises MalformedTraceError.

    It does not look whether a key stands twice in an object, which would cost 3 % of a replay.
    """
    try:
        found, end = _decode(text)
        if end == len(text) and text[0] == "{":
            return found
    except (_Slow, KeyError, TypeError, binascii.Error, MalformedTraceError):
        pass
    except (ValueError, RecursionError) as error:
        raise MalformedTraceError(f"not JSON: {error}") from None
    return value_of(plain_of_text(text))


def plain_of_text(text: str | bytes) -> Plain:
    """The plain data of a text whose objects have each key once. Raises MalformedTraceError."""
    try:
        return json.loads(text, object_pairs_hook=once)
    except MalformedTraceError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedTraceError(f"not JSON: {error}") from None


def plain_once(text: str | bytes) -> Plain:
    """The same of what somebody walks through by recursion. Raises MalformedTraceError."""
    found = plain_of_text(text)
    check_depth(found)
    return found


def once(pairs: list[tuple[str, Plain]]) -> dict[str, Plain]:
    """An object; of a key that comes twice each reader might take another one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise MalformedTraceError(f"{twice!r} stands twice in an object")
    return found


def check_depth(found: Plain) -> None:
    """Raises MalformedTraceError for what could not be walked through by recursion."""
    level: list[Plain] = [found]
    for _ in range(DEEPEST):
        level = [each for outer in level if outer for each in _within(outer)]
        if not level:
            return
    raise MalformedTraceError(f"nested more than {DEEPEST} deep")


def _within(found: Plain) -> Iterable[Plain]:
    return found.values() if type(found) is dict else found if type(found) is list else ()
