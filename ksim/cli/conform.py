"""`ksim conform`: the simulated coordinator against a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import click

from ksim.cli.telling import say
from ksim.conform.differences import SENTENCES
from ksim.conform.run import Divergence, Report, conform
from ksim.core.coordinator_state import Difference
from ksim.core.errors import ConfigError

DIVERGED: Final = 4
SHOWN: Final = 3


@click.command(name="conform")
@click.option("-b", "--bootstrap", required=True, metavar="HOST:PORT")
@click.option("--seed", default=0, show_default=True, help="The first seed.")
@click.option("--seeds", default=100, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=40, show_default=True, type=click.IntRange(1))
@click.option("--shrink/--no-shrink", default=True, help="Look for the shortest script.")
def conform_command(bootstrap: str, seed: int, seeds: int, steps: int, shrink: bool) -> int:
    """Ask the machine and a broker the same, request by request.

    The broker must coordinate all groups itself: give one of a single broker.

    Example: ksim conform -b localhost:9092 --seeds 500
    """
    host, _, port = bootstrap.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"-b {bootstrap}: HOST:PORT is needed, like localhost:9092")
    began = time.monotonic()
    seeds_to_run = range(seed, seed + seeds)
    report = asyncio.run(conform(host, int(port), seeds_to_run, steps, shrink=shrink))
    took_s = time.monotonic() - began
    for found in report.divergences[:SHOWN]:
        _show(found)
    say(
        f"{report.scripts} scripts of {steps} steps in {took_s:.1f} s: "
        f"{len(report.divergences)} diverged."
    )
    for line in _lines(report):
        say(line)
    return DIVERGED if report.divergences else 0


def _lines(report: Report) -> Iterator[str]:
    """What was not compared as it stands, and why."""
    yield (
        "normalised: ids, the order of lists, the answer to a parked SyncGroup of a removed member "
        f"(Kafka gives none), {report.adopted} leaders that Kafka took in hash order, "
        f"{report.unseen} looks at groups that Kafka does not show before they are written"
    )
    yield (
        f"ended early: {report.untold} scripts, as nobody was told a leader taken in hash order, "
        f"and {report.tied}, as sessions ended at one instant in an order that matters"
    )
    if report.stalled:
        yield (
            f"run again: {report.stalled} scripts that diverged while ksim or the broker stood "
            f"still, for up to {report.stalled_ms} ms"
        )
    if report.tidied:
        yield (
            f"run again: {report.tidied} scripts that diverged when the broker had forgotten a "
            "group, as its periodic clean-up may have done"
        )
    if report.not_judged:
        seeds = ", ".join(map(str, report.not_judged))
        yield f"not judged, as that happened each time: seeds {seeds}"
    if report.expected:
        yield "known differences from Kafka 4, and how often each decided something:"
    for name in report.expected:
        yield f"  {name} {report.known[name]}: {SENTENCES[Difference(name)]}"


def _show(found: Divergence) -> None:
    say(f"seed {found.seed} diverged after {len(found.done)} steps:")
    for step in found.done:
        say(f"  {step}")
    say(f"  {found.sentence}")
