"""Whether a step can change anything at this moment: only such a step has struck.

A crash of who is dead already, a move where there is one broker, a seek of what the member does not
own: these are no faults, and neither budgets nor tests of "did it happen" may count them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ksim.broker.cluster import compacted
from ksim.core.coordinator_hash import group_partition
from ksim.core.values import TopicPartition
from ksim.scenario import GroupSpec, StepSpec
from ksim.sim.brokers import BrokerNode, SimCluster
from ksim.sim.members import SimMember

ToMember = Callable[[SimMember], bool]
ToBroker = Callable[[BrokerNode], bool]


def _reads(member: SimMember) -> bool:
    return member.life in ("started", "paused")


def _pools(group: GroupSpec) -> bool:
    """Whether others than the application's own loop handle records."""
    return group.workers is not None or group.mode == "partitions"


# What each step needs of the one that it is done to.
MEMBERS: Final[dict[str, ToMember]] = {
    "crash": lambda member: member.running,
    "start": lambda member: not member.running,
    "stop": lambda member: member.life == "started" and member.consumer is not None,
    "pause": lambda member: member.life == "started",
    "restart": lambda _: True,
    "disconnect": lambda member: member.running,
    "close": lambda member: _reads(member) and member.group.workers is None,
    "poll_gap": lambda member: _reads(member) and not _pools(member.group),
}
BROKERS: Final[dict[str, ToBroker]] = {
    "crash": lambda node: not node.gate.cut,
    "start": lambda node: node.gate.cut,
    "stop": lambda node: not node.gate.cut,
    "pause": lambda node: not node.gate.cut and not node.gate.paused,
    "restart": lambda _: True,
}
ALWAYS: Final = ("add_partitions", "stale_metadata")


class Effects:
    """Looks at cluster and members before a step is done."""

    def __init__(self, cluster: SimCluster, members: Mapping[str, SimMember]) -> None:
        self._cluster = cluster
        self._members = members
        self._others: dict[str, Callable[[StepSpec], bool]] = {
            "move_coordinator": lambda _: len(cluster.state.alive) > 1,
            "refuse_offsets_log": lambda step: group_partition(step.target) not in cluster.refusing,
            "compact_offsets_log": self._compacts,
            "create_topic": lambda step: step.target not in cluster.state.counts,
            "delete_topic": lambda step: step.target in cluster.state.counts,
            "truncate": lambda step: bool(self.truncated(step)),
        }

    def of(
        self,
        step: StepSpec,
        node_id: int | None,
        links: Sequence[tuple[str, str]],
        partitions: Sequence[TopicPartition] | None,
    ) -> bool:
        """Whether it changes anything: at a broker, at links, at a member's partitions, or else."""
        if step.do in ALWAYS:
            return True
        if links and step.do in ("partition", "hold", "heal"):
            return any(self._changes_link(step.do, *link) for link in links)
        if step.do in self._others:
            return self._others[step.do](step)
        if node_id is not None:
            node = self._cluster.nodes.get(node_id)
            return node is not None and BROKERS[step.do](node)
        member = self._members[step.target]
        if step.do in MEMBERS:
            return MEMBERS[step.do](member)
        owned = member.owned
        return any(tp in owned for tp in (owned if partitions is None else partitions))

    def _changes_link(self, do: str, one: str, other: str) -> bool:
        link = self._cluster.network.link(one, other)
        if do == "heal":
            return bool(link.cut)
        return do == "partition" or not link.holding

    def _compacts(self, step: StepSpec) -> bool:
        log = self._cluster.state.offsets_logs[group_partition(step.target)]
        return len(compacted(log)) < len(log)

    def truncated(self, step: StepSpec) -> list[TopicPartition]:
        """The partitions that are there and have something to lose."""
        logs = self._cluster.state.logs
        count = self._cluster.state.counts.get(step.target, 0)
        numbers = range(count) if step.partition is None else (step.partition,)
        found = [TopicPartition(step.target, number) for number in numbers]
        return [tp for tp in found if tp in logs and logs[tp].end_offset > logs[tp].start_offset]
