"""Random scenarios pass every check; a seed that fails is a bug with its reproduction in hand."""

from __future__ import annotations

import pytest

from ksim.scenario import dump, parse
from ksim.sim.runner import run
from tests.properties.random_scenarios import random_scenario


def judge(seed: int) -> None:
    scenario = random_scenario(seed)
    assert parse(dump(scenario), "dumped") == scenario
    result = run(scenario, seed)
    assert result.verdict == "pass", (result.violations, dump(scenario))


@pytest.mark.parametrize("seed", range(40))
def test_a_random_run_passes(seed: int) -> None:
    judge(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 3_000, 100))
def test_a_campaign_of_random_runs_passes(first: int) -> None:
    for seed in range(first, first + 100):
        judge(seed)
