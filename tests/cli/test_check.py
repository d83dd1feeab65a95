"""`ksim check`: what it prints, and which code each end has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, SCENARIOS, ksim, refusal
from tests.recordings_here import CORPUS

CUT = str(SCENARIOS / "cut-from-coordinator-only.scenario.toml")


@pytest.fixture(scope="module")
def zombie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member that goes on delivering while it is cut from its coordinator."""
    folder = tmp_path_factory.mktemp("zombie")
    command = [sys.executable, "-m", "tests.canary", "deliver-for-ever", "--"]
    command += ["run", CUT, "--record", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return folder


def test_an_overlap_is_named_with_its_partition_and_its_times(zombie: Path) -> None:
    found = ksim("check", str(zombie))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "  S5   fail" in found.stdout
    assert "  S9   not judged" in found.stdout
    lines = [line for line in found.stdout.splitlines() if line.startswith("  S5: g-2 handed out")]
    assert " of orders-" in lines[0]
    assert ", although g-1 has owned it since " in lines[0]
    assert "clock -" in found.stdout
    assert found.stdout.splitlines()[-1] == "verdict   fail"


def test_json_has_the_same(zombie: Path) -> None:
    found = ksim("check", "--json", *map(str, sorted(zombie.glob("*.ksim"))))
    assert found.returncode == 1
    content = json.loads(found.stdout)
    assert content["verdict"] == "fail"
    assert content["checks"]["S5"] == "fail"
    assert content["violations"][0]["members"] == ["g-2", "g-1"]
    assert {each["member"] for each in content["clocks"]} >= {"g-1", "g-2"}


def test_one_recording_is_judged_by_what_it_knows(zombie: Path) -> None:
    found = ksim("check", str(zombie / "g-1.ksim"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "  S10  pass" in found.stdout


def test_damage_and_emptiness_are_said(zombie: Path, tmp_path: Path) -> None:
    assert "no .ksim files" in refusal("check", str(tmp_path))
    shutil.copy(zombie / "g-1.ksim", tmp_path / "g-1.ksim")
    (tmp_path / "g-2.ksim").write_bytes(b"\0" * 100 + b"\n")
    found = ksim("check", str(tmp_path))
    assert found.returncode == 5
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert ksim("check").returncode == 2


def test_a_directory_is_its_members_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("static", "broker"):
        shutil.copy(CORPUS / "1.0" / f"{name}.ksim", folder)
    found = ksim("check", str(folder))
    assert found.returncode == 0, found.stdout + found.stderr
    (line,) = found.stderr.splitlines()
    assert line == f"{folder}/broker.ksim: left out: vantage 'broker', not member"
    lifted = ksim("lift", str(folder), "-o", str(tmp_path / "lifted.scenario.toml"))
    assert lifted.stdout.startswith("lifted "), lifted.stderr
    assert lifted.stderr.splitlines() == [line]
    assert ksim("diff", str(folder), str(folder)).returncode == 0
    for command in (("check", str(tmp_path)), ("diff", str(folder), str(tmp_path))):
        assert f"those of one run are looked at together: {folder}" in refusal_of_last(*command)
    (folder / "static.ksim").unlink()
    assert "no recordings of members" in refusal_of_last("check", str(folder))
    out = str(tmp_path / "none.scenario.toml")
    assert "no recordings of members" in refusal_of_last("lift", str(folder), "-o", out)


def refusal_of_last(*arguments: str) -> str:
    found = ksim(*arguments)
    assert found.returncode == 2, found.stdout + found.stderr
    return found.stderr.splitlines()[-1]


def test_a_recording_is_not_made_small() -> None:
    path = str(CORPUS / "1.0" / "static.ksim")
    said = refusal("shrink", path, "-o", "x.scenario.toml")
    assert f"is a recording, and scenarios are made small; `ksim lift {path} " in said
