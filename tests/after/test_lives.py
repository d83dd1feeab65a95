"""A recording in several files is one life, as far as none is missing."""

from __future__ import annotations

from pathlib import Path

from ksim.after.lives import Life, read_lives
from ksim.consumer.config import Config
from ksim.recorder import FileRecorder, Snapshot, header_of
from ksim.recording_payload import PayloadMode
from ksim.scenario import load
from ksim.sim.runner import run
from tests.after.recorded import ROOT, recorded

SCENARIO = ROOT / "scenarios" / "slow-handler.scenario.toml"
MAX_BYTES = 15_000


def in_several_files(folder: Path) -> list[Life]:
    """The lives of that scenario, from files of some kilobytes each."""
    recorders: list[FileRecorder] = []

    def record(name: str, config: Config, snapshot: Snapshot) -> FileRecorder:
        header = header_of("member", name, config.public(), PayloadMode.DIGEST, 0)
        path = folder / f"{name}.ksim"
        recorders.append(FileRecorder(path, header, max_bytes=MAX_BYTES)(snapshot))
        return recorders[-1]

    run(load(SCENARIO), 0, recorder=record)
    for recorder in recorders:
        recorder.close()
    return read_lives([folder])


def test_a_recording_in_several_files_is_one_life(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    parts.mkdir()
    _, expected = recorded(load(SCENARIO), whole)
    found = in_several_files(parts)
    assert len(list(parts.iterdir())) > len(found)
    assert [life.name for life in found] == [life.name for life in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.steps, ours.exchanges) == (theirs.steps, theirs.exchanges)
        assert ours.complete == theirs.complete


def test_what_comes_after_a_file_that_is_missing_is_another_life(tmp_path: Path) -> None:
    (one,) = [life for life in in_several_files(tmp_path) if life.name == "g-1"]
    files = sorted(tmp_path.glob("g-1-*.ksim"))
    assert len(files) > 3
    files[1].unlink()
    first, rest = [life for life in read_lives([tmp_path]) if life.name.startswith("g-1")]
    assert (first.name, rest.name) == ("g-1", "g-1 (2)")
    assert one.steps[: len(first.steps)] == first.steps
    assert one.steps[-len(rest.steps) :] == rest.steps
    assert len(first.steps) + len(rest.steps) < len(one.steps)
