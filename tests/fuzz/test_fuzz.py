"""`ksim fuzz`: what a seed draws, how a campaign runs, and how it ends."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ksim.cli.main import commands
from ksim.coverage import EXPECTED, Coverage, added, missing
from ksim.fuzz import campaign as campaigns
from ksim.fuzz import saving
from ksim.fuzz.campaign import SeedResult, Totals, campaign, run_seed
from ksim.fuzz.kinds import ACTIONS, ERRORS, FATAL, STEPS
from ksim.fuzz.swarm import Swarm, _Drawing, draw_scenario
from ksim.scenario import dump, load, parse
from ksim.scenario_check import check_run
from ksim.sim.runner import Run

ROOT = Path(__file__).parents[2]


def ksim(*arguments: str, module: str = "ksim.cli.main") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *module.split(), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_run_leaves_nothing_in_memory() -> None:
    """A campaign runs thousands of seeds in one process."""
    runs = [weakref.ref(run) for run in map(finished, range(8))]
    gc.collect()
    assert [run() for run in runs] == [None] * len(runs)


def finished(seed: int) -> Run:
    run = Run(draw_scenario(seed), seed)
    run.go()
    return run


def test_a_seed_draws_one_scenario_that_a_file_can_say() -> None:
    drawn = [draw_scenario(seed) for seed in range(100)]
    assert drawn == [draw_scenario(seed) for seed in range(100)]
    assert all(parse(dump(each), "drawn") == each for each in drawn)
    for each in drawn:
        check_run("drawn", each)
    quiet = [each for each in drawn if not each.steps and not each.faults]
    assert 10 < len(quiet) < 50
    assert {step.do for each in drawn for step in each.steps} >= {
        do for do in STEPS if not do.startswith("broker ")
    }


def test_a_swarm_draws_all_that_can_go_wrong() -> None:
    drawn = [draw_scenario(seed) for seed in range(200)]
    faults = [fault for each in drawn for fault in each.faults]
    assert {fault.do for fault in faults} == set(ACTIONS) - {"fatal error"}
    groups = [group for each in drawn for group in each.groups]
    for name in ("handler_hangs", "poll_timeout_ms", "overrides", "topics_whitelist", "workers"):
        assert any(getattr(group, name) for group in groups), name
    assert any(group.request_timeout_ms != 30_000 for group in groups)
    twins = [[each.instance_id for each in group.overrides] for group in groups]
    assert any(len(ids) == 2 and ids[0] is not None and ids[0] == ids[1] for ids in twins)
    assert any(each.core for each in drawn)
    assert any(each.cluster.group_max_size for each in drawn)
    assert any(step.on for each in drawn for step in each.steps)


def test_every_code_is_drawn_for_every_request_that_has_it() -> None:
    drawing = _Drawing(1)
    for do, table in (("error", ERRORS), ("fatal error", FATAL)):
        drawn = [drawing._fault(do) for _ in range(2_000)]
        found = {(fault.kind, fault.error) for fault in drawn}
        assert found == {(kind, code) for kind, codes in table.items() for code in codes}


def test_a_swarm_is_a_part_with_weights() -> None:
    from random import Random

    parts = [Swarm(Random(seed), "abcdef").weights for seed in range(50)]
    assert {len(part) for part in parts} == {1, 2, 3, 4, 5, 6}
    assert all(1 <= weight <= 100 for part in parts for weight in part.values())


def test_a_campaign_gives_every_seed_once() -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(campaign(pool, 2, 3, 12, None, lambda: False))
    assert sorted(each.seed for each in found) == list(range(3, 15))
    totals = Totals()
    for each in found:
        totals.add(each)
    assert (totals.seeds, totals.failures) == (12, [])
    assert totals.seen["group PreparingRebalance -> CompletingRebalance"] > 0


def test_one_seed_in_twenty_is_run_twice_and_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    honest, digests = campaigns.run, iter(range(10))

    def run(*arguments: Any, **options: Any) -> Any:
        from dataclasses import replace

        return replace(honest(*arguments, **options), digest=str(next(digests)))

    assert run_seed(20).repeated
    assert not run_seed(21).repeated
    monkeypatch.setattr(campaigns, "run", run)
    found = run_seed(20)
    assert found.failed == "broken: TwoDigestsError"
    assert "two digests" in found.run.scenario


def test_a_seed_that_breaks_something_does_not_end_the_campaign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(seed: int) -> Any:
        raise RuntimeError(f"no {seed}")

    monkeypatch.setattr(campaigns, "draw_scenario", broken)
    found: list[SeedResult] = campaigns.run_seeds([1, 2])
    assert [each.run.verdict for each in found] == ["broken", "broken"]
    assert [each.failed for each in found] == ["broken: RuntimeError"] * 2
    assert "RuntimeError: no 2" in capsys.readouterr().err


class _Counting(Executor):
    """Runs at once, and counts."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_a_stopped_campaign_ends_with_what_is_under_way() -> None:
    pool = _Counting()
    list(campaign(pool, 1, 0, None, None, lambda: pool.submitted >= 2))
    assert pool.submitted == 2


def test_coverage_adds_up_and_names_what_is_missing() -> None:
    first, second = Coverage(), Coverage()
    first.counts["join UNKNOWN_MEMBER_ID"] += 2
    second.counts["join UNKNOWN_MEMBER_ID"] += 1
    total = added((first.seen, second.seen))
    assert total == {"join UNKNOWN_MEMBER_ID": 3}
    assert set(missing(total)) == set(EXPECTED) - {"join UNKNOWN_MEMBER_ID"}


def test_a_clean_campaign_passes(tmp_path: Path) -> None:
    found = ksim("fuzz", "--seeds", "12", "--workers", "2", "--out", str(tmp_path / "out"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert "12 seeds, 1 of them twice: 0 failed" in found.stdout
    assert not (tmp_path / "out").exists()


def test_json_is_one_object_for_each_seed(tmp_path: Path) -> None:
    found = ksim("fuzz", "--seeds", "6", "--workers", "2", "--json", "--out", str(tmp_path))
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert sorted(row["seed"] for row in rows) == list(range(6))
    assert {row["verdict"] for row in rows} == {"pass"}
    assert "6 seeds" in found.stderr


def test_a_planted_error_is_found_and_made_small(tmp_path: Path) -> None:
    found = ksim(
        "fuzz", "--seeds", "8", "--workers", "2", "--out", str(tmp_path),
        module="tests.canary commit-delivered --",
    )  # fmt: skip
    assert found.returncode == 1, found.stdout + found.stderr
    files = sorted(tmp_path.glob("*.scenario.toml"))
    assert files
    smallest = min((load(path) for path in files), key=lambda each: len(dump(each)))
    assert len(smallest.steps) + len(smallest.faults) <= 2
    assert all(path.read_text().startswith("# Fails S") for path in files)
    seed = files[0].stem.split("-")[-1].split(".")[0]
    again = ksim("run", str(files[0]), "--seed", seed, module="tests.canary commit-delivered --")
    assert again.returncode == 1


def test_an_interrupt_ends_with_a_summary(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "ksim.cli.main", "fuzz", "--minutes", "10", "--workers", "1",
        "--json", "--out", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait() == 130
    assert "Traceback" not in said
    assert " seeds, " in said


# Two workers say it at once: each in one write, or their lines would be one.
ENDLESS = """
import os, sys, threading
from importlib import import_module
from ksim.cli.main import main
from ksim.fuzz import campaign
def endless(seed, check):
    os.write(1, b"shrinks\\n")
    threading.Event().wait()
def breaks(*_, **__):
    raise KeyError("a bug")
campaign.run = breaks
campaign.traceback.print_exc = lambda: None
import_module("ksim.cli.fuzz").save_shrunk = endless
sys.argv = ["ksim", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_ends_the_shrinking_too(tmp_path: Path, interrupts: int) -> None:
    command = [
        sys.executable, "-c", ENDLESS, "fuzz", "--seeds", "10", "--workers", "2",
        "--out", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = iter(process.stdout.readline, b"")
        assert next((line for line in lines if line == b"shrinks\n"), None)
        for _ in range(interrupts):
            os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read() + process.stderr.read()
        assert process.wait() == 130
    assert b"Traceback" not in rest
    assert (b"10 seeds, " in rest) or interrupts == 2


def test_a_worker_that_is_killed_ends_the_campaign_with_a_summary(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    honest = campaigns.draw_scenario

    def kills(seed: int) -> Any:
        if seed == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(seed)

    monkeypatch.setattr(campaigns, "draw_scenario", kills)
    arguments = ["fuzz", "--seeds", "10", "--workers", "1", "--out", str(tmp_path)]
    assert commands.main(arguments, standalone_mode=False) == 70
    said = capfd.readouterr()
    assert " seeds, " in said.out
    assert "a worker has died; seeds " in said.err
    assert "7, 8, 9 are not judged" in said.err


def test_a_seed_that_breaks_something_is_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(campaigns, "run", broken)
    monkeypatch.setattr(saving, "run", broken)
    arguments = ["fuzz", "--seeds", "2", "--workers", "1", "--out", str(tmp_path)]
    assert commands.main(arguments, standalone_mode=False) == 70
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"broken-keyerror-seed-{seed}.scenario.toml" for seed in (0, 1)]
    assert "# Breaks (KeyError) with --seed 0" in (tmp_path / names[0]).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seeds", "5", "--minutes", "1"), "say one of them"),
        (("--minutes", "0"), "must be above 0"),
        (("--seeds", "0"), "Invalid value for '--seeds'"),
        (("--dask", "127.0.0.1:1", "--seeds", "1"), "--dask 127.0.0.1:1"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str) -> None:
    found = ksim("fuzz", *arguments)
    assert found.returncode == 2
    assert words in found.stderr
    assert "Traceback" not in found.stderr


def test_a_campaign_over_a_dask_cluster(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
        host="127.0.0.1",
    ) as cluster:  # fmt: skip
        found = ksim(
            "fuzz", "--seeds", "10", "--dask", cluster.scheduler_address, "--out", str(tmp_path)
        )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "10 seeds, 1 of them twice: 0 failed" in found.stdout
