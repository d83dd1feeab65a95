"""`ksim run`: the same seed is the same run, and mistakes are one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.commands import ROOT, SCENARIOS, digest, ksim, refusal
from tests.sim.test_runner import BASE


def test_a_seed_has_one_digest_in_every_process() -> None:
    path = str(SCENARIOS / "member-crashes.scenario.toml")
    runs = [ksim("run", path, "--seed", "7", PYTHONHASHSEED=hashed) for hashed in ("1", "2", "2")]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stdout + runs[0].stderr
    assert len({digest(run.stdout) for run in runs}) == 1
    other = ksim("run", path, "--seed", "8")
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
    line = refusal("run", str(wrong))
    assert line.startswith(f"ksim: {wrong}: {path}")
    assert words in line


def test_a_file_that_is_not_there_is_one_line() -> None:
    assert "absent.scenario.toml: cannot be read" in refusal("run", "absent.scenario.toml")


def test_an_internal_error_has_its_own_code() -> None:
    path = str(SCENARIOS / "slow-handler.scenario.toml")
    command = (sys.executable, "-m", "tests.cli.crashing", "run", path)
    found = subprocess.run(command, capture_output=True, cwd=ROOT, text=True, check=False)
    assert found.returncode == 70
    assert "planted: the owner breaks" in found.stderr


@pytest.mark.parametrize("option", ["--record", "--timeline"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, option: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    path = str(SCENARIOS / "slow-handler.scenario.toml")
    found = ksim("run", path, option, str(blocked / "inside" / "x"))
    assert found.returncode == 74
    assert found.stderr.startswith(f"ksim: {blocked}")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_a_recording_and_the_run_goes_on_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "g-1.ksim").symlink_to("/dev/full")
    path = str(SCENARIOS / "slow-handler.scenario.toml")
    found = ksim("run", path, "--record", str(tmp_path))
    assert found.returncode == 74
    line = f"ksim: {tmp_path / 'g-1.ksim'}: No space left on device"
    assert found.stderr.splitlines() == [line]
    replayed = ksim("replay", str(tmp_path / "g-2.ksim"))
    assert replayed.returncode == 0, replayed.stdout


SWEEP = f"""{BASE}
[[fault]]
on = {{ request = "Heartbeat", member = "g-1" }}
do = "drop"
[vary]
"fault.0.on.nth" = "each"
"""


@pytest.fixture
def heartbeats(tmp_path: Path) -> Path:
    path = tmp_path / "heartbeats.scenario.toml"
    path.write_text(SWEEP)
    return path


def test_a_sweep_is_one_line_for_all_points(heartbeats: Path) -> None:
    found = ksim("run", str(heartbeats), "--seed", "3", "--max-points", "4")
    assert found.returncode == 0, found.stdout + found.stderr
    seed, points, verdict, last = found.stdout.splitlines()
    assert seed == "seed 3  x"
    assert points.startswith("  4 of ")
    assert points.endswith(" points, 0 failed")
    assert verdict == "verdict   pass"
    assert last.startswith("digest ")


def test_one_point_is_told_in_full_and_has_its_own_directory(
    heartbeats: Path, tmp_path: Path
) -> None:
    record = str(tmp_path / "out")
    found = ksim("run", str(heartbeats), "--point", "5", "--record", record)
    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()
    assert lines[0].endswith("point 5: fault.0.on.nth = 6")
    assert any("fault: drop request Heartbeat g-1" in line for line in lines)
    assert (tmp_path / "out" / "seed-0-point-5" / "g-1.ksim").exists()
    ran = ksim("run", str(heartbeats), "--max-points", "2", "--json")
    assert [json.loads(line)["point"] is None for line in ran.stdout.splitlines()] == [False] * 2


def test_points_that_are_not_there(heartbeats: Path) -> None:
    line = refusal("run", str(heartbeats), "--point", "9999")
    assert "point 9999: the sweep has" in line
    found = ksim("run", str(heartbeats), "--max-points", "0")
    assert found.returncode == 2
    assert "--max-points" in found.stderr


OUT_OF_EVENTS = re.compile(
    r"budget: max_events = 300 are spent at \d+\.\d{3} s: .*g-\d waits for \w+ of broker-1.*; "
    r"last: \w+ of \S+ at \d+\.\d{3} s, "
)


@pytest.mark.parametrize("text", [BASE, SWEEP], ids=["plain", "sweep"])
def test_a_run_out_of_events_ends_with_what_was_going_on(heartbeats: Path, text: str) -> None:
    heartbeats.write_text(text.replace("until", "max_events = 300\nuntil", 1))
    found = ksim("run", str(heartbeats), *(("--max-points", "1") if text == SWEEP else ()))
    assert found.returncode == 3, found.stdout + found.stderr
    assert OUT_OF_EVENTS.search(found.stdout), found.stdout
    assert "verdict   liveness" in found.stdout


LATE = '[[step]]\nat = "31s"\ndo = "crash"\ntarget = "g-1"\n[[fault]]'
CANNOT_WORK = {
    "no members": ("members = 2", "members = 0", "group[0].members = 0: must be a whole number"),
    "no group": ("[[group]]", "[[nobody]]", "nobody"),
    "session": (
        'session_timeout = "6s"',
        'session_timeout = "5s"',
        "group[0].session_timeout = '5s': the broker refuses it to g-1; valid: 6s to 30m",
    ),
    "member": (
        '"Heartbeat", member = "g-1"',
        '"Heartbeat", member = "g-3"',
        "fault[0].on.member = 'g-3': no such member; nearest: ",
    ),
    "until": ("[[fault]]", LATE, "step[0].at = '31s': is not before until = 30s"),
    "a value that is varied": (
        "[vary]",
        '[vary]\n"group.0.session_timeout" = ["6s", "5s"]',
        "the broker refuses it to g-1; valid: 6s to 30m (vary.group.0.session_timeout = '5s')",
    ),
}


@pytest.mark.parametrize(("was", "becomes", "words"), CANNOT_WORK.values(), ids=[*CANNOT_WORK])
def test_what_cannot_work_is_refused_before_the_run(
    heartbeats: Path, was: str, becomes: str, words: str
) -> None:
    assert was in SWEEP
    heartbeats.write_text(SWEEP.replace(was, becomes, 1))
    line = refusal("run", str(heartbeats))
    assert line.startswith(f"ksim: {heartbeats}: ")
    assert words in line


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("[topics.orders]\npartitions = ", "[topics.orders]\npartitions = 99999", "1 to 100000"),
        ("members = 2", "members = 1001", "members = 1001: must be a whole number, 1 to 1000"),
        ("[vary]", '[vary]\n"group.\u00b2.id" = ["g"]', "there is no group.\u00b2; valid: 0 to 0"),
        (
            "[vary]",
            '[vary]\n"until" = ["30s", "10s"]\n"produce.0.start" = ["0s", "20s"]',
            "until = 10s, produce.0.start = 20s: produce[0].start = '20s': is after until = 10s",
        ),
        ('request = "Heartbeat"', 'request = "LeaveGroup"', "the sweep has no points"),
        (
            "[[fault]]",
            '[[fault]]\non = { request = "Fetch" }\ndo = "error"\nerror = "NONE"\n[[fault]]',
            "NONE",
        ),
    ],
)
def test_what_cannot_be_set_up_is_refused(
    heartbeats: Path, was: str, becomes: str, words: str
) -> None:
    assert was in SWEEP
    heartbeats.write_text(SWEEP.replace(was, becomes, 1))
    assert words in refusal("run", str(heartbeats))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seeds", "0"), "0 is not in the range x>=1"),
        (("--max-points", "3"), "--max-points 3: it has no [vary]"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(
    heartbeats: Path, options: tuple[str, ...], words: str
) -> None:
    heartbeats.write_text(BASE)
    found = ksim("run", str(heartbeats), *options)
    assert found.returncode == 2
    assert words in found.stderr


def test_each_run_has_files_of_its_own(heartbeats: Path, tmp_path: Path) -> None:
    heartbeats.write_text(BASE)
    other = tmp_path / "other.scenario.toml"
    other.write_text(BASE)
    out = tmp_path / "out"
    options = ("--seeds", "2", "--record", str(out), "--timeline", str(out / "run.html"))
    found = ksim("run", str(heartbeats), str(other), *options)
    assert found.returncode == 0, found.stdout + found.stderr
    names = [heartbeats.name.removesuffix(".toml").removesuffix(".scenario"), "other"]
    for name in names:
        for seed in (0, 1):
            assert list((out / name / f"seed-{seed}").glob("*.ksim"))
            assert (out / f"run-{name}-seed-{seed}.html").exists()


def test_a_scenario_without_members_is_refused(heartbeats: Path) -> None:
    heartbeats.write_text('name = "x"\nuntil = "1s"\n[topics.orders]\npartitions = 1\n')
    assert f"{heartbeats}: group: there are no members" in refusal("run", str(heartbeats))


def test_what_cannot_work_cannot_be_shrunk_either(heartbeats: Path, tmp_path: Path) -> None:
    heartbeats.write_text(BASE.replace('session_timeout = "6s"', 'session_timeout = "5s"'))
    line = refusal("shrink", str(heartbeats), "--out", str(tmp_path / "small.scenario.toml"))
    assert "group[0].session_timeout = '5s'" in line
