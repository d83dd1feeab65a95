"""`ksim replay`: torn, damaged and whole recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import SCENARIOS, ksim


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    path = SCENARIOS / "slow-handler.scenario.toml"
    assert ksim("run", str(path), "--record", str(folder)).returncode == 0
    return folder / "g-1.ksim"


def test_a_truncated_recording_replays_up_to_the_last_whole_line(
    recording: Path, tmp_path: Path
) -> None:
    data = recording.read_bytes()
    cut = tmp_path / "cut.ksim"
    cut.write_bytes(data[: len(data) // 2])
    whole = data[: len(data) // 2].count(b"\n")
    found = ksim("replay", str(cut))
    assert found.returncode == 0
    assert found.stdout.split()[0] == "INCOMPLETE"
    assert f"up to line {whole}" in found.stderr


def test_garbage_in_the_middle_is_named_by_its_line(recording: Path, tmp_path: Path) -> None:
    lines = recording.read_bytes().splitlines(keepends=True)
    lines[8] = b"garbage\n"
    bad = tmp_path / "bad.ksim"
    bad.write_bytes(b"".join(lines))
    found = ksim("replay", str(bad))
    assert found.returncode == 5
    assert "line 9" in found.stderr


def test_the_worst_end_of_several_files_counts(recording: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.ksim"
    empty.write_bytes(b"")
    found = ksim("replay", str(recording), str(empty))
    assert found.returncode == 5
    assert found.stdout.split()[0] == "SAME"
