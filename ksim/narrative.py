"""What happened in a run, rebalance by rebalance, in lines for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core.subscription import decode_assignment
from ksim.core.values import TopicPartition


class Narrative:
    """Watch a run with `see`; read `lines`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names: dict[str, str] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step or observation of the run."""
        if isinstance(fact, o.FaultStruck):
            self._say(now_ms, f"fault: {fact.name} {fact.target}{_lasting(fact.for_ms)}")
        elif isinstance(fact, o.MemberLife) and fact.what not in ("started", "stopping"):
            self._say(now_ms, f"{fact.member} {fact.what} {fact.detail}".rstrip())
        elif isinstance(fact, o.Healed):
            self._say(now_ms, f"healed; live: {', '.join(fact.members)}")
        if isinstance(fact, e.RequestArrived):
            self._names.setdefault(fact.fresh_member_id, fact.client_id)
        for order in orders:
            self._order(source, now_ms, order)

    def _say(self, now_ms: int, text: str) -> None:
        self.lines.append(f"{seconds(now_ms):>11}  {text}")

    def _order(self, source: str, now_ms: int, order: Any) -> None:
        if isinstance(order, e.StateChanged):
            reason = order.reason
            for member_id in sorted(self._names):
                reason = reason.replace(member_id, self._names[member_id])
            if order.to_state == "PreparingRebalance":
                self._say(now_ms, f"rebalance of {order.group_id} at {source}: {reason}")
            elif order.to_state == "CompletingRebalance":
                count = len(order.members)
                self._say(now_ms, f"generation {order.generation_id} of {count} members")
            elif order.to_state == "Dead":
                self._say(now_ms, f"{source} gives up {order.group_id}: {reason}")
        elif isinstance(order, e.AppendRecords):
            for entry in order.entries:
                if isinstance(entry, e.GroupRecord) and entry.members:
                    shares = ", ".join(_share(member) for member in entry.members)
                    self._say(now_ms, f"generation {entry.generation_id} assigns {shares}")
        elif isinstance(order, e.LosePartitions):
            self._say(now_ms, f"{source} lost {len(order.partitions)} partitions: {order.reason}")


def _lasting(for_ms: int) -> str:
    return f" for {seconds(for_ms)}" if for_ms else ""


def _share(member: e.GroupRecordMember) -> str:
    by_topic: dict[str, list[int]] = {}
    for tp in decode_assignment(member.assignment):
        assert isinstance(tp, TopicPartition), f"{tp!r} is no partition"
        by_topic.setdefault(tp.topic, []).append(tp.partition)
    parts = [f"{topic}{numbers}" for topic, numbers in by_topic.items()]
    return f"{member.client_id} {' '.join(parts) or 'nothing'}"
