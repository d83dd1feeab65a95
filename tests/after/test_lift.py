"""What is read from recordings for a scenario: members, names, pauses, load and surroundings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksim.after.cast import Part, cast_of, groups_of
from ksim.after.clocks import align
from ksim.after.lift import draft_of
from ksim.after.lives import Life
from ksim.after.story import Generation, Story, distance, first_apart
from ksim.after.surroundings import cluster_of, handler_cost_ms, load_of, topics_of
from ksim.scenario import Scenario, parse
from tests.after.recorded import recorded

BASE = """
name = "base"
until = "40s"
[cluster]
brokers = 2
initial_rebalance_delay = "{delay}"
[topics.orders]
partitions = 4
[[group]]
id = "g"
topics = ["orders"]
members = 2
session_timeout = "6s"
heartbeat_interval = "1s"
handler_cost = "{cost}"
metadata_max_age = "{age}"
[[produce]]
topic = "orders"
per_second = 20
count = 600
{more}
"""
Make = Callable[..., list[Part]]


@pytest.fixture
def cast(tmp_path: Path) -> Make:
    def make(more: str = "", delay: str = "0ms", cost: str = "20ms", age: str = "5m") -> list[Part]:
        text = BASE.format(more=more, delay=delay, cost=cost, age=age)
        result, lives = recorded(parse(text, "base"), tmp_path)
        assert result.verdict == "pass"
        return cast_of(lives, align(lives))

    return make


def steps(cast: list[Part]) -> list[tuple[str, str, int]]:
    """What is done to whom, in whole seconds."""
    found = draft_of(cast, "x").scenario.steps
    return [(step.do, step.target, round((step.at_ms or 0) / 1000)) for step in found]


def step(do: str, target: str, at: str, more: str = "") -> str:
    return f'[[step]]\nat = "{at}"\ndo = "{do}"\ntarget = "{target}"\n{more}\n'


def test_a_quiet_group_is_lifted_without_steps(cast: Make) -> None:
    found = cast()
    assert steps(found) == []
    assert [part.label for part in found] == ["g-1", "g-2"]
    (group,) = groups_of(found)
    assert (group.members, group.session_timeout_ms, group.heartbeat_interval_ms) == (2, 6000, 1000)


def test_lives_become_starts_stops_and_crashes(cast: Make) -> None:
    more = step("crash", "g-2", "10s", 'for = "5s"')
    more += step("start", "g-3", "20s") + step("stop", "g-1", "30s")
    found = cast(more)
    assert [part.label for part in found] == ["g-1", "g-2", "g-2.2", "g-3"]
    assert steps(found) == [
        ("crash", "g-2", 10),
        ("start", "g-2", 15),
        ("start", "g-3", 20),
        ("stop", "g-1", 30),
    ]


def test_a_process_that_stood_still_is_paused(cast: Make) -> None:
    found = cast(step("pause", "g-2", "10s", 'for = "8s"'))
    (paused,) = [s for s in draft_of(found, "x").scenario.steps if s.do == "pause"]
    assert paused.target == "g-2"
    assert paused.at_ms is not None
    assert paused.for_ms is not None
    assert 9_000 <= paused.at_ms <= 10_001
    assert 17_900 <= paused.at_ms + paused.for_ms <= 18_100


def test_topics_that_grow_grow_again(cast: Make) -> None:
    found = cast(step("add_partitions", "orders", "10s", "count = 2"), age="5s")
    topics, grown = topics_of(found)
    assert [(topic.name, topic.partitions) for topic in topics] == [("orders", 4)]
    assert [(each.do, each.target, each.count) for each in grown] == [
        ("add_partitions", "orders", 2)
    ]
    # It is known to have happened before somebody asked, and after the answer before.
    assert 10_000 <= (grown[0].at_ms or 0) <= 15_100


@pytest.mark.parametrize("delay_ms", [0, 2_000, 3_000])
def test_the_first_round_tells_the_initial_delay(cast: Make, delay_ms: int) -> None:
    assert cluster_of(cast(delay=f"{delay_ms}ms")).initial_rebalance_delay_ms == delay_ms


def test_the_cost_of_a_record_is_seen_by_how_long_the_application_is_busy(cast: Make) -> None:
    assert 18 <= handler_cost_ms(cast(cost="20ms")) <= 24


def test_the_load_ends_where_the_logs_ended(cast: Make) -> None:
    found = cast()
    topics, _ = topics_of(found)
    (produce,) = load_of(found, topics)
    assert produce.count == 600
    assert 18 <= produce.per_second <= 22
    assert produce.start_ms < 2_000


def test_members_of_foreign_names_are_numbered_as_assignors_sort_them(cast: Make) -> None:
    from dataclasses import replace

    def renamed(life: Life, client_id: str) -> Life:
        config: dict[str, Any] = {**life.header["config"], "client_id": client_id}
        return replace(life, name=client_id, header={**life.header, "config": config})

    lives = [
        renamed(part.life, client_id)
        for part, client_id in zip(cast(), ("worker-b", "worker-a"), strict=True)
    ]
    found = cast_of(lives, align(lives))
    # Their member ids still begin with g-1 and g-2, and these are what counts.
    assert {part.life.name: part.name for part in found} == {"worker-b": "g-1", "worker-a": "g-2"}


# Stories


def story(*numbers: int, refusals: tuple[str, ...] = ()) -> Story:
    generations = tuple(Generation("g", number, (("g-1", ("orders-0",)),)) for number in numbers)
    return Story(generations, {"Heartbeat of g-1": refusals} if refusals else {})


def test_stories_are_as_far_apart_as_what_one_has_alone() -> None:
    assert distance(story(1, 2), story(1, 2)) == (0, 0)
    assert distance(story(1, 2, 3), story(1, 3)) == (1, 0)
    assert distance(story(1), story(2)) == (2, 0)
    assert distance(story(1, refusals=("A", "B")), story(1, refusals=("A",))) == (0, 1)
    assert distance(story(1, refusals=("A",)), story(1)) == (0, 1)


def test_the_first_difference_is_told() -> None:
    assert first_apart(story(1), story(1)) == "nothing"
    told = first_apart(story(1, 2), story(1))
    assert told == "recorded generation 2 of g (g-1: orders-0), simulated nothing"
    told = first_apart(story(1, refusals=("A",)), story(1, refusals=("B",)))
    assert told == "refusal 1 of Heartbeat of g-1: recorded A, simulated B"


def test_a_draft_is_a_scenario(cast: Make) -> None:
    assert isinstance(draft_of(cast(), "x").scenario, Scenario)
