"""`ksim run`: scenarios on the simulated cluster, judged."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ksim.consumer.config import Config
from ksim.core.trace import Plain
from ksim.narrative import Narrative
from ksim.recording import RecordingWriter
from ksim.scenario import Scenario, load
from ksim.sim.runner import RunResult, Watch
from ksim.sim.runner import run as run_scenario
from ksim.timeline import Timeline

EXIT_CODES = {"pass": 0, "safety": 1, "liveness": 3, "broken": 70}
WORST_FIRST = (70, 1, 3, 0)


class Recorders:
    """One file for each life of each member, in one directory."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._seed = seed
        self.paths: list[Path] = []
        self._writers: list[RecordingWriter] = []

    def __call__(self, name: str, config: Config, snapshot: Plain) -> RecordingWriter:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{name}.ksim"
        header = {
            "vantage": "member",
            "member": name,
            "seed": self._seed,
            "config": config.public(),
        }
        writer = RecordingWriter(path.open("wb", buffering=0), header, snapshot)
        self.paths.append(path)
        self._writers.append(writer)
        return writer

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The seed of the first run.")
@click.option("--seeds", default=1, show_default=True, help="How many seeds, from SEED on.")
@click.option("--timeline", type=click.Path(path_type=Path), help="Draw the run as OUT.html.")
@click.option("--record", type=click.Path(path_type=Path), help="Record each member in DIR.")
@click.option("--trace", is_flag=True, help="Print every step of every machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each run.")
def run(
    files: Sequence[Path],
    seed: int,
    seeds: int,
    timeline: Path | None,
    record: Path | None,
    trace: bool,
    as_json: bool,
) -> int:
    """Run scenarios on the simulated cluster and judge them.

    Example: ksim run scenarios/night.scenario.toml --seed 7 --timeline night.html
    """
    scenarios = [load(path) for path in files]
    several = len(scenarios) * seeds > 1
    codes = [0]
    for scenario in scenarios:
        for number in range(seed, seed + seeds):
            directory = record / f"seed-{number}" if record is not None and several else record
            show = _show_json if as_json else _show_text
            codes.append(_one(scenario, number, timeline, directory, trace, show))
    return next(code for code in WORST_FIRST if code in codes)


Show = Callable[[RunResult, Narrative], None]


def _one(
    scenario: Scenario,
    seed: int,
    timeline: Path | None,
    directory: Path | None,
    trace: bool,
    show: Show,
) -> int:
    if show is _show_text:
        click.echo(f"seed {seed}  {scenario.name}")
    narrative = Narrative()
    picture = Timeline(f"{scenario.name}, seed {seed}")
    watches: list[Watch] = [narrative.see]
    if timeline is not None:
        watches.append(picture.see)
    if trace:
        watches.append(_print_step)
    recorders = None if directory is None else Recorders(directory, seed)
    try:
        result = run_scenario(scenario, seed, watches=watches, recorder=recorders)
    except Exception:  # noqa: BLE001 - a bug of ours in one run must not hide the others
        traceback.print_exc()
        result = RunResult(scenario.name, seed, "", "broken", {}, (), 0, 0, 0, 0, 0, 0)
    finally:
        if recorders is not None:
            recorders.close()
    show(result, narrative)
    if timeline is not None:
        timeline.parent.mkdir(parents=True, exist_ok=True)
        timeline.write_text(picture.html(), "utf-8")
    if show is _show_text:
        if recorders is not None:
            click.echo(f"recorded  {', '.join(str(path) for path in recorders.paths)}")
        if timeline is not None:
            click.echo(f"timeline  {timeline}")
    return EXIT_CODES[result.verdict]


def _print_step(source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
    click.echo(f"{now_ms:>9} {source:<14} {fact!r}")
    for order in orders:
        click.echo(f"{'':>9} {'':<14}   -> {order!r}")


def _show_json(result: RunResult, narrative: Narrative) -> None:
    del narrative
    content = asdict(result)
    content["point"] = None
    click.echo(json.dumps(content, separators=(",", ":")))


def _show_text(result: RunResult, narrative: Narrative) -> None:
    for line in narrative.lines:
        click.echo(f"  {line}")
    for name, verdict in result.checks.items():
        click.echo(f"  {name:<4} {verdict}")
    for violation in result.violations:
        click.echo(f"  {violation.check}: {violation.sentence}")
    cpu_ms = max(result.cpu_ms, 1)
    click.echo(
        f"  {result.records} records, {result.rebalances} rebalances, {result.messages} messages; "
        f"simulated {result.simulated_ms / 1000:.1f} s in {cpu_ms / 1000:.2f} s of CPU: "
        f"{result.simulated_ms // cpu_ms} x real time, {result.events * 1000 // cpu_ms} events/s"
    )
    click.echo(f"verdict   {result.verdict}")
    click.echo(f"digest    {result.digest}")
