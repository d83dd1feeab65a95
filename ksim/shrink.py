"""The smallest scenario that still fails the same check, in the terms of scenarios.

Each pass proposes simpler scenarios: without a step, a fault, a group, a member; with fewer
partitions, records and brokers; with rounder times and usual settings. The first one that still
fails is taken, and the search begins anew from there, until nothing simpler fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ksim.scenario import ClusterSpec, GroupSpec, Scenario, StepSpec, dump, parse
from ksim.scenario_table import ScenarioError

MOST_RUNS: Final = 500
ROUND_MS: Final = (10_000, 1_000, 100)
TAIL_MS: Final = 1_000
KEPT: Final = ("id", "topics", "members")
Fails = Callable[[Scenario], bool]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What was found, after how many runs."""

    scenario: Scenario
    runs: int


def shrink(scenario: Scenario, fails: Fails, most_runs: int = MOST_RUNS) -> Shrunk:
    """The simplest that `fails`, of those that were tried; `scenario` itself must."""
    runs = 0
    tried = {scenario}
    found = scenario
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(found):
            if candidate in tried or not _is_valid(candidate):
                continue
            if runs >= most_runs:
                return Shrunk(found, runs)
            tried.add(candidate)
            runs += 1
            if fails(candidate):
                found = candidate
                improved = True
                break
    return Shrunk(found, runs)


def _is_valid(scenario: Scenario) -> bool:
    """Whether a file could say this."""
    try:
        return parse(dump(scenario), "shrunk") == scenario
    except ScenarioError:
        return False


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Simpler ones, the boldest first."""
    for propose in PASSES:
        yield from propose(scenario)


def _without(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Without all, without either half, without each."""
    if not items:
        return
    yield ()
    if len(items) > 2:
        half = len(items) // 2
        yield items[half:]
        yield items[:half]
    if len(items) > 1:
        for at in range(len(items)):
            yield (*items[:at], *items[at + 1 :])


def _whole(scenario: Scenario) -> Iterator[Scenario]:
    """All are healed, not only a core."""
    if scenario.core:
        yield replace(scenario, core=())


def _fewer_steps(scenario: Scenario) -> Iterator[Scenario]:
    for steps in _without(scenario.steps):
        yield replace(scenario, steps=steps)


def _fewer_faults(scenario: Scenario) -> Iterator[Scenario]:
    for faults in _without(scenario.faults):
        yield replace(scenario, faults=faults)


def _fewer_groups(scenario: Scenario) -> Iterator[Scenario]:
    for groups in _without(scenario.groups):
        if groups:
            yield _without_strangers(replace(scenario, groups=groups))


def _fewer_topics(scenario: Scenario) -> Iterator[Scenario]:
    for topics in _without(scenario.topics):
        names = [topic.name for topic in topics]
        groups = tuple(
            replace(g, topics=tuple(name for name in g.topics if name in names))
            for g in scenario.groups
        )
        if topics and all(group.topics for group in groups):
            produce = tuple(item for item in scenario.produce if item.topic in names)
            steps = tuple(
                step
                for step in scenario.steps
                if step.do != "add_partitions" or step.target in names
            )
            yield replace(scenario, topics=topics, groups=groups, produce=produce, steps=steps)


def _fewer_members(scenario: Scenario) -> Iterator[Scenario]:
    for at, group in enumerate(scenario.groups):
        for members in sorted({1, group.members // 2, group.members - 1} - {0, group.members}):
            groups = _put(scenario.groups, at, replace(group, members=members))
            yield _without_strangers(replace(scenario, groups=groups))


def _without_strangers(scenario: Scenario) -> Scenario:
    """Without the steps and faults of members that are not there any more."""
    names = [g.member(n) for g in scenario.groups for n in range(1, g.members + 1)]
    groups = [group.id for group in scenario.groups]

    def is_known(step: StepSpec) -> bool:
        of_group = step.do == "move_coordinator"
        others = step.target.startswith("broker-") or step.do in ("start", "add_partitions")
        return step.target in groups if of_group else others or step.target in names

    return replace(
        scenario,
        steps=tuple(step for step in scenario.steps if is_known(step)),
        faults=tuple(f for f in scenario.faults if f.member is None or f.member in names),
        core=tuple(name for name in scenario.core if name in names or name.startswith("broker-")),
    )


def _fewer_partitions(scenario: Scenario) -> Iterator[Scenario]:
    for at, topic in enumerate(scenario.topics):
        for count in sorted({1, topic.partitions // 2, topic.partitions - 1} - {0}):
            if count < topic.partitions:
                topics = _put(scenario.topics, at, replace(topic, partitions=count))
                yield replace(scenario, topics=topics)


def _fewer_records(scenario: Scenario) -> Iterator[Scenario]:
    for at, item in enumerate(scenario.produce):
        for count in sorted({1, item.count // 4, item.count // 2, item.count * 9 // 10} - {0}):
            if count < item.count:
                produce = _put(scenario.produce, at, replace(item, count=count))
                yield replace(scenario, produce=produce)


def _fewer_brokers(scenario: Scenario) -> Iterator[Scenario]:
    for brokers in range(1, scenario.cluster.brokers):
        gone = {f"broker-{n}" for n in range(brokers + 1, scenario.cluster.brokers + 1)}
        core = tuple(name for name in scenario.core if name not in gone)
        cluster = replace(scenario.cluster, brokers=brokers)
        yield replace(scenario, cluster=cluster, core=core)


def _shorter(scenario: Scenario) -> Iterator[Scenario]:
    last_ms = max((step.at_ms or 0 for step in scenario.steps), default=0) + TAIL_MS
    for until_ms in sorted({last_ms, scenario.until_ms // 2, scenario.until_ms * 3 // 4}):
        if last_ms <= until_ms < scenario.until_ms:
            yield replace(scenario, until_ms=until_ms)


def _rounder(scenario: Scenario) -> Iterator[Scenario]:
    for at, step in enumerate(scenario.steps):
        for unit_ms in ROUND_MS:
            for name in ("at_ms", "for_ms"):
                before = getattr(step, name)
                rounded = None if before is None else before // unit_ms * unit_ms
                if rounded and rounded != before:
                    changed = replace(step, **{name: rounded})
                    yield replace(scenario, steps=_put(scenario.steps, at, changed))
        first = _first_of_its_kind(scenario, step.target)
        if first != step.target:
            yield replace(scenario, steps=_put(scenario.steps, at, replace(step, target=first)))
    for at, fault in enumerate(scenario.faults):
        for changed_fault in (replace(fault, nth=1), replace(fault, keep=False)):
            if changed_fault != fault:
                yield replace(scenario, faults=_put(scenario.faults, at, changed_fault))


def _first_of_its_kind(scenario: Scenario, target: str) -> str:
    """The first broker for a broker, the first member of its group for a member."""
    if target.startswith("broker-"):
        return "broker-1"
    firsts = [g.member(1) for g in scenario.groups if target.rpartition("-")[0] == g.id]
    return firsts[0] if firsts else target


def _usual(scenario: Scenario) -> Iterator[Scenario]:
    """Settings that do not matter go back to what they usually are."""
    usual = ClusterSpec()
    for name in (each.name for each in fields(ClusterSpec)):
        if name != "brokers" and getattr(scenario.cluster, name) != getattr(usual, name):
            cluster = replace(scenario.cluster, **{name: getattr(usual, name)})
            yield replace(scenario, cluster=cluster)
    for at, item in enumerate(scenario.produce):
        if item.start_ms:
            # A load that begins at once, and ends when it did.
            more = item.count + item.per_second * item.start_ms // 1_000
            at_once = replace(item, start_ms=0, count=more)
            yield replace(scenario, produce=_put(scenario.produce, at, at_once))
    for at, group in enumerate(scenario.groups):
        plain = GroupSpec(group.id, group.topics)
        for name in (each.name for each in fields(GroupSpec) if each.name not in KEPT):
            if getattr(group, name) != getattr(plain, name):
                changed = replace(group, **{name: getattr(plain, name)})
                yield replace(scenario, groups=_put(scenario.groups, at, changed))


def _put(items: tuple[Any, ...], at: int, item: Any) -> tuple[Any, ...]:
    return (*items[:at], item, *items[at + 1 :])


PASSES: Final[tuple[Callable[[Scenario], Iterator[Scenario]], ...]] = (
    _whole, _fewer_steps, _fewer_faults, _fewer_groups, _fewer_topics, _fewer_members,
    _fewer_partitions, _fewer_records, _fewer_brokers, _shorter, _rounder, _usual,
)  # fmt: skip
