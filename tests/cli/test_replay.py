"""`ksim replay`: torn, damaged and whole recordings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ksim.recording import TAIL, line_of
from ksim.replay import ReplayVerdict
from tests.cli.commands import SCENARIOS, ksim, refusal
from tests.recordings_here import CORPUS, FILES, verdict_of


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


def test_a_directory_is_all_its_recordings_with_a_line_that_adds_up() -> None:
    found = ksim("replay", str(CORPUS))
    assert found.returncode == 5, found.stderr  # what a broker saw of a member
    *lines, last = found.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [str(verdict_of(path)), str(path)] for path in FILES
    ]
    counts = Counter(map(verdict_of, FILES))
    assert len(counts) == 3
    summary = ", ".join(f"{counts[each]} {each}" for each in ReplayVerdict if counts[each])
    assert last.startswith(f"{len(FILES)} files: {summary}; ")


def test_a_directory_without_recordings_is_a_mistake(tmp_path: Path) -> None:
    assert "no .ksim files" in refusal("replay", str(tmp_path))


def test_another_version_is_unsupported(tmp_path: Path) -> None:
    later = tmp_path / "later.ksim"
    content = '{"format":"ksim-recording","version":"2.0"}'
    later.write_bytes(line_of("", content)[0])
    found = ksim("replay", str(later))
    assert found.returncode == 5
    assert found.stdout.split()[0] == "UNSUPPORTED"
    assert "this reads 0.1, 1.0" in found.stderr


def changed(path: Path, target: Path, entry: int) -> None:
    """The recording, with one more order in this entry."""
    header, *rest = path.read_bytes().splitlines(keepends=True)
    head, chain = line_of("", header[:-TAIL].decode() + "}")
    lines = [head]
    for at, line in enumerate(rest):
        text = line[:-TAIL].decode() + "}"
        if at == entry:
            more = '"orders":[{"_":"AbandonPartitions","revocation_id":9},'
            text = text.replace('"orders":[', more).replace("},]", "}]")
        if text.startswith('{"end"'):
            text = f'{{"end":{at - 1},"digest":"{chain}"}}'
        found, chain = line_of(chain, text)
        lines.append(found)
    target.write_bytes(b"".join(lines))


def test_a_divergence_is_told_with_all_that_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a b.ksim"
    changed(CORPUS / "1.0" / "static.ksim", path, 12)
    found = ksim("replay", str(path))
    assert found.returncode == 4
    assert found.stdout.split()[0] == "DIVERGED"
    first, *more = found.stderr.splitlines()
    assert f"{path}: entry 12 (line 14) at " in first
    assert [line.split()[2] for line in more if line.startswith("  agreed: ")] == [
        str(line) for line in range(9, 14)
    ]
    assert '  differs: order 1 was {"_":"AbandonPartitions","revocation_id":9}' in found.stderr
    assert '  state before: phase = "RUNNING"' in more
    assert more[-1] == f"  reproduce: ksim replay --entry 12 '{path}'"
    shown = ksim("replay", "--entry", "12", str(path))
    assert shown.returncode == 4
    assert '"_": "AbandonPartitions"' in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("DIVERGED")
    assert ksim("replay", "--entry", "11", str(path)).returncode == 0


def test_an_entry_that_is_not_there_and_an_entry_of_many() -> None:
    path = CORPUS / "1.0" / "static.ksim"
    found = ksim("replay", "--entry", "1000", str(path))
    assert found.returncode == 5
    assert "entry 1000: there are 150" in found.stderr
    assert "of one file, not of" in refusal("replay", "--entry", "1", str(CORPUS))
