"""A recording in several files is one life, as far as none is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest

import ksim.recorder as recorder_module
from ksim.after.judge import judge
from ksim.after.lives import Life, Step, joins_of, life_from, read_lives
from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import encode_subscription
from ksim.core.trace import plain
from ksim.recorder import FileRecorder, FlightRecorder, Snapshot, header_of
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


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[Life]:
    return recorded(load(SCENARIO), tmp_path_factory.mktemp("whole"))[1]


@pytest.fixture
def life(lives: list[Life]) -> Life:
    return next(each for each in lives if each.name == "g-1")


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


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_what_joins_recordings_of_a_process_may_come_at_any_place(
    order: tuple[int, ...], life: Life, tmp_path: Path
) -> None:
    """Only those in the middle share steps with both others."""
    for number, (begin, end) in enumerate([(0, 30), (20, 50), (40, 70), (60, 90)]):
        write(tmp_path / f"{number}.ksim", cut(life, begin, end))
    found = read_lives([tmp_path / f"{number}.ksim" for number in order])
    assert [each.steps for each in found] == [life.steps[:90]]


def test_two_parts_of_a_process_that_meet_in_one_instant_are_no_two_owners(
    lives: list[Life], tmp_path: Path
) -> None:
    """Each begins with what it owns; what lies between them is missing."""
    life, at = next(
        (each, at)
        for each in lives
        for at, (one, other) in enumerate(pairwise(each.steps))
        if one.at_ms == other.at_ms and cut(each, at).state.owned and cut(each, at).state.announced
    )
    write(tmp_path / "1.ksim", cut(life, at, at + 1))
    write(tmp_path / "2.ksim", cut(life, at + 1))
    for order in ("12", "21"):
        found = read_lives([tmp_path / f"{number}.ksim" for number in order])
        assert len(found) == 2
        assert {each.process for each in found} == {life.name}
        assert judge(found, one_clock=True).verdicts["S5"] == "pass"


def test_a_process_is_one_whatever_its_member_has_drawn_since(tmp_path: Path) -> None:
    """Each wait for a retry is drawn, and the seed in a snapshot has gone on by then."""
    _, lives = recorded(load(ROOT / "scenarios" / "night.scenario.toml"), tmp_path / "whole")
    life = next(each for each in lives if each.name == "g-2.2")
    count = len(life.steps)
    late = cut(life, count - 10)
    assert late.state.seed != life.state.seed
    write(tmp_path / "1.ksim", cut(life, 0, count - 5))
    write(tmp_path / "2.ksim", late)
    assert [each.steps for each in read_lives([tmp_path])] == [life.steps]


def with_user_data(life: Life, data: bytes) -> Life:
    """The same, where the member and others of its group have user data."""
    config = replace(life.state.config, user_data=data)
    metadata = encode_subscription(["orders"], user_data=data)
    steps = tuple(_with_metadata(step, metadata) for step in life.steps)
    state = replace(life.state, config=config)
    return life_from(life.name, life.path, life.header, state, steps, complete=life.complete)


def _with_metadata(step: Step, metadata: bytes) -> Step:
    fact = step.fact
    if isinstance(fact, e.ResponseReceived) and isinstance(fact.response, m.JoinGroupResponse):
        members = tuple(replace(each, metadata=metadata) for each in fact.response.members)
        return replace(step, fact=replace(fact, response=replace(fact.response, members=members)))
    return step


@pytest.mark.parametrize(
    "metadata", [None, b"\x00\x03" + bytes(8) + b"xyz", b"\x00\x01\x00\x00\x00\x02\x00\x03t"]
)
def test_a_ring_has_stars_where_a_file_has_user_data(
    metadata: bytes | None, lives: list[Life], tmp_path: Path
) -> None:
    """Of what cannot be read as a subscription as well."""
    life = next(each for each in lives if any(joined.leads for joined in joins_of(each)))
    life = with_user_data(life, b"rack-7")
    if metadata is not None:
        life = replace(life, steps=tuple(_with_metadata(each, metadata) for each in life.steps))
    write(tmp_path / "full.ksim", replace(life, steps=life.steps[:60]), PayloadMode.FULL)
    write(tmp_path / "ring.ksim", life)
    (found,) = read_lives([tmp_path])
    assert len(found.steps) == len(life.steps)


def test_recordings_that_deny_each_other_are_both_there_and_nothing_passes(
    life: Life, tmp_path: Path
) -> None:
    """What one of them shows alone is a fault all the same."""
    skipped = next(
        at for at, step in enumerate(life.steps) if isinstance(step.fact, e.RecordsHandedOut)
    )
    without = (*life.steps[:skipped], *life.steps[skipped + 1 :])
    write(tmp_path / "longer.ksim", life)
    write(tmp_path / "other.ksim", replace(life, steps=without))
    found = read_lives([tmp_path / "longer.ksim", tmp_path / "other.ksim"])
    assert [each.steps for each in found] == [life.steps, without]
    judged = judge(found)
    assert judged.verdicts["S10"] == "fail"
    assert "pass" not in judged.verdicts.values()
    assert {each.check for each in judged.violations} == {"S10"}
    said = [each.sentence for each in judged.undecided if each.check == "S5"]
    assert any("longer.ksim" in each and "other.ksim" in each for each in said), said


def test_an_empty_ring_adds_nothing_to_what_is_known_of_its_time(
    life: Life, tmp_path: Path
) -> None:
    header = header_of("member", life.name, life.header["config"], PayloadMode.DIGEST, 0)
    ring = FlightRecorder(header, most_bytes=1, most_ms=1)(lambda: plain(life.state))
    ring.flight(life.steps[50].at_ms, "asked for").write(tmp_path / "empty.ksim")
    write(tmp_path / "whole.ksim", life)
    (found,) = read_lives([tmp_path / "empty.ksim", tmp_path / "whole.ksim"])
    assert found.steps == life.steps


def write(path: Path, life: Life, payload: PayloadMode = PayloadMode.DIGEST) -> None:
    header = header_of("member", life.name, life.header["config"], payload, 0)
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
