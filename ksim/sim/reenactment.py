"""Does a lifted scenario make the same rebalances? Run it, compare, and try what is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from ksim.after.cast import cast_of
from ksim.after.clocks import align
from ksim.after.lift import Draft, draft_of
from ksim.after.lives import Life, Step, life_from
from ksim.after.story import Story, as_late, begun_before, distance, first_apart, story_of
from ksim.consumer.config import Config
from ksim.core.errors import ConfigError, KsimError
from ksim.core.member_state import MemberState
from ksim.core.trace import Plain, value_of
from ksim.scenario import FaultSpec, Scenario, StepSpec, dump, parse
from ksim.scenario_check import check_run
from ksim.scenario_spec import DEFAULT_MAX_EVENTS
from ksim.sim.runner import run

MOST_RUNS: Final = 30
NUDGES_MS: Final = (-10, 10, -40, 40)
NUDGED: Final = ("move_coordinator", "stop", "start", "crash", "add_partitions", "delete_topic")
# What is recorded stands for so many events of a simulation at the most.
LEAST_EVENTS, EVENTS_OF_ENTRY = 50_000, 200
FAR: Final = (1 << 20, 1 << 20)


@dataclass(frozen=True, slots=True)
class Lifted:
    """The best that was found: how far it is from what was recorded, and where first."""

    scenario: Scenario
    generations: int
    apart: tuple[int, int]
    where: str
    runs: int

    @property
    def same(self) -> bool:
        """Generations, owners and error codes are those of the recordings."""
        return self.apart == (0, 0)


def lift(
    lives: Sequence[Life], name: str, *, one_clock: bool = False, most_runs: int = MOST_RUNS
) -> Lifted:
    """The scenario that comes nearest to what these lives recorded.

    Raises ConfigError where nothing that can be run comes of them.
    """
    clocks = align(lives, one_clock=one_clock)
    cast = cast_of(lives, clocks)
    names = {part.life.name: part.label for part in cast}
    wanted = story_of(lives, clocks, names)
    begun = begun_before(lives, names, wanted)

    entries = sum(len(life.steps) for life in lives)
    most = min(DEFAULT_MAX_EVENTS, LEAST_EVENTS + EVENTS_OF_ENTRY * entries)

    def play(scenario: Scenario) -> Story | None:
        found = played(scenario, most_events=most)
        return None if found is None else as_late(found, wanted, begun)

    draft = draft_of(cast, name)
    best, story = draft.scenario, play(draft.scenario)
    apart = FAR if story is None else distance(wanted, story)
    runs = 1
    for change in _changes(draft):
        if apart == (0, 0) or runs >= most_runs:
            break
        tried = change(best)
        if tried == best:
            continue
        runs += 1
        found = play(tried)
        nearer = FAR if found is None else distance(wanted, found)
        if nearer < apart:
            best, story, apart = tried, found, nearer
    if story is None:
        raise ConfigError(f"{name}: nothing that can be run comes of this: {_refusal(best)}")
    return Lifted(best, len(wanted.generations), apart, first_apart(wanted, story), runs)


def _refusal(scenario: Scenario) -> str:
    """Why it cannot be run."""
    try:
        _run(scenario, 0, _Memory())
    except KsimError as error:
        return str(error)
    return "it can be run"


Change = Callable[[Scenario], Scenario]


def _changes(draft: Draft) -> Iterator[Change]:
    """What is in doubt, the longest first; then steps a little earlier, later, or not at all."""
    for more in sorted(draft.doubtful, key=lambda each: not isinstance(each, StepSpec)):
        yield partial(_with, more)
    for step in draft.scenario.steps:
        yield partial(_instead, step, ())
        for by_ms in NUDGES_MS if step.do in NUDGED else ():
            moved = replace(step, at_ms=max(0, (step.at_ms or 0) + by_ms))
            yield partial(_instead, step, (moved,))
    for fault in draft.scenario.faults:
        yield partial(_without, fault)


def _with(more: FaultSpec | StepSpec, scenario: Scenario) -> Scenario:
    if isinstance(more, FaultSpec):
        return replace(scenario, faults=(*scenario.faults, more))
    return _instead(None, (more,), scenario)


def _instead(step: StepSpec | None, others: tuple[StepSpec, ...], scenario: Scenario) -> Scenario:
    """These in place of that step; nothing changes where it is not there any more."""
    if step is not None and step not in scenario.steps:
        return scenario
    left = [each for each in scenario.steps if each is not step and each != step]
    steps = sorted([*left, *others], key=lambda each: each.at_ms or 0)
    return replace(scenario, steps=tuple(steps))


def _without(fault: FaultSpec, scenario: Scenario) -> Scenario:
    return replace(scenario, faults=tuple(each for each in scenario.faults if each != fault))


class _Member:
    """Keeps what one life of a member does, as a recording would."""

    def __init__(self, name: str, state: MemberState) -> None:
        self.name = name
        self._state = state
        self._steps: list[Step] = []

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._steps.append(Step(now_ms, fact, tuple(orders)))

    def life(self) -> Life:
        return life_from(self.name, Path(self.name), {}, self._state, tuple(self._steps))


class _Memory:
    """Recordings that are never written."""

    def __init__(self) -> None:
        self.members: list[_Member] = []

    def __call__(self, name: str, config: Config, snapshot: Callable[[], Plain]) -> _Member:
        del config
        state = value_of(snapshot())
        assert isinstance(state, MemberState), snapshot
        self.members.append(_Member(name, state))
        return self.members[-1]


def _run(
    scenario: Scenario, seed: int, memory: _Memory, most_events: int = DEFAULT_MAX_EVENTS
) -> None:
    check_run(scenario.name, parse(dump(scenario), scenario.name))
    run(replace(scenario, max_events=most_events), seed, recorder=memory)


def played(
    scenario: Scenario, seed: int = 0, most_events: int = DEFAULT_MAX_EVENTS
) -> Story | None:
    """What its members record until it heals or `most_events` are spent; None: it cannot be run."""
    memory = _Memory()
    try:
        _run(scenario, seed, memory, most_events)
    except KsimError:
        return None
    lives = [member.life() for member in memory.members]
    clocks = align(lives, one_clock=True)
    return story_of(lives, clocks, {life.name: life.name for life in lives}, scenario.until_ms)
