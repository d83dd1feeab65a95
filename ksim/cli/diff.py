"""`ksim diff`: the first difference of two recordings, or of the recordings of two runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from ksim.after.differences import Difference, Item, first_difference, pairs
from ksim.after.lives import read_lives
from ksim.core.trace import Plain

DIFFERENT = 4
MOST_FIELDS = 20
WIDTH = 160


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
    for name, ours, theirs in pairs(read_lives([one]), read_lives([other])):
        if ours is None or theirs is None:
            click.echo(f"{name}: only in {one if theirs is None else other}")
            code = DIFFERENT
            continue
        found = first_difference(ours, theirs, everything=everything)
        if found is None:
            click.echo(f"{name}: the same; {len(ours.steps)} and {len(theirs.steps)} entries")
            continue
        code = DIFFERENT
        for line in _lines(found):
            click.echo(line)
    return code


def _lines(found: Difference) -> Iterator[str]:
    yield f"{found.member}: {found.kind} number {found.nth} differs"
    yield f"  {_where(found.one)}, {_where(found.other)}"
    for path, mine, yours in found.fields[:MOST_FIELDS]:
        yield f"  {path or found.kind}: {_short(mine)} | {_short(yours)}"
    if len(found.fields) > MOST_FIELDS:
        yield f"  and {len(found.fields) - MOST_FIELDS} more fields"


def _where(item: Item | None) -> str:
    return "not there" if item is None else f"line {item.line} at {item.at_ms / 1000:.3f} s"


def _short(data: Plain) -> str:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
