"""What a served cluster saw: its trace, who owns what, and the checks that a broker can decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from ksim.checks import Checker, S4ExclusiveAtCoordinator, S6Fencing, S12Generations, Truth
from ksim.core import events as e
from ksim.core.coordinator_state import ClassicGroup, GroupState
from ksim.core.session import StepListener
from ksim.core.subscription import MalformedProtocolError, decode_assignment
from ksim.core.trace import plain
from ksim.serve.cluster import Cluster

KEPT_STEPS: Final = 10_000
ALL_CHECKS: Final = tuple(f"S{number}" for number in range(1, 15))
JUDGED: Final = (S4ExclusiveAtCoordinator, S6Fencing, S12Generations)


class _Tap:
    """The steps of one coordinator."""

    def __init__(self, watch: Watch, source: str) -> None:
        self._watch = watch
        self._source = source

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._watch.see(self._source, now_ms, fact, orders)


class Watch:
    """Listens to every coordinator of a cluster; the last steps are kept, the verdicts for all."""

    def __init__(self) -> None:
        self.steps: deque[dict[str, Any]] = deque(maxlen=KEPT_STEPS)
        self._checkers: list[Checker] = [kind(Truth()) for kind in JUDGED]

    def listeners(self, source: str) -> list[StepListener]:
        return [_Tap(self, source)]

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for checker in self._checkers:
            checker.see(source, now_ms, fact, orders)
        if isinstance(fact, e.TimerFired) and not orders:
            return
        self.steps.append({"source": source, "at_ms": now_ms, "fact": fact, "orders": list(orders)})

    def trace(self) -> list[dict[str, Any]]:
        """The last steps as plain data, the oldest first."""
        return [
            step | {"fact": plain(step["fact"]), "orders": [plain(each) for each in step["orders"]]}
            for step in self.steps
        ]

    def checks(self) -> dict[str, Any]:
        """A verdict for each safety check, and the violations."""
        verdicts = dict.fromkeys(ALL_CHECKS, "not judged")
        violations: list[dict[str, Any]] = []
        for checker in self._checkers:
            verdicts[checker.name] = checker.verdict
            violations += [asdict(each) for each in checker.violations]
        return {"checks": verdicts, "violations": violations}


def groups(cluster: Cluster) -> list[dict[str, Any]]:
    """Every group as its coordinator has it."""
    return [
        {
            "group": group.group_id,
            "node": cluster.state.coordinator(host.partition).node_id,
            "state": group.state.value,
            "generation": group.generation_id,
            "protocol": group.protocol_name,
            "leader": group.leader,
            "members": [
                {
                    "member_id": member.member_id,
                    "instance_id": member.group_instance_id,
                    "client_id": member.client_id,
                    "partitions": _partitions(member.assignment),
                }
                for member in group.members.values()
            ],
        }
        for host in cluster.hosts()
        for group in _sorted(host.machine.state.groups)
    ]


def ownership(cluster: Cluster) -> list[dict[str, Any]]:
    """Who owns which partition, as the coordinators of the Stable groups gave them out."""
    return [
        {
            "group": group.group_id,
            "generation": group.generation_id,
            "topic": topic,
            "partition": partition,
            "member_id": member.member_id,
            "client_id": member.client_id,
        }
        for host in cluster.hosts()
        for group in _sorted(host.machine.state.groups)
        if group.state == GroupState.STABLE
        for member in group.members.values()
        for topic, partition in _partitions(member.assignment)
    ]


def _sorted(found: dict[str, ClassicGroup]) -> list[ClassicGroup]:
    return [found[group_id] for group_id in sorted(found)]


def _partitions(assignment: bytes) -> list[tuple[str, int]]:
    """What is written there; assignments of other kinds of groups cannot be read."""
    try:
        return [(tp.topic, tp.partition) for tp in decode_assignment(assignment)]
    except MalformedProtocolError:
        return []
