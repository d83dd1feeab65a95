"""Of a good run some recordings are there, whole or in parts that overlap, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Life, together
from ksim.core import events as e
from tests.after.recorded import cut, one_point, recorded
from tests.after.test_judge import GOOD, PATHS

DRAWS = 12
MOST_PARTS = 6


def parts(life: Life, draw: Random) -> Iterator[Life]:
    """What rings and segments have of a life; some hold no step at all."""
    count = len(life.steps)
    for _ in range(draw.randint(1, MOST_PARTS)):
        begin = draw.randrange(count)
        end = min(count, begin + draw.choice([0, 1, 5, count // 4, count // 2, count]))
        part = cut(life, begin, end)
        clock = {"now_ms": life.steps[begin].at_ms}
        yield replace(part, header=part.header | {"clock": clock})


def mix(lives: Sequence[Life], draw: Random) -> list[Life]:
    found: list[Life] = []
    for life in lives:
        if draw.random() < 0.25:
            continue
        found += [life] if draw.random() < 0.3 else parts(life, draw)
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("path", PATHS)
def test_parts_of_a_good_run_are_never_accused_in_whatever_order(
    path: Path, tmp_path: Path
) -> None:
    result, lives = recorded(one_point(path), tmp_path)
    assert result.verdict == "pass"
    for number in range(DRAWS):
        draw = Random(f"{path.name} {number}")
        mixed, one_clock = mix(lives, draw), draw.random() < 0.5
        said = set[tuple[tuple[str, str], ...]]()
        for _ in range(2):
            found = judge(together(mixed), one_clock=one_clock)
            assert not found.violations, (number, found.violations)
            assert set(found.verdicts.values()) <= set(GOOD), number
            said.add(tuple(found.verdicts.items()))
            draw.shuffle(mixed)
        assert len(said) == 1, number
        assert not any(life.denied_by for life in together(mixed))


def test_a_mix_is_not_good_whatever_is_in_it(tmp_path: Path) -> None:
    """Or the test above would tell nothing."""
    path = next(each for each in PATHS if "night" in str(each.id)).values[0]
    assert isinstance(path, Path)
    _, lives = recorded(one_point(path), tmp_path)
    draw, failed = Random("faulty"), 0
    faulty = [_without_a_hand_out(life) for life in lives]
    for _ in range(DRAWS):
        failed += bool(judge(together(mix(faulty, draw)), one_clock=True).violations)
    assert failed


def _without_a_hand_out(life: Life) -> Life:
    steps = list(life.steps)
    outs = [at for at, step in enumerate(steps) if isinstance(step.fact, e.RecordsHandedOut)]
    del steps[outs[len(outs) // 2]]
    return replace(life, steps=tuple(steps))
