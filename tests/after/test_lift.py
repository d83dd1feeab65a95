"""What is read from recordings for a scenario: members, names, pauses, load and surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksim.after.cast import Part, cast_of, groups_of
from ksim.after.clocks import align
from ksim.after.lift import LONGEST_MS, draft_of
from ksim.after.lives import Life
from ksim.after.story import Generation, Story, distance, first_apart
from ksim.after.surroundings import (
    MOST_RECORDS,
    cluster_of,
    handler_cost_ms,
    load_of,
    topics_of,
)
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import ConfigError
from ksim.scenario import Scenario, dump, parse
from ksim.scenario_check import check_run
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


def further(part: Part, fetched: int, ends: int) -> Part:
    """The same life, of logs that are longer by so much where it fetches, and at their ends."""

    def order_of(order: Any) -> Any:
        if not (isinstance(order, e.SendRequest) and isinstance(order.request, m.FetchRequest)):
            return order
        asked = order.request.partitions
        moved = tuple(replace(each, fetch_offset=each.fetch_offset + fetched) for each in asked)
        return replace(order, request=replace(order.request, partitions=moved))

    def fact_of(fact: Any) -> Any:
        if not (
            isinstance(fact, e.ResponseReceived) and isinstance(fact.response, m.FetchResponse)
        ):
            return fact
        found = fact.response.partitions
        moved = tuple(replace(each, high_watermark=each.high_watermark + ends) for each in found)
        return replace(fact, response=replace(fact.response, partitions=moved))

    steps = tuple(
        replace(each, fact=fact_of(each.fact), orders=tuple(map(order_of, each.orders)))
        for each in part.life.steps
    )
    return replace(part, life=replace(part.life, steps=steps))


@pytest.mark.parametrize(
    ("fetched", "ends", "count"),
    [(10**9, 10**9, 600), (0, 10**9, MOST_RECORDS), (0, 10, 640)],
)
def test_of_a_long_log_what_came_while_somebody_looked_is_produced_and_never_too_much(
    cast: Make, fetched: int, ends: int, count: int
) -> None:
    found = [further(part, fetched, ends) for part in cast()]
    (produce,) = load_of(found, topics_of(found)[0])
    assert produce.count == count
    assert produce.per_second <= MOST_RECORDS


def test_what_lasted_for_longer_than_anybody_looks_is_refused(cast: Make) -> None:
    found = cast()
    late = replace(found[0].life.steps[-1], at_ms=LONGEST_MS + 90_000_000)
    life = replace(found[0].life, steps=(*found[0].life.steps, late))
    with pytest.raises(ConfigError, match="x: 8 days are too long to be lifted: 7 days"):
        draft_of([replace(found[0], life=life, end_ms=late.at_ms), found[1]], "x")


def test_members_of_foreign_names_are_numbered_as_assignors_sort_them(cast: Make) -> None:
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


@pytest.mark.parametrize(
    "others",
    [
        [{"topics": [], "topics_whitelist": "or.*"}, {}],
        [{}, {"topics": [], "topics_whitelist": "or.*"}],
        [{"topics_whitelist": "or.*"}, {"topics_whitelist": "or.*", "topics_blacklist": "x"}],
        [{"partition_strategy": ["range", "roundrobin"]}, {"partition_strategy": "range"}],
        [{"dwell_time_ms": 700}, {"dwell_time_ms": None}],
    ],
)
def test_what_one_member_has_not_is_no_part_of_its_group(
    cast: Make, others: list[dict[str, Any]]
) -> None:
    parts: list[Part] = []
    for part, other in zip(cast(), others, strict=True):
        header = part.life.header
        header = {**header, "config": {**header["config"], **other}}
        parts.append(replace(part, life=replace(part.life, header=header)))
    draft = draft_of(parts, "x").scenario
    (group,) = parse(dump(draft), "x").groups
    for part in parts:
        (alone,) = groups_of([part])
        here = group.of(part.name)
        for name in ("topics", "topics_whitelist", "topics_blacklist", "dwell_time_ms"):
            assert getattr(here, name) == getattr(alone, name)
        assert (here.assignors or (here.assignor,)) == (alone.assignors or (alone.assignor,))


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


def test_a_close_in_the_last_instant_is_left_out(cast: Make) -> None:
    found = cast()
    until_ms = max(part.end_ms for part in found)
    first = found[0]
    for early_ms, stops in ((0, 0), (1, 1)):
        at_ms = until_ms - early_ms - first.shift_ms
        close = replace(first.life.steps[-1], at_ms=at_ms, fact=e.CloseRequested(1_000, True))
        life = replace(first.life, steps=(*first.life.steps[:-1], close))
        scenario = draft_of([replace(first, life=life), found[1]], "x").scenario
        check_run("x", scenario)
        assert sum(step.do == "stop" for step in scenario.steps) == stops
