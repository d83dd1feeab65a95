"""The checks have teeth: each planted error is found, with the exit code that is documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.canary.plants import PLANTS

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"


def canary(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.canary", name, "--", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def planted_run(name: str, scenario: str) -> subprocess.CompletedProcess[str]:
    return canary(name, "run", str(SCENARIOS / f"{scenario}.scenario.toml"), "--seed", "7")


@pytest.mark.parametrize(
    ("name", "scenario", "code", "failed"),
    [
        ("commit-delivered", "member-crashes", 1, "S2"),
        ("deliver-for-ever", "cut-from-coordinator-only", 1, "S5"),
        ("join-never-completes", "member-crashes", 3, "L1"),
    ],
)
def test_a_planted_error_is_reported(name: str, scenario: str, code: int, failed: str) -> None:
    found = planted_run(name, scenario)
    assert found.returncode == code, found.stdout + found.stderr
    assert f"  {failed:<4} fail" in found.stdout
    assert any(line.startswith(f"  {failed}: ") for line in found.stdout.splitlines())


def test_without_a_plant_the_same_runs_pass() -> None:
    for scenario in ("member-crashes", "cut-from-coordinator-only"):
        path = SCENARIOS / f"{scenario}.scenario.toml"
        command = [sys.executable, "-m", "ksim.cli.main", "run", str(path), "--seed", "7"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_a_check_that_sees_nothing_does_not_pass() -> None:
    found = planted_run("blind-check", "member-crashes")
    assert "  S5   not judged" in found.stdout


def test_a_replay_stops_at_the_entry_where_the_decision_changed(tmp_path: Path) -> None:
    path = SCENARIOS / "member-crashes.scenario.toml"
    command = [sys.executable, "-m", "ksim.cli.main", "run", str(path), "--record", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    recording = tmp_path / "g-1.ksim"
    lines = recording.read_text().splitlines()
    first = next(at for at, line in enumerate(lines, 1) if '"FetchRequest"' in line)
    found = canary("another-decision", "replay", str(recording))
    assert found.returncode == 4, found.stdout + found.stderr
    assert f"(line {first})" in found.stderr
    assert "max_wait_ms was 500, is now 501" in found.stderr


def test_every_plant_can_be_listed() -> None:
    command = [sys.executable, "-m", "tests.canary", "--list"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in found.stdout.splitlines()] == sorted(PLANTS)
