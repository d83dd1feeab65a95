"""Each canary of the catalogue is found by the check of its invariant, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.scenario import load
from ksim.sim.runner import run
from tests.canary.table import CANARIES, EQUIVALENTS, HERE, SEEDS, Canary, hunt, takes_effect

EARLY = 10
FEW = 3  # 200 in the slow tier
OWN = sorted(HERE.glob("*.scenario.toml"))


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name)
def test_a_canary_is_caught_by_the_check_of_its_invariant(canary: Canary) -> None:
    found = hunt(canary, EARLY)
    assert found is not None, f"{canary.name} lives after {EARLY} seeds"


@pytest.mark.parametrize("canary", EQUIVALENTS, ids=lambda canary: canary.name)
def test_what_is_legal_is_not_accused(canary: Canary) -> None:
    assert takes_effect(canary)
    assert hunt(canary, FEW) is None


@pytest.mark.slow
@pytest.mark.parametrize("canary", EQUIVALENTS, ids=lambda canary: canary.name)
def test_what_is_legal_is_not_accused_over_many_seeds(canary: Canary) -> None:
    assert hunt(canary) is None


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_without_a_plant_no_check_fires(path: Path) -> None:
    for seed in range(2):
        result = run(load(path), seed)
        assert result.verdict == "pass", result.violations


@pytest.mark.slow
@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_without_a_plant_no_check_fires_over_many_seeds(path: Path) -> None:
    for seed in range(SEEDS):
        result = run(load(path), seed)
        assert result.verdict == "pass", result.violations
