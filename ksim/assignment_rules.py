"""Who must own what by Kafka's RangeAssignor and RoundRobinAssignor, said of each partition.

What a leader has shared out is judged by this. So it is written down a second time, in another
form than `core.assignors`, which decides: not what a member gets, but whose a partition is.
Source: Kafka's documentation of both assignors, without racks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from ksim.core.subscription import Subscription
from ksim.core.values import TopicPartition

Owner = tuple[TopicPartition, str]
Rule = Callable[[Sequence[Subscription], Mapping[str, int]], Iterator[Owner]]
FIRST_BEYOND_16_BITS: Final = 0x10000
HIGH, LOW, LOW_BITS = 0xD800, 0xDC00, 10


def stray(
    protocol: str,
    members: Sequence[Subscription],
    partition_counts: Mapping[str, int],
    owners: Mapping[TopicPartition, str],
) -> str:
    """The first partition that another member must own; nothing where the protocol has no rule."""
    rule = RULES.get(protocol)
    for tp, owner in rule(_in_line(members), partition_counts) if rule else ():
        found = owners.get(tp, "nobody")
        if found != owner:
            return f"{tp} was given to {found}, where {protocol} gives it to {owner}"
    return ""


def _by_range(line: Sequence[Subscription], partition_counts: Mapping[str, int]) -> Iterator[Owner]:
    """Blocks of consecutive partitions, topic by topic; the first ones are longer by one."""
    for topic, count in partition_counts.items():
        takers = [member.member_id for member in line if topic in member.topics]
        for partition in range(count) if takers else ():
            short, longer = count // len(takers), count % len(takers)
            in_longer = longer * (short + 1)
            if partition < in_longer:
                rank = partition // (short + 1)
            else:
                rank = longer + (partition - in_longer) // short
            yield TopicPartition(topic, partition), takers[rank]


def _by_turns(line: Sequence[Subscription], partition_counts: Mapping[str, int]) -> Iterator[Owner]:
    """Each partition, all topics in a row, goes to the nearest one after whoever got the last."""
    last = len(line) - 1
    for topic in sorted(partition_counts, key=_units):
        after = {at: member for at, member in enumerate(line) if topic in member.topics}
        for partition in range(partition_counts[topic]) if after else ():
            last = min(after, key=lambda at: (at - last - 1) % len(line))
            yield TopicPartition(topic, partition), line[last].member_id


def _in_line(members: Sequence[Subscription]) -> list[Subscription]:
    """Those with an instance id, by it, before those that have a member id alone."""
    static = [member for member in members if member.group_instance_id is not None]
    others = [member for member in members if member.group_instance_id is None]
    return [
        *sorted(static, key=lambda member: _units(member.group_instance_id or "")),
        *sorted(others, key=lambda member: _units(member.member_id)),
    ]


def _units(text: str) -> list[int]:
    """Strings are ordered as Java does, by the 16-bit units of their characters."""
    found: list[int] = []
    for code in map(ord, text):
        if code < FIRST_BEYOND_16_BITS:
            found.append(code)
        else:
            high, low = divmod(code - FIRST_BEYOND_16_BITS, 1 << LOW_BITS)
            found += [HIGH + high, LOW + low]
    return found


RULES: Final[Mapping[str, Rule]] = {"range": _by_range, "roundrobin": _by_turns}
