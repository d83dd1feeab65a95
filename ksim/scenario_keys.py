"""The kinds of value that a scenario key may have: how each is read, written and described.

A spec is a frozen dataclass whose fields are made with `key`; from these alone `read`, `written`
and `schema` are made, so that file, value and published schema cannot part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Protocol, TypeVar

from ksim.scenario_table import Table
from ksim.texts import duration_text

SpecT = TypeVar("SpecT")
Schema = dict[str, Any]
DURATION = "[0-9]+(ms|s|m|h)"


class Kind(Protocol):
    """One kind of value."""

    def read(self, table: Table, name: str) -> Any:
        """The value of a key. Raises ScenarioError, also where the key is missing."""

    def write(self, found: Any) -> str:
        """TOML that is read as the same value."""

    def schema(self) -> Schema:
        """The same as JSON schema."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not empty."""

    def read(self, table: Table, name: str) -> str:
        return table.text(name)

    def write(self, found: Any) -> str:
        return quoted(found)

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts, all of `valid` if that is not empty."""

    valid: tuple[str, ...] = ()

    def read(self, table: Table, name: str) -> tuple[str, ...]:
        found = table.texts(name)
        for text in found if self.valid else ():
            table.among_valid(name, text, self.valid)
        return found

    def write(self, found: Any) -> str:
        return toml(found)

    def schema(self) -> Schema:
        items: Schema = {"enum": list(self.valid)} if self.valid else {"type": "string"}
        return {"type": "array", "items": items, "minItems": 1}


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number; `most`: more than that could not even be set up, whatever the run does."""

    least: int = 1
    most: int | None = None

    def read(self, table: Table, name: str) -> int:
        return table.count(name, least=self.least, most=self.most)

    def write(self, found: Any) -> str:
        return str(found)

    def schema(self) -> Schema:
        bound = {} if self.most is None else {"maximum": self.most}
        return {"type": "integer", "minimum": self.least, **bound}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, table: Table, name: str) -> bool:
        return table.flag(name)

    def write(self, found: Any) -> str:
        return toml(found)

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Fraction:
    """A number from 0 to 1."""

    def read(self, table: Table, name: str) -> float:
        return table.fraction(name, 0.0)

    def write(self, found: Any) -> str:
        return repr(found)

    def schema(self) -> Schema:
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts."""

    valid: tuple[str, ...]

    def read(self, table: Table, name: str) -> str:
        return table.choice(name, self.valid)

    def write(self, found: Any) -> str:
        return quoted(str(found))

    def schema(self) -> Schema:
        return {"enum": list(self.valid)}


@dataclass(frozen=True, slots=True)
class Duration:
    """A time with its unit, in ms inside."""

    def read(self, table: Table, name: str) -> int:
        return table.duration(name)

    def write(self, found: Any) -> str:
        return quoted(duration_text(found))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{DURATION}$"}


@dataclass(frozen=True, slots=True)
class Durations:
    """A time or a range of them; each use draws one."""

    def read(self, table: Table, name: str) -> tuple[int, int]:
        return table.range(name, (0, 0))

    def write(self, found: Any) -> str:
        return quoted("..".join(duration_text(ms) for ms in found))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": rf"^{DURATION}(\.\.{DURATION})?$"}


@dataclass(frozen=True, slots=True)
class Inner:
    """A table of its own."""

    spec: type[Any]

    def read(self, table: Table, name: str) -> Any:
        return read(table.table(name), self.spec)

    def write(self, found: Any) -> str:
        return "{ " + ", ".join(written(found)) + " }"

    def schema(self) -> Schema:
        return schema(self.spec)


@dataclass(frozen=True, slots=True)
class Inners:
    """Tables in a row: `[[name]]`."""

    spec: type[Any]

    def read(self, table: Table, name: str) -> tuple[Any, ...]:
        return tuple(read(item, self.spec) for item in table.tables(name))

    def write(self, found: Any) -> str:
        return "[" + ", ".join(Inner(self.spec).write(item) for item in found) + "]"

    def schema(self) -> Schema:
        return {"type": "array", "items": schema(self.spec)}


@dataclass(frozen=True, slots=True)
class Named:
    """Tables by name: `[topics.orders]`; the name is the first field."""

    spec: type[Any]

    def read(self, table: Table, name: str) -> tuple[Any, ...]:
        return tuple(read(item, self.spec, item_name) for item_name, item in table.named(name))

    def write(self, found: Any) -> str:
        return toml({item.name: {} for item in found})

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": schema(self.spec)}


def key(
    kind: Kind, doc: str, default: Any = MISSING, *, name: str | None = None, absent: Any = MISSING
) -> Any:
    """A field of a spec that is a key of the file.

    Without `default` it must be there, in the file unless `absent` says what its absence means.
    """
    unless = default if absent is MISSING else absent
    metadata = {"kind": kind, "doc": doc, "name": name, "absent": unless}
    return field(default=default, metadata=metadata)


def name_of(item: Field[Any]) -> str:
    """The key in the file; the unit is in the value there."""
    return item.metadata["name"] or item.name.removesuffix("_ms")


def keys(spec: type[Any]) -> list[Field[Any]]:
    """The fields that are keys; others are read by the spec itself."""
    return [item for item in fields(spec) if "kind" in item.metadata]


def read(table: Table, spec: type[SpecT], *first: Any) -> SpecT:
    """A spec from a table; `first` are its first fields, which are no keys."""
    reader = getattr(spec, "read_from", None)
    if reader is not None:
        made: SpecT = reader(table)
        return made
    found = pairs(table, spec)
    table.finish()
    return spec(*first, **found)


def pairs(table: Table, spec: type[Any]) -> dict[str, Any]:
    """The values of all keys, by field."""
    found: dict[str, Any] = {}
    for item in keys(spec):
        name = name_of(item)
        table.asked.append(name)
        if name in table.data or item.metadata["absent"] is MISSING:
            found[item.name] = item.metadata["kind"].read(table, name)
        else:
            found[item.name] = item.metadata["absent"]
    return found


def written(found: Any, skip: Sequence[str] = ()) -> list[str]:
    """`key = value` of each key that has not its default, but for the fields in `skip`."""
    writer = getattr(found, "write_own", None)
    lines: list[str] = [] if writer is None else writer()
    for item in keys(type(found)):
        value = getattr(found, item.name)
        if item.name not in skip and value != item.metadata["absent"]:
            lines.append(f"{name_of(item)} = {item.metadata['kind'].write(value)}")
    return lines


def schema(spec: type[Any]) -> Schema:
    """JSON schema of a spec's table."""
    own = getattr(spec, "own_schema", None)
    more: Schema = {} if own is None else own()
    properties: Schema = dict(more.pop("properties", {}))
    needed: list[str] = list(more.pop("required", ()))
    for item in keys(spec):
        entry = {"description": item.metadata["doc"], **item.metadata["kind"].schema()}
        unless = item.metadata["absent"]
        if unless is MISSING:
            needed.append(name_of(item))
        elif unless is not None and unless != ():
            entry["default"] = _plain_default(item)
        properties[name_of(item)] = entry
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, **({"required": needed} if needed else {}), **more}


def _plain_default(item: Field[Any]) -> Any:
    kind, unless = item.metadata["kind"], item.metadata["absent"]
    if isinstance(kind, Duration | Durations):
        return kind.write(unless).strip('"')
    return {} if isinstance(kind, Inner) else unless


def toml(found: Any) -> str:
    """A plain value as TOML, on one line."""
    match found:
        case bool():
            return "true" if found else "false"
        case str():
            return quoted(found)
        case Mapping():
            inside = ", ".join(f"{_bare(name)} = {toml(item)}" for name, item in found.items())
            return f"{{ {inside} }}" if inside else "{}"
        case Sequence():
            return "[" + ", ".join(toml(item) for item in found) + "]"
        case _:
            return repr(found)


def _bare(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else quoted(name)


def quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else f"\\{c}" if c in '"\\' else c
        for c in text
    )
    return f'"{escaped}"'
