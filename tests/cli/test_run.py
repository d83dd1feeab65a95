"""`ksim run`: the same seed is the same run, and mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.commands import SCENARIOS, digest, ksim

FILES = sorted(SCENARIOS.rglob("*.scenario.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
def test_a_seed_has_one_digest_in_every_process(path: Path) -> None:
    runs = [
        ksim("run", str(path), "--seed", "7", PYTHONHASHSEED=hash_seed)
        for hash_seed in ("1", "2", "2")
    ]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stdout + runs[0].stderr
    assert len({digest(run.stdout) for run in runs}) == 1
    other = ksim("run", str(path), "--seed", "8")
    assert digest(other.stdout) != digest(runs[0].stdout)


def test_the_seed_comes_first_and_the_digest_last() -> None:
    found = ksim("run", str(SCENARIOS / "slow-handler.scenario.toml"), "--seed", "3")
    lines = found.stdout.splitlines()
    assert lines[0].startswith("seed 3")
    assert lines[-1].startswith("digest")


def test_json_is_one_object_for_each_run() -> None:
    path = str(SCENARIOS / "slow-handler.scenario.toml")
    found = ksim("run", path, "--seeds", "2", "--json")
    runs = [json.loads(line) for line in found.stdout.splitlines()]
    assert [run["seed"] for run in runs] == [0, 1]
    assert list(runs[0]) == [
        "scenario",
        "seed",
        "digest",
        "verdict",
        "checks",
        "violations",
        "simulated_ms",
        "cpu_ms",
        "events",
        "messages",
        "rebalances",
        "records",
        "point",
    ]


def test_recordings_replay_and_the_timeline_can_be_read(tmp_path: Path) -> None:
    picture = tmp_path / "night.html"
    found = ksim(
        "run",
        str(SCENARIOS / "night.scenario.toml"),
        "--record",
        str(tmp_path),
        "--timeline",
        str(picture),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    recordings = sorted(str(path) for path in tmp_path.glob("*.ksim"))
    assert [Path(name).name for name in recordings] == [
        "g-1.ksim",
        "g-2.2.ksim",
        "g-2.ksim",
        "g-3.ksim",
    ]
    again = ksim("replay", *recordings)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["SAME"] * 4
    page = picture.read_text()
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    texts = [item.text for item in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"faults", "g-1", "g-2", "g-3", "orders-0", "orders-5"} <= set(texts)


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (('latency = "1ms..5ms"', 'latancy = "1ms"'), "cluster.latancy", "nearest: 'latency'"),
        (("members = 3", 'members = "3"'), "group[0].members", "whole number"),
        (('for = "15s"', 'for = "15"'), "step[1].for", "with its unit"),
        (('target = "g-2"', 'target = "g-9"'), "step[0].target", "nearest: 'g-"),
        (('do = "crash"', 'do = "crush"'), "step[0].do", "nearest: 'crash'"),
    ],
)
def test_a_mistake_in_a_scenario_is_one_line(
    tmp_path: Path, change: tuple[str, str], path: str, words: str
) -> None:
    text = (SCENARIOS / "night.scenario.toml").read_text()
    assert change[0] in text
    wrong = tmp_path / "wrong.scenario.toml"
    wrong.write_text(text.replace(*change, 1))
    found = ksim("run", str(wrong))
    assert found.returncode == 2
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert str(wrong) in line
    assert path in line
    assert words in line


def test_a_file_that_is_not_there_is_one_line() -> None:
    found = ksim("run", "absent.scenario.toml")
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1


def test_an_internal_error_has_its_own_code(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    path = str(SCENARIOS / "slow-handler.scenario.toml")
    found = ksim("run", path, "--record", str(blocked / "inside"))
    assert found.returncode == 70
