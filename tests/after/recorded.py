"""Recordings for the tests: of simulated runs, and with clocks that are shifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ksim.after.lives import Exchange, Life, Step, life_from, read_lives
from ksim.core import events as e
from ksim.core.member import Member
from ksim.core.trace import plain, value_of
from ksim.recorders import Recorders
from ksim.scenario import Scenario, load
from ksim.sim.runner import RunResult, run
from ksim.sim.sweep import sweep

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.scenario.toml"))


def one_point(path: Path, seed: int = 0) -> Scenario:
    """The scenario of a file; of a sweep its first sample."""
    scenario = load(path)
    return next(iter(sweep(scenario, seed).points(1))).scenario if scenario.vary else scenario


def recorded(scenario: Scenario, folder: Path, seed: int = 0) -> tuple[RunResult, list[Life]]:
    """Run it, and read what its members recorded."""
    recorders = Recorders(folder, seed)
    result = run(scenario, seed, recorder=recorders)
    recorders.close()
    return result, read_lives([folder])


def shifted(life: Life, by_ms: int) -> Life:
    """The same life by a clock that is otherwise."""
    return moved(life, lambda at_ms: at_ms + by_ms)


def moved(life: Life, clock: Callable[[int], int]) -> Life:
    """The same life, with each time as this clock shows it."""
    state = life.state
    if state.deliver_until_ms > 0:
        state = replace(state, deliver_until_ms=clock(state.deliver_until_ms))
    return replace(
        life,
        state=state,
        steps=tuple(_step(step, clock) for step in life.steps),
        exchanges=tuple(_exchange(each, clock) for each in life.exchanges),
    )


def _step(step: Step, clock: Callable[[int], int]) -> Step:
    fact = step.fact
    if isinstance(fact, e.UserPolled | e.MarksTaken | e.RecordsHandedOut) and fact.at_ms >= 0:
        fact = replace(fact, at_ms=clock(fact.at_ms))
    return Step(clock(step.at_ms), fact, step.orders)


def _exchange(each: Exchange, clock: Callable[[int], int]) -> Exchange:
    ended_ms = None if each.ended_ms is None else clock(each.ended_ms)
    return replace(each, sent_ms=clock(each.sent_ms), ended_ms=ended_ms)


def cut(life: Life, begin: int, end: int | None = None) -> Life:
    """What a ring or a segment holds of it: a snapshot before the step `begin`, and the rest."""
    member = Member.restore(plain(life.state))
    for step in life.steps[:begin]:
        member.step(step.fact, now_ms=step.at_ms)
    state = value_of(member.snapshot())
    steps = life.steps[begin:end]
    return life_from(life.name, life.path, life.header, state, steps, complete=False)


def names(lives: Sequence[Life]) -> list[str]:
    return [life.name for life in lives]
