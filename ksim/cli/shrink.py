"""`ksim shrink`: the smallest scenario that still fails the same check."""

from __future__ import annotations

from pathlib import Path

import click

from ksim.after.lives import SUFFIX
from ksim.cli.run import EXIT_CODES
from ksim.cli.telling import say, write_text
from ksim.core.errors import ConfigError
from ksim.fuzz.saving import BROKEN, breaks_by, fails_check, text_of
from ksim.scenario import Scenario, load
from ksim.shrink import MOST_RUNS, shrink
from ksim.sim.runner import run
from ksim.sim.sweep import check_sweep, sweep


@click.command(name="shrink")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The seed that fails.")
@click.option("--point", type=click.IntRange(0), help="Which point of a sweep, by its number.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
@click.option("--runs", default=MOST_RUNS, show_default=True, type=click.IntRange(1))
def shrink_command(file: Path, seed: int, point: int | None, out: Path, runs: int) -> int:
    """Make a failing scenario small: members, partitions, faults, times, records.

    A run that breaks is made small as well, as long as it breaks in the same way.

    Example: ksim shrink night.scenario.toml --seed 7 -o small.scenario.toml
    """
    _refuse_recording(file)
    scenario = load(file)
    check_sweep(str(file), scenario)
    chosen = _chosen(file, scenario, seed, point)
    at = f" --point {point}" if point is not None else ""
    check, verdict = _failure(chosen, seed, f"{file} with --seed {seed}{at}")
    found = shrink(chosen, lambda one: fails_check(one, seed, check) is not None, runs)
    lines = write_text(out, text_of(found.scenario, seed, check, f"{file}{at}"))
    say(f"{check} still fails after {found.runs} runs: {out}, {lines} lines")
    return EXIT_CODES[verdict]


def _refuse_recording(file: Path) -> None:
    if file.suffix == SUFFIX:
        raise ConfigError(
            f"{file}: is a recording, and scenarios are made small; "
            f"`ksim lift {file} -o X.scenario.toml` makes a scenario of it"
        )


def _chosen(file: Path, scenario: Scenario, seed: int, point: int | None) -> Scenario:
    """The scenario itself, or the point of a sweep that is asked for."""
    if not scenario.vary:
        if point is not None:
            raise ConfigError(f"{file}: --point {point}: it has no [vary], and so no points")
        return scenario
    points = sweep(scenario, seed)
    if point is None:
        raise ConfigError(f"{file}: is a sweep; say which point: --point 0 to {len(points) - 1}")
    return points.point(point).scenario


def _failure(scenario: Scenario, seed: int, what: str) -> tuple[str, str]:
    """The check that has to go on failing, and the verdict."""
    try:
        result = run(scenario, seed)
    except Exception as error:  # noqa: BLE001 - what breaks is what is to be made small
        return breaks_by(error), BROKEN
    if not result.violations:
        raise ConfigError(f"{what} passes: there is nothing to shrink")
    return result.violations[0].check, result.verdict
