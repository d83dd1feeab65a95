"""`ksim fuzz`: random scenarios, judged; what fails is made small and saved."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ksim.cli.run import EXIT_CODES, WORST_FIRST
from ksim.cli.telling import say, write_text
from ksim.core.errors import ConfigError
from ksim.coverage import EXPECTED, missing
from ksim.fuzz.campaign import SeedResult, Totals, WorkersLostError, campaign
from ksim.fuzz.saving import BROKEN, save_shrunk

INTERRUPTED: Final = 130
MOST_SAVED: Final = 10
DEFAULT_SEEDS: Final = 1_000
MOST_MINUTES: Final = 1_000_000
HOUR_MS: Final = 3_600_000
LOOK_S: Final = 0.2


@click.command()
@click.option(
    "--seeds", type=click.IntRange(1), help=f"How many seeds; {DEFAULT_SEEDS} if nothing is said."
)
@click.option("--minutes", type=float, help="Or for how long.")
@click.option("--seed", "first", default=0, show_default=True, help="The first seed.")
@click.option("--workers", type=click.IntRange(1), help="Processes; one for each core if not said.")
@click.option("--dask", "dask_address", metavar="ADDRESS", help="Run on a Dask cluster instead.")
@click.option("--out", default="fuzz-failures", show_default=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each seed.")
def fuzz(
    seeds: int | None,
    minutes: float | None,
    first: int,
    workers: int | None,
    dask_address: str | None,
    out: Path,
    as_json: bool,
) -> int:
    """Run random scenarios and judge them; failures are shrunk and saved in --out.

    Example: ksim fuzz --seeds 1000 --workers 2
    """
    if seeds is not None and minutes is not None:
        raise ConfigError("--seeds and --minutes: say one of them")
    if minutes is not None and not 0 < minutes < MOST_MINUTES:
        raise ConfigError(f"--minutes {minutes}: must be above 0, and below {MOST_MINUTES}")
    count = DEFAULT_SEEDS if seeds is None and minutes is None else seeds
    stopped = threading.Event()
    totals = Totals()
    saved: list[tuple[int, str]] = []
    lost: list[Exception] = []
    with _stopping(stopped), _executor(dask_address, workers, stopped) as (executor, width):
        results = campaign(executor, width, first, count, minutes, stopped.is_set)
        try:
            _follow(results, totals, count, as_json)
            _save(executor, totals, out, saved, stopped)
        except (WorkersLostError, BrokenExecutor) as error:
            lost.append(error)
    _summary(totals, saved, as_json)
    for each in lost:
        say(f"ksim: {each}", err=True)
    if stopped.is_set():
        return INTERRUPTED
    codes = [EXIT_CODES[found.run.verdict] for found in totals.failures]
    codes += [EXIT_CODES[BROKEN] for _ in lost]
    return next((code for code in WORST_FIRST if code in codes), 0)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_workers() -> None:
    """Whatever they are at; this process has no other children."""
    for worker in active_children():
        worker.terminate()


@contextmanager
def _processes(width: int, stopped: threading.Event) -> Iterator[ProcessPoolExecutor]:
    """Workers that end at once where the campaign was stopped, whatever they are at."""
    # Forked workers have what this process has planted or patched.
    context = get_context("fork")
    with ProcessPoolExecutor(width, context, _leave_interrupts_to_the_parent) as pool:
        try:
            yield pool
        finally:
            if stopped.is_set():
                _end_workers()


@contextmanager
def _executor(
    dask_address: str | None, workers: int | None, stopped: threading.Event
) -> Iterator[tuple[Executor, int]]:
    """Processes of this machine, or those of a Dask cluster; and how many there are."""
    if dask_address is None:
        width = workers or os.cpu_count() or 1
        with _processes(width, stopped) as pool:
            yield pool, width
        return
    try:
        from dask import distributed
    except ModuleNotFoundError as error:
        raise ConfigError(f"--dask {dask_address}: pip install 'kafka-ksim[dask]'") from error
    try:
        untyped: Any = distributed
        client = untyped.Client(dask_address, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--dask {dask_address}: {error}") from error
    with client:
        width = workers or sum(client.nthreads().values())
        yield client.get_executor(), max(width, 1)


@contextmanager
def _stopping(stopped: threading.Event) -> Iterator[None]:
    """The first Ctrl-C lets what is under way end; the second one ends at once."""
    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: Any) -> None:
        del number, frame
        if stopped.is_set():
            # Wherever it strikes, nothing may wait for them afterwards.
            _end_workers()
            raise KeyboardInterrupt
        stopped.set()

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(
    results: Iterator[SeedResult], totals: Totals, count: int | None, as_json: bool
) -> None:
    """Add up, with a bar where somebody looks."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.completed} seeds"), BarColumn(), TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[found]}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("seeds", total=count, rate="", found="")
        for found in results:
            totals.add(found)
            if as_json:
                say(json.dumps({**asdict(found.run), "point": None}, separators=(",", ":")))
            elif found.failed is not None:
                progress.console.print(
                    _sentence(found), markup=False, highlight=False, soft_wrap=True
                )
            elapsed_s = progress.tasks[0].elapsed or 1.0
            met = len(EXPECTED) - len(missing(totals.seen))
            progress.update(
                task,
                completed=totals.seeds,
                rate=f"{totals.seeds / max(elapsed_s, 0.001):.0f}/s",
                found=f"{met}/{len(EXPECTED)} states and codes, {len(totals.failures)} failed",
            )


def _sentence(found: SeedResult) -> str:
    violations = found.run.violations
    what = violations[0].sentence if violations else found.run.scenario
    return f"seed {found.seed} fails {found.failed}: {what}"


def _save(
    executor: Executor,
    totals: Totals,
    out: Path,
    saved: list[tuple[int, str]],
    stopped: threading.Event,
) -> None:
    """Shrink side by side; `saved` gets (seed, file) of each, until the campaign is `stopped`."""
    chosen = sorted(totals.failures, key=lambda found: found.seed)[:MOST_SAVED]
    under_way: dict[Future[str], SeedResult] = {
        executor.submit(save_shrunk, found.seed, found.failed or ""): found
        for found in (() if stopped.is_set() else chosen)
    }
    while under_way and not stopped.is_set():
        for future in wait(under_way, timeout=LOOK_S).done:
            found = under_way.pop(future)
            path = out / f"{_kind(found)}-seed-{found.seed}.scenario.toml"
            write_text(path, future.result())
            saved.append((found.seed, str(path)))
    saved.sort()


def _kind(found: SeedResult) -> str:
    """Of a failure, as file names have it."""
    return (found.failed or "").lower().replace(": ", "-")


def _summary(totals: Totals, saved: list[tuple[int, str]], as_json: bool) -> None:
    tell = partial(say, err=as_json)
    sums = totals.sums
    tell(
        f"{totals.seeds} seeds, {totals.repeated} of them twice: {len(totals.failures)} failed. "
        f"Simulated {sums['simulated_ms'] / HOUR_MS:.1f} h "
        f"in {sums['cpu_ms'] / 1000:.0f} s of CPU; "
        f"{sums['rebalances']} rebalances, {sums['records']} records, {sums['messages']} messages."
    )
    absent = missing(totals.seen)
    tell(f"met {len(EXPECTED) - len(absent)} of {len(EXPECTED)} states and codes")
    if absent:
        tell(f"not met: {', '.join(absent)}")
    for seed, path in saved:
        tell(f"saved {path}; run it with: ksim run {path} --seed {seed}")
