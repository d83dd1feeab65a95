"""`ksim check`: the recordings of several members, put together and judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from ksim.after.judge import ALL_CHECKS, UNDECIDED, Judgement, judge
from ksim.after.lives import Life, read_lives
from ksim.checks import KEPT_VIOLATIONS, Violation
from ksim.cli.replay import members_in
from ksim.cli.telling import say

SAFETY, BROKEN = 1, 70


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--one-clock", is_flag=True, help="They were recorded on one machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(files: Sequence[Path], one_clock: bool, as_json: bool) -> int:
    """Put the recordings of several members together and judge them.

    A directory stands for the recordings of members in it; those below it are of other runs.

    Example: ksim check night/g-1.ksim night/g-2.ksim night/g-3.ksim
    """
    lives = read_lives([path for each in files for path in members_in(each)])
    found = judge(lives, one_clock=one_clock)
    if as_json:
        say(json.dumps(_plain(lives, found), separators=(",", ":")))
    else:
        for line in _lines(lives, found):
            say(line)
    if "broken" in found.verdicts.values():
        return BROKEN
    return SAFETY if found.violations else 0


def verdict_of(found: Judgement) -> str:
    """Of all checks together: the worst that any of them says."""
    said = found.verdicts.values()
    worst = ("broken", "fail", UNDECIDED, "pass")
    return next((verdict for verdict in worst if verdict in said), "not judged")


def _lines(lives: Sequence[Life], found: Judgement) -> Iterator[str]:
    yield from _clocks(lives, found)
    for name in ALL_CHECKS:
        yield f"  {name:<4} {found.verdicts[name]}"
    yield from _said(found.violations, "")
    yield from _said(found.undecided, "undecided: ")
    yield f"verdict   {verdict_of(found)}"


def _clocks(lives: Sequence[Life], found: Judgement) -> Iterator[str]:
    for at, life in enumerate(lives):
        span = found.clocks.span(0, at)
        incomplete = "" if life.complete else ", torn"
        told = f"{life.name:<12} {life.group_id}, {len(life.steps)} entries{incomplete}"
        if at in found.clocks.unknown:
            yield f"{told}; {found.clocks.unknown[at]}"
        elif span is None:
            yield f"{told}; nothing ties its clock to that of {lives[0].name}"
        elif at:
            yield f"{told}; clock {_signed(span[0])} to {_signed(span[1])} ms to {lives[0].name}"
        else:
            yield f"{told}; times are by its clock"


def _signed(ms: int) -> str:
    return f"{ms:+d}"


MOST: Final = KEPT_VIOLATIONS


def _said(said: Sequence[Violation], prefix: str) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for each in said:
        counts[each.check] += 1
        if counts[each.check] <= MOST:
            yield f"  {each.check}: {prefix}{each.sentence}"
    for name, count in sorted(counts.items()):
        if count > MOST:
            yield f"  {name}: {prefix}and {count - MOST} more."


def _plain(lives: Sequence[Life], found: Judgement) -> dict[str, object]:
    clocks: list[dict[str, object]] = []
    for at, life in enumerate(lives):
        span = found.clocks.span(0, at)
        clocks.append(
            {
                "member": life.name,
                "file": str(life.path),
                "low_ms": None if span is None else span[0],
                "high_ms": None if span is None else span[1],
                "contradiction": found.clocks.unknown.get(at),
            }
        )
    return {
        "verdict": verdict_of(found),
        "clocks": clocks,
        "checks": found.verdicts,
        "violations": [asdict(each) for each in found.violations],
        "undecided": [asdict(each) for each in found.undecided],
    }
