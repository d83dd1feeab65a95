"""The published schema is that of the code, and of what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksim.recording import read_recording
from ksim.recording_schema import schema
from tests.recordings_here import FILES

PUBLISHED = Path(__file__).parents[1] / "docs" / "recording.schema.json"
SCHEMA = schema()
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "boolean": bool,
    "null": type(None),
}  # fmt: skip


def is_a(found: Any, name: str) -> bool:
    return isinstance(found, TYPES[name]) and (name == "boolean" or not isinstance(found, bool))


# What each word of JSON schema wants, as far as this one uses it: of the value, its own argument
# and the schema that it stands in.
WORDS: dict[str, Callable[[Any, Any, Any], bool]] = {
    "$ref": lambda found, name, _: fits(found, SCHEMA["$defs"][name.rpartition("/")[2]]),
    "anyOf": lambda found, some, _: any(fits(found, each) for each in some),
    "type": lambda found, some, _: any(
        is_a(found, each) for each in ([some] if isinstance(some, str) else some)
    ),
    "const": lambda found, value, _: found == value,
    "enum": lambda found, some, _: found in some,
    "pattern": lambda found, pattern, _: re.search(pattern, found) is not None,
    "required": lambda found, names, _: all(name in found for name in names),
    "properties": lambda found, known, _: all(
        fits(found[name], known[name]) for name in known if name in found
    ),
    "additionalProperties": lambda found, _, schema: set(found) <= set(schema["properties"]),
    "prefixItems": lambda found, some, _: all(map(fits, found, some)),
    "items": lambda found, wanted, schema: all(
        fits(each, wanted) for each in found[len(schema.get("prefixItems", ())) :]
    ),
    "minimum": lambda found, least, _: not is_a(found, "integer") or found >= least,
    "maximum": lambda found, most, _: not is_a(found, "integer") or found <= most,
    "minItems": lambda found, least, _: len(found) >= least,
}
SILENT = {"$schema", "$defs", "title", "description", "contentEncoding"}


def fits(found: Any, wanted: Any) -> bool:
    if wanted is False:
        return False
    assert set(wanted) <= {*WORDS, *SILENT}
    return all(WORDS[word](found, wanted[word], wanted) for word in wanted if word in WORDS)


def test_the_published_schema_is_that_of_the_code() -> None:
    written = json.loads(PUBLISHED.read_text("utf-8"))
    assert written == SCHEMA, "python -m ksim.recording_schema > docs/recording.schema.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_line_of_the_corpus_fits(path: Path) -> None:
    read_recording(path)
    for line in path.read_text("ascii").splitlines():
        if line.endswith("}"):  # not a torn one
            assert fits(json.loads(line), SCHEMA), line


PART = {"topic": "t", "partition": 0, "first": 1, "last": 1, "count": 1, "digest": "0f"}
ENTRY = {"t": 5, "fact": {"_": "TimerFired"}, "orders": [{"_": "Closed"}], "c": "01234567"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"t": "5"},
        {"t": True},
        {"c": "0123456"},
        {"c": "0123456x"},
        {"more": 1},
        {"fact": {"_": "Closed"}},
        {"fact": {"_": "TimerFired", "more": 1}},
        {"orders": [{"_": "TimerFired"}]},
        {"orders": [{"_": "AbandonPartitions"}]},
        {"orders": [{"_": "CommitFinished", "ticket": 1, "error_code": None}]},
        {"payload": [{"topic": "t"}]},
        {"payload": [PART | {"digest": "of anna"}]},
        {"payload": [PART | {"records": [[1, 2]]}]},
        {"t": -1},
        {"t": 2**63},
        {"fact": {"_": "UserPolled", "waiting": True, "at_ms": 2**64}},
        {"fact": {"_": "UserPolled", "waiting": True, "at_ms": -(2**63) - 1}},
    ],
    ids=str,
)
def test_what_is_no_line_does_not_fit(wrong: dict[str, Any]) -> None:
    assert fits(ENTRY, SCHEMA)
    assert not fits(ENTRY | wrong, SCHEMA)


def test_the_documentation_names_every_kind_of_line_and_its_keys() -> None:
    text = (PUBLISHED.parent / "recording.md").read_text("utf-8")
    kinds = ("header", "snapshot", "entry", "end")
    wanted = {name for kind in kinds for name in SCHEMA["$defs"][kind]["properties"]}
    assert len(wanted) > 15
    assert not sorted(name for name in wanted if f"`{name}`" not in text)
