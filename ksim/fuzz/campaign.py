"""Many seeds, in this process or in others, through any executor of `concurrent.futures`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from ksim import coverage
from ksim.fuzz.saving import BROKEN, TwoDigestsError, breaks_by
from ksim.fuzz.swarm import draw_scenario
from ksim.sim.runner import RunResult, run

CHUNK: Final = 5
AHEAD: Final = 3  # chunks under way for each worker
REPEATED_EVERY: Final = 20  # one seed in twenty is run twice, and must have the same digest
SUMMED: Final = ("simulated_ms", "cpu_ms", "rebalances", "records", "messages")


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one seed showed, as plain data that crosses processes."""

    seed: int
    run: RunResult
    seen: coverage.Seen
    repeated: bool
    broken_by: str | None = None

    @property
    def failed(self) -> str | None:
        """The first check that failed, or what else went wrong; None for a pass."""
        if self.run.verdict == "pass":
            return None
        if self.broken_by is not None:
            return self.broken_by
        return self.run.violations[0].check if self.run.violations else self.run.verdict


@dataclass(slots=True)
class Totals:
    """The sum of a campaign so far; `sums` of the numbers of its runs, by name."""

    seeds: int = 0
    repeated: int = 0
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0))
    seen: coverage.Seen = field(default_factory=dict[str, int])
    failures: list[SeedResult] = field(default_factory=list[SeedResult])

    def add(self, found: SeedResult) -> None:
        self.seeds += 1
        self.repeated += found.repeated
        for name in SUMMED:
            self.sums[name] += getattr(found.run, name)
        self.seen = coverage.added((self.seen, found.seen))
        if found.failed is not None:
            self.failures.append(found)


def run_seed(seed: int) -> SeedResult:
    """Run the scenario of a seed; one in twenty twice. Never raises: what breaks is `broken`."""
    seen = coverage.Coverage()
    repeated = seed % REPEATED_EVERY == 0
    broken_by = None
    try:
        scenario = draw_scenario(seed)
        result = run(scenario, seed, watches=(seen.see,))
        if repeated and run(scenario, seed).digest != result.digest:
            raise TwoDigestsError(f"seed {seed} has two digests")
    except Exception as error:  # noqa: BLE001 - one broken seed must not end a campaign
        traceback.print_exc()
        result, broken_by = _broken(seed, error), breaks_by(error)
    return SeedResult(seed, result, seen.seen, repeated, broken_by)


def _broken(seed: int, error: Exception) -> RunResult:
    name = f"fuzz {seed}: {type(error).__name__}: {error}"
    return RunResult(name, seed, "", BROKEN, {}, (), 0, 0, 0, 0, 0, 0)


def run_seeds(seeds: list[int]) -> list[SeedResult]:
    """A chunk of a campaign, in one worker."""
    return [run_seed(seed) for seed in seeds]


class WorkersLostError(Exception):
    """A worker process was killed; `seeds` were under way, or had been given out."""

    def __init__(self, seeds: list[int]) -> None:
        super().__init__(f"a worker has died; seeds {', '.join(map(str, seeds))} are not judged")
        self.seeds = seeds


def campaign(
    executor: Executor,
    workers: int,
    first: int,
    seeds: int | None,
    minutes: float | None,
    is_stopped: Callable[[], bool],
) -> Iterator[SeedResult]:
    """Results as they come, of so many seeds, or for so long; ends early when it `is_stopped`.

    Raises WorkersLostError where the executor has lost its workers.
    """
    until_s = None if minutes is None else time.monotonic() + 60 * minutes
    numbers = count(first) if seeds is None else iter(range(first, first + seeds))
    under_way: dict[Future[list[SeedResult]], list[int]] = {}
    chunk: list[int] = []
    more = True
    while True:
        try:
            while more and len(under_way) < AHEAD * workers:
                more = not is_stopped() and (until_s is None or time.monotonic() < until_s)
                chunk = list(islice(numbers, CHUNK)) if more else []
                more = bool(chunk)
                if more:
                    under_way[executor.submit(run_seeds, chunk)] = chunk
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            found = [(future, future.result()) for future in done]
        except BrokenExecutor as error:
            lost = {seed for each in (*under_way.values(), chunk) for seed in each}
            raise WorkersLostError(sorted(lost)) from error
        for future, results in found:
            del under_way[future]
            yield from results
