"""A scenario in one sentence."""

from __future__ import annotations

from dataclasses import replace

from ksim.fuzz.swarm import draw_scenario
from ksim.scenario import FaultSpec, GroupSpec, Scenario, StepSpec, TopicSpec, parse
from ksim.scenario_sentence import describe

PLAIN = Scenario(
    "plain",
    until_ms=10_000,
    topics=(TopicSpec("orders", 1),),
    groups=(GroupSpec("g", ("orders",), 2),),
)


def test_the_sentence_of_the_docs() -> None:
    late = FaultSpec("response", "Heartbeat", "g-1", 1, "delay", for_ms=30_000)
    wanted = "two members, one partition, one heartbeat answer delayed past the session"
    assert describe(replace(PLAIN, faults=(late,))) == wanted


def test_equal_faults_are_counted() -> None:
    lost = FaultSpec("request", "OffsetCommit", None, 1, "drop")
    refused = replace(lost, do="error", error="NOT_COORDINATOR")
    found = describe(replace(PLAIN, faults=(lost, replace(lost, nth=3), refused)))
    assert found.endswith(", two commits lost, one commit refused with NOT_COORDINATOR")


def test_a_delay_says_what_it_outlasts() -> None:
    short = FaultSpec("request", "SyncGroup", None, 1, "delay", for_ms=500)
    assert describe(replace(PLAIN, faults=(short,))).endswith("one sync delayed by 500ms")
    hasty = (replace(PLAIN.groups[0], rebalance_timeout_ms=500),)
    found = describe(replace(PLAIN, groups=hasty, faults=(short,)))
    assert found.endswith("one sync delayed past the rebalance timeout")


def test_steps_and_ways_are_told() -> None:
    text = """
        name = "told"
        until = "20s"
        [cluster]
        brokers = 2
        [topics.orders]
        partitions = 12
        [topics.payments]
        partitions = 1
        [[group]]
        id = "g"
        topics = ["orders"]
        acknowledge = "each"
        workers = 3
        [[group]]
        id = "h"
        topics = ["payments"]
        handler_cost = "1s..2s"
        [[step]]
        at = "1s"
        do = "partition"
        target = "g-1"
        peer = "coordinator"
        for = "2s"
        [[step]]
        on = { response = "JoinGroup", nth = 2, member = "h-1" }
        after = "5ms"
        do = "seek"
        target = "h-1"
        offset = 5
        """
    assert describe(parse(text, "told")) == (
        "one member of g, one member of h, 13 partitions of two topics, two brokers, "
        "three workers each, handlers of up to 2s, g-1 is cut off from its coordinator for 2s, "
        "h-1 seeks to 5 5ms behind the second join answer of h-1"
    )


def test_whatever_a_swarm_draws_has_a_sentence() -> None:
    for seed in range(200):
        assert "partition" in describe(draw_scenario(seed))


def test_steps_of_the_same_kind_stand_apart() -> None:
    both = (StepSpec(1_000, "crash", "g-1"), StepSpec(2_000, "crash", "g-2", for_ms=1_000))
    assert describe(replace(PLAIN, steps=both)).endswith("g-1 crashes, g-2 crashes for 1s")
