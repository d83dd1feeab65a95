"""What must hold in every run, judged over the trace; one class for each property.

A checker sees every step of every machine and every observation, in order, under the name of its
source. It writes one English sentence for each violation. What it cannot see it does not judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ksim import observations as o
from ksim.beginnings import Beginnings
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import MalformedProtocolError, decode_assignment
from ksim.core.values import TopicPartition
from ksim.truth import Place, Truth, begin_term

KEPT_VIOLATIONS = 20
NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Violation:
    """One breach: when, who, where, and one sentence for people."""

    check: str
    at_ms: int
    members: tuple[str, ...]
    partitions: tuple[str, ...]
    offsets: tuple[int, ...]
    sentence: str


class Checker:
    """Base of all: `see` each step in order, `end` once."""

    name: ClassVar[str] = ""
    liveness: ClassVar[bool] = False
    # The facts and orders that it wants to see; steps without any of them may be kept from it.
    looks_at: ClassVar[tuple[type, ...]] = ()

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.violations: list[Violation] = []
        self.judged = 0
        self.broken = ""

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

    def broke(self, now_ms: int, error: Exception) -> None:
        """The check itself has failed: it knows nothing about this run any more."""
        self.broken = f"{type(error).__name__}: {error}"
        self.violations.clear()
        self.accuse(now_ms, f"the check itself broke at {seconds(now_ms)}: {self.broken}.")

    @property
    def verdict(self) -> str:
        if self.broken:
            return "broken"
        if self.violations:
            return "fail"
        return "pass" if self.judged else NOT_JUDGED


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
    """Nothing below a committed offset is unhandled: a successor would never see it.

    Where a log was truncated, what counts is where the epoch in the commit ends in the log of
    today: until a member learns of it, it may commit what it has handled and what is no longer
    there, and its successor goes back to that end. What was under way when its topic was deleted is
    of that topic, not of the one of the same name that it arrives at.
    """

    name = "S1"
    looks_at = (e.AppendRecords,)

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        tp = TopicPartition(entry.topic, entry.partition)
        if self.truth.is_old(request, tp):
            return
        self.judged += 1
        missing = self.truth.handled_up_to(request.group_id, tp)
        if missing < self.truth.stands_for(entry) and (request.group_id, tp) in self.truth.firsts:
            self.accuse(
                now_ms,
                f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, "
                f"but nobody in {request.group_id} has handled offset {missing}: it would be lost.",
                (client_id,),
                tp,
                (missing, entry.offset),
            )


class S2CommitWithinTenure(Commits):
    """A commit never passes the lowest record that its own tenure has not handled.

    A commit that was sent before a seek back may arrive after it. Where a log was truncated, the
    commit stands for what S1 says; where the topic is deleted by now, it is of no log, and where
    another took its place the member goes on with all that it has handled, cut off or not.
    """

    name = "S2"
    looks_at = (
        o.Handled,
        e.AssignPartitions,
        e.DropBuffered,
        e.AppendRecords,
        e.SendRequest,
        o.TopicIs,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        # What was handled and had been cut off: it counts again where the log itself is none.
        self._gone: dict[tuple[str, TopicPartition], list[o.Handled]] = {}
        self._next: dict[tuple[str, TopicPartition], tuple[int, int]] = {}
        self._ahead: dict[tuple[str, TopicPartition], set[int]] = {}
        self._sent: dict[tuple[str, TopicPartition], set[int]] = {}
        self._on_their_way: dict[tuple[str, TopicPartition], frozenset[int]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, o.Handled):
            self._note_handled(fact)
            return
        if isinstance(fact, o.TopicIs) and not fact.partitions:
            self._note_deleted(fact.topic)
        for order in orders:
            match order:
                case e.AssignPartitions():
                    for item in order.partitions:
                        tp = TopicPartition(item.topic, item.partition)
                        self._sent.pop((source, tp), None)
                        self._begin(source, tp, item.tenure, item.offset)
                case e.DropBuffered():
                    self._drop(source, fact, order)
                case e.SendRequest(request=m.OffsetCommitRequest() as request):
                    self._note_sent(source, request)
                case _:
                    pass
        super().see(source, now_ms, fact, orders)

    def _drop(self, source: str, fact: Any, order: e.DropBuffered) -> None:
        tp = TopicPartition(order.topic, order.partition)
        _, due = self._next.get((source, tp), (-1, -1))
        if isinstance(fact, e.Sought) or order.offset < due or due < 0:
            self._begin(source, tp, order.tenure, order.offset)

    def _begin(self, source: str, tp: TopicPartition, tenure: int, offset: int) -> None:
        key = source, tp
        self._next[key] = tenure, offset
        self._ahead.pop(key, None)
        self._gone.pop(key, None)
        self._on_their_way[key] = frozenset(self._sent.get(key, ()))

    def _note_sent(self, source: str, request: m.OffsetCommitRequest) -> None:
        for item in request.offsets:
            key = source, TopicPartition(item.topic, item.partition)
            self._sent.setdefault(key, set()).add(item.offset)

    def _note_handled(self, fact: o.Handled) -> None:
        if self.truth.is_gone(fact, deleted=False):
            key = fact.member, TopicPartition(fact.topic, fact.partition)
            self._gone.setdefault(key, []).append(fact)
        else:
            self._handled(fact)

    def _note_deleted(self, topic: str) -> None:
        for key in [key for key in self._gone if key[1].topic == topic]:
            for gone in self._gone.pop(key):
                self._handled(gone)

    def _handled(self, fact: o.Handled) -> None:
        """Handlers beside each other end in any order."""
        key = fact.member, TopicPartition(fact.topic, fact.partition)
        tenure, due = self._next.get(key, (-1, -1))
        if tenure != fact.tenure:
            return
        due = self.truth.due(fact, due)
        ahead = self._ahead.setdefault(key, set())
        ahead.add(fact.offset)
        while due in ahead:
            ahead.remove(due)
            due += 1
        self._next[key] = tenure, due

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        del request
        tp = TopicPartition(entry.topic, entry.partition)
        if self.truth.is_deleted(tp):
            return
        self.judged += 1
        _, done = self._next.get((client_id, tp), (0, entry.offset))
        from_before = entry.offset in self._on_their_way.get((client_id, tp), ())
        if self.truth.stands_for(entry) > done and not from_before:
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
    looks_at = (e.AppendRecords,)

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
    """Nothing of a partition is handed out after it was assigned to another one of the group."""

    name = "S5"
    looks_at: ClassVar[tuple[type, ...]] = (
        o.HandedOut,
        e.AssignPartitions,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._owner: dict[Place, tuple[str, int]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                self._assigned(source, now_ms, order)
        if isinstance(fact, o.HandedOut):
            self._judge(now_ms, fact)

    def _assigned(self, source: str, now_ms: int, order: e.AssignPartitions) -> None:
        for item in order.partitions:
            place = self.truth.place(source, item.topic, item.partition)
            self._owner[place] = source, now_ms

    def _judge(self, now_ms: int, fact: o.HandedOut) -> None:
        self.judged += 1
        place = self.truth.place(fact.member, fact.topic, fact.partition)
        owner, since_ms = self._owner.get(place, (fact.member, 0))
        if owner != fact.member:
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {place[1]} at "
                f"{seconds(now_ms)}, although {owner} has owned it since {seconds(since_ms)}.",
                (fact.member, owner),
                place[1],
                (fact.offset,),
            )


def is_replaced(truth: Truth, member: str, instance_of: Callable[[str], str | None]) -> bool:
    """Whether one that joined later has the instance id of this one, which may go on until it is
    told.
    """
    instance_id, group_id = instance_of(member), truth.groups.get(member)
    same = [
        name
        for name, of in truth.live.items()
        if of == group_id and instance_of(name) == instance_id
    ]
    return instance_id is not None and same[-1:] != [member]


class S6Fencing(Commits):
    """A commit that is accepted carries the generation and a member of that moment."""

    name = "S6"
    looks_at = (
        e.LogReplayed,
        e.RecordsAppended,
        e.StateChanged,
        e.AppendRecords,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._writes: dict[tuple[str, int], e.GroupRecord] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.LogReplayed):
            begin_term(self._writes, source)
        # A static member that comes back takes its place without a change of the group's state.
        if isinstance(fact, e.RecordsAppended):
            written = self._writes.pop((source, fact.append_id), None)
            if written is not None and fact.error_code == 0:
                self._note(written)
        super().see(source, now_ms, fact, orders)
        for order in orders:
            for entry in order.entries if isinstance(order, e.AppendRecords) else ():
                if isinstance(entry, e.GroupRecord):
                    self._writes[source, order.append_id] = entry

    def _note(self, entry: e.GroupRecord) -> None:
        members = tuple(member.member_id for member in entry.members)
        self._groups[entry.group_id] = entry.generation_id, members

    def before(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms
        if isinstance(fact, e.LogReplayed):
            for entry in fact.entries:
                if isinstance(entry, e.GroupRecord):
                    self._note(entry)
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
    """Within a tenure records are handed out one after the other, from the first on.

    Where its application has sought, the next one is the one that it wants, whether its member
    has taken note of that or not; where a position was not in the log, the end by `latest`. Where a
    log was truncated, or its topic deleted, a tenure may go back once for each time, as its policy
    says. The first one of a group that has nothing committed and begins at the latest is not before
    the end (`beginnings`).
    """

    name = "S10"
    looks_at: ClassVar[tuple[type, ...]] = (
        *Beginnings.looks_at,
        o.HandedOut,
        o.PartitionSought,
        e.DropBuffered,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._next: dict[tuple[str, TopicPartition, int], int] = {}
        self._tenures: dict[tuple[str, TopicPartition], int] = {}
        self._cuts: dict[TopicPartition, int] = {}
        self._deletions: dict[str, int] = {}
        self._resets: dict[tuple[str, TopicPartition, int], int] = {}
        self._beginnings = Beginnings(truth)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, o.Truncated):
            cut = TopicPartition(fact.topic, fact.partition)
            self._cuts[cut] = self._cuts.get(cut, 0) + 1
        elif isinstance(fact, o.TopicIs) and not fact.partitions:
            self._deletions[fact.topic] = self._deletions.get(fact.topic, 0) + 1
        for tp, offset, end in self._beginnings.early(source, fact, orders):
            self.accuse(
                now_ms,
                f"{source} began {tp} at offset {offset} at {seconds(now_ms)}, though nothing was "
                f"committed, its policy is latest, and the log ended at {end}.",
                (source,),
                tp,
                (offset, end),
            )
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    self._next[source, tp, item.tenure] = item.offset
                    self._tenures[source, tp] = item.tenure
            elif isinstance(order, e.DropBuffered):
                tp = TopicPartition(order.topic, order.partition)
                due = self._next.get((source, tp, order.tenure), order.offset)
                anew = isinstance(fact, e.Sought) or due < 0
                at = order.offset if anew else min(due, order.offset)
                self._next[source, tp, order.tenure] = at
        if isinstance(fact, o.PartitionSought):
            tp = TopicPartition(fact.topic, fact.partition)
            self._next[source, tp, self._tenures.get((source, tp), 0)] = fact.offset
        elif isinstance(fact, o.HandedOut):
            self._judge(now_ms, fact)

    def _judge(self, now_ms: int, fact: o.HandedOut) -> None:
        self.judged += 1
        tp = TopicPartition(fact.topic, fact.partition)
        key = fact.member, tp, fact.tenure
        due = self.truth.due(fact, self._next.get(key, -1))
        # A position beyond an end that came nearer is reset by the member's policy.
        shorter = self._cuts.get(tp, 0) + self._deletions.get(tp.topic, 0)
        if fact.offset < due and self._resets.get(key, 0) < shorter:
            self._resets[key] = shorter
        elif due != fact.offset:
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, "
                f"but in tenure {fact.tenure} offset {due} was next.",
                (fact.member,),
                tp,
                (fact.offset,),
            )
        self._next[key] = fact.offset + 1
