"""What a test has produced and nobody has read, or what was read and is not there: notes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ksim import observations as o
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


def unread(scenario: Scenario, steps: Sequence[Step]) -> list[str]:
    """One sentence each: such a test may pass whatever its applications do."""
    written = records_of(steps)
    if not written:
        return ["no records were produced: nothing that happens to records is judged"]
    groups: dict[str, str] = {}
    given: set[tuple[str, str]] = set()
    for _, _, fact, _ in steps:
        if isinstance(fact, o.MemberLife):
            groups[fact.member] = fact.group_id
        elif isinstance(fact, o.HandedOut):
            given.add((groups.get(fact.member, ""), fact.topic))
    found = [note for group in scenario.groups for note in _of_group(group, written, given)]
    known = {topic.name for topic in scenario.topics}
    for group in scenario.groups:
        found += [
            f"{group.id} reads {topic}, and there is no such topic; there are: "
            f"{', '.join(sorted(known))}"
            for topic in group.topics
            if topic not in known
        ]
    return [*found, *_of_nobody(scenario.groups, written)]


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


def _of_nobody(groups: Sequence[GroupSpec], written: Counter[str]) -> Iterator[str]:
    """With patterns a topic that nobody takes may be what is tested."""
    if any(group.topics_whitelist or group.topics_blacklist for group in groups):
        return
    for topic, count in sorted(written.items()):
        if not any(reads(group, topic) for group in groups):
            yield f"nobody reads {topic}, in which there are {count} records"
