"""The checks have teeth: each planted error is found, with the exit code that is documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.canary.plants import PLANTS
from tests.recordings_here import CORPUS, FILES, verdict_of

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
        ("commit-what-was-given-up", "join-while-another-leaves", 1, "S3"),
        ("commit-goes-back", "slow-handler", 1, "S13"),
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


BROKE = "the check itself broke at "
WHY = ": LookupError: S10 does not know what to look at."


def test_a_check_that_crashes_makes_the_run_broken_and_hides_no_other() -> None:
    found = planted_run("broken-check", "member-crashes")
    assert found.returncode == 70, found.stdout + found.stderr
    assert "  S10  broken" in found.stdout
    assert "  S2   pass" in found.stdout
    assert "verdict   broken" in found.stdout
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("  S10: ")]
    assert BROKE in line
    assert line.endswith(WHY)


def test_a_check_that_crashes_makes_each_point_of_a_sweep_broken() -> None:
    path = str(SCENARIOS / "s17-nothing-to-do.scenario.toml")
    found = canary("broken-check", "run", path, "--max-points", "2")
    assert found.returncode == 70, found.stdout + found.stderr
    assert "verdict   broken" in found.stdout
    assert found.stdout.count(f": broken; S10: {BROKE}") == 2


def test_a_check_that_crashes_makes_a_campaign_fail(tmp_path: Path) -> None:
    arguments = ("fuzz", "--seeds", "2", "--workers", "1", "--out", str(tmp_path))
    found = canary("broken-check", *arguments)
    assert found.returncode == 70, found.stdout + found.stderr
    assert "2 seeds, 1 of them twice: 2 failed" in found.stdout
    assert f"seed 1 fails S10: {BROKE}" in found.stdout + found.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"s10-seed-{seed}.scenario.toml" for seed in (0, 1)
    ]


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


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("another-decision", '"_":"FetchRequest"'),
        ("deliver-for-ever", '"_":"SetDeliverUntil"'),
        ("join-never-completes", '"to_state":"CompletingRebalance"'),
        ("m12a-silent-idle", '"_":"AssignPartitions","generation_id":3,"partitions":[]'),
    ],
)
def test_a_changed_decision_is_found_in_the_corpus_at_its_entry(name: str, shows: str) -> None:
    wanted = {}
    for path in FILES:
        lines = path.read_text("ascii").splitlines()
        replays = verdict_of(path) != "UNSUPPORTED"
        at = next((at for at, line in enumerate(lines, 1) if replays and shows in line), None)
        wanted[str(path)] = at
    assert any(wanted.values())
    found = canary(name, "replay", str(CORPUS))
    assert found.returncode == 4, found.stdout + found.stderr
    for line in found.stdout.splitlines()[:-1]:
        verdict, path, *_ = line.split()
        assert (verdict == "DIVERGED") == (wanted[path] is not None), line
    for path, at in wanted.items():
        assert at is None or f"{path}: entry {at - 2} (line {at}) at " in found.stderr


def test_every_plant_can_be_listed() -> None:
    command = [sys.executable, "-m", "tests.canary", "--list"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in found.stdout.splitlines()] == sorted(PLANTS)
