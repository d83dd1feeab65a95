"""Scenarios: frozen values, read from a closed TOML grammar and written back to the same value.

A mistake is one line: the file, the path in it, the value, and the nearest name that is valid.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ksim.broker.faults import FaultAction, FaultRule
from ksim.core.errors import KafkaError
from ksim.scenario_table import ScenarioError, Table, duration_text, nearest

STEPS = (
    "crash",
    "start",
    "stop",
    "pause",
    "restart",
    "partition",
    "hold",
    "heal",
    "move_coordinator",
    "add_partitions",
)
REQUESTS = (
    "Metadata",
    "FindCoordinator",
    "JoinGroup",
    "SyncGroup",
    "Heartbeat",
    "LeaveGroup",
    "OffsetCommit",
    "OffsetFetch",
    "ListOffsets",
    "Fetch",
)
MEMBER_STEPS = ("crash", "start", "stop", "pause", "restart", "partition", "hold", "heal")


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The brokers and the links to them; times in ms, ranges inclusive."""

    brokers: int = 1
    initial_rebalance_delay_ms: int = 3_000
    latency_ms: tuple[int, int] = (1, 5)
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that is there from the beginning."""

    name: str
    partitions: int


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group of members that behave alike; they are named `ID-1`, `ID-2` and so on."""

    id: str
    topics: tuple[str, ...]
    members: int = 1
    assignor: str = "range"
    session_timeout_ms: int = 30_000
    heartbeat_interval_ms: int = 3_000
    rebalance_timeout_ms: int | None = None
    max_poll_interval_ms: int = 300_000
    commit_interval_ms: int = 1_000
    dwell_time_ms: int | None = None
    auto_offset_reset: str = "earliest"
    fetch_max_wait_ms: int = 500
    handler_cost_ms: tuple[int, int] = (0, 0)
    start_every_ms: int = 0
    metadata_max_age_ms: int = 300_000

    def member(self, number: int) -> str:
        return f"{self.id}-{number}"


@dataclass(frozen=True, slots=True)
class ProduceSpec:
    """Records with keys, round and round over the partitions."""

    topic: str
    per_second: int
    count: int
    start_ms: int = 0


@dataclass(frozen=True, slots=True)
class StepSpec:
    """Something that is done at a time; `for_ms` undoes it again."""

    at_ms: int
    do: str
    target: str
    peer: str | None = None
    for_ms: int | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """Something that goes wrong at a protocol event."""

    direction: str
    kind: str
    member: str | None
    nth: int
    do: str
    error: str | None = None
    for_ms: int = 0
    keep: bool = False

    @property
    def rule(self) -> FaultRule:
        """What a broker does about it."""
        return FaultRule(
            self.direction,
            self.kind,
            self.member,
            self.nth,
            FaultAction(self.do),
            0 if self.error is None else int(KafkaError[self.error]),
            self.for_ms,
            self.keep,
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run's cluster, groups, load and faults; `until_ms` ends its safety phase."""

    name: str
    until_ms: int
    cluster: ClusterSpec = ClusterSpec()
    topics: tuple[TopicSpec, ...] = ()
    groups: tuple[GroupSpec, ...] = ()
    produce: tuple[ProduceSpec, ...] = ()
    steps: tuple[StepSpec, ...] = ()
    faults: tuple[FaultSpec, ...] = ()


def load(path: str | Path) -> Scenario:
    """Read a scenario file. Raises ScenarioError, one line."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Scenario:
    """The scenario of a TOML text; `source` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: not TOML: {error}") from error
    table = Table(source, "", data)
    scenario = Scenario(
        name=table.text("name"),
        until_ms=table.duration("until"),
        cluster=_cluster(table.table("cluster")),
        topics=tuple(
            TopicSpec(name, _done(item, item.count("partitions")))
            for name, item in table.named("topics")
        ),
        groups=tuple(_group(item) for item in table.tables("group")),
        produce=tuple(_produce(item) for item in table.tables("produce")),
        steps=tuple(_step(item) for item in table.tables("step")),
        faults=tuple(_fault(item) for item in table.tables("fault")),
    )
    table.finish()
    _check_names(source, scenario)
    return scenario


def _done(table: Table, found: int) -> int:
    table.finish()
    return found


def _cluster(table: Table) -> ClusterSpec:
    default = ClusterSpec()
    spec = ClusterSpec(
        brokers=table.count("brokers", default.brokers),
        initial_rebalance_delay_ms=table.duration(
            "initial_rebalance_delay", default.initial_rebalance_delay_ms
        ),
        latency_ms=table.range("latency", default.latency_ms),
        loss=table.fraction("loss", default.loss),
    )
    table.finish()
    return spec


def _group(table: Table) -> GroupSpec:
    spec = GroupSpec(
        id=table.text("id"),
        topics=table.texts("topics"),
        members=table.count("members", 1),
        assignor=table.choice("assignor", ("range", "roundrobin"), "range"),
        session_timeout_ms=table.duration("session_timeout", 30_000),
        heartbeat_interval_ms=table.duration("heartbeat_interval", 3_000),
        rebalance_timeout_ms=table.maybe_duration("rebalance_timeout"),
        max_poll_interval_ms=table.duration("max_poll_interval", 300_000),
        commit_interval_ms=table.duration("commit_interval", 1_000),
        dwell_time_ms=table.maybe_duration("dwell_time"),
        auto_offset_reset=table.choice(
            "auto_offset_reset", ("earliest", "latest", "none"), "earliest"
        ),
        fetch_max_wait_ms=table.duration("fetch_max_wait", 500),
        handler_cost_ms=table.range("handler_cost", (0, 0)),
        start_every_ms=table.duration("start_every", 0),
        metadata_max_age_ms=table.duration("metadata_max_age", 300_000),
    )
    if spec.heartbeat_interval_ms >= spec.session_timeout_ms:
        table.refuse(
            "heartbeat_interval",
            duration_text(spec.heartbeat_interval_ms),
            f"must be below session_timeout = {duration_text(spec.session_timeout_ms)}",
        )
    table.finish()
    return spec


def _produce(table: Table) -> ProduceSpec:
    spec = ProduceSpec(
        topic=table.text("topic"),
        per_second=table.count("per_second"),
        count=table.count("count"),
        start_ms=table.duration("start", 0),
    )
    table.finish()
    return spec


def _step(table: Table) -> StepSpec:
    spec = StepSpec(
        at_ms=table.duration("at"),
        do=table.choice("do", STEPS),
        target=table.text("target"),
        peer=table.maybe_text("peer"),
        for_ms=table.maybe_duration("for"),
        count=table.count("count", 1) if "count" in table.data else None,
    )
    table.finish()
    return spec


def fault_of(data: Mapping[str, Any], source: str) -> FaultSpec:
    """One `[[fault]]` that stands alone, such as a JSON object. Raises ScenarioError."""
    return _fault(Table(source, "", data))


def _fault(table: Table) -> FaultSpec:
    on = table.table("on")
    direction = "response" if "response" in on.data else "request"
    spec = FaultSpec(
        direction=direction,
        kind=on.choice(direction, REQUESTS),
        member=on.maybe_text("member"),
        nth=on.count("nth", 1, least=0),
        do=table.choice("do", tuple(FaultAction)),
        error=table.maybe_text("error"),
        for_ms=table.duration("for", 0),
        keep=table.flag("keep"),
    )
    on.finish()
    table.finish()
    known = tuple(KafkaError.__members__)
    if spec.error is not None and spec.error not in known:
        table.refuse("error", spec.error, nearest(spec.error, known))
    if (spec.do == "error") != (spec.error is not None):
        table.refuse("do", spec.do, 'do = "error" needs error = NAME, and nothing else does')
    return spec


def _check_names(source: str, scenario: Scenario) -> None:
    """Whatever is named must be there."""
    top = Table(source, "", {})
    topics = tuple(topic.name for topic in scenario.topics)
    groups = tuple(group.id for group in scenario.groups)
    brokers = tuple(f"broker-{n}" for n in range(1, scenario.cluster.brokers + 1))
    members = _members(scenario)
    for at, group in enumerate(scenario.groups):
        for topic in group.topics:
            top.among(f"group[{at}].topics", topic, topics, "topic")
    for at, produce in enumerate(scenario.produce):
        top.among(f"produce[{at}].topic", produce.topic, topics, "topic")
    for at, step in enumerate(scenario.steps):
        path = f"step[{at}].target"
        if step.do == "move_coordinator":
            top.among(path, step.target, groups, "group")
        elif step.do == "add_partitions":
            top.among(path, step.target, topics, "topic")
        else:
            top.among(path, step.target, (*members, *brokers), "member")
        if step.peer is not None:
            top.among(f"step[{at}].peer", step.peer, ("coordinator", *brokers), "peer")
    for at, fault in enumerate(scenario.faults):
        if fault.member is not None:
            top.among(f"fault[{at}].on.member", fault.member, members, "member")


def _members(scenario: Scenario) -> tuple[str, ...]:
    """Those that start by themselves, and those that a step starts in addition."""
    found = [g.member(n) for g in scenario.groups for n in range(1, g.members + 1)]
    for group in scenario.groups:
        number = group.members + 1
        started = {step.target for step in scenario.steps if step.do == "start"}
        while group.member(number) in started:
            found.append(group.member(number))
            number += 1
    return tuple(found)


# Writing

KEYS = {"for_ms": "for", "at_ms": "at", "until_ms": "until", "start_ms": "start"}


def dump(scenario: Scenario) -> str:
    """TOML that `parse` reads as the same value."""
    lines = [f"name = {_quoted(scenario.name)}", f'until = "{duration_text(scenario.until_ms)}"']
    lines += ["", "[cluster]", *_pairs(scenario.cluster)]
    for topic in scenario.topics:
        lines += ["", f"[topics.{_quoted(topic.name)}]", f"partitions = {topic.partitions}"]
    for name, items in (
        ("group", scenario.groups),
        ("produce", scenario.produce),
        ("step", scenario.steps),
    ):
        for item in items:
            lines += ["", f"[[{name}]]", *_pairs(item)]
    for fault in scenario.faults:
        on = [f"{fault.direction} = {_quoted(fault.kind)}", f"nth = {fault.nth}"]
        if fault.member is not None:
            on.append(f"member = {_quoted(fault.member)}")
        lines += ["", "[[fault]]", f"on = {{ {', '.join(on)} }}"]
        lines += _pairs(fault, ("direction", "kind", "member", "nth"))
    return "\n".join(lines) + "\n"


def _pairs(item: Any, skip: Sequence[str] = ()) -> list[str]:
    lines: list[str] = []
    for name in (f.name for f in fields(item) if f.name not in skip):
        found = getattr(item, name)
        if found is not None:
            key = KEYS.get(name, name.removesuffix("_ms"))
            lines.append(f"{key} = {_written(name, found)}")
    return lines


def _written(name: str, found: Any) -> str:
    if name.endswith("_ms"):
        ends = found if isinstance(found, tuple) else (found,)
        return '"' + "..".join(duration_text(ms) for ms in ends) + '"'
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, tuple):
        return "[" + ", ".join(_quoted(item) for item in found) + "]"
    return _quoted(found) if isinstance(found, str) else repr(found)


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else f"\\{c}" if c in '"\\' else c
        for c in text
    )
    return f'"{escaped}"'
