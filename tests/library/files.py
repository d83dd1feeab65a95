"""The scenario files: plain ones, and sweeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ksim import observations as o
from ksim.scenario import Scenario, load
from ksim.sim.runner import RunResult, run
from ksim.sim.sweep import sweep

SCENARIOS = Path(__file__).parents[2] / "scenarios"
FILES = sorted(SCENARIOS.rglob("*.scenario.toml"))
PLAIN = [path for path in FILES if not load(path).vary]
SWEEPS = [path for path in FILES if load(path).vary]


def label(path: Path) -> str:
    return path.name.split(".")[0]


class Struck:
    """Which steps and faults of a scenario have happened in any of its points."""

    def __init__(self) -> None:
        self.wanted: set[tuple[str, int]] = set()
        self.found: set[tuple[str, int]] = set()

    def run(self, scenario: Scenario, seed: int) -> RunResult:
        seen: Counter[tuple[str, str]] = Counter()

        def see(source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
            del source, now_ms, orders
            if isinstance(fact, o.FaultStruck):
                seen[fact.name, fact.target] += 1
                seen[fact.name, ""] += 1

        result = run(scenario, seed, watches=[see])
        for at, step in enumerate(scenario.steps):
            self._note("step", at, seen, (step.do, step.target))
        for at, fault in enumerate(scenario.faults):
            name = f"{fault.do} {fault.direction} {fault.kind}"
            self._note("fault", at, seen, (name, fault.member or ""))
        return result

    def _note(
        self, kind: str, at: int, seen: Counter[tuple[str, str]], what: tuple[str, str]
    ) -> None:
        """Steps that are alike have struck as often as there are of them."""
        self.wanted.add((kind, at))
        if seen[what] > 0:
            seen[what] -= 1
            self.found.add((kind, at))

    @property
    def missed(self) -> list[tuple[str, int]]:
        """What never happened."""
        return sorted(self.wanted - self.found)


def judge(path: Path, seeds: Iterable[int]) -> None:
    """All seeds must pass, and each step and fault must have happened with one at least."""
    scenario, struck = load(path), Struck()
    for seed in seeds:
        result = struck.run(scenario, seed)
        assert result.verdict == "pass", (seed, result.violations)
    assert not struck.missed, f"never happened: {struck.missed}"


def judge_points(path: Path, seed: int, most: int) -> tuple[int, int]:
    """Judge at most so many points; returns how many, and of how many.

    All of them must pass, and each step and fault must have happened in one at least.
    """
    found = sweep(load(path), seed)
    ran = 0
    failed: list[str] = []
    struck = Struck()
    for point in found.points(most):
        result = struck.run(point.scenario, seed)
        ran += 1
        if result.verdict != "pass":
            failed.append(f"point {point.number}: {point}: {result.violations[0].sentence}")
    assert ran > 0
    assert not failed, "\n".join(failed)
    assert not struck.missed, f"never happened: {struck.missed}"
    return ran, len(found)
