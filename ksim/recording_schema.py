"""The lines of a recording as JSON schema: `python -m ksim.recording_schema`.

Facts, orders and the state of the machines are taken from the types of the code, so that the
schema and what is written cannot part.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from ksim.core.coordinator_state import CoordinatorState
from ksim.core.events import CoordinatorFact, CoordinatorOrder, MemberFact, MemberOrder
from ksim.core.member_state import MemberState
from ksim.core.trace import (
    BYTES,
    LIST,
    MAP,
    PARTITION,
    VALUE,
    default_fields,
    values_by_name,
)
from ksim.core.values import TopicPartition
from ksim.recording import BEYOND_T, CHECKSUM, CHECKSUM_DIGITS, FORMAT, READ_VERSIONS
from ksim.recording_payload import PAYLOADS
from ksim.recording_shape import BEYOND, LEAST

Schema = dict[str, Any]
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
HEX: Final = f"^[0-9a-f]{{{CHECKSUM_DIGITS}}}$"
ANYTHING: Final[Schema] = {"type": "object"}
NUMBER: Final[Schema] = {"type": "integer", "minimum": LEAST, "maximum": BEYOND - 1}
SIMPLE: Final[dict[Any, Schema]] = {
    int: {"$ref": "#/$defs/number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    bytes: {"$ref": "#/$defs/bytes"},
    TopicPartition: {"$ref": "#/$defs/partition"},
}


def _object(required: tuple[str, ...], properties: dict[str, Schema], says: str = "") -> Schema:
    found: Schema = {"description": says} if says else {}
    return found | {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _tagged(tag: str, inner: Schema) -> Schema:
    return _object((tag,), {tag: inner})


def _array(items: list[Schema]) -> Schema:
    return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}


def _one_of(hints: Any) -> Schema:
    return {"anyOf": [_of(each) for each in get_args(hints)]}


def _of(hint: Any) -> Schema:
    """The schema of what a field of this type is in plain data."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(hint)
    if kind is tuple:
        if parts[1:] == (Ellipsis,):
            return {"type": "array", "items": _of(parts[0])}
        return _array([_of(each) for each in parts])
    if kind is list:
        return _tagged(LIST, {"type": "array", "items": _of(parts[0])})
    if kind is dict:
        return _tagged(MAP, {"type": "array", "items": _array([_of(each) for each in parts])})
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(each) for each in hint]}
    assert hint in {cls for cls, _ in values_by_name().values()}, f"no schema of {hint!r}"
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _value(name: str, cls: type[Any], names: tuple[str, ...]) -> Schema:
    hints = get_type_hints(cls)
    properties = {VALUE: {"const": name}} | {each: _of(hints[each]) for each in names}
    optional = default_fields(cls)
    return _object((VALUE, *(each for each in names if each not in optional)), properties)


def _lines() -> dict[str, Schema]:
    integer, text = SIMPLE[int], SIMPLE[str]
    count: Schema = NUMBER | {"minimum": 0}
    text_or_null: Schema = {"type": ["string", "null"]}
    checksum = {CHECKSUM: {"type": "string", "pattern": HEX}}
    clock = _object(("now_ms", "unix_ms"), {"now_ms": integer, "unix_ms": integer})
    about: dict[str, Schema] = {
        "clock": {"anyOf": [clock, SIMPLE[type(None)]]},
        "segment": integer,
        "after": text_or_null,
        "why": text,
        "masked": SIMPLE[bool],
    }
    header = _object(
        ("format", "version", "vantage", CHECKSUM),
        about
        | {
            "format": {"const": FORMAT},
            "version": {"enum": list(READ_VERSIONS)},
            "features": {"type": "array", "items": text},
            "ksim": text,
            "vantage": {"enum": ["member", "coordinator", "broker"]},
            "member": text,
            "seed": {"anyOf": [integer, SIMPLE[type(None)]]},
            "config": ANYTHING,
            "payload": {"enum": [str(each) for each in PAYLOADS]},
        }
        | checksum,
        "Line 1.",
    )
    data: Schema = {"anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "null"}]}
    headers: Schema = {"type": "array", "items": _array([text, data])}
    records: Schema = {"type": "array", "items": _array([integer, integer, data, data, headers])}
    digest: Schema = {"type": "string", "pattern": "^[0-9a-f]*$"}
    kept: dict[str, Schema] = {"topic": text, "digest": digest, "records": records}
    kept |= dict.fromkeys(("partition", "first", "last", "count", "bytes"), integer)
    payload = _object(("topic", "partition", "first", "last", "count"), kept)
    facts, orders = MemberFact | CoordinatorFact, MemberOrder | CoordinatorOrder
    fact: Schema = {"anyOf": [_one_of(facts), SIMPLE[type(None)]]}
    states = {"anyOf": [_of(MemberState), _of(CoordinatorState), SIMPLE[type(None)]]}
    return {
        "header": header,
        "snapshot": _object(("snapshot", CHECKSUM), {"snapshot": states} | checksum, "Line 2."),
        "entry": _object(
            ("t", "fact", "orders", CHECKSUM),
            {
                "t": count | {"maximum": BEYOND_T - 1},
                "fact": fact,
                "orders": {"type": "array", "items": _one_of(orders)},
                "payload": {"type": "array", "items": payload},
            }
            | checksum,
            "One step of the machine; of a broker's vantage point the fact may be null.",
        ),
        "end": _object(
            ("end", "digest", CHECKSUM),
            {"end": count, "digest": {"type": "string", "pattern": HEX}} | checksum,
            "The last line of a recording that is whole.",
        ),
    }


def schema() -> Schema:
    """Of one line, whichever it is; `$defs` has each kind of line and each value by its name."""
    lines = _lines()
    return {
        "$schema": DRAFT,
        "title": "a line of a ksim recording",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in lines],
        "$defs": lines
        | {
            "number": NUMBER,
            "bytes": _tagged(BYTES, {"type": "string", "contentEncoding": "base64"}),
            "partition": _tagged(PARTITION, _array([SIMPLE[str], SIMPLE[int]])),
        }
        | {name: _value(name, *known) for name, known in sorted(values_by_name().items())},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
