"""Files of any damage: each has a clear outcome, and none that is damaged replays the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.cli.replay import CODES
from ksim.cli.replay import replay as replay_command
from ksim.core.errors import DamagedRecordingError
from ksim.recording import LONGEST_LINE, TAIL, line_of, read_recording
from ksim.replay import ReplayVerdict, replay_file
from tests.recordings_here import CORPUS, verdict_of

WHOLE = [CORPUS / "0.1" / f"{name}.ksim" for name in ("topics-differ", "coordinator")]
UNREADABLE = (ReplayVerdict.DAMAGED, ReplayVerdict.UNSUPPORTED)
Damage = Callable[[bytes], bytes]


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def cut(at: int) -> Damage:
    return lambda data: data[: at % len(data)]


def flip(at: int, bit: int) -> Damage:
    def damage(data: bytes) -> bytes:
        where = at % len(data)
        return data[:where] + bytes([data[where] ^ (1 << bit)]) + data[where + 1 :]

    return damage


def swap(one: int, other: int) -> Damage:
    def damage(data: bytes) -> bytes:
        lines = lines_of(data)
        first, second = one % len(lines), other % len(lines)
        lines[first], lines[second] = lines[second], lines[first]
        return b"".join(lines)

    return damage


def drop(at: int) -> Damage:
    def damage(data: bytes) -> bytes:
        lines = lines_of(data)
        del lines[at % len(lines)]
        return b"".join(lines)

    return damage


def repeat(at: int) -> Damage:
    def damage(data: bytes) -> bytes:
        lines = lines_of(data)
        where = at % len(lines)
        return b"".join([*lines[:where], lines[where], *lines[where:]])

    return damage


def insert(at: int, garbage: bytes) -> Damage:
    def damage(data: bytes) -> bytes:
        where = at % (len(data) + 1)
        return data[:where] + garbage + data[where:]

    return damage


NUMBERS = st.integers(0, 10**7)
DAMAGES = st.one_of(
    st.builds(cut, NUMBERS),
    st.builds(flip, NUMBERS, st.integers(0, 7)),
    st.builds(swap, NUMBERS, NUMBERS),
    st.builds(drop, NUMBERS),
    st.builds(repeat, NUMBERS),
    st.builds(insert, NUMBERS, st.binary(min_size=1, max_size=300)),
)


def outcome_of(data: bytes, *, shaped: bool = True) -> tuple[ReplayVerdict, str]:
    """By the function and by the command line, which must agree.

    Others read no value of a wrong type (not `shaped`), whether a decision hangs on it or not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ksim"
        path.write_bytes(data)
        found = replay_file(path)
        told = CliRunner().invoke(replay_command, [str(path)], standalone_mode=False)
        assert told.exception is None
        assert told.return_value == CODES[found.verdict]
        assert told.output.split()[0] == found.verdict or found.problem in told.output
        assert not (found.problem and "Traceback" in found.problem)
        try:
            read_recording(path)
        except DamagedRecordingError:
            assert not shaped or found.verdict in (*UNREADABLE, ReplayVerdict.DIVERGED)
    return found.verdict, found.problem


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
@settings(max_examples=150)
@given(damages=st.lists(DAMAGES, min_size=1, max_size=3))
def test_damage_is_told_or_was_none(path: Path, damages: list[Damage]) -> None:
    data = whole = path.read_bytes()
    for damage in damages:
        data = damage(data) if data else data
    verdict, problem = outcome_of(data)
    if data == whole:
        assert verdict == verdict_of(path)
        return
    assert verdict in (ReplayVerdict.INCOMPLETE, *UNREADABLE)
    if verdict == ReplayVerdict.INCOMPLETE:
        # What was replayed is as it was written; the line after it has no end.
        good = data.rpartition(b"\n")[0] + b"\n"
        assert whole.startswith(good)
        assert good != whole
    else:
        assert "line" in problem


@settings(max_examples=100)
@given(data=st.binary(max_size=2_000))
def test_garbage_is_no_recording(data: bytes) -> None:
    verdict, problem = outcome_of(data)
    assert verdict == ReplayVerdict.DAMAGED
    assert "line 1:" in problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["_", "tp", "b64", "map", "list", "x"]), inner, max_size=2
        )
    ),
    max_leaves=5,
)


def forged(data: bytes, at: int, path: list[int], value: Any) -> bytes:
    """A line has another value somewhere, and all checksums are made anew."""
    contents = [json.loads(line) for line in lines_of(data)]
    where = contents[at % len(contents)]
    del where["c"]
    for step in path:
        key = list(where)[step % len(where)] if isinstance(where, dict) else step % len(where)
        if not isinstance(where[key], dict | list) or not where[key] or step is path[-1]:
            where[key] = value
            break
        where = where[key]
    chain, lines = "", []
    for content in contents:
        content.pop("c", None)
        if "end" in content and "digest" in content:
            content["digest"] = chain
        line, chain = line_of(chain, json.dumps(content, separators=(",", ":")))
        lines.append(line)
    return b"".join(lines)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
@settings(max_examples=150)
@given(at=NUMBERS, steps=st.lists(NUMBERS, min_size=1, max_size=6), value=JSON)
def test_a_forged_file_has_an_outcome_too(
    path: Path, at: int, steps: list[int], value: Any
) -> None:
    verdict, problem = outcome_of(forged(path.read_bytes(), at, steps, value), shaped=False)
    assert bool(problem) == (verdict in UNREADABLE)


def forged_header(**values: Any) -> bytes:
    content = {"format": "ksim-recording", "version": "1.0", "vantage": "member", **values}
    line, chain = line_of("", json.dumps(content, separators=(",", ":")))
    second, _ = line_of(chain, '{"snapshot":null}')
    return line + second


@pytest.mark.parametrize(
    ("data", "verdict", "words"),
    [
        (b"", "DAMAGED", "line 1: no header"),
        (b"\n", "DAMAGED", "line 1: the checksum"),
        (forged_header(version="2.0"), "UNSUPPORTED", "line 1: ksim-recording '2.0'"),
        (forged_header(version=None), "UNSUPPORTED", "this reads 0.1, 1.0"),
        (forged_header(features=["gzip"]), "UNSUPPORTED", "features ['gzip']"),
        (forged_header(features=7), "UNSUPPORTED", "features 7"),
        (forged_header(format="other"), "DAMAGED", "'other' is no ksim-recording"),
        (forged_header(vantage="broker"), "UNSUPPORTED", "vantage 'broker'"),
        (forged_header(vantage="\ud800"), "DAMAGED", "line 2: no snapshot"),
        (b"x" * (LONGEST_LINE + 10) + b"\n", "DAMAGED", "longer than 64 MiB"),
        (line_of("", "[" * 50_000 + "]")[0], "DAMAGED", "line 1: not JSON"),
        (line_of("", "7]")[0], "DAMAGED", "line 1: not JSON"),
        (line_of("", "[1]")[0][: -TAIL] + b"\n", "DAMAGED", "line 1: the checksum"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_wrong_is_named(data: bytes, verdict: str, words: str) -> None:
    found = outcome_of(data)
    assert found[0] == verdict
    assert words in found[1]
