"""Lifted scenarios make the rebalances that were recorded; those that do not are known, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ksim.after.lives import Life, life_from, read_lives
from ksim.core.errors import ConfigError
from ksim.core.member import Member
from ksim.core.trace import plain, value_of
from ksim.scenario import FaultSpec, dump, parse
from ksim.scenario_check import check_run
from ksim.sim.reenactment import Lifted, lift, played
from tests.after.recorded import ROOT, SCENARIOS, one_point, recorded, shifted
from tests.recordings_here import CORPUS

SAMPLE = (
    "committed-before-a-truncation",
    "member-crashes",
    "member-paused-past-session",
    "static-leader-away-while-partitions-grow",
    "s01-coordinator-dies-at-every-step",
    "s07-sync-is-lost-or-late",
    "s08-topic-grows-at-every-step",
    "s23-gaps-at-every-event",
)
DOCS = ROOT / "docs" / "after-the-fact.md"


def stem(path: Path) -> str:
    return path.name.removesuffix(".scenario.toml")


def known_apart() -> set[str]:
    """The table of `docs/after-the-fact.md`: who is not lifted to the same, and why."""
    table = DOCS.read_text("utf-8").partition("## What is not lifted")[2]
    rows = (line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| `"))
    return {row.strip("`") for row in rows}


def lifted(path: Path, folder: Path) -> Lifted:
    _, lives = recorded(one_point(path), folder)
    return lift(lives, stem(path))


PATHS = [
    pytest.param(path, id=stem(path), marks=() if stem(path) in SAMPLE else pytest.mark.slow)
    for path in SCENARIOS
]


@pytest.mark.parametrize("path", PATHS)
def test_a_lifted_scenario_makes_the_same_rebalances(path: Path, tmp_path: Path) -> None:
    found = lifted(path, tmp_path)
    # Whatever is lifted can be written, read and run.
    assert parse(dump(found.scenario), "lifted") == found.scenario
    check_run("lifted", found.scenario)
    assert played(found.scenario) is not None
    assert found.same == (stem(path) not in known_apart()), found.where


def test_the_known_differences_are_of_scenarios_that_are_there() -> None:
    assert known_apart() <= {stem(path) for path in SCENARIOS}
    assert not known_apart() & set(SAMPLE)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> list[Life]:
    path = ROOT / "scenarios" / "member-crashes.scenario.toml"
    return recorded(one_point(path), tmp_path_factory.mktemp("crashed"))[1]


def test_clocks_that_differ_make_no_other_scenario(crashed: list[Life]) -> None:
    by_ms = (123_456, -7_890, 0)
    apart = [shifted(life, by) for life, by in zip(crashed, by_ms, strict=True)]
    assert lift(apart, "x").same


def test_what_was_done_to_it_is_lifted(crashed: list[Life]) -> None:
    found = lift(crashed, "x").scenario
    assert "crash" in [step.do for step in found.steps]
    assert found.cluster.initial_rebalance_delay_ms == 3_000
    assert [group.members for group in found.groups] == [3]


def test_a_scenario_that_cannot_be_run_is_no_reenactment(crashed: list[Life]) -> None:
    from dataclasses import replace

    found = lift(crashed, "x").scenario
    stranger = FaultSpec("request", "JoinGroup", "nobody", 1, "drop")
    assert played(replace(found, faults=(stranger,))) is None


def from_ms(life: Life, at_ms: int) -> Life:
    """What a ring that begins there would have of it."""
    machine = Member.restore(plain(life.state))
    early = [step for step in life.steps if step.at_ms < at_ms]
    for step in early:
        machine.step(step.fact, now_ms=step.at_ms)
    state: Any = value_of(machine.snapshot())
    return life_from(life.name, life.path, life.header, state, life.steps[len(early) :])


def test_rings_are_compared_from_where_they_begin(crashed: list[Life]) -> None:
    late = [from_ms(life, 10_000) for life in crashed]
    assert all(life.state.generation_id > 0 for life in late)
    found = lift(late, "x")
    assert found.generations == 1
    assert found.same, found.where


def test_topics_and_brokers_are_known_from_a_snapshot() -> None:
    found = lift(read_lives([CORPUS / "1.0" / "segment.ksim"]), "x")
    assert found.same
    assert [(topic.name, topic.partitions) for topic in found.scenario.topics] == [("t", 2)]
    assert played(found.scenario) is not None


def test_where_nothing_can_be_run_it_is_said_why() -> None:
    (life,) = read_lives([CORPUS / "1.0" / "segment.ksim"])
    life.state.counts.clear()
    with pytest.raises(ConfigError, match=r"^x: nothing that can be run .*no such topic"):
        lift([life], "x")
