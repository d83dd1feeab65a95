"""Checks of what the application of one member sees from the beginning of a tenure to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.checks import Checker, is_replaced, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.scenario import GroupSpec, Scenario
from ksim.truth import Truth, begin_term

GONE = ("crashed", "closed", "failed")
NO_MEMBER = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.FENCED_INSTANCE_ID,
)


@dataclass(frozen=True, slots=True)
class _Eviction:
    """Since when a member is out of its group, and until when it need not know."""

    since_ms: int
    until_ms: int


class S7NoZombie(Checker):
    """A member hands nothing out after the coordinator has put it out of the group.

    It may end what its handler held at that moment, and nothing more: the lease ends, by the time
    of the request that was confirmed last, before the session and before the rebalance timeout
    that the coordinator counts from the arrival of the same request. What counts is the member id
    that the tenure was given under, so a member that came back as a newcomer is not judged by the
    end of its old id. The same holds from the moment when the member itself is told, in answer to
    a commit or a heartbeat of this very generation, that it is none. The older process of a static
    instance is told nothing when a newer one takes its place, and its lease goes on: until it is
    told, it may hand out for as long as a request that was confirmed just before allows, whatever
    becomes of the newer one. `late` counts the records that were handled after an eviction.
    """

    name = "S7"
    looks_at = (
        o.HandedOut,
        o.Handled,
        o.MemberLife,
        e.ResponseReceived,
        e.SendRequest,
        e.AssignPartitions,
        e.StateChanged,
        e.LogReplayed,
        e.RequestArrived,
        e.AppendRecords,
        e.RecordsAppended,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        super().__init__(truth)
        self.late = 0
        self._specs = {group.id: group for group in scenario.groups}
        self._instances: dict[str, str] = {}
        self._writes: dict[tuple[str, int], e.GroupRecord] = {}
        self._ids: dict[str, str] = {}
        self._tenured: dict[str, tuple[str, str]] = {}
        self._generations: dict[str, int] = {}
        self._asked: dict[tuple[str, int], tuple[str, int]] = {}
        self._evicted: dict[str, _Eviction] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        match fact:
            case o.HandedOut():
                self._judge(now_ms, fact)
            case o.Handled():
                self.late += fact.member in self._evicted
            case o.MemberLife() if fact.what in GONE:
                self._tenured.pop(fact.member, None)
                self._evicted.pop(fact.member, None)
            case e.LogReplayed():
                self._loaded(source, now_ms, fact)
            case e.ResponseReceived():
                self._answered(source, now_ms, fact)
            case e.RequestArrived(request=m.JoinGroupRequest() as request):
                self._learn(request.member_id or fact.fresh_member_id, request.group_instance_id)
            case e.RecordsAppended():
                self._stored(source, now_ms, fact)
            case _:
                pass
        self._ordered(source, now_ms, orders)

    def _ordered(self, source: str, now_ms: int, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.SendRequest):
                self._sent(source, order)
            elif isinstance(order, e.AssignPartitions):
                self._assigned(source, now_ms, order)
            elif isinstance(order, e.StateChanged):
                self._members(now_ms, order.group_id, order.members)
            elif isinstance(order, e.AppendRecords):
                for entry in order.entries:
                    if isinstance(entry, e.GroupRecord):
                        self._writes[source, order.append_id] = entry

    def _stored(self, source: str, now_ms: int, fact: e.RecordsAppended) -> None:
        """Another process of an instance takes its place without a change of the group's state."""
        record = self._writes.pop((source, fact.append_id), None)
        if record is not None and fact.error_code == 0:
            self._recorded(now_ms, record)

    def _assigned(self, source: str, now_ms: int, order: e.AssignPartitions) -> None:
        group_id = self.truth.groups.get(source, "")
        self._tenured[source] = group_id, self._ids.get(source, "")
        self._generations[source] = order.generation_id
        self._evicted.pop(source, None)
        instance_id = self._spec(source).instance_id
        if is_replaced(self.truth, source, lambda name: self._spec(name).instance_id):
            return
        for name, (of_group, _) in self._tenured.items() if instance_id else ():
            if (
                name != source
                and of_group == group_id
                and self._spec(name).instance_id == instance_id
            ):
                self._evict(name, now_ms, is_replaced=True)

    def _spec(self, member: str) -> GroupSpec:
        return self._specs[self.truth.groups[member]].of(member)

    def _evict(self, name: str, now_ms: int, *, is_replaced: bool) -> None:
        """The coordinator knows this member no more; an older process of an instance goes on."""
        until_ms = now_ms
        if is_replaced:
            spec = self._spec(name)
            rebalance_ms = spec.rebalance_timeout_ms or spec.session_timeout_ms
            until_ms += min(spec.session_timeout_ms, rebalance_ms)
        self._evicted.setdefault(name, _Eviction(now_ms, until_ms))

    def _sent(self, source: str, order: e.SendRequest) -> None:
        request = order.request
        if isinstance(request, m.SyncGroupRequest):
            self._ids[source] = request.member_id
        elif isinstance(request, m.OffsetCommitRequest | m.HeartbeatRequest):
            self._asked[source, order.request_id] = request.member_id, request.generation_id

    def _answered(self, source: str, now_ms: int, fact: e.ResponseReceived) -> None:
        asked = self._asked.pop((source, fact.request_id), None)
        if asked is None:
            return
        response = fact.response
        codes = {getattr(response, "error_code", 0)}
        codes |= {item.error_code for item in getattr(response, "partitions", ())}
        present = self._tenured.get(source, ("", ""))[1], self._generations.get(source, -1)
        if asked == present and not codes.isdisjoint(NO_MEMBER):
            since_ms = self._evicted.get(source, _Eviction(now_ms, now_ms)).since_ms
            self._evicted[source] = _Eviction(since_ms, since_ms)

    def _loaded(self, source: str, now_ms: int, fact: e.LogReplayed) -> None:
        begin_term(self._writes, source)
        last: dict[str, e.GroupRecord] = {}
        for entry in fact.entries:
            if isinstance(entry, e.GroupRecord):
                last[entry.group_id] = entry
        for record in last.values():
            self._recorded(now_ms, record)

    def _learn(self, member_id: str, instance_id: str | None) -> None:
        if instance_id is not None:
            self._instances[member_id] = instance_id

    def _recorded(self, now_ms: int, record: e.GroupRecord) -> None:
        for member in record.members:
            self._learn(member.member_id, member.group_instance_id)
        names = tuple(member.member_id for member in record.members)
        self._members(now_ms, record.group_id, names)

    def _members(self, now_ms: int, group_id: str, members: tuple[str, ...]) -> None:
        instances = {self._instances[name] for name in members if name in self._instances}
        for name, (of_group, member_id) in self._tenured.items():
            if of_group == group_id and member_id and member_id not in members:
                mine = self._instances.get(member_id)
                self._evict(name, now_ms, is_replaced=mine in instances)

    def _judge(self, now_ms: int, fact: o.HandedOut) -> None:
        self.judged += 1
        eviction = self._evicted.get(fact.member)
        if eviction is not None and now_ms >= eviction.until_ms:
            tp = TopicPartition(fact.topic, fact.partition)
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, but "
                f"it was out of the group since {seconds(eviction.since_ms)}.",
                (fact.member,),
                tp,
                (fact.offset,),
            )


TOLD_LATER: Final = (
    e.AssignPartitions,
    e.RevokePartitions,
    e.LosePartitions,
    e.AbandonPartitions,
)


@dataclass(slots=True)
class _Told:
    """What one application has been told it owns; None before the first assignment.

    `paused` says since when it does not want a partition, `ends` how its member has ended what it
    owns, as long as the application was not told; `later` is the same of each assignment that it
    has not been told of yet.
    """

    owned: frozenset[TopicPartition] | None = None
    paused: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    ends: set[str] = field(default_factory=set[str])
    later: deque[set[str]] = field(default_factory=deque[set[str]])

    def note(self, order: e.MemberOrder) -> None:
        """What the member assigns or ends now is told later."""
        newest = self.later[-1] if self.later else self.ends
        match order:
            case e.AssignPartitions():
                self.later.append(set())
            case e.RevokePartitions():
                newest.add("revoked")
            case e.LosePartitions() | e.AbandonPartitions():
                newest.add("lost")
            case _:
                pass


class S8Callbacks(Checker):
    """The application is told in the order: assigned, then revoked or lost, and so on.

    For each life of a member: `assigned` comes only when nothing is owned, so that a loss is told
    before anything is claimed again; `revoked` and `lost` name exactly what was assigned last
    (eager rebalancing); what its member gave back is told as `revoked`, what it lost or gave up
    waiting for as `lost`, and either where both happened before it could be told; nothing is handed
    out of what is not owned at that moment, as told, or what the application has paused; and a
    member that has closed has been told the end of all it owned.
    """

    name = "S8"
    looks_at = (
        o.CallbackRan,
        o.HandedOut,
        o.MemberLife,
        o.PartitionsPaused,
        *TOLD_LATER,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._told: dict[str, _Told] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, TOLD_LATER):
                self._of(source).note(order)
        match fact:
            case o.PartitionsPaused():
                self._pause(now_ms, fact)
            case o.HandedOut():
                self._handed_out(now_ms, fact)
            case o.CallbackRan():
                self._callback(now_ms, fact)
            case o.MemberLife():
                self._life(now_ms, fact)
            case _:
                pass

    def _of(self, member: str) -> _Told:
        found = self._told.get(member)
        if found is None:
            found = self._told[member] = _Told()
        return found

    def _pause(self, now_ms: int, fact: o.PartitionsPaused) -> None:
        told = self._of(fact.member)
        for tp in fact.partitions:
            if not fact.paused:
                told.paused.pop(tp, None)
            elif told.owned is not None and tp in told.owned:
                told.paused.setdefault(tp, now_ms)

    def _callback(self, now_ms: int, fact: o.CallbackRan) -> None:
        self.judged += 1
        told = self._of(fact.member)
        ends, told.ends = told.ends, set()
        told.paused.clear()
        named = frozenset(fact.partitions)
        if fact.kind == "assigned":
            told.ends = told.later.popleft() if told.later else set()
            if told.owned is not None:
                self._say(now_ms, fact.member, "assigned", named, "still owned", told.owned)
            told.owned = named
            return
        if told.owned is None:
            self._say(now_ms, fact.member, fact.kind, named, "owned nothing", frozenset())
        elif named != told.owned:
            self._say(now_ms, fact.member, fact.kind, named, "owned", told.owned)
        elif ends and fact.kind not in ends:
            state = f"had {' and '.join(sorted(ends))}"
            self._say(now_ms, fact.member, fact.kind, named, state, told.owned)
        told.owned = None

    def _say(
        self,
        now_ms: int,
        member: str,
        kind: str,
        named: frozenset[TopicPartition],
        state: str,
        owned: frozenset[TopicPartition],
    ) -> None:
        what = ", ".join(map(str, sorted(named))) or "nothing"
        has = " ".join(map(str, sorted(owned)))
        self.accuse(
            now_ms,
            f"{member} was told {kind} ({what}) at {seconds(now_ms)}, but it {state} {has}".rstrip()
            + ".",
            (member,),
        )

    def _handed_out(self, now_ms: int, fact: o.HandedOut) -> None:
        tp = TopicPartition(fact.topic, fact.partition)
        told = self._told.get(fact.member)
        if told is None or told.owned is None or tp not in told.owned:
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, "
                "which it had not been told it owns.",
                (fact.member,),
                tp,
                (fact.offset,),
            )
        # What was on its way to another thread of the application in this very instant may arrive.
        elif told.paused.get(tp, now_ms) < now_ms:
            self.accuse(
                now_ms,
                f"{fact.member} handed out offset {fact.offset} of {tp} at {seconds(now_ms)}, "
                f"which its application had paused at {seconds(told.paused[tp])}.",
                (fact.member,),
                tp,
                (fact.offset,),
            )

    def _life(self, now_ms: int, fact: o.MemberLife) -> None:
        if fact.what in GONE:
            told = self._told.pop(fact.member, None)
            if fact.what == "closed" and told is not None and told.owned:
                has = ", ".join(map(str, sorted(told.owned)))
                self.accuse(
                    now_ms,
                    f"{fact.member} closed at {seconds(now_ms)} and was never told the end of "
                    f"{has}.",
                    (fact.member,),
                )
