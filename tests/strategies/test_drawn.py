"""What is drawn: scenarios that a file can say and a run can do, within bounds, for each seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from ksim.fuzz.kinds import ACTIONS, STEPS, WAYS
from ksim.scenario import (
    ClusterSpec,
    FaultSpec,
    GroupSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
    dump,
    parse,
)
from ksim.scenario_check import check_names, check_run, member_names
from ksim.seen import reads
from ksim.strategies import (
    clusters,
    faults,
    groups,
    loads,
    members,
    scenarios,
    steps,
    subscriptions,
    topics,
)
from ksim.strategies.parts import DRAWN_WAYS, PLAIN_WAYS

PLAIN = settings(max_examples=30, database=None, phases=[Phase.generate, Phase.shrink])
WIDE: dict[str, Any] = {
    "max_groups": 2,
    "max_topics": 3,
    "max_steps": 6,
    "max_faults": 4,
    "ways": WAYS,
    "max_ways": 4,
}


def test_every_way_of_a_swarm_can_be_drawn() -> None:
    assert set(WAYS) == {*PLAIN_WAYS, *DRAWN_WAYS}


@PLAIN
@given(scenarios(**WIDE))
def test_every_scenario_can_be_written_read_and_run(scenario: Scenario) -> None:
    assert parse(dump(scenario), "drawn") == scenario
    check_run("drawn", scenario)
    assert hash(scenario) == hash(parse(dump(scenario), "drawn"))


@PLAIN
@given(scenarios(min_members=2, max_members=3, max_partitions=2, max_duration="3s", max_records=5))
def test_bounds_hold(scenario: Scenario) -> None:
    assert all(2 <= group.members <= 3 for group in scenario.groups)
    assert all(topic.partitions <= 2 for topic in scenario.topics)
    assert len(scenario.steps) <= 3
    assert len(scenario.faults) <= 2
    assert scenario.until_ms == 3_000
    assert all((step.at_ms or 0) < 3_000 for step in scenario.steps)
    assert all(load.count <= 5 for load in scenario.produce)
    # Of each topic, also of one that a step makes.
    topics = [load.topic for load in scenario.produce]
    assert len(topics) == len(set(topics)) <= 2


@PLAIN
@given(scenarios(max_steps=0, max_faults=0))
def test_without_steps_and_faults_nothing_goes_wrong(scenario: Scenario) -> None:
    assert (scenario.steps, scenario.faults, scenario.cluster.loss) == ((), (), 0.0)
    assert scenario.cluster.group_max_size is None
    assert all(load.count <= load.per_second * 10 for load in scenario.produce)


def drawn(number: int) -> list[Scenario]:
    found: list[Scenario] = []

    @seed(number)
    @settings(max_examples=20, database=None)
    @given(scenarios())
    def collect(scenario: Scenario) -> None:
        found.append(scenario)

    collect()
    return found


def test_the_same_seed_draws_the_same() -> None:
    first = drawn(3)
    assert first == drawn(3)
    assert first != drawn(4)


def test_everything_that_can_be_named_occurs() -> None:
    """Of 800 faults and steps each kind, and of 800 groups each way."""
    counts: Counter[str] = Counter()

    @settings(max_examples=800, database=None, derandomize=True)
    @given(faults(), steps(brokers=2), groups(ways=WAYS, min_members=2))
    def count(fault: FaultSpec, step: StepSpec, group: GroupSpec) -> None:
        broker = step.target.startswith("broker-") or step.target == "coordinator"
        counts[f"{'broker ' if broker else ''}{step.do}"] += 1
        counts[fault.do] += 1
        plain = GroupSpec(group.id, group.topics)
        counts.update(
            name
            for name in GroupSpec.__dataclass_fields__
            if getattr(group, name) != getattr(plain, name)
        )

    count()
    fields = {"instance_ids", "acknowledge", "workers", "mode", "commit", "topics_whitelist"}
    fields |= {"handler_fails", "handler_hangs", "request_timeout_ms", "on_lost", "overrides"}
    wanted = {*STEPS, *(do for do in ACTIONS if do != "fatal error"), *fields, "assignors"}
    assert sorted(wanted - set(counts)) == []


@PLAIN
@given(st.data())
def test_parts_stand_alone(data: st.DataObject) -> None:
    there = data.draw(topics(names=("a", "b"), max_partitions=3))
    group = data.draw(groups(id="h", topics=[topic.name for topic in there], min_members=2))
    group = GroupSpec(**{**_fields(group), "overrides": (data.draw(members(group=group)),)})
    found = Scenario(
        "parts",
        until_ms=20_000,
        cluster=data.draw(clusters(min_brokers=2, max_brokers=2, full_groups=True)),
        topics=there,
        groups=(group,),
        produce=(data.draw(loads(topic=there[0].name)),),
    )
    names = member_names(found)
    found = Scenario(
        **{
            **_fields(found),
            "faults": (data.draw(faults(members=names)),),
            "steps": (data.draw(steps(members=names, topics=there, brokers=2, events=False)),),
        }
    )
    check_names("parts", found)
    assert parse(dump(found), "parts") == found


def _fields(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


@PLAIN
@given(subscriptions(topics=("orders", "payments")))
def test_every_subscription_reads_something(found: dict[str, Any]) -> None:
    group = GroupSpec("g", **found)
    assert any(reads(group, name) for name in ("orders", "payments"))


@settings(max_examples=10, database=None)
@given(...)
def test_types_are_known_to_hypothesis(
    scenario: Scenario,
    cluster: ClusterSpec,
    group: GroupSpec,
    fault: FaultSpec,
    step: StepSpec,
    load: ProduceSpec,
) -> None:
    check_run("drawn", scenario)
    assert cluster.brokers <= 3
    assert group.id == "g"
    assert (fault.do == "error") == (fault.error is not None)
    assert (step.at_ms is None) != (step.on is None)
    assert load.topic == TopicSpec("orders", 1).name
