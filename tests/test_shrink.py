"""Shrinking in the terms of scenarios."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ksim.cli.main import commands
from ksim.fuzz import saving
from ksim.fuzz.saving import fails_check, text_of
from ksim.fuzz.swarm import draw_scenario
from ksim.scenario import GroupSpec, Scenario, StepSpec, TopicSpec, dump, load, parse
from ksim.shrink import shrink

shrinking = import_module("ksim.cli.shrink")
ROOT = Path(__file__).parents[1]


def big() -> Scenario:
    return next(
        each
        for each in (draw_scenario(seed) for seed in range(1_000))
        if len(each.steps) > 5 and len(each.faults) > 2 and each.groups[0].members > 2
    )


def test_what_does_not_matter_goes() -> None:
    found = shrink(big(), lambda each: any(step.do == "crash" for step in each.steps)) if any(
        step.do == "crash" for step in big().steps
    ) else shrink(big(), lambda each: len(each.steps) > 0)  # fmt: skip
    small = found.scenario
    assert (len(small.steps), len(small.faults), len(small.groups)) == (1, 0, 1)
    assert (small.groups[0].members, small.cluster.brokers) == (1, 1)
    assert [topic.partitions for topic in small.topics] == [1]
    assert small.groups[0] == GroupSpec(small.groups[0].id, small.groups[0].topics)
    assert parse(dump(small), "small") == small


def test_what_matters_stays() -> None:
    def fails(each: Scenario) -> bool:
        return sum(topic.partitions for topic in each.topics) >= 3 and any(
            group.members >= 2 for group in each.groups
        )

    scenario = replace(big(), topics=(TopicSpec("t0", 8),), produce=(), steps=(), faults=())
    groups = (GroupSpec("g", ("t0",), members=6),)
    small = shrink(replace(scenario, groups=groups), fails).scenario
    assert (small.topics[0].partitions, small.groups[0].members) == (3, 2)


def test_steps_of_members_that_go_go_with_them() -> None:
    steps = (StepSpec(1_000, "crash", "g-3"), StepSpec(2_000, "crash", "g-1"))
    scenario = Scenario(
        "s", 20_000, topics=(TopicSpec("t", 1),), groups=(GroupSpec("g", ("t",), members=3),),
        steps=steps,
    )  # fmt: skip
    small = shrink(scenario, lambda each: any(s.target == "g-1" for s in each.steps)).scenario
    assert [step.target for step in small.steps] == ["g-1"]
    assert small.groups[0].members == 1


def test_the_budget_of_runs_is_kept() -> None:
    runs: list[Scenario] = []

    def fails(each: Scenario) -> bool:
        runs.append(each)
        return True

    found = shrink(big(), fails, most_runs=7)
    assert (found.runs, len(runs)) == (7, 7)


def test_a_file_says_what_fails() -> None:
    scenario = load(ROOT / "scenarios" / "member-crashes.scenario.toml")
    assert fails_check(scenario, 1, "S1") is None
    text = text_of(scenario, 1, "S1", "a test")
    assert text.splitlines()[0] == "# Fails S1 with --seed 1: nothing any more"
    assert parse(text, "text") == scenario


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "small.scenario.toml"
    source = str(ROOT / "scenarios" / "member-crashes.scenario.toml")
    command = [sys.executable, "-m", "tests.canary", "commit-delivered", "--", "shrink"]
    arguments = [source, "--seed", "7", "-o", str(out), "--runs", "60"]
    found = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert len(dump(load(out))) < len(dump(load(source)))
    honest = [sys.executable, "-m", "ksim.cli.main", "shrink", *arguments]
    found = subprocess.run(honest, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "passes: there is nothing to shrink" in found.stderr


CRASHES = """
name = "a crash"
until = "20s"
[topics.t]
partitions = 2
[[group]]
id = "g"
topics = ["t"]
members = 2
session_timeout = "6s"
heartbeat_interval = "500ms"
handler_cost = "20ms"
[[produce]]
topic = "t"
per_second = 50
count = 300
[[step]]
at = "5s"
do = "crash"
target = "g-2"
"""


def command(*arguments: str, module: str = "ksim.cli.main") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *module.split(), "shrink", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_point_of_a_sweep_is_made_small(tmp_path: Path) -> None:
    path, out = tmp_path / "swept.scenario.toml", tmp_path / "small.scenario.toml"
    base = (ROOT / "scenarios" / "member-crashes.scenario.toml").read_text()
    path.write_text(base + '\n[vary]\n"cluster.loss" = [0.5, 0.0]\n')
    planted = "tests.canary commit-delivered --"
    point = ("--seed", "7", "--point", "1")
    found = command(str(path), *point, "-o", str(out), "--runs", "20", module=planted)
    assert found.returncode == 1, found.stdout + found.stderr
    assert not load(out).vary
    assert "--point 1, and made small" in out.read_text()
    unsaid = command(str(path), "-o", str(out))
    assert (unsaid.returncode, "say which point: --point 0 to 1" in unsaid.stderr) == (2, True)
    plain = str(ROOT / "scenarios" / "member-crashes.scenario.toml")
    needless = command(plain, "--point", "0", "-o", str(out))
    assert (needless.returncode, "it has no [vary]" in needless.stderr) == (2, True)


def test_a_run_that_breaks_is_made_small_as_long_as_it_breaks_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = saving.run

    def breaks(scenario: Scenario, seed: int) -> Any:
        if any(step.do == "crash" for step in scenario.steps):
            raise KeyError("a bug of ksim")
        if not scenario.produce:
            raise ValueError("another one")
        return honest(scenario, seed)

    monkeypatch.setattr(saving, "run", breaks)
    monkeypatch.setattr(shrinking, "run", breaks)
    path, out = tmp_path / "breaks.scenario.toml", tmp_path / "small.scenario.toml"
    path.write_text(CRASHES)
    arguments = ["shrink", str(path), "-o", str(out), "--runs", "60"]
    assert commands.main(arguments, standalone_mode=False) == 70
    small = load(out)
    assert [each.do for each in small.steps] == ["crash"]
    assert small.groups[0].members < 2 or small.topics[0].partitions == 1
    assert out.read_text().startswith("# Breaks (KeyError) with --seed 0: KeyError('a bug")
