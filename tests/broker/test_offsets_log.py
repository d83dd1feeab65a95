"""Compaction of the offsets topic: a coordinator that loads it is the same one."""

from __future__ import annotations

from random import Random

from ksim.broker.batches import BatchLog
from ksim.broker.cluster import LEAST_COMPACTED, ClusterState, compacted
from ksim.core import events as e
from ksim.core.coordinator import Coordinator, CoordinatorConfig


def drawn(entropy: Random) -> list[e.LogEntry]:
    """What a coordinator may write in one batch; a group goes with all its offsets."""
    group_id = f"g{entropy.randrange(4)}"
    partition = entropy.randrange(3)
    match entropy.randrange(4):
        case 0:
            number = entropy.randrange(100)
            return [e.GroupRecord(group_id, "consumer", number, None, None, number, ())]
        case 1:
            tombstones = [e.OffsetTombstone(group_id, "t", p) for p in range(3)]
            return [*tombstones, e.GroupTombstone(group_id)]
        case 2:
            return [e.OffsetTombstone(group_id, "t", partition)]
        case _:
            offset = entropy.randrange(1_000)
            return [e.OffsetRecord(group_id, "t", partition, offset, -1, "")]


def loaded(entries: list[e.LogEntry]) -> Coordinator:
    machine = Coordinator(CoordinatorConfig(), 1)
    machine.step(e.LogReplayed(tuple(entries)), now_ms=0)
    return machine


def generations(machine: Coordinator) -> dict[str, int]:
    return {name: group.generation_id for name, group in machine.state.groups.items()}


def offsets(machine: Coordinator) -> dict[str, object]:
    return {group: found for group, found in machine.state.offsets.items() if found}


def test_a_compacted_log_loads_as_the_whole_one() -> None:
    for seed in range(200):
        entropy = Random(seed)
        entries = [entry for _ in range(30) for entry in drawn(entropy)]
        short = compacted(entries)
        whole, rest = loaded(entries), loaded(short)
        assert offsets(rest) == offsets(whole)
        # A group that had nothing but offsets that are void is forgotten with them.
        assert generations(rest).items() <= generations(whole).items()
        assert compacted(short) == short


def test_a_log_of_commits_does_not_grow() -> None:
    state = ClusterState(1, lambda: BatchLog(1))
    for offset in range(20 * LEAST_COMPACTED):
        state.append_offsets(0, (e.OffsetRecord("g", "t", offset % 7, offset, -1, ""),))
    assert len(state.offsets_logs[0]) < LEAST_COMPACTED
    kept = compacted(state.offsets_logs[0])
    last = {entry.offset for entry in kept if isinstance(entry, e.OffsetRecord)}
    assert last == set(range(20 * LEAST_COMPACTED - 7, 20 * LEAST_COMPACTED))
