"""The incident of `docs/from-incident-to-test.md`, from its recordings to its test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.after.incident import PLANT, incident
from tests.after.recorded import ROOT
from tests.cli.commands import ksim
from tests.kafka_server import KafkaServer

FILES = Path(__file__).parent / "files"
LIFTED = FILES / "lifted.scenario.toml"
SMALL = ROOT / "scenarios" / "regressions" / "stopped-past-its-session.scenario.toml"


def before_the_fix(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same command with the member of that day: the planted error."""
    command = [sys.executable, "-m", "tests.canary", PLANT, "--", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_its_recordings_show_the_overlap() -> None:
    found = ksim("check", str(FILES))
    assert found.returncode == 1, found.stdout + found.stderr
    (failed,) = [line for line in found.stdout.splitlines() if line.endswith(" fail")][:1]
    assert failed == "  S5   fail"
    assert "  S5: g-1 handed out offset " in found.stdout
    assert "although g-2 has owned it since " in found.stdout


def test_todays_machine_decides_otherwise_than_that_days() -> None:
    assert ksim("replay", str(FILES / "g-1.ksim")).returncode == 4
    assert before_the_fix("replay", str(FILES / "g-1.ksim")).returncode == 0
    assert ksim("replay", str(FILES / "g-2.ksim")).returncode == 0


def test_it_is_lifted_to_the_file_that_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "lifted.scenario.toml"
    title = "a member stands still for longer than its session"
    found = before_the_fix("lift", str(FILES), "-o", str(out), "--name", title)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.splitlines()[1].startswith("SAME ")
    assert out.read_text("utf-8") == LIFTED.read_text("utf-8")
    # With the fix the stopped member joins again, as it did not that day.
    fixed = ksim("lift", str(FILES), "-o", str(out), "--runs", "1")
    assert fixed.returncode == 4
    assert fixed.stdout.splitlines()[1].startswith("DIVERGED ")


@pytest.mark.parametrize("path", [LIFTED, SMALL], ids=lambda path: path.name)
def test_it_fails_before_the_fix_and_passes_after_it(path: Path) -> None:
    found = before_the_fix("run", str(path))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "  S5   fail" in found.stdout
    assert ksim("run", str(path)).returncode == 0


def test_it_is_small() -> None:
    assert len(SMALL.read_text("utf-8").splitlines()) < 30


def test_it_shrinks_to_the_test_that_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "small.scenario.toml"
    found = before_the_fix("shrink", str(LIFTED), "-o", str(out))
    assert found.returncode == 1, found.stdout + found.stderr

    def said(path: Path) -> list[str]:
        lines = path.read_text("utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    assert said(out) == said(SMALL)


@pytest.mark.kafka
@pytest.mark.slow
def test_it_happens_again_on_a_real_broker(
    kafka: KafkaServer, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    incident(tmp_path, kafka, fresh_name("orders"), fresh_name("g"))
    found = ksim("check", "--one-clock", str(tmp_path))
    assert found.returncode == 1, found.stdout + found.stderr
    assert "  S5   fail" in found.stdout
