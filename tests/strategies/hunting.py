"""`python -m tests.strategies.hunting [NAME...]`: the smallest scenarios that show planted errors.

Hypothesis looks for a scenario in which a check that belongs to the error fails, and shrinks it.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, Phase, find, settings

from ksim.scenario import Scenario, dump
from ksim.scenario_check import member_names
from ksim.strategies import ScenarioFailedError, describe, run, scenarios
from tests.canary.plants import PLANTS

EXAMPLES: Final = 10_000
BOUNDS: Final[dict[str, Any]] = {"max_partitions": 2, "max_brokers": 2}


@dataclass(frozen=True, slots=True)
class Prey:
    """A planted error, the checks of which one must find it, and what to draw beside `BOUNDS`."""

    name: str
    checks: tuple[str, ...]


PREY: Final = (
    Prey("commit-delivered", ("S1", "S2")),
    Prey("m03-highest-finished", ("S1", "S2")),
    Prey("m04-kept-positions", ("S13", "S9", "S2")),
    Prey("m05-late-marks", ("S2", "S13", "S6")),
    Prey("m06-old-fetch", ("S1", "S2", "S10")),
)


@dataclass(frozen=True, slots=True)
class Minimal:
    """What was found, the checks that fail in it, and what that took."""

    scenario: Scenario
    failed: tuple[str, ...]
    runs: int
    until_found: int
    cpu_s: int

    @property
    def size(self) -> tuple[int, int, int]:
        """Members, partitions, and faults: steps are faults of another kind."""
        members = len(member_names(self.scenario))
        partitions = sum(topic.partitions for topic in self.scenario.topics)
        return members, partitions, len(self.scenario.faults) + len(self.scenario.steps)


def hunt(prey: Prey) -> Minimal:
    """Plant the error in a process of its own, and look for it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_hunt, (prey,))


def _hunt(prey: Prey) -> Minimal:
    PLANTS[prey.name]()
    runs: list[bool] = []

    def is_shown(scenario: Scenario) -> bool:
        runs.append(bool(_failed(scenario, prey.checks)))
        return runs[-1]

    chosen = settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.target, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    found = find(scenarios(**BOUNDS), is_shown, settings=chosen, random=Random(7))
    cpu_s = round(time.process_time())
    failed = _failed(found, ())
    return Minimal(found, failed, len(runs), runs.index(True) + 1, cpu_s)


def _failed(scenario: Scenario, checks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        run(scenario, checks=checks)
    except ScenarioFailedError as error:
        return error.report.failed
    return ()


def main(names: list[str]) -> None:
    """One section for each, as `docs/strategies.md` has it."""
    for prey in PREY:
        if names and prey.name not in names:
            continue
        found = hunt(prey)
        members, partitions, troubles = found.size
        sys.stdout.write(
            f"{prey.name}: {', '.join(found.failed)}; {members} members, {partitions} partitions, "
            f"{troubles} faults; run {found.until_found} of {found.runs}, {found.cpu_s} s\n"
            f"  {describe(found.scenario)}\n\n{dump(found.scenario)}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
