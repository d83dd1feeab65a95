"""What is read after a run: the log of committed offsets."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from ksim.core.coordinator_hash import group_partition
from tests.chaos.brokers import OFFSETS_TOPIC

OFFSET_KEYS = (0, 1)
READ_MS = 10_000


def committed_log(bootstrap: str, group: str, topic: str) -> list[tuple[int, int]]:
    """Every commit of the group about this topic, in the order of the offsets log."""
    from kafka import KafkaConsumer, TopicPartition

    tp = TopicPartition(OFFSETS_TOPIC, group_partition(group))
    make: Any = KafkaConsumer
    with contextlib.closing(
        make(bootstrap_servers=bootstrap.split(","), auto_offset_reset="earliest")
    ) as consumer:
        consumer.assign([tp])
        end = consumer.end_offsets([tp])[tp]
        found: list[tuple[int, int]] = []
        while consumer.position(tp) < end:
            records = consumer.poll(timeout_ms=READ_MS)
            assert records, f"{tp} ends before {end}"
            commits = (_commit(each.key, each.value, group, topic) for each in records[tp])
            found.extend(commit for commit in commits if commit is not None)
    return found


def _commit(key: bytes, content: bytes | None, group: str, topic: str) -> tuple[int, int] | None:
    (version,) = struct.unpack_from(">h", key)
    if version not in OFFSET_KEYS:
        return None
    group_id, at = _string(key, 2)
    topic_id, at = _string(key, at)
    if (group_id, topic_id) != (group, topic):
        return None
    (partition,) = struct.unpack_from(">i", key, at)
    # A tombstone takes the offset away: that is going back to nothing.
    offset = 0 if content is None else struct.unpack_from(">q", content, 2)[0]
    return partition, offset


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
