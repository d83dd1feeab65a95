"""A drawn scenario in the simulator: what it shows is a test's result, and guides Hypothesis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hypothesis import currently_in_test_context, event, note, target

from ksim import observations as o
from ksim.coverage import Coverage
from ksim.kit.artefacts import listening
from ksim.kit.report import Report, Step, story_of
from ksim.scenario import Scenario, ScenarioError, dump
from ksim.scenario_check import check_run
from ksim.scenario_sentence import describe
from ksim.sim.runner import RunResult
from ksim.sim.runner import run as run_once

# What is in a statistic one line each; what faults struck and why partitions were lost is not.
EVENTS: Final = ("group ", "member ", "callback ")
FAILED: Final = ("fail", "broken")


class ScenarioFailedError(AssertionError):
    """A run did not pass; `report` has all of it, `scenario` and `seed` do it again."""

    def __init__(self, scenario: Scenario, seed: int, report: Report) -> None:
        self.scenario = scenario
        self.seed = seed
        self.report = report
        super().__init__(
            f"{describe(scenario)}\n{report.text()}\n"
            f"as a file, for `ksim run FILE --seed {seed}`:\n\n{dump(scenario)}"
        )


class _Lag:
    """How many records were written and not handled by anyone, at most."""

    def __init__(self) -> None:
        self.most = 0
        self._ends: dict[tuple[str, int], int] = {}
        self._done: dict[tuple[str, int], int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source, now_ms, orders
        if isinstance(fact, o.Produced):
            self._ends[fact.topic, fact.partition] = fact.end_offset
        elif isinstance(fact, o.Handled):
            at = fact.topic, fact.partition
            self._done[at] = max(self._done.get(at, 0), fact.offset + 1)
            return
        else:
            return
        lag = sum(end - self._done.get(at, 0) for at, end in self._ends.items())
        self.most = max(self.most, lag)


def run(
    scenario: Scenario,
    *,
    seed: int = 0,
    checks: Sequence[str] = (),
    label: str = "",
) -> RunResult:
    """Run it in the simulator and judge it by all checks, or only by those that are named.

    Inside a test of Hypothesis it also says what it has met (`event`), and lets Hypothesis look for
    more lag and more rebalances (`target`); a second run in one test needs a `label` of its own.

    Raises ScenarioFailedError, an AssertionError with verdict, sentence and scenario file, and
    ScenarioError for what no run can do.
    """
    check_run(scenario.name, scenario)
    lag, seen = _Lag(), Coverage()
    guided = currently_in_test_context()
    result = run_once(scenario, seed, watches=(lag.see, seen.see) if guided else ())
    if unknown := sorted(set(checks) - set(result.checks)):
        raise ScenarioError(f"checks={unknown}: valid: {', '.join(result.checks)}")
    if guided:
        _guide(result, lag.most, seen, label)
    failed = [name for name, verdict in result.checks.items() if verdict in FAILED]
    if set(failed) & set(checks or failed):
        if guided:
            note(describe(scenario))
        raise ScenarioFailedError(scenario, seed, _report(scenario, seed))
    return result


def _guide(result: RunResult, lag: int, seen: Coverage, label: str) -> None:
    of = f" of {label}" if label else ""
    target(float(lag), label=f"lag{of}")
    target(float(result.rebalances), label=f"rebalances{of}")
    for name in seen.seen:
        if name.startswith(EVENTS) or name.split(" ")[-1].isupper():
            event(name)


def _report(scenario: Scenario, seed: int) -> Report:
    """What happened, of a second run: most runs pass, and need not be kept."""
    steps: list[Step] = []
    result = run_once(scenario, seed, watches=(listening(steps),))
    told = story_of(steps)
    return Report(result.verdict, result.checks, result.violations, (), told, tuple(steps))
