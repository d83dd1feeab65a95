"""`ksim conform`: the simulated coordinator against a real broker."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import click

from ksim.conform.run import Divergence, conform
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
    click.echo(
        f"{report.scripts} scripts of {steps} steps in {took_s:.1f} s: "
        f"{len(report.divergences)} diverged. Normalised: ids, the order of members, "
        "the answer to a parked SyncGroup of a removed member (Kafka gives none), and "
        f"{report.adopted} leaders that Kafka took in hash order."
    )
    return DIVERGED if report.divergences else 0


def _show(found: Divergence) -> None:
    click.echo(f"seed {found.seed} diverged after {len(found.done)} steps:")
    for step in found.done:
        click.echo(f"  {step}")
    click.echo(f"  {found.sentence}")
