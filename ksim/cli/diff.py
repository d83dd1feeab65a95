"""`ksim diff`: the first difference of two recordings, or of the recordings of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ksim.after.differences import (
    Difference,
    Item,
    first_difference,
    other_configuration,
    pairs,
    place_of,
)
from ksim.after.lives import Life, read_lives
from ksim.cli.replay import members_in
from ksim.cli.telling import say
from ksim.core.trace import Plain

DIFFERENT = 4
MOST_FIELDS = 20
WIDTH = 160
CONFIGURATION = "configuration"


@click.command()
@click.argument("one", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Fetches, offsets and idle steps, too.")
def diff(one: Path, other: Path, everything: bool) -> int:
    """First difference of two recordings, or of two directories, ignoring what may differ.

    Ids, ports and times may differ, and how much was read by when. Steps are compared kind by kind.

    Example: ksim diff monday/g-1.ksim tuesday/g-1.ksim
    """
    code = 0
    of_one, of_other = members_in(one), members_in(other)
    for name, ours, theirs in pairs(read_lives(of_one), read_lives(of_other)):
        if ours is None or theirs is None:
            say(f"{name}: only in {one if theirs is None else other}")
            code = DIFFERENT
            continue
        configured = other_configuration(ours, theirs)
        found = first_difference(ours, theirs, everything=everything)
        if found is None:
            told = "the same" if not configured else "the same but for the configuration"
            say(f"{name}: {told}; {len(ours.steps)} and {len(theirs.steps)} entries")
        for line in _fields(CONFIGURATION, configured):
            say(line)
        if found is not None:
            places = _place(found.one, ours, of_one), _place(found.other, theirs, of_other)
            for line in _lines(found, *places):
                say(line)
        if configured or found is not None:
            code = DIFFERENT
    return code


def _lines(found: Difference, mine: str, yours: str) -> Iterator[str]:
    yield f"{found.member}: {found.kind} number {found.nth} differs"
    yield f"  {mine}, {yours}"
    yield from _fields(found.kind, found.fields)


def _fields(kind: str, fields: Sequence[tuple[str, Plain, Plain]]) -> Iterator[str]:
    for path, mine, yours in fields[:MOST_FIELDS]:
        named = path if path and kind != CONFIGURATION else f"{kind} {path}".rstrip()
        yield f"  {named}: {_short(mine)} | {_short(yours)}"
    if len(fields) > MOST_FIELDS:
        yield f"  and {len(fields) - MOST_FIELDS} more fields"


def _place(item: Item | None, life: Life, files: Sequence[Path]) -> str:
    if item is None:
        return "not there"
    at = f"at {item.at_ms / 1000:.3f} s"
    if not all(path.is_file() for path in files):  # a pipe: nobody can count its lines again
        return f"{life.path}: entry {item.number + 1} {at}"
    path, line = place_of(life, files, item.number)
    return f"{path}: line {line} {at}"


def _short(data: Plain) -> str:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
