"""Sweeps: which points a file has, in which order, and what each of them is."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.core.errors import ConfigError
from ksim.scenario import Scenario, dump, parse
from ksim.sim.runner import run
from ksim.sim.sweep import count_events, sweep
from ksim.sim.triggers import EventRule, Triggers
from tests.sim.test_runner import BASE, Watch

FAULT = """
[[fault]]
on = { request = "Heartbeat", member = "g-2", nth = 1 }
do = "drop"
"""


def varied(vary: str, more: str = FAULT) -> Scenario:
    return parse(f"{BASE}{more}[vary]\n{vary}\n", "test")


def values(scenario: Scenario, seed: int = 1) -> list[tuple[object, ...]]:
    return [tuple(found for _, found in p.values) for p in sweep(scenario, seed).points()]


def test_lists_multiply_and_the_last_one_is_the_fastest() -> None:
    scenario = varied('"fault.0.on.nth" = [1, 3]\n"fault.0.do" = ["drop", "duplicate"]')
    assert values(scenario) == [(1, "drop"), (1, "duplicate"), (3, "drop"), (3, "duplicate")]
    last = sweep(scenario, 1).point(3)
    assert (last.scenario.faults[0].nth, last.scenario.faults[0].do) == (3, "duplicate")
    assert last.scenario.vary == ()
    assert str(last) == "fault.0.on.nth = 3, fault.0.do = duplicate"


def test_whole_tables_are_values_too() -> None:
    scenario = varied('"fault.0.on" = [{ request = "JoinGroup" }, { response = "SyncGroup" }]')
    found = [point.scenario.faults[0] for point in sweep(scenario, 1).points()]
    assert [(fault.direction, fault.kind) for fault in found] == [
        ("request", "JoinGroup"),
        ("response", "SyncGroup"),
    ]
    assert parse(dump(scenario), "dumped") == scenario


def test_ranges_are_drawn_from_the_seed_and_make_no_points() -> None:
    scenario = varied('"group.0.session_timeout" = "6s..12s"\n"topics.orders.partitions" = "2..9"')
    drawn = [values(scenario, seed) for seed in range(20)]
    assert all(len(points) == 1 for points in drawn)
    assert len({points[0] for points in drawn}) > 10
    assert drawn == [values(scenario, seed) for seed in range(20)]
    found = [sweep(scenario, seed).point(0).scenario for seed in range(20)]
    assert all(6_000 <= each.groups[0].session_timeout_ms <= 12_000 for each in found)
    assert all(2 <= each.topics[0].partitions <= 9 for each in found)


def test_each_counts_the_events_of_a_run_without_the_fault() -> None:
    scenario = varied('"fault.0.on.nth" = "each"')
    base = parse(BASE, "test")
    count = count_events(base, 1)["request", "Heartbeat", "g-2"]
    assert count > 20
    assert values(scenario) == [(nth,) for nth in range(1, count + 1)]


def test_each_is_innermost_and_counts_anew_for_each_kind() -> None:
    scenario = varied(
        '"fault.0.on.nth" = "each"\n"fault.0.on.request" = ["SyncGroup", "JoinGroup"]'
    )
    counts = count_events(parse(BASE, "test"), 1)
    syncs = counts["request", "SyncGroup", "g-2"]
    joins = counts["request", "JoinGroup", "g-2"]
    assert values(scenario) == [
        *(("SyncGroup", nth) for nth in range(1, syncs + 1)),
        *(("JoinGroup", nth) for nth in range(1, joins + 1)),
    ]


def test_two_eaches_multiply() -> None:
    again = '[[fault]]\non = { response = "SyncGroup", member = "g-1" }\ndo = "drop"\n'
    scenario = varied('"fault.0.on.nth" = "each"\n"fault.1.on.nth" = "each"', FAULT + again)
    counts = count_events(parse(BASE, "test"), 1)
    beats, syncs = (
        counts["request", "Heartbeat", "g-2"],
        counts["response", "SyncGroup", "g-1"],
    )
    found = values(scenario)
    assert len(found) == beats * syncs
    assert found[:2] == ([(1, 1), (1, 2)] if syncs > 1 else [(1, 1), (2, 1)])


def test_samples_are_spread_evenly_and_keep_their_numbers() -> None:
    scenario = varied(f'"fault.0.on.nth" = {list(range(1, 101))}')
    whole = sweep(scenario, 1)
    numbers = [point.number for point in whole.points(10)]
    assert [number // 10 for number in numbers] == list(range(10))
    assert numbers == [point.number for point in sweep(scenario, 1).points(10)]
    assert numbers != [point.number for point in sweep(scenario, 2).points(10)]
    assert [point.number for point in whole.points(200)] == list(range(100))
    with pytest.raises(ConfigError, match="point 100: the sweep has 100 points"):
        whole.point(100)


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ('"fault.0.on.nth" = []', 'vary.fault.0.on.nth = []: must be a list, "each"'),
        ('"fault.0.on.nth" = "some"', "must be a list"),
        ('"fault.0.on.nth" = [1, "x"]', "fault[0].on.nth = 'x': must be a whole number"),
        ('"fault.3.on.nth" = [1]', "vary.fault.3.on.nth: there is no fault.3; valid: 0 to 0"),
        ('"fault.0.on.nht" = [1]', "fault[0].on.nht = 1: unknown key; nearest: 'nth'"),
        ('"group.0.members" = "each"', "only fault.N.on.nth and step.N.on.nth count"),
        ('"until" = "20s..10s"', "must be a list"),
        ('"group.0.members" = "1s..2s"', "must be a whole number"),
        ('"until.x" = [1]', "vary.until.x: until is no table"),
    ],
)
def test_a_mistake_is_one_line(vary: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        varied(vary)
    assert str(caught.value).startswith("test: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sweep_itself_cannot_be_run() -> None:
    with pytest.raises(ConfigError, match="is a sweep"):
        run(varied('"fault.0.on.nth" = [1]'), 1)


def test_a_step_waits_for_its_event() -> None:
    step = """
[[step]]
on = { request = "Heartbeat", member = "g-1", nth = 3 }
after = "7ms"
do = "crash"
target = "g-2"
"""
    watch = Watch()
    assert run(parse(BASE + step, "test"), 1, watches=[watch.see]).verdict == "pass"
    (struck_ms,) = [ms for _, ms, fact, _ in watch.steps if isinstance(fact, o.FaultStruck)]
    arrived = [
        now_ms
        for _, now_ms, fact, _ in watch.steps
        if type(getattr(fact, "request", None)).__name__ == "HeartbeatRequest"
        and fact.client_id == "g-1"
    ]
    assert struck_ms - arrived[2] == 7


def test_triggers_count_from_when_they_were_set() -> None:
    triggers = Triggers()
    seen: list[str] = []
    triggers.happened("request", "Fetch", "g-1")
    triggers.when(EventRule("request", "Fetch", None, 2), lambda: seen.append("second"))
    triggers.when(EventRule("request", "Fetch", "g-2", 0), lambda: seen.append("each of g-2"))
    triggers.when(EventRule("request", "Join", None, 1), lambda: seen.append("held"), held=True)
    for member in ("g-1", "g-2", "g-2"):
        triggers.happened("request", "Fetch", member)
    assert seen == ["second", "each of g-2", "each of g-2"]
    assert triggers.counts["request", "Fetch", "g-1"] == 2
    triggers.release()
    assert seen[-1] == "held"
    triggers.happened("request", "Fetch", "g-2")
    assert len(seen) == 4


def test_a_run_that_spends_its_events_says_what_was_going_on() -> None:
    found = run(parse(BASE.replace('until = "30s"', 'until = "30s"\nmax_events = 900'), "test"), 1)
    assert found.verdict == "liveness"
    assert found.checks["budget"] == "fail"
    (violation,) = [each for each in found.violations if each.check == "budget"]
    assert violation.sentence.startswith("max_events = 900 are spent at ")
    assert "g-1 waits for" in violation.sentence
    assert "last: " in violation.sentence
