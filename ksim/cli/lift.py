"""`ksim lift`: recordings to a scenario that makes the same rebalances."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ksim.after.lives import read_lives
from ksim.cli.mask import spare
from ksim.cli.replay import members_in
from ksim.cli.telling import say, write_text
from ksim.scenario import dump
from ksim.sim.reenactment import MOST_RUNS, lift

DIVERGED = 4


@click.command(name="lift")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
@click.option("--name", help="What the scenario shows; the files' names if left out.")
@click.option("--one-clock", is_flag=True, help="They were recorded on one machine.")
@click.option("--runs", default=MOST_RUNS, show_default=True, type=click.IntRange(1))
def lift_command(
    files: Sequence[Path], out: Path, name: str | None, one_clock: bool, runs: int
) -> int:
    """Make a scenario of recordings, run it, and compare generations, owners and error codes.

    It is written where it can be run; exit code 4 says that it does not make all of the same.

    Example: ksim lift night/*.ksim -o night.scenario.toml
    """
    paths = [path for each in files for path in members_in(each)]
    spare(out, out, paths)
    lives = read_lives(paths)
    title = name or f"lifted from {', '.join(path.name for path in files)}"
    title = title.encode("utf-8", "backslashreplace").decode()  # a file name may be any bytes
    found = lift(lives, title, one_clock=one_clock, most_runs=runs)
    lines = write_text(out, dump(found.scenario))
    say(f"lifted    {out}, {lines} lines, after {found.runs} runs")
    if found.same:
        say(f"SAME      {found.generations} generations, their owners and all error codes")
        return 0
    generations, refusals = found.apart
    say(
        f"DIVERGED  {generations} generations and {refusals} refusals are in one of the two alone; "
        f"first: {found.where}"
    )
    return DIVERGED
