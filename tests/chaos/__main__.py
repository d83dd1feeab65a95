"""`python -m tests.chaos --seed 1 --seconds 180`: one run by hand, its log and its verdict."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.brokers import running
from tests.chaos.evidence import committed_log
from tests.chaos.judge import Verdict, judge
from tests.chaos.run import GROUP, TOPIC, Chaos
from tests.real.processes import commits_of

SECONDS = 180.0
REPLAYS = ("SAME", "INCOMPLETE")


def night(folder: Path, seed: int, seconds: float, zombie: str | None = None) -> Verdict:
    """Run a seed and judge it; recordings stay in the folder.

    `zombie` names a planted error for the first member, which is stopped past its session.
    """
    with running(folder) as brokers:
        happened = Chaos(folder, brokers, seed, zombie=zombie).go(seconds)
        log = committed_log(brokers.bootstrap, GROUP, TOPIC)
    recordings = {life.name: folder / f"{life.name}.ksim" for life in happened.lives}
    commits = {name: commits_of(path) if path.exists() else [] for name, path in recordings.items()}
    verdict = judge(happened, commits, log)
    found = [path for path in recordings.values() if path.exists()]
    _judge_replays(verdict, found)
    # One machine, one clock; what is open without that is of those that lived for one generation.
    checked = _ksim("check", found, "--one-clock")
    wrong = checked.returncode != 0 or not checked.stdout.endswith("verdict   pass\n")
    verdict.say("put together", len(found), f"ksim check: {checked.stdout}" if wrong else None)
    return verdict


def _ksim(command: str, recordings: list[Path], *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "ksim.cli.main", command, *options, *map(str, recordings)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def _judge_replays(verdict: Verdict, recordings: list[Path]) -> None:
    said = _ksim("replay", recordings).stdout
    outcomes = [line.split()[0] for line in said.splitlines() if line.split()]
    wrong = [each for each in outcomes if each not in REPLAYS]
    short = len(outcomes) < len(recordings)
    verdict.say("recordings", len(recordings), said if wrong or short else None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--keep", type=Path, help="A folder for recordings and logs.")
    parser.add_argument("--zombie", help="A planted error for the first member: never-let-go.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        verdict = night(folder, options.seed, options.seconds, options.zombie)
    for name, figure in verdict.figures.items():
        print(f"{name:36} {figure}")
    for fault in verdict.faults:
        print(f"FAULT {fault}")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
