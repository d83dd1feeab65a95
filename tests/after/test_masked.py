"""Copies that were masked together are judged as their originals are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.after.judge import judge
from ksim.after.lives import read_lives
from ksim.scenario import load
from tests.after.recorded import ROOT, recorded
from tests.after.test_lives import in_several_files
from tests.cli.commands import ksim


def masked(originals: Path, copies: Path) -> Path:
    found = ksim("mask", str(originals), "-o", str(copies))
    assert found.returncode == 0, found.stderr
    return copies


def test_a_leader_and_its_followers_are_judged_alike(tmp_path: Path) -> None:
    scenario = ROOT / "scenarios" / "member-crashes.scenario.toml"
    _, lives = recorded(load(scenario), tmp_path / "a")
    copies = read_lives([masked(tmp_path / "a", tmp_path / "b")])
    before, after = judge(lives), judge(copies)
    assert after.verdicts == before.verdicts
    assert after.verdicts["S12"] == "pass"


@pytest.mark.parametrize("missing", [None, "g-1-0002.ksim"])
def test_the_files_of_a_recording_go_on_from_each_other(
    tmp_path: Path, missing: str | None
) -> None:
    originals = tmp_path / "a"
    originals.mkdir()
    in_several_files(originals)
    if missing:
        (originals / missing).unlink()
    lives = read_lives([originals])
    copies = read_lives([masked(originals, tmp_path / "b")])
    assert sorted(len(each.steps) for each in copies) == sorted(len(each.steps) for each in lives)
    assert len(lives) < len(list(originals.iterdir()))
