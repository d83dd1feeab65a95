"""What must hold in every run, judged over the trace; one class for each property.

A checker sees every step of every machine and every observation, in order, under the name of its
source. It writes one English sentence for each violation. What it cannot see it does not judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import MalformedProtocolError, decode_assignment
from ksim.core.values import TopicPartition

KEPT_VIOLATIONS = 20
KEPT_GENERATIONS = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach: when, who, where, and one sentence for people."""

    check: str
    at_ms: int
    members: tuple[str, ...]
    partitions: tuple[str, ...]
    offsets: tuple[int, ...]
    sentence: str


@dataclass(slots=True)
class Truth:
    """What happened to the records, as the checkers share it."""

    ends: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    firsts: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    handled: dict[TopicPartition, set[int]] = field(default_factory=dict[TopicPartition, set[int]])
    prefix: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    names: dict[str, str] = field(default_factory=dict[str, str])
    live: dict[str, str] = field(default_factory=dict[str, str])
    healed_ms: int | None = None

    def note(self, now_ms: int, fact: Any) -> None:
        """Keep the ground truth up to date, before any checker looks."""
        match fact:
            case o.Produced():
                self.ends[TopicPartition(fact.topic, fact.partition)] = fact.end_offset
            case o.Handled():
                tp = TopicPartition(fact.topic, fact.partition)
                self.handled.setdefault(tp, set()).add(fact.offset)
            case o.MemberLife():
                if fact.what == "started":
                    self.live[fact.member] = fact.group_id
                elif fact.what in ("crashed", "closed", "failed"):
                    self.live.pop(fact.member, None)
            case o.Healed():
                self.healed_ms = now_ms
            case _:
                pass

    def handled_up_to(self, tp: TopicPartition) -> int:
        """The first offset, from the first that anybody was given, that nobody has handled."""
        at = max(self.prefix.get(tp, 0), self.firsts.get(tp, 0))
        done = self.handled.get(tp, set())
        while at in done:
            at += 1
        self.prefix[tp] = at
        return at


class Checker:
    """Base of all: `see` each step in order, `end` once."""

    name: ClassVar[str] = ""
    liveness: ClassVar[bool] = False

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.violations: list[Violation] = []
        self.judged = 0

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step of the machine, or one observation, at `source`."""
        raise NotImplementedError

    def end(self, now_ms: int) -> None:
        """The run is over."""

    def accuse(
        self,
        at_ms: int,
        sentence: str,
        members: Sequence[str] = (),
        tp: TopicPartition | None = None,
        offsets: Sequence[int] = (),
    ) -> None:
        if len(self.violations) < KEPT_VIOLATIONS:
            partitions = () if tp is None else (str(tp),)
            self.violations.append(
                Violation(self.name, at_ms, tuple(members), partitions, tuple(offsets), sentence)
            )

    @property
    def verdict(self) -> str:
        if self.violations:
            return "fail"
        return "pass" if self.judged else "not judged"


def seconds(ms: int) -> str:
    """A time as people read it."""
    return f"{ms / 1000:.3f} s"


class Commits(Checker):
    """Base of those that judge what the coordinator accepted into its log."""

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source
        self.before(now_ms, fact, orders)
        for order in orders:
            if isinstance(order, e.AppendRecords) and isinstance(fact, e.RequestArrived):
                request = fact.request
                if isinstance(request, m.OffsetCommitRequest):
                    # A timer that was overdue may have written the group in the same step.
                    for entry in order.entries:
                        if isinstance(entry, e.OffsetRecord):
                            self.judge(now_ms, fact.client_id, request, entry)

    def before(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Whatever else the checker has to know."""

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        raise NotImplementedError


class S1NoLostRecord(Commits):
    """Nothing below a committed offset is unhandled: a successor would never see it."""

    name = "S1"

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        del request
        self.judged += 1
        tp = TopicPartition(entry.topic, entry.partition)
        missing = self.truth.handled_up_to(tp)
        if missing < entry.offset and tp in self.truth.firsts:
            self.accuse(
                now_ms,
                f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, "
                f"but nobody has handled offset {missing}: it would be lost.",
                (client_id,),
                tp,
                (missing, entry.offset),
            )


class S2CommitWithinTenure(Commits):
    """A commit never passes the lowest record that its own tenure has not handled."""

    name = "S2"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._next: dict[tuple[str, TopicPartition], int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    self._next[source, tp] = item.offset
        super().see(source, now_ms, fact, orders)

    def before(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms, orders
        if isinstance(fact, o.Handled):
            key = fact.member, TopicPartition(fact.topic, fact.partition)
            if self._next.get(key) == fact.offset:
                self._next[key] = fact.offset + 1

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        del request
        self.judged += 1
        tp = TopicPartition(entry.topic, entry.partition)
        done = self._next.get((client_id, tp))
        if done is not None and entry.offset > done:
            self.accuse(
                now_ms,
                f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, "
                f"but in its tenure offset {done} is the lowest that it has not handled.",
                (client_id,),
                tp,
                (done, entry.offset),
            )


def _owned(assignment: bytes) -> tuple[TopicPartition, ...]:
    """What an assignment gives; bytes that are no assignment of consumers give nothing."""
    try:
        return decode_assignment(assignment)
    except MalformedProtocolError:
        return ()


class S4ExclusiveAtCoordinator(Checker):
    """In one generation no partition is given to two members."""

    name = "S4"

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source, fact
        for order in orders:
            if isinstance(order, e.AppendRecords):
                for entry in order.entries:
                    if isinstance(entry, e.GroupRecord) and entry.members:
                        self._judge(now_ms, entry)

    def _judge(self, now_ms: int, record: e.GroupRecord) -> None:
        self.judged += 1
        owners: dict[TopicPartition, str] = {}
        for member in record.members:
            for tp in _owned(member.assignment):
                other = owners.setdefault(tp, member.member_id)
                if other != member.member_id:
                    self.accuse(
                        now_ms,
                        f"generation {record.generation_id} of {record.group_id} gives {tp} to "
                        f"{other} and to {member.member_id} at {seconds(now_ms)}.",
                        (other, member.member_id),
                        tp,
                    )


class S5ExclusiveInApplication(Checker):
    """Nothing of a partition is handed out by a member after another one was assigned it."""

    name = "S5"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._owner: dict[TopicPartition, tuple[str, int]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    self._owner[TopicPartition(item.topic, item.partition)] = source, now_ms
        if isinstance(fact, o.HandedOut):
            self._judge(now_ms, fact)

    def _judge(self, now_ms: int, fact: o.HandedOut) -> None:
        self.judged += 1
        tp = TopicPartition(fact.topic, fact.partition)
        owner, since_ms = self._owner.get(tp, (fact.member, 0))
        if owner != fact.member:
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, "
                f"although {owner} has owned it since {seconds(since_ms)}.",
                (fact.member, owner),
                tp,
                (fact.offset,),
            )


class S6Fencing(Commits):
    """A commit that is accepted carries the generation and a member of that moment."""

    name = "S6"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._groups: dict[str, tuple[int, tuple[str, ...]]] = {}

    def before(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms
        if isinstance(fact, e.LogReplayed):
            for entry in fact.entries:
                if isinstance(entry, e.GroupRecord):
                    members = tuple(member.member_id for member in entry.members)
                    self._groups[entry.group_id] = entry.generation_id, members
        for order in orders:
            if isinstance(order, e.StateChanged):
                self._groups[order.group_id] = order.generation_id, order.members

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        self.judged += 1
        generation_id, members = self._groups.get(request.group_id, (-1, ()))
        simple = request.generation_id < 0 and not members
        current = request.generation_id == generation_id and request.member_id in members
        if not simple and not current:
            self.accuse(
                now_ms,
                f"the coordinator took offset {entry.offset} of {entry.topic}-{entry.partition} at "
                f"{seconds(now_ms)} from {request.member_id} in generation {request.generation_id},"
                f" while generation {generation_id} has {len(members)} members "
                f"{'with' if request.member_id in members else 'without'} it.",
                (client_id,),
                TopicPartition(entry.topic, entry.partition),
                (entry.offset,),
            )


class S10Order(Checker):
    """Within a tenure records are handed out one after the other, from the first on."""

    name = "S10"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._next: dict[tuple[str, TopicPartition, int], int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    self._next[source, tp, item.tenure] = item.offset
        if isinstance(fact, o.HandedOut):
            self.judged += 1
            tp = TopicPartition(fact.topic, fact.partition)
            key = fact.member, tp, fact.tenure
            due = self._next.get(key)
            if due != fact.offset:
                self.accuse(
                    now_ms,
                    f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, "
                    f"but in tenure {fact.tenure} offset {due} was next.",
                    (fact.member,),
                    tp,
                    (fact.offset,),
                )
            self._next[key] = fact.offset + 1


class S12Generations(Checker):
    """Generations rise, each has one leader, and SyncGroup answers what the leader sent.

    A coordinator that takes over may fall back to the last generation in its log.
    """

    name = "S12"

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._generation: dict[str, int] = {}
        self._leaders: dict[tuple[str, str, int], str] = {}
        self._sent: dict[tuple[str, int], dict[str, bytes]] = {}
        self._requests: dict[tuple[str, int], m.SyncGroupRequest] = {}
        self._joins: dict[tuple[str, int], str] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.LogReplayed):
            self._replayed(fact)
            self._leaders = {key: name for key, name in self._leaders.items() if key[0] != source}
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.SyncGroupRequest):
            self._requests[source, fact.token] = fact.request
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.JoinGroupRequest):
            self._joins[source, fact.token] = fact.request.group_id
        for order in orders:
            if isinstance(order, e.StateChanged) and order.to_state == "CompletingRebalance":
                self._new_generation(now_ms, order)
            elif isinstance(order, e.AppendRecords):
                self._appended(order)
            elif isinstance(order, e.SendResponse):
                self._answered(source, now_ms, order)

    def _replayed(self, fact: e.LogReplayed) -> None:
        for entry in fact.entries:
            if isinstance(entry, e.GroupRecord):
                self._generation[entry.group_id] = entry.generation_id
                self._keep(entry)

    def _new_generation(self, now_ms: int, order: e.StateChanged) -> None:
        self.judged += 1
        before = self._generation.get(order.group_id, 0)
        if order.generation_id <= before:
            self.accuse(
                now_ms,
                f"generation {order.generation_id} of {order.group_id} began at {seconds(now_ms)} "
                f"after generation {before}.",
            )
        self._generation[order.group_id] = order.generation_id

    def _appended(self, order: e.AppendRecords) -> None:
        for entry in order.entries:
            if isinstance(entry, e.GroupRecord):
                self._keep(entry)
            elif isinstance(entry, e.GroupTombstone):
                self._forget(entry.group_id)

    def _forget(self, group_id: str) -> None:
        """A group that was removed may begin again at its first generation."""
        self._generation.pop(group_id, None)
        self._leaders = {key: name for key, name in self._leaders.items() if key[1] != group_id}
        self._sent = {key: sent for key, sent in self._sent.items() if key[0] != group_id}

    def _keep(self, entry: e.GroupRecord) -> None:
        shares = {member.member_id: member.assignment for member in entry.members}
        self._sent[entry.group_id, entry.generation_id] = shares
        self._sent.pop((entry.group_id, entry.generation_id - KEPT_GENERATIONS), None)

    def _answered(self, source: str, now_ms: int, order: e.SendResponse) -> None:
        response = order.response
        group_id = self._joins.pop((source, order.token), "")
        if isinstance(response, m.JoinGroupResponse) and response.error_code == 0:
            self._one_leader(source, group_id, now_ms, response)
        request = self._requests.pop((source, order.token), None)
        if request is None or not isinstance(response, m.SyncGroupResponse):
            return
        if response.error_code == 0:
            self.judged += 1
            sent = self._sent.get((request.group_id, request.generation_id), {})
            if sent.get(request.member_id, b"") != response.assignment:
                self.accuse(
                    now_ms,
                    f"SyncGroup told {request.member_id} in generation {request.generation_id} at "
                    f"{seconds(now_ms)} something else than its leader had sent.",
                    (request.member_id,),
                )

    def _one_leader(
        self, source: str, group_id: str, now_ms: int, response: m.JoinGroupResponse
    ) -> None:
        # A static leader that came back under a new id is told its members, and to skip them.
        if not response.members or response.skip_assignment:
            return
        self.judged += 1
        key = source, group_id, response.generation_id
        leader = self._leaders.setdefault(key, response.member_id)
        if leader != response.member_id:
            self.accuse(
                now_ms,
                f"generation {response.generation_id} has two leaders at {seconds(now_ms)}: "
                f"{leader} and {response.member_id}.",
                (leader, response.member_id),
            )
