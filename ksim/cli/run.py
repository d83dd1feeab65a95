"""`ksim run`: scenarios on the simulated cluster, judged."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import click

from ksim.cli.recorded import payload_option
from ksim.cli.telling import OutputError, say, write_text
from ksim.core.errors import ConfigError
from ksim.narrative import Narrative
from ksim.recorders import Recorders
from ksim.recording_payload import PayloadMode
from ksim.scenario import Scenario, load
from ksim.scenario_vary import Point
from ksim.sim.runner import RunResult, Watch
from ksim.sim.runner import run as run_scenario
from ksim.sim.sweep import check_sweep, sweep
from ksim.timeline import Timeline

EXIT_CODES = {"pass": 0, "safety": 1, "liveness": 3, "broken": 70}
WORST_FIRST = (70, 1, 3, 0)


@dataclass(frozen=True, slots=True)
class Output:
    """What is asked for beside the verdict."""

    timeline: Path | None
    record: Path | None
    payload: PayloadMode
    trace: bool
    as_json: bool

    def within(self, folder: str) -> Output:
        """The same for one of several scenarios."""
        record = None if self.record is None else self.record / folder
        return replace(self.drawing(folder), record=record)

    def drawing(self, what: str) -> Output:
        """The same, with a picture of its own."""
        if self.timeline is None:
            return self
        return replace(self, timeline=self.timeline.with_stem(f"{self.timeline.stem}-{what}"))


def _folders(files: Sequence[Path]) -> list[str]:
    """A name for each file, by which its output is told from that of the others."""
    stems = [path.name.removesuffix(".toml").removesuffix(".scenario") for path in files]
    return [stem if stems.count(stem) == 1 else f"{stem}-{at}" for at, stem in enumerate(stems, 1)]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The seed of the first run.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many seeds, from SEED on.",
)
@click.option("--point", type=click.IntRange(0), help="One point of a sweep, by its number.")
@click.option("--max-points", type=click.IntRange(1), help="Sample so many points of each sweep.")
@click.option("--timeline", type=click.Path(path_type=Path), help="Draw the run as OUT.html.")
@click.option("--record", type=click.Path(path_type=Path), help="Record each member in DIR.")
@payload_option
@click.option("--trace", is_flag=True, help="Print every step of every machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each run.")
def run(
    files: Sequence[Path],
    seed: int,
    seeds: int,
    point: int | None,
    max_points: int | None,
    timeline: Path | None,
    record: Path | None,
    payload: PayloadMode,
    trace: bool,
    as_json: bool,
) -> int:
    """Run scenarios on the simulated cluster and judge them.

    A scenario with [vary] is a sweep: each of its points is a run.

    Example: ksim run scenarios/night.scenario.toml --seed 7 --timeline night.html
    """
    scenarios = [load(path) for path in files]
    for path, scenario in zip(files, scenarios, strict=True):
        check_sweep(str(path), scenario)
        if point is not None and not scenario.vary:
            raise ConfigError(f"{path}: --point {point}: it has no [vary], and so no points")
    if max_points is not None and not any(scenario.vary for scenario in scenarios):
        raise ConfigError(f"{files[0]}: --max-points {max_points}: it has no [vary]")
    output = Output(timeline, record, payload, trace, as_json)
    several = len(scenarios) * seeds > 1 or any(scenario.vary for scenario in scenarios)
    codes = [0]
    folders = _folders(files)
    for scenario, folder in zip(scenarios, folders, strict=True):
        mine = output if len(files) == 1 else output.within(folder)
        for number in range(seed, seed + seeds):
            here = mine if seeds == 1 else mine.drawing(f"seed-{number}")
            if scenario.vary:
                codes.append(_sweep(scenario, number, point, max_points, here))
            else:
                codes.append(_plain(_Job(scenario, number, None, several), here))
    return next(code for code in WORST_FIRST if code in codes)


@dataclass(frozen=True, slots=True)
class _Job:
    """One run: `point` is the sweep's, `several` that it is not the only one."""

    scenario: Scenario
    seed: int
    point: Point | None
    several: bool

    def directory(self, record: Path | None) -> Path | None:
        """Where its recordings go."""
        if record is None or not self.several:
            return record
        suffix = "" if self.point is None else f"-point-{self.point.number}"
        return record / f"seed-{self.seed}{suffix}"

    def picture(self, timeline: Path | None) -> Path | None:
        """Where its timeline goes."""
        if timeline is None or self.point is None:
            return timeline
        return timeline.with_stem(f"{timeline.stem}-point-{self.point.number}")

    @property
    def headline(self) -> str:
        at = "" if self.point is None else f"  point {self.point.number}: {self.point}"
        return f"seed {self.seed}  {self.scenario.name}{at}"


def _sweep(
    scenario: Scenario, seed: int, number: int | None, most: int | None, output: Output
) -> int:
    """All points, or those that are asked for."""
    found = sweep(scenario, seed)
    if not len(found):
        raise ConfigError(
            f"{scenario.name}: no event of {', '.join(found.each)} happens with seed {seed} before "
            "everything is healed: the sweep has no points"
        )
    if number is not None or output.as_json:
        points = found.points(most) if number is None else [found.point(number)]
        codes = [_plain(_Job(point.scenario, seed, point, True), output) for point in points]
        return next(code for code in WORST_FIRST if code in [*codes, 0])
    say(f"seed {seed}  {scenario.name}")
    verdicts: list[str] = []
    whole = blake2b(digest_size=16)
    for point in found.points(most):
        result = _judge(_Job(point.scenario, seed, point, True), output, [])
        verdicts.append(result.verdict)
        whole.update(f"{point.number} {result.digest}\n".encode())
        if result.verdict != "pass" or output.trace:
            sentence = "".join(f"; {v.check}: {v.sentence}" for v in result.violations[:1])
            say(f"  point {point.number}: {point}: {result.verdict}{sentence}")
    failed = sum(verdict != "pass" for verdict in verdicts)
    worst = next(
        code for code in WORST_FIRST if code in [EXIT_CODES[v] for v in (*verdicts, "pass")]
    )
    say(f"  {len(verdicts)} of {len(found)} points, {failed} failed")
    say(f"verdict   {next(name for name, code in EXIT_CODES.items() if code == worst)}")
    say(f"digest    {whole.hexdigest()}")
    return worst


def _plain(job: _Job, output: Output) -> int:
    """One run that is told in full."""
    narrative = Narrative()
    if output.as_json:
        result = _judge(job, output, [])
        content = asdict(result)
        content["point"] = None if job.point is None else job.point.number
        say(json.dumps(content, separators=(",", ":")))
    else:
        say(job.headline)
        result = _judge(job, output, [narrative.see])
        _show(result, narrative)
        _show_files(job, output)
    return EXIT_CODES[result.verdict]


def _judge(job: _Job, output: Output, watches: Sequence[Watch]) -> RunResult:
    """Run it, with the files and lines that go with it."""
    picture = Timeline(job.headline)
    timeline = job.picture(output.timeline)
    watching = [*watches]
    if timeline is not None:
        watching.append(picture.see)
    if output.trace:
        watching.append(_print_step)
    directory = job.directory(output.record)
    recorders = None if directory is None else Recorders(directory, job.seed, output.payload)
    try:
        result = run_scenario(job.scenario, job.seed, watches=watching, recorder=recorders)
    except OutputError:
        raise
    except Exception:  # noqa: BLE001 - a bug of ours in one run must not hide the others
        traceback.print_exc()
        result = RunResult(job.scenario.name, job.seed, "", "broken", {}, (), 0, 0, 0, 0, 0, 0)
    finally:
        if recorders is not None:
            recorders.close()
    if timeline is not None:
        write_text(timeline, picture.html())
    return result


def _show_files(job: _Job, output: Output) -> None:
    directory, timeline = job.directory(output.record), job.picture(output.timeline)
    if directory is not None:
        found = sorted(str(path) for path in directory.glob("*.ksim"))
        say(f"recorded  {', '.join(found)}")
    if timeline is not None:
        say(f"timeline  {timeline}")


def _print_step(source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
    say(f"{now_ms:>9} {source:<14} {fact!r}")
    for order in orders:
        say(f"{'':>9} {'':<14}   -> {order!r}")


def _show(result: RunResult, narrative: Narrative) -> None:
    for line in narrative.lines:
        say(f"  {line}")
    for name, verdict in result.checks.items():
        say(f"  {name:<4} {verdict}")
    for violation in result.violations:
        say(f"  {violation.check}: {violation.sentence}")
    cpu_ms = max(result.cpu_ms, 1)
    say(
        f"  {result.records} records, {result.rebalances} rebalances, {result.messages} messages; "
        f"simulated {result.simulated_ms / 1000:.1f} s in {cpu_ms / 1000:.2f} s of CPU: "
        f"{result.simulated_ms // cpu_ms} x real time, {result.events * 1000 // cpu_ms} events/s"
    )
    say(f"verdict   {result.verdict}")
    say(f"digest    {result.digest}")
