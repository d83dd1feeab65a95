"""Scenario files as tests: each seed a test, each point of a sweep a run of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ksim.checks import Violation
from ksim.fuzz.saving import text_of
from ksim.kit.artefacts import Failure, listening
from ksim.kit.report import Step, sentences, story_of
from ksim.recorders import Recorders
from ksim.scenario import Scenario, load
from ksim.sim.runner import run
from ksim.sim.sweep import check_sweep, sweep


@dataclass(frozen=True, slots=True)
class FailedScenario:
    """The first point that does not pass."""

    path: Path
    seed: int
    scenario: Scenario
    point: int | None
    verdict: str
    violations: tuple[Violation, ...]
    steps: tuple[Step, ...]

    def text(self) -> str:
        """Verdict, sentences, and what happened."""
        at = "" if self.point is None else f", point {self.point}"
        lines = [f"{self.path.name}, seed {self.seed}{at}: {self.verdict}"]
        lines += sentences(self.violations)
        lines += ["what happened:", *(f"  {line}" for line in story_of(self.steps))]
        return "\n".join(lines)

    def failure(self, test: str) -> Failure:
        """For the files that it leaves."""
        command = f"ksim run '{self.path}' --seed {self.seed}"
        if self.point is not None:
            command += f" --point {self.point}"
        check = self.violations[0].check if self.violations else self.verdict
        text = text_of(self.scenario, self.seed, check, command)
        return Failure(test, self.seed, command, self.steps, self.violations, text)


def load_checked(path: Path) -> Scenario:
    """A scenario that can be run. Raises ScenarioError, one line."""
    found = load(path)
    check_sweep(str(path), found)
    return found


def judge(path: Path, scenario: Scenario, seed: int, record: Path | None) -> FailedScenario | None:
    """Run all of its points; the first that fails, or None."""
    for point in sweep(scenario, seed).points(None):
        steps: list[Step] = []
        number = point.number if scenario.vary else None
        recorder = None if record is None else Recorders(_folder(record, seed, number), seed)
        try:
            result = run(point.scenario, seed, watches=[listening(steps)], recorder=recorder)
        finally:
            if recorder is not None:
                recorder.close()
        if result.verdict != "pass":
            found = (result.verdict, result.violations, tuple(steps))
            return FailedScenario(path, seed, point.scenario, number, *found)
    return None


def _folder(record: Path, seed: int, point: int | None) -> Path:
    return record / (f"seed-{seed}" if point is None else f"seed-{seed}-point-{point}")
