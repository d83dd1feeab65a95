"""The published grammar is the one that is read."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksim.core.errors import ConfigError
from ksim.scenario import dump, json_schema, load, parse
from ksim.scenario_spec import STEPS
from tests.test_scenario import GOOD, SCENARIOS

ROOT = Path(__file__).parents[1]
TYPES: dict[str, type[Any] | tuple[type[Any], ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def is_a(found: Any, wanted: str) -> bool:
    return isinstance(found, TYPES[wanted]) and (wanted == "boolean" or not isinstance(found, bool))


# What each word forbids; those that look inside stand in `mistakes`.
WORDS: dict[str, Callable[[Any, Any], bool]] = {
    "enum": lambda found, wanted: found in wanted,
    "const": lambda found, wanted: found == wanted,
    "pattern": lambda found, wanted: re.search(wanted, found) is not None,
    "minimum": lambda found, wanted: found >= wanted,
    "maximum": lambda found, wanted: found <= wanted,
    "minLength": lambda found, wanted: len(found) >= wanted,
    "minItems": lambda found, wanted: len(found) >= wanted,
    "required": lambda found, wanted: all(name in found for name in wanted),
    "anyOf": lambda found, wanted: fits(found, wanted) > 0,
    "oneOf": lambda found, wanted: fits(found, wanted) == 1,
}


def fits(found: Any, schemas: Any) -> int:
    return sum(not list(mistakes(found, each)) for each in schemas)


def mistakes(found: Any, schema: Any, path: str = "") -> Iterator[str]:
    """What JSON schema forbids, for the words that the grammar uses."""
    if "type" in schema and not is_a(found, schema["type"]):
        yield f"{path}: {found!r} is no {schema['type']}"
        return
    for word, wanted in schema.items():
        if word in WORDS and not WORDS[word](found, wanted):
            yield f"{path}: {found!r}: {word} is {wanted!r}"
    for at, item in enumerate(found if "items" in schema else ()):
        yield from mistakes(item, schema["items"], f"{path}[{at}]")
    if isinstance(found, dict):
        yield from inner(found, schema, path)


def inner(found: dict[str, Any], schema: Any, path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in found.items():
        if name in known:
            yield from mistakes(item, known[name], f"{path}.{name}")
        elif others is False:
            yield f"{path}: {name} is unknown"
        elif isinstance(others, dict):
            yield from mistakes(item, others, f"{path}.{name}")


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((ROOT / "docs" / "scenario.schema.json").read_text("utf-8"))
    assert published == json_schema()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name[:40])
def test_every_scenario_fits_the_schema(path: Path) -> None:
    for text in (path.read_text("utf-8"), dump(load(path))):
        assert not list(mistakes(tomllib.loads(text), json_schema()))


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ('until = "1m"', 'until = "1 m"', ".until: '1 m': pattern"),
        ('until = "1m"', "", "required is"),
        ("members = 3", "members = 0", ".group[0].members: 0: minimum"),
        ("members = 3", "member = 3", "is no array"),
        ("members = 3", "mebmers = 3", ".group[0]: mebmers is unknown"),
        ("partitions = 6", "partitions = true", "True is no integer"),
        ('do = "crash"', 'do = "crush"', "'crush': enum"),
        ('at = "20s"', "", "oneOf is"),
        ('request = "SyncGroup"', 'request = "Sync"', ".fault[0].on.request: 'Sync': enum"),
    ],
)
def test_what_is_refused_does_not_fit_the_schema(was: str, becomes: str, words: str) -> None:
    assert was in GOOD
    text = GOOD.replace(was, becomes, 1)
    found = list(mistakes(tomllib.loads(text), json_schema()))
    assert any(words in line for line in found), found
    with pytest.raises(ConfigError, match="here"):
        parse(text, "here")


def names(schema: Any) -> Iterator[str]:
    for name, item in schema.get("properties", {}).items():
        yield name
        yield from names(item)
        yield from names(item.get("items", {}))
        if isinstance(more := item.get("additionalProperties"), dict):
            yield from names(more)


def test_every_key_and_step_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text("utf-8")
    wanted = {*names(json_schema()), *STEPS}
    assert len(wanted) > 80
    assert not sorted(name for name in wanted if f"`{name}`" not in text)
