"""What a served cluster saw: its trace, who owns what, and the checks that a broker can decide."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final, cast

from ksim.checks import Checker, S4ExclusiveAtCoordinator, S6Fencing
from ksim.commit_checks import S3CommitOfOwner, S13OffsetsRise
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator_state import ClassicGroup, GroupState
from ksim.core.session import StepListener
from ksim.core.subscription import MalformedProtocolError, decode_assignment
from ksim.core.trace import plain
from ksim.core.values import TopicPartition
from ksim.generation_checks import S12Generations
from ksim.serve.cluster import Cluster
from ksim.truth import Truth

KEPT_STEPS: Final = 10_000
KEPT_BYTES: Final = 32 * 2**20  # of what clients wrote in their requests
ALL_CHECKS: Final = tuple(f"S{number}" for number in range(1, 15))
KEPT_POSITIONS: Final = 100_000
JUDGED: Final = (
    S3CommitOfOwner,
    S4ExclusiveAtCoordinator,
    S6Fencing,
    S12Generations,
    S13OffsetsRise,
)


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
        self.steps: deque[dict[str, Any]] = deque()
        self._weights: deque[int] = deque()
        self._kept_bytes = 0
        self._truth = Truth()
        self._checkers: list[Checker] = [kind(self._truth) for kind in JUDGED]
        self._cluster: Cluster | None = None
        self._positions: dict[tuple[str, TopicPartition], int] = {}

    def listeners(self, source: str) -> list[StepListener]:
        return [_Tap(self, source)]

    def follow(self, cluster: Cluster) -> None:
        """Know the ends of this cluster's partitions, and what its clients fetch."""
        self._cluster = cluster
        cluster.on_fetch = self.fetched

    def fetched(self, client_id: str, tp: TopicPartition, offset: int) -> None:
        """A client that fetches below where it was has sought back, as a broker sees it."""
        key = client_id, tp
        before = self._positions.get(key, -1)
        if before < 0 and len(self._positions) >= KEPT_POSITIONS:
            del self._positions[next(iter(self._positions))]
        self._positions[key] = offset
        if offset < before and self._cluster is not None:
            fact = e.Sought(tp.topic, tp.partition, 0, offset)
            self.see(client_id, self._cluster.now_ms, fact, ())

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.OffsetCommitRequest):
            self._note_ends(fact.request)
        for order in orders:
            if isinstance(order, e.AppendRecords):
                self._new_tenures(order)
        for checker in self._checkers:
            checker.see(source, now_ms, fact, orders)
        if isinstance(fact, e.TimerFired) and not orders:
            return
        self.steps.append({"source": source, "at_ms": now_ms, "fact": fact, "orders": list(orders)})
        self._weights.append(_weight(fact) if isinstance(fact, e.RequestArrived) else 0)
        self._kept_bytes += self._weights[-1]
        while len(self.steps) > KEPT_STEPS or self._kept_bytes > KEPT_BYTES:
            self.steps.popleft()
            self._kept_bytes -= self._weights.popleft()

    def _note_ends(self, request: m.OffsetCommitRequest) -> None:
        assert self._cluster is not None, "a watch without a cluster"
        for item in request.offsets:
            tp = TopicPartition(item.topic, item.partition)
            log = self._cluster.state.logs.get(tp)
            if log is not None:
                self._truth.ends[tp] = log.end_offset

    def _new_tenures(self, order: e.AppendRecords) -> None:
        """Whoever gets partitions begins where the group stands: that is no seek."""
        clients = {
            member.client_id
            for entry in order.entries
            if isinstance(entry, e.GroupRecord)
            for member in entry.members
        }
        if clients:
            self._positions = {
                key: offset for key, offset in self._positions.items() if key[0] not in clients
            }

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


def _weight(item: Any) -> int:
    """How many bytes and letters are in it: a request may be as large as a frame."""
    if isinstance(item, bytes | str):
        return len(item)
    parts: Iterable[Any]
    if isinstance(item, tuple):
        parts = cast("tuple[Any, ...]", item)
    else:
        parts = (getattr(item, name) for name in getattr(item, "__dataclass_fields__", ()))
    return sum(map(_weight, parts))


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
