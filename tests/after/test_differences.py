"""The first difference of two recordings: what counts, and what may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.after.differences import first_difference, pairs
from ksim.after.lives import Life
from tests.after.recorded import ROOT, names, one_point, recorded, shifted
from tests.cli.commands import ksim

NIGHT = ROOT / "scenarios" / "night.scenario.toml"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Life], list[Life]]:
    """Two runs of one scenario with other seeds: other ids, and other times."""
    scenario = one_point(NIGHT)
    folders = [tmp_path_factory.mktemp("night") for _ in range(2)]
    one, other = (recorded(scenario, folder, seed)[1] for seed, folder in enumerate(folders))
    return one, other


def test_ids_and_times_may_differ(nights: tuple[list[Life], list[Life]]) -> None:
    ours = nights[0]
    for life in ours:
        assert first_difference(life, shifted(life, 12_345), everything=True) is None


def test_two_runs_of_one_scenario_differ_where_their_groups_do(
    nights: tuple[list[Life], list[Life]],
) -> None:
    ours, theirs = nights
    found = [
        (name, first_difference(one, other))
        for name, one, other in pairs(ours, theirs)
        if one is not None and other is not None
    ]
    assert [name for name, _ in found] == names(ours)
    # With the second seed another member leads, or is told of the rebalance by another answer.
    for _, difference in found:
        assert difference is None or difference.fields


def test_another_assignment_is_named_field_by_field(
    nights: tuple[list[Life], list[Life]], tmp_path: Path
) -> None:
    text = NIGHT.read_text("utf-8").replace("partitions = 6", "partitions = 7")
    path = tmp_path / "seven.scenario.toml"
    path.write_text(text, "utf-8")
    _, more = recorded(one_point(path), tmp_path / "seven")
    first = next(life for life in nights[0] if life.name == "g-1")
    other = next(life for life in more if life.name == "g-1")
    found = first_difference(first, other)
    assert found is not None
    # Both sent the same join; what the leader shares out is the first that differs.
    assert found.kind == "request SyncGroup"
    assert found.nth == 1
    assert next(path for path, _, _ in found.fields).startswith("assignments")


def test_the_command_says_what_differs_and_ends_with_4(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        ksim("run", str(NIGHT), "--seed", seed, "--record", str(tmp_path / seed))
    same = ksim("diff", str(tmp_path / "0"), str(tmp_path / "0"))
    assert same.returncode == 0
    assert same.stdout.count("the same") == 4
    one = str(tmp_path / "0" / "g-1.ksim")
    other = ksim("diff", one, str(tmp_path / "0" / "g-3.ksim"))
    assert other.returncode == 4
    assert " differs" in other.stdout
    damaged = tmp_path / "damaged.ksim"
    damaged.write_bytes(b"garbage\n")
    assert ksim("diff", one, str(damaged)).returncode == 5
    alone = ksim("diff", str(tmp_path / "0"), one)
    assert alone.returncode == 4
    assert f"g-3: only in {tmp_path / '0'}" in alone.stdout
