"""Planted errors: Hypothesis finds each by the check that belongs to it, and makes it small."""

from __future__ import annotations

import pytest

from ksim.strategies import run
from tests.strategies.hunting import PREY, Prey, hunt


@pytest.mark.slow
@pytest.mark.parametrize("prey", PREY, ids=[prey.name for prey in PREY])
def test_the_smallest_example_is_small(prey: Prey) -> None:
    found = hunt(prey)
    members, partitions, troubles = found.size
    assert set(found.failed) & set(prey.checks)
    assert members <= 3
    assert partitions <= 2
    assert troubles <= 2
    assert run(found.scenario).verdict == "pass", "without the error nothing is wrong"
