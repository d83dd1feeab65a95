"""What a scenario must not say: names that are not there, and runs that cannot be."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ksim.scenario_bounds import impossible
from ksim.scenario_spec import (
    ALL_BROKERS,
    COORDINATOR,
    STEP_TARGETS,
    FaultSpec,
    GroupSpec,
    Scenario,
    StepSpec,
)
from ksim.scenario_table import ScenarioError, Table
from ksim.texts import duration_text, shown


def check_names(source: str, scenario: Scenario) -> None:
    """Whatever is named must be there, and fit what is done with it. Raises ScenarioError."""
    top = Table(source, "", {})
    topics = _topics(scenario)
    members = member_names(scenario)
    for at, group in enumerate(scenario.groups):
        _check_id(top, f"group[{at}]", group.id, [each.id for each in scenario.groups[:at]])
        _check_group(top, f"group[{at}]", group, topics, members)
    for at, produce in enumerate(scenario.produce):
        top.among(f"produce[{at}].topic", produce.topic, topics, "topic")
    for at, step in enumerate(scenario.steps):
        _check_step(top, f"step[{at}]", scenario, step)
    for at, fault in enumerate(scenario.faults):
        _check_fault(top, f"fault[{at}]", fault, members)
    if scenario.core:
        _check_core(top, scenario, members)


def _topics(scenario: Scenario) -> tuple[str, ...]:
    """Those of the beginning, and those that a step creates."""
    made = [step.target for step in scenario.steps if step.do == "create_topic"]
    return (*(topic.name for topic in scenario.topics), *made)


def _check_id(top: Table, path: str, group_id: str, before: Sequence[str]) -> None:
    """A target must mean one thing."""
    why = None
    if group_id in before:
        why = f"there is such a group already; taken: {', '.join(before)}"
    elif re.match(r"broker(-|$)", group_id):
        why = "its members would be called as brokers are; any other name"
    if why is not None:
        raise ScenarioError(f"{top.source}: {path}.id = {group_id!r}: {why}")


def _check_group(
    top: Table, path: str, group: GroupSpec, topics: Sequence[str], members: Sequence[str]
) -> None:
    each = [(f"{path}.member[{at}]", m.number) for at, m in enumerate(group.overrides)]
    for where, number in [(path, 0), *each]:
        here = group.of(group.member(number))
        if here.heartbeat_interval_ms >= here.session_timeout_ms:
            raise ScenarioError(
                f"{top.source}: {where}.heartbeat_interval = "
                f"{duration_text(here.heartbeat_interval_ms)!r}: must be below session_timeout = "
                f"{duration_text(here.session_timeout_ms)}"
            )
    own = (group.of(name) for name in members if group.has(name))
    if any(not each.topics and each.topics_whitelist is None for each in own):
        raise ScenarioError(f"{top.source}: {path}: needs topics, or a topics_whitelist")
    for where, number in [(path, 0), *each]:
        here = group.of(group.member(number))
        for name in ("topics_whitelist", "topics_blacklist"):
            _check_pattern(top, f"{where}.{name}", getattr(here, name))
    if group.workers is not None and group.acknowledge != "each":
        raise ScenarioError(
            f'{top.source}: {path}.workers = {group.workers}: needs acknowledge = "each"'
        )
    if group.mode == "partitions" and group.acknowledge == "each":
        raise ScenarioError(f'{top.source}: {path}.mode = "partitions": needs acknowledge = "mark"')
    asked = [(f"{path}.topics", topic) for topic in group.topics]
    for at, member in enumerate(group.overrides):
        asked += [(f"{path}.member[{at}].topics", topic) for topic in member.topics or ()]
    for where, topic in asked:
        top.among(where, topic, topics, "topic")


def _check_pattern(top: Table, path: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except (re.error, OverflowError, RecursionError) as error:
        said = shown(pattern)
        raise ScenarioError(f"{top.source}: {path} = {said}: is no pattern: {error}") from error


def _check_core(top: Table, scenario: Scenario, members: Sequence[str]) -> None:
    """A core must be able to work: it has a broker, and a member of each group."""
    brokers = [f"broker-{n}" for n in range(1, scenario.cluster.brokers + 1)]
    for name in scenario.core:
        top.among("core", name, (*brokers, *members), "broker or member")
    needed = {"a broker": brokers}
    for group in scenario.groups:
        own = [name for name in members if name.rpartition("-")[0] == group.id]
        needed[f"a member of {group.id}"] = own
    for what, names in needed.items():
        if not set(names) & set(scenario.core):
            raise ScenarioError(
                f"{top.source}: core = {list(scenario.core)}: has not {what}; "
                f"valid: {', '.join(names)}"
            )


def _check_step(top: Table, path: str, scenario: Scenario, step: StepSpec) -> None:
    members = member_names(scenario)
    brokers = tuple(f"broker-{n}" for n in range(1, scenario.cluster.brokers + 1))
    topics = _topics(scenario)
    kind = STEP_TARGETS[step.do]
    valid = {
        "node": (*members, *brokers, COORDINATOR),
        "member": members,
        "group": tuple(group.id for group in scenario.groups),
        "topic": topics,
        "new topic": (step.target,),
        "broker": (*brokers, ALL_BROKERS),
    }
    top.among(f"{path}.target", step.target, valid[kind], "member" if kind == "node" else kind)
    if step.peer is not None:
        top.among(f"{path}.peer", step.peer, (COORDINATOR, *brokers), "peer")
    if step.topic is not None:
        top.among(f"{path}.topic", step.topic, topics, "topic")
    if step.on is not None and step.on.member is not None:
        top.among(f"{path}.on.member", step.on.member, members, "member")
    if step.do == "create_topic" and step.target in [topic.name for topic in scenario.topics]:
        gone = [s.target for s in scenario.steps if s.do == "delete_topic"]
        if step.target not in gone:
            raise ScenarioError(f"{top.source}: {path}.target = {step.target!r}: exists already")
    for key, found in (("offset", step.offset), ("for", step.for_ms), ("count", step.count)):
        if found is None and key in NEEDED.get(step.do, ()):
            raise ScenarioError(f"{top.source}: {path}.{key} is missing: {step.do} needs it")


NEEDED = {
    "seek": ("offset",),
    "poll_gap": ("for",),
    "truncate": ("count",),
    "refuse_offsets_log": ("for",),
    "stale_metadata": ("for",),
}


def _check_fault(top: Table, path: str, fault: FaultSpec, members: Sequence[str]) -> None:
    if fault.member is not None:
        top.among(f"{path}.on.member", fault.member, members, "member")
    if fault.until is not None and fault.until.member is not None:
        top.among(f"{path}.until.member", fault.until.member, members, "member")


def member_names(scenario: Scenario) -> tuple[str, ...]:
    """Those that start by themselves, and those that a step starts in addition."""
    found = [g.member(n) for g in scenario.groups for n in range(1, g.members + 1)]
    started = {step.target for step in scenario.steps if step.do == "start"}
    for group in scenario.groups:
        number = group.members + 1
        while group.member(number) in started:
            found.append(group.member(number))
            number += 1
    return tuple(found)


def check_run(source: str, scenario: Scenario) -> None:
    """Raises ScenarioError for a scenario that no run can work with; of a sweep, its base."""
    for path, why in impossible(scenario, member_names(scenario)):
        raise ScenarioError(f"{source}: {path}: {why}")
