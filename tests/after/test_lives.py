"""A recording in several files is one life, as far as none is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ksim.recorder as recorder_module
from ksim.after.lives import Life, read_lives
from ksim.consumer.config import Config
from ksim.core.trace import plain
from ksim.recorder import FileRecorder, Snapshot, header_of
from ksim.recording_payload import PayloadMode
from ksim.scenario import load
from ksim.sim.runner import run
from tests.after.recorded import ROOT, cut, recorded
from tests.test_recorder import settle

SCENARIO = ROOT / "scenarios" / "slow-handler.scenario.toml"
MAX_BYTES = 15_000
STEPS_AT_ONCE = 20


class KeptUpWith(FileRecorder):
    """A recorder that nobody runs ahead of: where its files end is no matter of pace."""

    steps = 0

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        super().on_step(now_ms, fact, orders)
        self.steps += 1
        if self.steps % STEPS_AT_ONCE == 0:
            settle(self)


@pytest.fixture(autouse=True)
def _written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BATCH_S", 0.0)


def in_several_files(folder: Path) -> list[Life]:
    """The lives of that scenario, from files of some kilobytes each."""
    recorders: list[KeptUpWith] = []

    def record(name: str, config: Config, snapshot: Snapshot) -> KeptUpWith:
        header = header_of("member", name, config.public(), PayloadMode.DIGEST, 0)
        path = folder / f"{name}.ksim"
        recorders.append(KeptUpWith(path, header, max_bytes=MAX_BYTES))
        recorders[-1](snapshot)
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


@pytest.mark.parametrize(
    ("spans", "kept"),
    [
        ([(0, 90), (0, 90)], [(0, 90)]),
        ([(0, 60), (40, 90)], [(0, 90)]),
        ([(40, 90), (0, 60)], [(0, 90)]),
        ([(0, 90), (40, 60)], [(0, 90)]),
        # What lies between is missing.
        ([(0, 40), (60, 90)], [(0, 40), (60, 90)]),
    ],
)
def test_the_times_of_one_process_count_once(
    spans: list[tuple[int, int]], kept: list[tuple[int, int]], tmp_path: Path
) -> None:
    """As where a ring was written twice."""
    _, lives = recorded(load(SCENARIO), tmp_path / "whole")
    life = next(each for each in lives if each.name == "g-1")
    for number, (begin, end) in enumerate(spans):
        write(tmp_path / f"{number}.ksim", cut(life, begin, end))
    found = read_lives([tmp_path])
    assert [each.steps for each in found] == [life.steps[begin:end] for begin, end in kept]


def write(path: Path, life: Life) -> None:
    header = header_of("member", life.name, life.header["config"], PayloadMode.DIGEST, 0)
    recorder = FileRecorder(path, header)(lambda: plain(life.state))
    for step in life.steps:
        recorder.on_step(step.at_ms, step.fact, list(step.orders))
    recorder.close()


def test_recordings_of_several_processes_of_one_name_stay_apart(tmp_path: Path) -> None:
    scenario = load(SCENARIO)
    for seed in (0, 1):
        recorded(scenario, tmp_path / str(seed), seed)
    names = [life.name for life in read_lives([tmp_path / "0", tmp_path / "1"])]
    assert {"g-1", "g-1 (2)"} <= set(names)
