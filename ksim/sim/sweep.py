"""The points of a scenario that varies something; "each" is counted in a run of the simulator."""

from __future__ import annotations

import tomllib
from dataclasses import replace

from ksim.scenario import Scenario, dump, scenario_of
from ksim.scenario_check import check_run
from ksim.scenario_vary import Counts, Data, Sweep, check_values
from ksim.sim.runner import Run
from ksim.sim.world import EventsSpentError


def count_events(scenario: Scenario, seed: int) -> Counts:
    """How often each request and answer of each member happens until the scenario heals."""
    run = Run(scenario, seed)
    try:
        run.go_until_healing()
    except EventsSpentError:
        pass  # the events until then count; the points themselves say what went wrong
    finally:
        run.bury()
    return run.cluster.triggers.counts


def check_sweep(source: str, scenario: Scenario) -> None:
    """Raises ScenarioError for what no run can work with, with each of the varied values."""
    check_run(source, scenario)
    base = tomllib.loads(dump(replace(scenario, vary=())))
    check_values(
        scenario.vary, base, source, lambda data: check_run(source, scenario_of(data, source))
    )


def sweep(scenario: Scenario, seed: int) -> Sweep:
    """All points of a scenario with this seed; one without variation has a single one.

    Raises ScenarioError for values that cannot be together, here or when the point is made.
    """
    text = dump(replace(scenario, vary=()))
    return Sweep(text, scenario.vary, seed, _workable, count_events)


def _workable(data: Data, source: str) -> Scenario:
    scenario = scenario_of(data, source)
    check_run(source, scenario)
    return scenario
