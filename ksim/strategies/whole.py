"""Strategies for whole scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hypothesis import strategies as st

from ksim.fuzz.kinds import ACTIONS, NEW_TOPIC, STEPS, WAYS
from ksim.fuzz.swarm import without_refused
from ksim.scenario import (
    ClusterSpec,
    FaultSpec,
    GroupSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
)
from ksim.scenario_check import member_names
from ksim.seen import reads
from ksim.strategies.bounds import MOST_RECORDS, Duration, among, check_count, check_range, ms_of
from ksim.strategies.parts import (
    GROUPS,
    MOST_WAYS,
    TOPICS,
    USUAL_WAYS,
    clusters,
    groups,
    loads,
    topics,
)
from ksim.strategies.troubles import faults, steps

NAME: Final = "drawn"
UNIT_MS: Final = 5_000
LEAST_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class _Bounds:
    members: tuple[int, int]
    max_groups: int
    max_steps: int
    max_faults: int
    max_records: int
    max_ms: int
    steps: tuple[str, ...]
    faults: tuple[str, ...]
    ways: tuple[str, ...]
    max_ways: int


def scenarios(
    *,
    min_members: int = 1,
    max_members: int = 3,
    max_groups: int = 1,
    min_partitions: int = 1,
    max_partitions: int = 4,
    max_topics: int = 1,
    max_brokers: int = 2,
    max_steps: int = 3,
    max_faults: int = 2,
    max_records: int = 20,
    max_duration: Duration = "10s",
    step_kinds: Sequence[str] = STEPS,
    fault_kinds: Sequence[str] = ACTIONS,
    ways: Sequence[str] = USUAL_WAYS,
    max_ways: int = MOST_WAYS,
) -> st.SearchStrategy[Scenario]:
    """Scenarios as data, each of which can be run and written to a file; for `run`.

    Members and `max_ways` are of each group, partitions and `max_records` of each topic;
    `max_duration` is how long anything may go wrong, 1 s or more. Without steps and faults nothing
    does. The names of kinds and ways are those of `ksim.fuzz.kinds`.
    """
    check_range("members", min_members, max_members, 1)
    check_range("partitions", min_partitions, max_partitions, 1)
    for name, found, floor in (
        ("max_steps", max_steps, 0),
        ("max_faults", max_faults, 0),
        ("max_ways", max_ways, 0),
        ("max_brokers", max_brokers, 1),
    ):
        check_count(name, found, floor)
    check_count("max_records", max_records, 1, MOST_RECORDS)
    check_range("groups", 1, max_groups, 1)
    check_range("topics", 1, max_topics, 1)
    bounds = _Bounds(
        (min_members, max_members),
        max_groups,
        max_steps,
        max_faults,
        max_records,
        ms_of("max_duration", max_duration, LEAST_MS),
        among("step_kinds", step_kinds, STEPS, least=int(max_steps > 0)),
        among("fault_kinds", fault_kinds, ACTIONS, least=int(max_faults > 0)),
        among("ways", ways, WAYS, least=0),
        max_ways,
    )
    named = [*TOPICS, *(f"topic{number}" for number in range(len(TOPICS) + 1, max_topics + 1))]
    made = topics(
        names=named[:max_topics], min_partitions=min_partitions, max_partitions=max_partitions
    )
    troubled = max_steps + max_faults > 0
    loss = 0.02 if troubled else 0.0
    cluster = clusters(max_brokers=max_brokers, max_loss=loss, full_groups=troubled)
    return _scenarios(bounds, made, cluster)


@st.composite
def _scenarios(
    draw: st.DrawFn,
    bounds: _Bounds,
    made: st.SearchStrategy[tuple[TopicSpec, ...]],
    cluster: st.SearchStrategy[ClusterSpec],
) -> Scenario:
    there = draw(made)
    found = Scenario(
        NAME,
        until_ms=draw(_durations(bounds.max_ms)),
        cluster=draw(cluster),
        topics=there,
        groups=draw(_many_groups(bounds, [topic.name for topic in there])),
    )
    found = replace(found, steps=draw(_many_steps(bounds, found)))
    found = replace(found, faults=draw(_many_faults(bounds, found)))
    found = replace(found, produce=tuple(draw(each) for each in _loads(bounds, found)))
    return without_refused(found)


def _durations(max_ms: int) -> st.SearchStrategy[int]:
    if max_ms < UNIT_MS:
        return st.just(max_ms)
    return st.integers(1, max_ms // UNIT_MS).map(lambda units: units * UNIT_MS)


def _many_groups(bounds: _Bounds, known: list[str]) -> st.SearchStrategy[tuple[GroupSpec, ...]]:
    ids = [*GROUPS, *(f"group{number}" for number in range(len(GROUPS) + 1, bounds.max_groups + 1))]
    least, most = bounds.members
    each = [
        groups(
            id=name,
            topics=known,
            min_members=least,
            max_members=most,
            ways=bounds.ways,
            max_ways=bounds.max_ways,
        )
        for name in ids[: bounds.max_groups]
    ]
    return st.integers(1, len(each)).flatmap(lambda count: st.tuples(*each[:count]))


def _many_steps(bounds: _Bounds, found: Scenario) -> st.SearchStrategy[tuple[StepSpec, ...]]:
    if not bounds.max_steps:
        return st.just(())
    one = steps(
        members=member_names(found),
        groups=[group.id for group in found.groups],
        topics=found.topics,
        brokers=found.cluster.brokers,
        kinds=bounds.steps,
        max_at=found.until_ms - 1,
    )
    return st.lists(one, max_size=bounds.max_steps).map(_in_order)


def _in_order(found: list[StepSpec]) -> tuple[StepSpec, ...]:
    """By time, and without a second topic of one name."""
    made = [step for step in found if step.do == "create_topic"]
    kept = [step for step in found if step not in made[1:]]
    return tuple(sorted(kept, key=lambda step: step.at_ms or 0))


def _many_faults(bounds: _Bounds, found: Scenario) -> st.SearchStrategy[tuple[FaultSpec, ...]]:
    if not bounds.max_faults:
        return st.just(())
    one = faults(members=member_names(found), kinds=bounds.faults)
    return st.lists(one, max_size=bounds.max_faults).map(tuple)


def _loads(bounds: _Bounds, found: Scenario) -> Iterator[st.SearchStrategy[ProduceSpec]]:
    """For each topic that somebody reads, at whatever time it comes."""
    made = any(step.do == "create_topic" for step in found.steps)
    for name in [*(topic.name for topic in found.topics), *([NEW_TOPIC] if made else ())]:
        if any(reads(group, name) for group in found.groups):
            yield loads(topic=name, max_records=bounds.max_records, within=found.until_ms)
