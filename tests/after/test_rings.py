"""Rings and segments begin in the middle, and are judged by what their snapshots know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Life, read_lives
from tests.after.recorded import ROOT, cut, one_point, recorded
from tests.after.test_judge import GOOD, PATHS

DRAWS = 12
CORPUS = ROOT / "tests" / "recordings"


def rings(lives: Sequence[Life], draw: Random) -> Iterator[Life]:
    """Some of these lives, some of them from a step on, and some of them up to one."""
    everybody, some_end = draw.random() < 0.3, draw.random() < 0.3
    for life in lives:
        count = len(life.steps)
        begin = draw.randrange(count) if everybody or draw.random() < 0.4 else 0
        end = draw.randrange(begin + 1, count + 1) if some_end else count
        if everybody or draw.random() < 0.8:
            yield cut(life, begin, end)


@pytest.mark.parametrize("path", PATHS)
def test_what_begins_in_the_middle_of_a_good_run_is_never_accused(
    path: Path, tmp_path: Path
) -> None:
    result, lives = recorded(one_point(path), tmp_path)
    assert result.verdict == "pass"
    for number in range(DRAWS):
        draw = Random(f"{path.name} {number}")
        found = judge(list(rings(lives, draw)), one_clock=draw.random() < 0.5)
        assert not found.violations, (number, found.violations)
        assert set(found.verdicts.values()) <= set(GOOD), number


@pytest.mark.parametrize("name", ["1.0/segment.ksim"])
def test_a_segment_of_a_real_member_is_not_accused(name: str) -> None:
    found = judge(read_lives([CORPUS / name]))
    assert not found.violations, found.violations
    assert [found.verdicts[check] for check in ("S2", "S8", "S10")] == ["pass"] * 3


def test_two_owners_are_found_in_what_begins_after_they_were_given_their_shares(
    tmp_path: Path,
) -> None:
    """Each snapshot says what its member owns: no later step has to."""
    scenario = one_point(ROOT / "scenarios" / "night.scenario.toml")
    _, lives = recorded(scenario, tmp_path)
    life = next(each for each in lives if each.name == "g-1")
    begin = next(
        number
        for number, step in enumerate(life.steps)
        if any(type(order).__name__ == "AssignPartitions" for order in step.orders)
    )
    ring = cut(life, begin + 1, begin + 40)
    assert ring.state.owned
    twin = replace(ring, name="g-9")
    assert judge([ring, twin], one_clock=True).verdicts["S5"] == "fail"
