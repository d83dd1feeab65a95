"""What a test has produced and nobody has read, or what was read and is not there: notes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.kit.report import Step
from ksim.scenario import GroupSpec, Scenario
from ksim.seen import reads
from ksim.truth import LATEST


def records_of(steps: Sequence[Step]) -> Counter[str]:
    """How many there are of each topic."""
    ends: dict[tuple[str, int], int] = {}
    for _, _, fact, _ in steps:
        if isinstance(fact, o.Produced):
            ends[fact.topic, fact.partition] = fact.end_offset
    found: Counter[str] = Counter()
    for (topic, _), end in ends.items():
        found[topic] += end
    return found


def unread(scenario: Scenario, steps: Sequence[Step], left: Sequence[str] = ()) -> list[str]:
    """One sentence each: such a test may pass whatever its applications do.

    Of the groups that were `left` for others nothing is expected.
    """
    written = records_of(steps)
    if not written:
        return ["no records were produced: nothing that happens to records is judged"]
    given = given_topics(steps)
    known = {topic.name for topic in scenario.topics}
    groups = [group for group in scenario.groups if group.id not in left]
    found: list[str] = []
    for group in groups:
        if not any(reads(group, topic) for topic in known):
            found.append(
                f"{group.id} reads nothing: what it asks for is no topic; there are: "
                f"{', '.join(sorted(known))}"
            )
            continue
        found += _of_group(group, written, given)
        found += [
            f"{group.id} reads {topic}, and there is no such topic; there are: "
            f"{', '.join(sorted(known))}"
            for topic in group.topics
            if topic not in known
        ]
    return [*found, *_of_nobody(groups, written, {topic for _, topic in given})]


def given_topics(steps: Sequence[Step]) -> set[tuple[str, str]]:
    """Group and topic, where somebody was handed records out."""
    groups: dict[str, str] = {}
    given: set[tuple[str, str]] = set()
    for _, _, fact, _ in steps:
        if isinstance(fact, o.MemberLife):
            groups[fact.member] = fact.group_id
        elif isinstance(fact, o.HandedOut):
            given.add((groups.get(fact.member, ""), fact.topic))
    return given


def _of_group(
    group: GroupSpec, written: Counter[str], given: set[tuple[str, str]]
) -> Iterator[str]:
    for topic, count in sorted(written.items()):
        if reads(group, topic) and (group.id, topic) not in given:
            why = (
                ": it began at the end, as auto_offset_reset is latest. Produce once it has begun, "
                "or use earliest"
            )
            yield (
                f"{group.id} was given none of the {count} records of {topic}"
                f"{why if group.auto_offset_reset == LATEST else ''}"
            )


def _of_nobody(
    groups: Sequence[GroupSpec], written: Counter[str], given: set[str]
) -> Iterator[str]:
    """With patterns a topic that nobody takes may be what is tested."""
    if any(group.topics_whitelist or group.topics_blacklist for group in groups):
        return
    for topic, count in sorted(written.items()):
        if topic not in given and not any(reads(group, topic) for group in groups):
            yield f"nobody reads {topic}, in which there are {count} records"


def jumped(steps: Sequence[Step]) -> list[str]:
    """Where an application went on beyond records that nobody had been handed out."""
    ends: dict[tuple[str, str, int], int] = {}
    groups: dict[str, str] = {}
    found: list[str] = []
    for source, at_ms, fact, orders in steps:
        for order in orders:
            for item in order.partitions if isinstance(order, e.AssignPartitions) else ():
                place = groups.get(source, ""), item.topic, item.partition
                ends[place] = max(ends.get(place, 0), item.offset)
        match fact:
            case o.MemberLife():
                groups[fact.member] = fact.group_id
            case o.HandedOut():
                place = groups.get(fact.member, ""), fact.topic, fact.partition
                ends[place] = max(ends.get(place, 0), fact.offset + 1)
            case e.Sought():
                place = groups.get(source, ""), fact.topic, fact.partition
                low = ends.get(place, 0)
                if fact.offset > low:
                    where = f"{fact.topic}-{fact.partition} at {seconds(at_ms)}"
                    found.append(
                        f"{source} went to offset {fact.offset} of {where}: "
                        f"what it left out, from {low} on, is not judged"
                    )
                ends[place] = max(low, fact.offset)
            case _:
                pass
    return found
