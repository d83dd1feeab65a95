"""The library passes: each scenario with many seeds, each sweep with a sample of its points."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksim.scenario import load
from ksim.scenario_check import check_run
from tests.canary.test_canary import canary
from tests.cli.commands import ROOT, SCENARIOS, ksim
from tests.conftest import SWEPT
from tests.library.files import FILES, PLAIN, SWEEPS, judge, judge_points, label

SEEDS = range(20)
SAMPLED = 6  # of `make test`, for its time; at most 200 in the slow tier
SAMPLED_SLOW = 10  # with each of 20 seeds, 200 in all
DIGEST_POINTS = 1
CATALOGUE = [number for number in range(1, 26) if number != 19]


@pytest.mark.parametrize("path", PLAIN, ids=label)
def test_a_plain_scenario_passes_with_every_seed(path: Path) -> None:
    judge(path, SEEDS)


@pytest.mark.parametrize("path", SWEEPS, ids=label)
def test_a_sample_of_each_sweep_passes(
    path: Path, record_property: Callable[[str, object], None]
) -> None:
    ran, total = judge_points(path, 0, SAMPLED)
    record_property(SWEPT, f"{label(path)}: {ran} of {total} points")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", SWEEPS, ids=label)
def test_each_sweep_passes_with_every_seed(
    path: Path, seed: int, record_property: Callable[[str, object], None]
) -> None:
    ran, total = judge_points(path, seed, SAMPLED_SLOW)
    record_property(SWEPT, f"{label(path)} seed {seed}: {ran} of {total} points")


def all_runs(hash_seed: str) -> list[dict[str, Any]]:
    """Two runs of each file, in one process of its own."""
    names = [str(path.relative_to(ROOT)) for path in FILES]
    points = ("--max-points", str(DIGEST_POINTS))
    found = ksim("run", *names, "--seed", "7", *points, "--json", PYTHONHASHSEED=hash_seed)
    assert found.returncode == 0, found.stdout + found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_every_scenario_has_one_digest_in_every_process() -> None:
    first, second = all_runs("1"), all_runs("2")
    assert len(first) >= len(FILES)
    assert {run["scenario"] for run in first} == {load(path).name for path in FILES}
    digests = [(run["scenario"], run["point"], run["digest"]) for run in first]
    assert digests == [(run["scenario"], run["point"], run["digest"]) for run in second]
    assert len({digest for _, _, digest in digests}) > 0.9 * len(digests)


def test_the_library_is_complete() -> None:
    for number in CATALOGUE:
        assert [path for path in SWEEPS if path.name.startswith(f"s{number:02}-")], number
    assert len({load(path).name for path in FILES}) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_each_file_can_be_run_and_says_what_it_is_for(path: Path) -> None:
    check_run(str(path), load(path))
    text = path.read_text("utf-8")
    opening = text[: text.index("\nname = ")]
    assert all(line.startswith("#") for line in opening.splitlines())
    if path in SWEEPS:
        assert re.search(
            r"Reaches (B\d+)(, B\d+)* of the catalogue\.", opening.replace("\n# ", " ")
        )


@pytest.mark.parametrize(
    ("name", "scenario", "code"),
    [
        ("commit-delivered", "s05-crash-at-every-event-with-retries", 1),
        ("commit-goes-back", "s11-commits-out-of-order", 1),
        ("deliver-for-ever", "s14-zombie-behind-a-blocked-coordinator", 1),
        ("deliver-for-ever", "s14-zombie-after-a-pause", 1),
        ("join-never-completes", "s20-members-vanish-in-the-middle-of-a-round", 3),
    ],
)
def test_a_planted_error_is_found_by_the_sweep_for_it(name: str, scenario: str, code: int) -> None:
    path = str(SCENARIOS / f"{scenario}.scenario.toml")
    found = canary(name, "run", path, "--seed", "7", "--max-points", "6")
    assert found.returncode == code, found.stdout + found.stderr
