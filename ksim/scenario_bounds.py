"""What no run of a scenario can do, though all its names are there: each with path and reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ksim.consumer.checked import MOST
from ksim.consumer.config import KEYS
from ksim.consumer.config_kinds import Whole
from ksim.core.coordinator import CoordinatorConfig
from ksim.scenario_spec import GroupSpec, MemberSpec, Scenario, StepSpec
from ksim.texts import duration_text

Refusal = tuple[str, str]
# What a step with a `partition` speaks of: its target, or its `topic`.
OF_TARGET: Final = ("truncate",)


def impossible(scenario: Scenario, names: tuple[str, ...]) -> Iterator[Refusal]:
    """Path and reason of each thing that cannot be; `names` are the members of any time."""
    if not scenario.groups:
        yield "group", "there are no members: a run needs at least one [[group]]"
    for at, group in enumerate(scenario.groups):
        path = f"group[{at}]"
        yield from _timings(path, group, names)
        yield from _strangers(path, group, scenario, names)
        if group.poll_timeout_ms == 0:
            yield f"{path}.poll_timeout = '0ms'", "the application would not wait; 1ms or more"
        elif (group.poll_timeout_ms or 0) > MOST:
            said = duration_text(group.poll_timeout_ms or 0)
            yield f"{path}.poll_timeout = {said!r}", f"nobody may wait so long; {MOST}ms or less"
    if scenario.cluster.offsets_retention_check_interval_ms == 0:
        yield "cluster.offsets_retention_check_interval = '0ms'", "valid: 1ms or more"
    yield from _too_late(scenario)
    yield from _no_such_partition(scenario)


# Members


def _timings(path: str, group: GroupSpec, names: tuple[str, ...]) -> Iterator[Refusal]:
    """What the broker or the consumer itself would refuse to any member."""
    limits = CoordinatorConfig()
    low, high = limits.min_session_timeout_ms, limits.max_session_timeout_ms
    for name in (name for name in names if name.rpartition("-")[0] == group.id):
        here = group.of(name)
        for field in (field for field in KEYS if hasattr(here, field) and field.endswith("_ms")):
            found = getattr(here, field)
            where = f"{_place(path, group, name, field)}.{field.removesuffix('_ms')}"
            if field == "session_timeout_ms" and not low <= found <= high:
                valid = f"{duration_text(low)} to {duration_text(high)}"
                yield (
                    f"{where} = {duration_text(found)!r}",
                    f"the broker refuses it to {name}; valid: {valid}",
                )
            elif why := _refused(field, found):
                yield f"{where} = {duration_text(found)!r}", f"{name} needs {why}"


def _refused(field: str, found: int | None) -> str:
    """What a consumer needs that would not even start with this value; nothing where it would."""
    kind = KEYS[field].kind
    assert isinstance(kind, Whole), f"{field}: {kind}"
    if found is None or kind.least <= found <= kind.most:
        return ""
    if found < kind.least:
        return f"{duration_text(kind.least)} or more"
    return f"{duration_text(kind.most)} or less"


def _place(path: str, group: GroupSpec, name: str, field: str) -> str:
    """The table where a member's value stands."""
    for at, item in enumerate(group.overrides):
        own = field in MemberSpec.__dataclass_fields__ and getattr(item, field) is not None
        if own and group.member(item.number) == name:
            return f"{path}.member[{at}]"
    return path


def _strangers(
    path: str, group: GroupSpec, scenario: Scenario, names: tuple[str, ...]
) -> Iterator[Refusal]:
    numbers = range(1, 1 + group.members + len(scenario.steps))
    known = [number for number in numbers if group.member(number) in names]
    for place, item in enumerate(group.overrides):
        if item.number not in known:
            yield (
                f"{path}.member[{place}].number = {item.number}",
                f"no such member; valid: {', '.join(map(str, known))}",
            )


# Times


def _too_late(scenario: Scenario) -> Iterator[Refusal]:
    """Steps and load that would begin when everything is healed already.

    At `until` itself no step is done any more; a load that begins there is written all the same.
    """
    until = duration_text(scenario.until_ms)
    for at, step in enumerate(scenario.steps):
        for name, found in (("at", step.at_ms), ("after", step.after_ms)):
            if found is not None and found >= scenario.until_ms:
                why = f"is not before until = {until}: it would never be done"
                yield f"step[{at}].{name} = {duration_text(found)!r}", why
    for at, produce in enumerate(scenario.produce):
        if produce.start_ms > scenario.until_ms:
            yield (
                f"produce[{at}].start = {duration_text(produce.start_ms)!r}",
                f"is after until = {until}",
            )


# Partitions


def _no_such_partition(scenario: Scenario) -> Iterator[Refusal]:
    for at, step in enumerate(scenario.steps):
        if step.partition is None and step.do not in OF_TARGET:
            continue
        first = scenario.topics[0].name if scenario.topics else None
        topic = step.target if step.do in OF_TARGET else step.topic or first
        if topic is None:
            yield f"step[{at}].topic", f"is missing: partition = {step.partition} of which topic?"
            continue
        most = _most_partitions(scenario, topic, step)
        if most == 0:
            yield f"step[{at}].{_named(step)}", f"there is no topic {topic} at that time"
        elif step.partition is not None and step.partition >= most:
            yield (
                f"step[{at}].partition = {step.partition}",
                f"{topic} has {most} at most then; valid: 0 to {most - 1}",
            )


def _named(step: StepSpec) -> str:
    """What of a step says which topic it is about; without a name it is the first one."""
    if step.do in OF_TARGET:
        return f"target = {step.target!r}"
    return f"partition = {step.partition}" if step.topic is None else f"topic = {step.topic!r}"


def _most_partitions(scenario: Scenario, topic: str, step: StepSpec) -> int:
    """How many the topic can have when the step is done, as far as the file alone tells."""
    first = sum(found.partitions for found in scenario.topics if found.name == topic)
    changes = [each for each in scenario.steps if each.target == topic and each.do in _CHANGES]
    made = [each.count or 1 for each in changes if each.do != "delete_topic" or each.for_ms]
    if step.at_ms is None or any(each.at_ms is None for each in changes):
        return first + sum(made)
    # A topic that is deleted and comes back is two changes.
    back = [
        replace(each, do="create_topic", at_ms=(each.at_ms or 0) + each.for_ms)
        for each in changes
        if each.do == "delete_topic" and each.for_ms
    ]
    most = first
    for each in sorted([*changes, *back], key=lambda each: each.at_ms or 0):
        at_ms = each.at_ms or 0
        # What happens at the same moment has no order: the larger number counts.
        if each.do == "delete_topic" and at_ms < step.at_ms:
            most = 0
        elif each.do != "delete_topic" and at_ms <= step.at_ms:
            most += each.count or 1
    return most


_CHANGES: Final = ("add_partitions", "create_topic", "delete_topic")
