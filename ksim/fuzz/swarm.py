"""Scenarios drawn from a seed, in the manner of TigerBeetle's swarm testing.

Each seed draws its own cluster, groups, timings and load, and then a random subset of the things
that can go wrong, with random weights: a run with three kinds of trouble, one of them frequent,
reaches what a run with all kinds at once never does. A quarter of the seeds have no trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final, TypeVar

from ksim.fuzz.kinds import ACTIONS, ERRORS, FATAL, NEW_TOPIC, STEPS, WAYS
from ksim.scenario import (
    REQUESTS,
    CallbackSpec,
    ClusterSpec,
    EventSpec,
    FaultSpec,
    GroupSpec,
    HandlerFailure,
    HandlerHang,
    MemberSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
)
from ksim.scenario_check import check_run, member_names
from ksim.scenario_table import ScenarioError

T = TypeVar("T")
QUIET_SHARE: Final = 0.25
WAY_SHARE: Final = 0.25
MOST_STEPS: Final = 10
MOST_FAULTS: Final = 5
MARGIN_MS: Final = 10_000
EVENT_SHARE: Final = 0.3
CORE_SHARE: Final = 0.3
REBALANCE_MS: Final = (None, None, 3_000, 15_000)
TRIPS_MS: Final = 1_000
# A backlog that takes a quarter of an hour shows nothing that one of a minute does not.
SLOW_MS: Final = 1_000
SLOW_RECORDS: Final = 50
GONE_MS: Final = (3_000, 8_000, None)


class Swarm:
    """A random part of some choices, each with a weight from 1 to 100; the others never come."""

    def __init__(self, draw: Random, names: Sequence[str]) -> None:
        self._draw = draw
        chosen = draw.sample(list(names), draw.randint(1, len(names)))
        self.weights = {name: draw.randint(1, 100) for name in sorted(chosen)}

    def pick(self) -> str:
        return self._draw.choices(list(self.weights), list(self.weights.values()))[0]


def draw_scenario(seed: int) -> Scenario:
    """The scenario of a seed; the same in every process."""
    return without_refused(_Drawing(seed).scenario())


def without_refused(scenario: Scenario) -> Scenario:
    """The scenario without the steps that no run of it can do."""
    found = scenario
    while refused := _first_refused(found):
        steps = tuple(step for at, step in enumerate(found.steps) if at != refused - 1)
        found = replace(found, steps=steps)
    return found


def _first_refused(scenario: Scenario) -> int:
    """The number, from 1, of the first step that no run can do, such as a truncation of nothing."""
    for at in range(len(scenario.steps)):
        try:
            check_run("drawn", replace(scenario, steps=scenario.steps[: at + 1]))
        except ScenarioError:
            return at + 1
    return 0


def _able_to_settle(group: GroupSpec) -> GroupSpec:
    """Who is told of a rebalance in `on_assigned` joins after `on_revoked`, and must be in time."""
    callbacks = (group.on_assigned, group.on_revoked, group.on_lost)
    slow_ms = sum(each.sleep_ms for each in callbacks if each is not None)
    slowest_ms = slow_ms + group.heartbeat_interval_ms + TRIPS_MS
    if not slow_ms or slowest_ms < (group.rebalance_timeout_ms or slowest_ms + 1):
        return group
    return replace(group, rebalance_timeout_ms=REBALANCE_MS[-1])


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draw = Random(f"ksim fuzz {seed}")
        self.brokers = self.draw.choice((1, 1, 2, 3, 5))
        self.until_ms = self.draw.choice((20_000, 30_000, 60_000))
        self.quiet = self.draw.random() < QUIET_SHARE
        self.topics = tuple(
            TopicSpec(f"t{number}", self.draw.choice((1, 2, 3, 4, 8)))
            for number in range(self.draw.choice((1, 1, 1, 2, 3)))
        )
        self.groups = tuple(self._group(name) for name in self.draw.choice((("g",), ("g", "h"))))

    def scenario(self) -> Scenario:
        draw = self.draw
        steps = () if self.quiet else self._steps()
        found = Scenario(
            name=f"fuzz {self.seed}",
            until_ms=self.until_ms,
            cluster=ClusterSpec(
                brokers=self.brokers,
                initial_rebalance_delay_ms=draw.choice((0, 100, 3_000)),
                latency_ms=draw.choice(((1, 1), (1, 5), (1, 20), (5, 100), (1, 400))),
                loss=0.0 if self.quiet else draw.choice((0.0, 0.0, 0.0, 0.005, 0.02)),
                group_max_size=None if self.quiet else draw.choice((*[None] * 9, 2, 4)),
            ),
            topics=self.topics,
            groups=self.groups,
            steps=steps,
            faults=() if self.quiet else self._faults(),
        )
        found = replace(found, produce=tuple(self._loads(found)))
        names = member_names(found)
        if self.quiet or draw.random() >= CORE_SHARE:
            return found
        return replace(found, core=self._core(names))

    def _loads(self, scenario: Scenario) -> Iterator[ProduceSpec]:
        """For each topic that somebody reads, at whatever time it comes."""
        names = [topic.name for topic in self.topics]
        made = [step.target for step in scenario.steps if step.do == "create_topic"]
        for name in dict.fromkeys([*names, *made]):
            if self._is_read(name):
                yield self._produce(name)

    def _core(self, names: Sequence[str]) -> tuple[str, ...]:
        """Some of the brokers, and some members of each group."""
        brokers = [f"broker-{number}" for number in range(1, self.brokers + 1)]
        found = self._some(brokers)
        for group in self.groups:
            found += self._some([name for name in names if name.rpartition("-")[0] == group.id])
        return tuple(found)

    def _some(self, names: Sequence[str]) -> list[str]:
        return sorted(self.draw.sample(list(names), self.draw.randint(1, len(names))))

    # Groups

    def _group(self, name: str) -> GroupSpec:
        draw = self.draw
        plain = self._plain_group(name)
        ways: dict[str, dict[str, Any]] = {
            "static": {"instance_ids": True},
            "each": {"acknowledge": "each"},
            "workers": {"acknowledge": "each", "workers": draw.randint(1, 4)},
            "partitions": {"mode": "partitions"},
            "commit each": {"commit": "each"},
            "callbacks": self._callbacks(),
            "patterns": {"topics": (), "topics_whitelist": "^t"},
            "two assignors": {"assignors": ("range", "roundrobin")},
            "slow handler": {"handler_cost_ms": (500, 3_000)},
            "failing handler": {"handler_fails": HandlerFailure(every=7, times=2)},
            "hanging handler": {"handler_hangs": self._hang()},
            "short requests": {"request_timeout_ms": draw.choice((1_000, 3_000, 10_000))},
            "short polls": {"poll_timeout_ms": draw.choice((100, 2_000))},
            "unlike members": {"overrides": self._unlike(plain)},
            "one instance twice": {"overrides": self._twins(plain)},
            "latest": {"auto_offset_reset": "latest"},
        }
        chosen = {way for way in Swarm(draw, WAYS).weights if draw.random() < WAY_SHARE}
        if "partitions" in chosen:
            chosen -= {"each", "workers"}
        if self.quiet:
            # Another process of an instance is a fault.
            chosen -= {"one instance twice"}
        for way in sorted(chosen):
            plain = replace(plain, **ways[way])
        return _able_to_settle(plain)

    def _callbacks(self) -> dict[str, Any]:
        """What an application may do where it is told of partitions."""
        draw = self.draw
        kinds = draw.sample(("on_assigned", "on_revoked", "on_lost"), draw.randint(1, 2))
        return {
            kind: CallbackSpec(
                draw.choice((0, 200, 2_000)),
                commit=draw.random() < 0.5,
                seek_back=draw.choice((0, 0, 3)) if kind == "on_assigned" else 0,
                raises=draw.random() < 0.2,
            )
            for kind in kinds
        }

    def _hang(self) -> HandlerHang:
        return HandlerHang(self.draw.randint(1, 30), self.draw.choice((3_000, 20_000)))

    def _unlike(self, group: GroupSpec) -> tuple[MemberSpec, ...]:
        """One that differs from its group; it may be the one that a step starts."""
        draw = self.draw
        session_ms = draw.choice((6_000, 20_000))
        return (
            MemberSpec(
                draw.randint(1, group.members),
                session_timeout_ms=session_ms,
                heartbeat_interval_ms=min(session_ms // 3, group.heartbeat_interval_ms),
                max_poll_interval_ms=draw.choice((None, 15_000)),
                commit_interval_ms=draw.choice((None, 100, 3_000)),
                handler_cost_ms=draw.choice((None, (0, 0), (10, 300))),
                handler_hangs=draw.choice((None, self._hang())),
                metadata_max_age_ms=draw.choice((None, 2_000)),
            ),
        )

    @staticmethod
    def _twins(group: GroupSpec) -> tuple[MemberSpec, ...]:
        """Two processes that share an instance id, where there are two."""
        numbers = (1, 2) if group.members > 1 else ()
        return tuple(MemberSpec(number, instance_id=f"{group.id}-both") for number in numbers)

    def _plain_group(self, name: str) -> GroupSpec:
        draw = self.draw
        topics = [topic.name for topic in self.topics]
        session_ms = draw.choice((6_000, 6_000, 10_000, 30_000))
        rebalance_ms = draw.choice(REBALANCE_MS)
        slowest_ms = min(session_ms, rebalance_ms or session_ms) // 3
        return GroupSpec(
            id=name,
            topics=tuple(sorted(draw.sample(topics, draw.randint(1, len(topics))))),
            members=draw.choice((1, 2, 2, 3, 3, 4, 6)),
            assignor=draw.choice(("range", "roundrobin")),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=draw.choice((min(500, slowest_ms), slowest_ms)),
            rebalance_timeout_ms=rebalance_ms,
            max_poll_interval_ms=draw.choice((300_000, 300_000, 15_000)),
            commit_interval_ms=draw.choice((50, 500, 1_000, 5_000)),
            dwell_time_ms=draw.choice((None, None, 200)),
            handler_cost_ms=draw.choice(((0, 0), (1, 5), (5, 50), (10, 500))),
            fetch_max_wait_ms=draw.choice((200, 500, 500, 5_000)),
            start_every_ms=draw.choice((0, 0, 500, 5_000)),
            metadata_max_age_ms=draw.choice((300_000, 5_000)),
        )

    def _is_read(self, topic: str) -> bool:
        return any(
            topic in group.topics or group.topics_whitelist is not None for group in self.groups
        )

    def _produce(self, topic: str) -> ProduceSpec:
        count = self.draw.choice((1, 20, 100, 200, 400))
        if any(group.handler_cost_ms[1] >= SLOW_MS for group in self.groups):
            count = min(count, SLOW_RECORDS)
        seconds = self.until_ms * self.draw.choice((1, 2, 3)) // 3_000
        return ProduceSpec(topic, max(1, count // seconds), count)

    # Steps

    def _steps(self) -> tuple[StepSpec, ...]:
        swarm = Swarm(self.draw, STEPS)
        count = self.draw.randint(1, MOST_STEPS)
        steps = [self._at_event(self._step(swarm.pick())) for _ in range(count)]
        # Two of these would need two names.
        made = [step for step in steps if step.do == "create_topic"]
        kept = [step for step in steps if step not in made[1:]]
        return tuple(sorted(kept, key=lambda step: step.at_ms or 0))

    def _at_event(self, step: StepSpec) -> StepSpec:
        """Some are done at an event of the protocol, at once or a little later."""
        draw = self.draw
        if draw.random() >= EVENT_SHARE:
            return step
        member = step.target if draw.random() < 0.5 and "-" in step.target else None
        member = None if member is None or member.startswith("broker-") else member
        direction = draw.choice(("request", "response"))
        on = EventSpec(direction, draw.choice(REQUESTS), member, draw.randint(1, 6))
        return replace(step, at_ms=None, on=on, after_ms=draw.choice((0, 0, 1, 300)))

    def _step(self, do: str) -> StepSpec:
        draw = self.draw
        at_ms = draw.randint(500, self.until_ms - MARGIN_MS)
        for_ms = draw.choice((None, 300, 2_000, 8_000, 20_000))
        group = draw.choice(self.groups)
        member = group.member(draw.randint(1, group.members))
        node = f"broker-{draw.randint(1, self.brokers)}"
        peer = draw.choice((None, "coordinator", node))
        # What a step has beside its time, its target, and how long it lasts.
        kinds: dict[str, StepSpec] = {
            "start": StepSpec(at_ms, do, group.member(group.members + 1)),
            "move_coordinator": StepSpec(at_ms, do, group.id),
            "compact_offsets_log": StepSpec(at_ms, do, group.id),
            "refuse_offsets_log": StepSpec(at_ms, do, group.id, for_ms=for_ms or 1_000),
            "stale_metadata": StepSpec(at_ms, do, "brokers", for_ms=for_ms or 3_000),
            "poll_gap": StepSpec(at_ms, do, member, for_ms=for_ms or 30_000),
            "seek": StepSpec(at_ms, do, member, offset=draw.choice((0, 5, 50))),
            "partition": StepSpec(at_ms, do, member, peer=peer, for_ms=for_ms),
            "hold": StepSpec(at_ms, do, member, peer=peer, for_ms=for_ms),
            "close": StepSpec(at_ms, do, member),
            "resume_partitions": StepSpec(at_ms, do, member),
            **self._steps_of_topics(at_ms),
        }
        if do.startswith("broker "):
            node = draw.choice((node, "coordinator"))
            return StepSpec(at_ms, do.removeprefix("broker "), node, for_ms=for_ms or 5_000)
        return kinds.get(do) or StepSpec(at_ms, do, member, for_ms=for_ms)

    def _steps_of_topics(self, at_ms: int) -> dict[str, StepSpec]:
        draw = self.draw
        topic = draw.choice(self.topics)
        name, count = topic.name, draw.randint(1, 5)
        gone_ms = draw.choice(GONE_MS)
        return {
            "create_topic": StepSpec(at_ms, "create_topic", NEW_TOPIC, count=count),
            "delete_topic": StepSpec(
                at_ms, "delete_topic", name, for_ms=gone_ms, count=topic.partitions
            ),
            "truncate": StepSpec(at_ms, "truncate", name, count=count),
            "add_partitions": StepSpec(at_ms, "add_partitions", name, count=min(count, 3)),
        }

    # Faults

    def _faults(self) -> tuple[FaultSpec, ...]:
        swarm = Swarm(self.draw, ACTIONS)
        return tuple(self._fault(swarm.pick()) for _ in range(self.draw.randint(0, MOST_FAULTS)))

    def _fault(self, do: str) -> FaultSpec:
        draw = self.draw
        members = [g.member(n) for g in self.groups for n in range(1, g.members + 1)]
        codes = {"error": ERRORS, "fatal error": FATAL}.get(do)
        kind = draw.choice(REQUESTS if codes is None else list(codes))
        return FaultSpec(
            direction=draw.choice(("request", "response")),
            kind=kind,
            member=draw.choice((None, *members)),
            nth=draw.randint(1, 6),
            do=do.removeprefix("fatal "),
            error=None if codes is None else draw.choice(codes[kind]),
            for_ms=draw.choice((50, 500, 4_000, 12_000)) if do in ("delay", "late") else 0,
            keep=do == "delay" and draw.random() < 0.2,
        )
