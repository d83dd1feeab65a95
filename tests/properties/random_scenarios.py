"""Scenarios drawn from a seed: a small cluster, and much that goes wrong in it."""

from __future__ import annotations

from random import Random

from ksim.scenario import (
    REQUESTS,
    ClusterSpec,
    FaultSpec,
    GroupSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
)

UNTIL_MS = 70_000
STEPS = (
    "crash",
    "stop",
    "pause",
    "restart",
    "partition",
    "hold",
    "start",
    "move_coordinator",
    "add_partitions",
    "broker crash",
    "broker pause",
)
GROUP_REQUESTS = ("JoinGroup", "SyncGroup", "Heartbeat", "OffsetCommit")
ERRORS = (
    "NOT_COORDINATOR",
    "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "REBALANCE_IN_PROGRESS",
    "UNKNOWN_MEMBER_ID",
    "ILLEGAL_GENERATION",
)


def random_scenario(seed: int) -> Scenario:
    """One scenario; the same for the same seed."""
    draw = Random(seed)
    group = _group(draw)
    brokers = draw.choice([1, 3])
    members = [group.member(number) for number in range(1, group.members + 1)]
    newcomer = group.member(group.members + 1)
    return Scenario(
        name=f"random {seed}",
        until_ms=UNTIL_MS,
        cluster=ClusterSpec(
            brokers,
            draw.choice([0, 3_000]),
            (1, draw.choice([2, 20, 100])),
            draw.choice([0.0, 0.0, 0.02]),
        ),
        topics=(TopicSpec("orders", draw.randint(1, 6)),),
        groups=(group,),
        produce=(ProduceSpec("orders", 10, 500),),
        steps=tuple(_step(draw, members, newcomer, brokers) for _ in range(draw.randint(1, 6))),
        faults=tuple(_fault(draw, members) for _ in range(draw.randint(0, 3))),
    )


def _group(draw: Random) -> GroupSpec:
    return GroupSpec(
        id="g",
        topics=("orders",),
        members=draw.randint(1, 4),
        assignor=draw.choice(["range", "roundrobin"]),
        session_timeout_ms=draw.choice([6_000, 10_000, 30_000]),
        heartbeat_interval_ms=draw.choice([1_000, 3_000]),
        rebalance_timeout_ms=draw.choice([None, 8_000]),
        max_poll_interval_ms=draw.choice([300_000, 20_000]),
        commit_interval_ms=draw.choice([200, 1_000]),
        dwell_time_ms=draw.choice([None, 500]),
        handler_cost_ms=draw.choice([(0, 0), (1, 5), (10, 800)]),
        start_every_ms=draw.choice([0, 3_000]),
    )


def _step(draw: Random, members: list[str], newcomer: str, brokers: int) -> StepSpec:
    do = draw.choice(STEPS)
    at_ms = draw.randint(1_000, 60_999)
    for_ms = draw.choice([None, 1_000, 5_000, 15_000, 25_000])
    target = draw.choice(members)
    if do == "start":
        return StepSpec(at_ms, do, newcomer)
    if do == "move_coordinator":
        return StepSpec(at_ms, do, "g")
    if do == "add_partitions":
        return StepSpec(at_ms, do, "orders", count=1)
    if do.startswith("broker "):
        node = f"broker-{draw.randint(1, brokers)}"
        return StepSpec(at_ms, do.removeprefix("broker "), node, for_ms=for_ms or 4_000)
    peer = draw.choice([None, "coordinator"]) if do in ("partition", "hold") else None
    return StepSpec(at_ms, do, target, peer=peer, for_ms=for_ms)


def _fault(draw: Random, members: list[str]) -> FaultSpec:
    do = draw.choice(["drop", "delay", "duplicate", "error", "crash"])
    return FaultSpec(
        direction=draw.choice(["request", "response"]),
        kind=draw.choice(GROUP_REQUESTS if do == "error" else REQUESTS),
        member=draw.choice([None, *members]),
        nth=draw.randint(1, 4),
        do=do,
        error=draw.choice(ERRORS) if do == "error" else None,
        for_ms=draw.choice([100, 3_000]) if do == "delay" else 0,
    )
