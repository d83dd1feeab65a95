"""Recordings whose checksums are right and whose values are not: masked, or said to be damaged."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ksim.core.errors import DamagedRecordingError
from ksim.masking import mask, names_of
from ksim.recording import line_of
from ksim.replay import replay_file
from tests.cli.commands import ksim
from tests.recordings_here import CORPUS
from tests.test_masking import record

VALUES = [
    None, True, 0, -1, 2**63, 10**30, 1.5, "", "x", "\ud800", [], {}, [1], [[]], {"b64": "!"},
    {"b64": "AAEAAAAB"}, {"tp": ["a"]}, {"tp": ["o", 1]}, {"_": "Nope"}, {"_": "Started"},
    {"map": [[1, 2]]}, {"map": [[[], 2]]}, {"list": [1]}, {"a": 1, "b": 2},
]  # fmt: skip
TRIALS = 150


def places(found: Any) -> Iterator[tuple[Any, Any]]:
    """Each object or list with each of its keys."""
    keys = found if isinstance(found, dict) else range(len(found) if isinstance(found, list) else 0)
    for key in keys:
        if key != "c":
            yield found, key
            yield from places(found[key])


def changed(lines: list[Any], chance: random.Random) -> list[Any]:
    """The same with one value that is another, or gone."""
    lines = copy.deepcopy(lines)
    at = chance.choice([0, 1, *range(2, len(lines) - 1)])
    where, key = chance.choice([*places(lines[at])])
    if chance.random() < 0.2:
        del where[key]
    else:
        where[key] = copy.deepcopy(chance.choice(VALUES))
    return lines


def write(path: Path, texts: list[str]) -> None:
    """These lines with the checksums that they need; the last is the end line."""
    chain = ""
    with path.open("wb") as file:
        for text in texts[:-1]:
            data, chain = line_of(chain, text)
            file.write(data)
        entries = len(texts) - 3
        file.write(line_of(chain, json.dumps({"end": entries, "digest": chain}))[0])


def texts_of(lines: list[Any]) -> list[str]:
    return [
        json.dumps({key: each for key, each in line.items() if key != "c"}, separators=(",", ":"))
        for line in lines
    ]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_value_is_there_is_a_copy_or_damage(tmp_path: Path, seed: int) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    if seed:
        record(source)
    else:
        source.write_bytes((CORPUS / "1.0" / "coordinator.ksim").read_bytes())
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    lines = [*lines[:-1][:12], lines[-1]]
    chance = random.Random(seed)
    copies = 0
    for _ in range(TRIALS):
        write(source, texts_of(changed(lines, chance)))
        try:
            found = mask(source, target, names_of([source]))
        except DamagedRecordingError as error:
            assert str(error).startswith(f"{source}: line ")  # noqa: PT017 - it need not come
            continue
        copies += 1
        if not found.line:
            assert replay_file(target).verdict == replay_file(source).verdict
    assert 0 < copies < TRIALS


@pytest.mark.parametrize("depth", [500, 900, 100_000])
@pytest.mark.parametrize("place", ["marks", "orders", "tickets"])
def test_what_is_nested_too_deeply_is_damage(tmp_path: Path, depth: int, place: str) -> None:
    source = tmp_path / "a.ksim"
    record(source)
    texts = texts_of([json.loads(line) for line in source.read_text().splitlines()])
    nested = "[" * depth + "]" * depth
    if place == "marks":
        texts[2] = f'{{"t":1,"fact":{{"_":"MarksTaken","marks":{nested}}},"orders":[]}}'
    elif place == "orders":
        texts[2] = texts[2].replace('"orders":[', f'"orders":[{nested},')
    else:
        texts[1] = texts[1].replace('"tickets":[]', f'"tickets":{nested}')
    write(source, texts)
    with pytest.raises(DamagedRecordingError, match=r": line [12345]: "):
        mask(source, tmp_path / "b.ksim", names_of([source]))


@pytest.mark.parametrize(
    ("key", "value"), [("topics", 5), ("topics", [5]), ("topics_whitelist", "("), ("client_id", [])]
)
def test_the_command_names_the_line(tmp_path: Path, key: str, value: Any) -> None:
    source = tmp_path / "a.ksim"
    record(source)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    lines[0]["config"][key] = value
    write(source, texts_of(lines))
    found = ksim("mask", str(source), "-o", str(tmp_path / "b.ksim"))
    expected = 0 if value == [] else 5
    assert found.returncode == expected, found.stderr
    assert found.stderr.startswith(f"ksim: {source}: line 1: " if expected else "")


def test_no_topics_are_none(tmp_path: Path) -> None:
    source, target = tmp_path / "a.ksim", tmp_path / "b.ksim"
    record(source)
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    lines[0]["config"] |= {"topics": None, "bootstrap_servers": None}
    write(source, texts_of(lines))
    mask(source, target, names_of([source]))
    assert replay_file(target).verdict == replay_file(source).verdict
