"""`python -m tests.canary.table [SEEDS] [NAME...]`: what finds each canary, after how many seeds.

Then the equivalents, in which nothing may be found.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ksim.scenario import Scenario, load
from ksim.sim.runner import run
from ksim.sim.sweep import sweep
from tests.canary.plants import PLANTS

HERE = Path(__file__).parent / "scenarios"
LIBRARY = Path(__file__).parents[2] / "scenarios"
APPLICATION = "application-pauses-seeks-and-stays-away"
UNKNOWN = "s01-the-coordinator-is-unknown-at-the-last-commit"
SOUGHT = "regressions/committed-and-sought-back"
NO_RESET = "s06-no-reset-is-allowed"
GROWS = "s08-topic-grows-before-the-leader-is-told"
SEEDS = 200
# Of a sweep, with each seed.
POINTS = 10
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Canary:
    """A planted error, the scenario that shows it, and the checks of which one must find it.

    An equivalent names no check: what is planted is legal, and none may find anything.
    """

    name: str
    scenario: Path
    checks: tuple[str, ...]


def _own(name: str) -> Path:
    return HERE / f"{name}.scenario.toml"


def _library(name: str) -> Path:
    return LIBRARY / f"{name}.scenario.toml"


CANARIES = (
    Canary("m01-refused-commit", _own("commit-refused"), ("S7", "S9")),
    Canary("commit-delivered", _own("members-come-and-go"), ("S1", "S2")),
    Canary("m03-highest-finished", _own("workers-finish-out-of-order"), ("S1", "S2")),
    Canary("m04-kept-positions", _own("members-come-and-go"), ("S13", "S9", "S2")),
    Canary("m05-late-marks", _own("members-come-and-go"), ("S2", "S13", "S6")),
    Canary("m06-old-fetch", _own("refused-while-a-fetch-waits"), ("S1", "S2", "S10")),
    Canary("m07-old-refusal", _own("heartbeats-late"), ("L3",)),
    Canary("m08-forgotten-rejoin", _own("sync-answer-lost"), ("L1", "L2")),
    Canary("m09a-id-dropped-by-join", _own("join-refused-for-now"), ("L1",)),
    Canary("m09b-id-dropped-by-22", _own("commit-refused"), ("L1",)),
    Canary("m10a-silent-rebalance", _own("newcomer-and-slow-handlers"), ("L3", "L1", "S9")),
    Canary("m10b-silent-callback", _own("slow-callbacks"), ("S9", "L3")),
    Canary("deliver-for-ever", _library("cut-from-coordinator-only"), ("S5", "S7", "S9")),
    Canary("m12a-silent-idle", _own("more-members-than-partitions"), ("L3", "L1")),
    Canary("m12b-heartbeat-by-record", _own("more-members-than-partitions"), ("L3", "L1")),
    Canary("lease-of-session", _library("regressions/rebalance-shorter-than-session"), ("S5",)),
    Canary("begins-at-latest", _own("members-come-and-go"), ("S1", "L2")),
    Canary("fatal-not-coordinator", _own("coordinator-moves-cleanly"), ("L1",)),
    Canary("rejoins-not-coordinator", _own("coordinator-moves-cleanly"), ("L3",)),
    Canary("never-leaves", _own("members-come-and-go"), ("L1",)),
    Canary("poll-never-expires", _own(APPLICATION), ("L1",)),
    Canary("poll-expiry-keeps-group", _own(APPLICATION), ("L1",)),
    Canary("pause-ignored", _own(APPLICATION), ("S8",)),
    Canary("seek-ignored", _own(APPLICATION), ("S10",)),
    Canary("lost-told-as-revoked", _own("members-come-and-go"), ("S8",)),
    Canary("static-leaves", _own("static-members-stop"), ("L1",)),
    Canary("thrice-joined", _own("newcomer-after-rest"), ("L3",)),
    Canary("heartbeats-ten-times", _own("static-members-stop"), ("L3",)),
    Canary("begins-at-latest-after-a-seek", _own("sought-beyond-the-end"), ("S1",)),
    Canary("fatal-commit-timeout", _own("commit-times-out"), ("L1",)),
    Canary("silent-after-a-refused-commit", _own("commit-times-out"), ("L2",)),
    Canary("rejoins-after-a-lost-fetch", _own("fetch-answers-lost"), ("L3",)),
    Canary("loses-at-every-rebalance", _own("members-come-and-go"), ("L1", "S9")),
    Canary("b84-rebalance-is-no-sign-of-life", _library("s13-one-step-is-slow"), ("L1",)),
    Canary("b85-commit-not-tried-again", _library("s01-the-last-commit-is-put-off"), ("S9",)),
    Canary("b71-no-last-commit", _library(UNKNOWN), ("S9",)),
    Canary("b46-snapshot-of-the-end", _library(GROWS), ("L1",)),
    Canary("resume-ignored", _library("s21-paused-and-resumed-at-rest"), ("L2",)),
    Canary("extras-go-to-the-last", _own("newcomer-after-rest"), ("S11",)),
    Canary("patterns-take-nothing", _own("a-name-and-a-pattern"), ("L1", "L2")),
    Canary("latest-is-earliest", _own("begins-at-the-end"), ("S10",)),
    Canary("old-offsets-count", _own("offsets-answered-late"), ("S9", "S13")),
    Canary("old-commits-hold-back", _own("commit-answered-late"), ("S9",)),
    Canary("heartbeats-without-instance", _own("two-of-one-instance"), ("L1",)),
    Canary("commits-without-instance", _own("two-of-one-instance"), ("L1",)),
    Canary("busy-pool-waits", _own("workers-hang"), ("L1",)),
    Canary("unknown-commits-are-forgotten", _library(SOUGHT), ("L2",)),
    Canary("resets-without-a-reset", _library(NO_RESET), ("S10",)),
    Canary("b42-no-answer-is-no-offset", _library(NO_RESET), ("L1",)),
)


EQUIVALENTS = (
    Canary("e1-unequal-timing", _own("members-join-and-leave"), ()),
    Canary("e2-seek-back", _own("members-join-and-leave"), ()),
    Canary("e3-nothing-committed", _own("members-crash"), ()),
    Canary("e4-rare-commits", _own("members-crash"), ()),
    Canary("e5-unowned-for-long", _own("members-join-and-leave"), ()),
    Canary("e6-refused-and-repeated", _own("commits-refused-for-now"), ()),
)


@dataclass(frozen=True, slots=True)
class Found:
    """The first seed whose run a check accuses, and all the checks that do."""

    seeds: int
    checks: tuple[str, ...]


def search(scenario: Scenario, checks: tuple[str, ...], seeds: int) -> Found | None:
    """Run seed after seed until one of these checks fails, or any if none is named."""
    for seed in range(seeds):
        for point in _points(scenario, seed):
            verdicts = run(point, seed).checks
            failed = tuple(name for name in verdicts if verdicts[name] in ("fail", "broken"))
            if set(failed) & set(checks or failed):
                return Found(seed + 1, failed)
    return None


def _points(scenario: Scenario, seed: int) -> Iterator[Scenario]:
    if scenario.vary:
        yield from (point.scenario for point in sweep(scenario, seed).points(POINTS))
    else:
        yield scenario


def _planted(canary: Canary, seeds: int) -> Found | None:
    PLANTS[canary.name]()
    return search(load(canary.scenario), canary.checks, seeds)


def hunt(canary: Canary, seeds: int = SEEDS) -> Found | None:
    """Plant the error in a process of its own, and look for it."""
    return _apart(_planted, canary, seeds)


def _digests(canary: Canary) -> tuple[str, str]:
    scenario = load(canary.scenario)
    before = run(scenario, 0).digest
    PLANTS[canary.name]()
    return before, run(scenario, 0).digest


def takes_effect(canary: Canary) -> bool:
    """Whether a run of its scenario is another one with it than without."""
    before, after = _apart(_digests, canary)
    return before != after


def _apart(function: Callable[..., T], *arguments: Any) -> T:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _row(canary: Canary, seeds: int) -> str:
    found = hunt(canary, seeds)
    scenario = canary.scenario.name.removesuffix(".scenario.toml")
    expected = ", ".join(canary.checks) or "nothing"
    caught = f"nothing | {seeds}" if found is None else f"{', '.join(found.checks)} | {found.seeds}"
    return f"| {canary.name} | {scenario} | {expected} | {caught} |"


def main(arguments: list[str]) -> None:
    """Print one table of canaries and equivalents, or of those that are named."""
    seeds = int(arguments[0]) if arguments else SEEDS
    print("| mutation | scenario | expected | caught by | seeds |\n|---|---|---|---|---|")
    for canary in (*CANARIES, *EQUIVALENTS):
        if not arguments[1:] or canary.name in arguments[1:]:
            print(_row(canary, seeds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
