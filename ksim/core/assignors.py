"""Range and round-robin exactly as Kafka's Java assignors share partitions.

Source: RangeAssignor, RoundRobinAssignor, AbstractPartitionAssignor (Kafka 4.x), without racks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ksim.core.subscription import Subscription
from ksim.core.values import TopicPartition

Assignment = dict[str, list[TopicPartition]]


def member_order(members: Sequence[Subscription]) -> list[Subscription]:
    """Members with an instance id first, by it; then the others by member id."""
    static = [m for m in members if m.group_instance_id is not None]
    others = [m for m in members if m.group_instance_id is None]
    return [
        *sorted(static, key=lambda m: java_key(m.group_instance_id or "")),
        *sorted(others, key=lambda m: java_key(m.member_id)),
    ]


def java_key(text: str) -> bytes:
    """Java compares strings by UTF-16 code units, which is not the order of code points."""
    return text.encode("utf-16-be", "surrogatepass")


def assign_range(
    members: Sequence[Subscription], partition_counts: Mapping[str, int]
) -> Assignment:
    """Per topic: consecutive runs, the first members take the extras."""
    ordered = member_order(members)
    result: Assignment = {m.member_id: [] for m in ordered}
    for topic in sorted({t for m in ordered for t in m.topics}, key=java_key):
        count = partition_counts.get(topic, 0)
        interested = [m.member_id for m in ordered if topic in m.topics]
        quota, extra = divmod(count, len(interested))
        start = 0
        for index, member_id in enumerate(interested):
            size = quota + (1 if index < extra else 0)
            result[member_id] += [TopicPartition(topic, p) for p in range(start, start + size)]
            start += size
        assert start == count, f"{topic}: {start} of {count} partitions given out"
    return result


def assign_round_robin(
    members: Sequence[Subscription], partition_counts: Mapping[str, int]
) -> Assignment:
    """One pointer over the members for all topics by name; it skips who did not subscribe."""
    ordered = member_order(members)
    result: Assignment = {m.member_id: [] for m in ordered}
    pointer = 0
    for topic in sorted({t for m in ordered for t in m.topics}, key=java_key):
        for partition in range(partition_counts.get(topic, 0)):
            while topic not in ordered[pointer % len(ordered)].topics:
                pointer += 1
            result[ordered[pointer % len(ordered)].member_id].append(
                TopicPartition(topic, partition)
            )
            pointer += 1
    return result


ASSIGNORS: Final[
    Mapping[str, Callable[[Sequence[Subscription], Mapping[str, int]], Assignment]]
] = {"range": assign_range, "roundrobin": assign_round_robin}
