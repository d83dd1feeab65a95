"""An output that is full or closed: one end of each command, and never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, SCENARIOS
from tests.recordings_here import CORPUS, forge

STATIC = str(CORPUS / "1.0" / "static.ksim")
FULL = "/dev/full"


def end_of(*arguments: str, stdout: str = "", stderr: str = "") -> tuple[int, str]:
    """Exit code and stderr of a command whose outputs go to these files."""
    with (
        Path(stdout or "/dev/null").open("wb") as out,
        Path(stderr or "/dev/null").open("wb") as err,
    ):
        found = subprocess.run(
            [sys.executable, "-m", "ksim.cli.main", *arguments],
            cwd=ROOT,
            stdout=out,
            stderr=err if stderr else subprocess.PIPE,
            check=False,
        )
    return found.returncode, (found.stderr or b"").decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay", STATIC), ("check", STATIC), ("diff", STATIC, STATIC), ("--help",),
        ("lift", STATIC, "--runs", "1", "-o", "{}/x.toml"), ("mask", STATIC, "-o", "{}/x.ksim"),
        ("run", str(SCENARIOS / "slow-handler.scenario.toml"), "--trace"),
    ],
    ids=lambda each: each[0],
)  # fmt: skip
def test_a_full_stdout_is_said_and_is_74(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = end_of(*(each.format(tmp_path) for each in arguments), stdout=FULL)
    assert found == (74, "ksim: standard output: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("lift", STATIC, "--runs", "1"), ("mask", STATIC),
    ],
    ids=lambda each: each[0],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_named(arguments: tuple[str, ...]) -> None:
    assert end_of(*arguments, "-o", FULL) == (74, "ksim: /dev/full: No space left on device\n")


def test_a_timeline_that_cannot_be_written_is_named() -> None:
    scenario = str(SCENARIOS / "slow-handler.scenario.toml")
    code, said = end_of("run", scenario, "--timeline", FULL)
    assert (code, said) == (74, "ksim: /dev/full: No space left on device\n")


@pytest.mark.parametrize(("file", "code"), [("absent.ksim", 5), (STATIC, 0)])
def test_a_full_stderr_changes_no_exit_code(file: str, code: int) -> None:
    assert end_of("replay", file, stderr=FULL) == (code, "")


def test_a_reader_that_is_gone_changes_no_exit_code() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ksim.cli.main", "replay", STATIC, "absent.ksim"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 5
    assert said == "absent.ksim: cannot be read: No such file or directory\n"


def test_what_can_be_read_once_is_compared(tmp_path: Path) -> None:
    other = tmp_path / "other.ksim"

    def refused(texts: list[str]) -> None:
        at = next(at for at, text in enumerate(texts) if '"_":"SyncGroupResponse"' in text)
        texts[at] = texts[at].replace('"error_code":0', '"error_code":27')

    forge(Path(STATIC), other, refused)
    places = []
    for one in (str(other), "/dev/stdin"):
        found = subprocess.run(
            [sys.executable, "-m", "ksim.cli.main", "diff", one, STATIC],
            cwd=ROOT,
            input=other.read_bytes(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (found.returncode, found.stderr) == (4, b"")
        places.append(found.stdout.decode().splitlines()[1].split()[:3])
    (_, line, number), (path, entry, at) = places
    assert (line, path, entry) == ("line", "/dev/stdin:", "entry")
    assert int(at) == int(number) - 2
