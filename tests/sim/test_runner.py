"""Whole runs: repeatable, judged, and with real consumers that crash, pause and stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import Scenario, parse
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.members import SimMember
from ksim.sim.runner import Run, run

BASE = """
name = "x"
until = "30s"
[cluster]
initial_rebalance_delay = "0ms"
[topics.orders]
partitions = 4
[[group]]
id = "g"
topics = ["orders"]
members = 2
session_timeout = "6s"
heartbeat_interval = "1s"
handler_cost = "1ms"
[[produce]]
topic = "orders"
per_second = 50
count = 1400
"""


def scenario(more: str = "") -> Scenario:
    return parse(BASE + more, "test")


class Watch:
    """Keeps everything."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, Any, Sequence[Any]]] = []

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self.steps.append((source, now_ms, fact, orders))

    def facts(self, kind: type[Any]) -> list[Any]:
        return [fact for _, _, fact, _ in self.steps if isinstance(fact, kind)]

    def arrived(self, kind: type[Any], member: str) -> list[int]:
        """When requests of this kind came from this member."""
        return [
            now_ms
            for _, now_ms, fact, _ in self.steps
            if isinstance(fact, e.RequestArrived)
            and isinstance(fact.request, kind)
            and fact.client_id == member
        ]

    def orders(self, kind: type[Any], source: str) -> list[int]:
        return [
            now_ms
            for at, now_ms, _, orders in self.steps
            for order in orders
            if isinstance(order, kind) and at == source
        ]


def watched(text: str, seed: int = 1) -> Watch:
    watch = Watch()
    result = run(scenario(text), seed, watches=[watch.see])
    assert result.verdict == "pass", result.violations
    return watch


def test_a_seed_is_one_run_and_another_seed_another() -> None:
    digests = [run(scenario(), seed).digest for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_a_crashed_consumer_says_nothing_and_a_stopped_one_leaves() -> None:
    text = """
[[step]]
at = "10s"
do = "{}"
target = "g-2"
"""
    crashed = watched(text.format("crash"))
    assert not crashed.arrived(m.LeaveGroupRequest, "g-2")
    assert max(crashed.arrived(m.HeartbeatRequest, "g-2")) <= 10_010
    stopped = watched(text.format("stop"))
    assert len(stopped.arrived(m.LeaveGroupRequest, "g-2")) == 1


def test_a_paused_member_loses_its_partitions_before_it_hands_out_anything() -> None:
    watch = watched('[[step]]\nat = "10s"\ndo = "pause"\ntarget = "g-2"\nfor = "12s"\n')
    (lost_ms,) = watch.orders(e.LosePartitions, "g-2")
    assert lost_ms >= 22_000
    handed = [
        now_ms
        for _, now_ms, fact, _ in watch.steps
        if isinstance(fact, o.HandedOut) and fact.member == "g-2" and now_ms > 10_010
    ]
    assert min(handed) > lost_ms


def test_a_cut_member_stops_by_its_own_clock() -> None:
    watch = watched(
        '[[step]]\nat = "10s"\ndo = "partition"\ntarget = "g-2"\nfor = "15s"\n'
        'peer = "coordinator"\n'
    )
    assert 14_000 <= watch.orders(e.LosePartitions, "g-2")[0] <= 16_100


@pytest.mark.parametrize("do", ["drop", "duplicate", "crash", "delay", "error"])
@pytest.mark.parametrize("direction", ["request", "response"])
def test_faults_by_protocol_event_strike_once(do: str, direction: str) -> None:
    text = f"""
[[fault]]
on = {{ {direction} = "SyncGroup", member = "g-2", nth = 1 }}
do = "{do}"
{'error = "NOT_COORDINATOR"' if do == "error" else ""}
{'for = "2s"' if do == "delay" else ""}
"""
    watch = watched(text)
    (struck,) = watch.facts(o.FaultStruck)
    assert struck.name == f"{do} {direction} SyncGroup"
    crashed = [fact for fact in watch.facts(o.MemberLife) if fact.what == "crashed"]
    assert len(crashed) == (do == "crash")


def test_a_broker_crash_moves_leaders_and_coordinator() -> None:
    text = '[[step]]\nat = "10s"\ndo = "crash"\ntarget = "broker-1"\nfor = "5s"\n'
    several = BASE.replace("[cluster]", "[cluster]\nbrokers = 3")
    result = run(parse(several + text, "test"), 4)
    assert result.verdict == "pass", result.violations


def test_loss_and_added_partitions_are_lived_with() -> None:
    text = '[[step]]\nat = "10s"\ndo = "add_partitions"\ntarget = "orders"\ncount = 2\n'
    lossy = BASE.replace("[cluster]", "[cluster]\nloss = 0.02")
    result = run(parse(lossy + text, "test"), 4)
    assert result.verdict != "safety", result.violations


def test_dead_groups_are_started_again_by_healing() -> None:
    text = "".join(f'[[step]]\nat = "9s"\ndo = "crash"\ntarget = "g-{n}"\n' for n in (1, 2))
    watch = watched(text)
    assert [fact.members for fact in watch.facts(o.Healed)] == [("g-1",)]


@pytest.mark.parametrize("per_second", [5, 50])
def test_a_load_that_outlasts_the_run_is_waited_for(per_second: int) -> None:
    more = f'[[produce]]\ntopic = "orders"\nper_second = {per_second}\ncount = 2000\n'
    result = run(scenario(more), 0)
    assert (result.verdict, result.records) == ("pass", 3_400), result.violations
    assert result.simulated_ms >= 2_000 * 1_000 // per_second


def test_a_run_that_is_given_up_fails_nothing_that_had_time_still() -> None:
    spent = BASE.replace('until = "30s"', 'until = "20s"\nmax_events = 8500')
    result = run(parse(spent, "test"), 0)
    assert result.simulated_ms > 20_000
    assert [each.check for each in result.violations] == ["budget"]
    assert (result.checks["L1"], result.checks["L2"]) == ("not judged", "not judged")
    assert (result.verdict, result.checks["S1"]) == ("liveness", "pass")


def test_nothing_of_a_run_is_left_behind() -> None:
    made = Run(scenario(), 1)
    assert isinstance(made.cluster, SimCluster)
    made.go()
    for member in made.members.values():
        assert isinstance(member, SimMember)
        assert isinstance(member.driver, SimDriver)
        assert member.driver.ended
