"""Checks of a group as a whole: what its leader shares out, and how often it stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ksim import observations as o
from ksim.assignment_rules import stray
from ksim.budget import ENDLESS, MARGIN_MS, MOVE, Budget, Cause
from ksim.checks import Checker, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import (
    MalformedProtocolError,
    Subscription,
    decode_assignment,
    decode_subscription,
)
from ksim.core.values import TopicPartition
from ksim.pace import Pace
from ksim.rest import Rest
from ksim.scenario import Scenario
from ksim.truth import Truth
from ksim.waits import Waits

GONE = ("crashed", "closed", "failed")
HALTED = ("paused", "resumed")
Shares = dict[str, tuple[TopicPartition, ...]]


class S11Assignment(Checker):
    """A leader gives each partition of the subscribed topics to one member that wants its topic.

    Partitions are those of the metadata that the leader received last before it sent its
    SyncGroup, where an answer about all topics speaks of those, too, that it does not list;
    subscriptions are those of its JoinGroup answer. No member has two partitions more
    of a topic than another that wants it (range), or two more in all where all want the same
    (roundrobin); and each partition is exactly whose Kafka's assignor of the chosen protocol makes
    it (`assignment_rules`, which decides nothing itself). Not judged: leaders with subscriptions
    that cannot be read.
    """

    name = "S11"
    looks_at = (e.ResponseReceived, e.SendRequest)

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._counts: dict[str, dict[str, int]] = {}
        self._asked_all: set[tuple[str, int]] = set()
        self._joined: dict[str, m.JoinGroupResponse] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.ResponseReceived):
            response = fact.response
            if isinstance(response, m.MetadataResponse):
                if (source, fact.request_id) in self._asked_all:
                    self._asked_all.remove((source, fact.request_id))
                    self._counts.pop(source, None)
                self._learn(source, response)
            elif isinstance(response, m.JoinGroupResponse) and response.error_code == 0:
                self._joined[source] = response
        for order in orders:
            if isinstance(order, e.SendRequest):
                request = order.request
                if isinstance(request, m.SyncGroupRequest) and request.assignments:
                    self._judge(source, now_ms, request)
                elif isinstance(request, m.MetadataRequest) and request.topics is None:
                    self._asked_all.add((source, order.request_id))

    def _learn(self, source: str, response: m.MetadataResponse) -> None:
        counts = self._counts.setdefault(source, {})
        for topic in response.topics:
            if topic.error_code == 0:
                counts[topic.topic] = len(topic.partitions)
            else:
                counts.pop(topic.topic, None)

    def _judge(self, source: str, now_ms: int, request: m.SyncGroupRequest) -> None:
        joined = self._joined.get(source)
        if joined is None or joined.generation_id != request.generation_id:
            return
        try:
            members = [
                decode_subscription(each.member_id, each.group_instance_id, each.metadata)
                for each in joined.members
            ]
            shares = {name: decode_assignment(data) for name, data in request.assignments}
        except MalformedProtocolError:
            return
        self.judged += 1
        wanted = {topic for member in members for topic in member.topics}
        known = self._counts.get(source, {})
        counts = {topic: known[topic] for topic in sorted(wanted) if topic in known}
        wrong = _wrong(joined.protocol_name or "", members, counts, shares)
        if wrong:
            self.accuse(
                now_ms,
                f"{source}, leader of generation {request.generation_id} of {request.group_id}, "
                f"shared out at {seconds(now_ms)}: {wrong}.",
                (source,),
            )


def _wrong(
    protocol: str, members: Sequence[Subscription], counts: Mapping[str, int], shares: Shares
) -> str:
    """The first thing that is wrong with this assignment, or nothing."""
    due = {TopicPartition(topic, number) for topic in counts for number in range(counts[topic])}
    given = [(tp, name) for name, share in sorted(shares.items()) for tp in share]
    owners: dict[TopicPartition, str] = {}
    topics = {member.member_id: member.topics for member in members}
    for tp, name in given:
        if tp not in due:
            return f"{name} was given {tp}, which does not exist or nobody wants"
        if tp.topic not in topics.get(name, ()):
            return f"{name} was given {tp}, but does not want {tp.topic}"
        if tp in owners:
            return f"{tp} was given to {owners[tp]} and to {name}"
        owners[tp] = name
    left = sorted(due - owners.keys())
    if left:
        return f"nobody was given {left[0]}"
    return _unbalanced(protocol, topics, shares) or stray(protocol, members, counts, owners)


def _unbalanced(protocol: str, topics: Mapping[str, tuple[str, ...]], shares: Shares) -> str:
    """Where one has two more than another, if the assignor promises that nobody has."""
    kinds: list[tuple[str, ...]] = []
    if protocol == "range":
        kinds += [(topic,) for topic in sorted({t for each in topics.values() for t in each})]
    elif protocol == "roundrobin" and len({frozenset(each) for each in topics.values()}) == 1:
        kinds.append(next(iter(topics.values())))
    for kind in kinds:
        sizes = {
            name: sum(tp.topic in kind for tp in shares.get(name, ()))
            for name, wants in topics.items()
            if set(kind) <= set(wants)
        }
        if max(sizes.values()) - min(sizes.values()) > 1:
            most, least = max(sizes, key=lambda n: sizes[n]), min(sizes, key=lambda n: sizes[n])
            return f"{most} has {sizes[most]} of {', '.join(kind)}, {least} {sizes[least]}"
    return ""


class Caused(Checker):
    """Base of those that judge a group by what has happened to it lately."""

    liveness = True
    causes_at = (
        o.FaultStruck,
        o.MemberLife,
        e.RequestFailed,
        e.PartitionClosed,
        e.LosePartitions,
    )

    def __init__(self, truth: Truth, budget: Budget) -> None:
        super().__init__(truth)
        self.budget = budget

    def cause(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Keep the budget up to date."""
        before = self.budget
        if isinstance(fact, o.FaultStruck):
            self.budget = before.struck(now_ms, fact)
        elif isinstance(fact, o.MemberLife):
            what = f"{fact.member} {fact.what}"
            much = fact.what in HALTED
            self.budget = before.with_cause(what, now_ms, (fact.group_id,), much=much)
        elif isinstance(fact, e.RequestFailed) and source in self.truth.groups:
            group_id = self.truth.groups[source]
            what = f"{source} unanswered"
            slow = not self.is_news(source, fact)
            self.budget = before.with_cause(what, now_ms, (group_id,), much=False, slow=slow)
        elif isinstance(fact, e.PartitionClosed):
            group_id = self.truth.groups.get(source, "")
            what = f"{source} gave back {fact.topic}-{fact.partition}"
            self.budget = before.with_cause(what, now_ms, (group_id,), much=False)
        for order in orders:
            if isinstance(order, e.LosePartitions) and order.reason.startswith("max.poll"):
                group_id = self.truth.groups.get(source, "")
                self.budget = self.budget.with_cause(f"{source} slow", now_ms, (group_id,))
        if self.budget.causes is not before.causes:
            self.caused(self.budget.causes[-1])

    def is_news(self, source: str, fact: e.RequestFailed) -> bool:
        """Whether this may bring rebalances: it was about the group."""
        return self.truth.is_of_group(source, fact.request_id)

    def caused(self, cause: Cause) -> None:
        """A new cause."""


@dataclass(slots=True)
class _Credit:
    """Rebalances that a cause may still bring."""

    cause: Cause
    left: int


class L3NoStorm(Caused):
    """Each rebalance has a cause, and each cause few rebalances.

    Causes are what a scenario does, members that start, stop, crash or are too slow, that give a
    partition back, and requests of the group without an answer, from when it must have come
    (`waits`). A member that comes or goes, a partition that is given back, and a lost answer, may
    each bring `FEW` rebalances; what else goes
    wrong `ROUNDS`, and one for each member of the group (that falls out and comes back); pausing
    and seeking partitions, compacting the offsets log, a coordinator that moves while the group is
    at rest, and what happens to messages that are about reading alone, none. A cause is spent when
    the group must have settled, or has been at rest for `quiet_ms` since it was over. In a group
    whose application may be busy for longer than a rebalance waits each cause counts as a fault,
    and each rebalance that ends without a living member is a cause. Nothing is lost by a refusal
    that belongs to another
    generation than the one it is lost from: that is where storms begin. Nor does a member send more
    heartbeats than its interval says (`pace`).
    """

    name = "L3"
    looks_at = (
        *Caused.causes_at,
        *Rest.looks_at,
        *Pace.looks_at,
        *Waits.looks_at,
    )

    def __init__(self, truth: Truth, budget: Budget, scenario: Scenario) -> None:
        super().__init__(truth, budget)
        self._credits: dict[str, list[_Credit]] = {s.group_id: [] for s in budget.shares}
        self._asked: dict[tuple[str, int], int] = {}
        self._generations: dict[str, int] = {}
        self._rest = Rest(truth)
        self._specs = {group.id: group for group in scenario.groups}
        self._pace = Pace(self._interval_ms)
        self._waits = Waits(truth, scenario)

    def _interval_ms(self, group_id: str, member: str) -> int:
        """A heartbeat must be able to ask for a rebalance that would end without its member."""
        spec = self._specs[group_id].of(member)
        rebalance_ms = spec.rebalance_timeout_ms or spec.session_timeout_ms
        return min(spec.heartbeat_interval_ms, rebalance_ms // 3)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        since = {group_id: self._rest.since(group_id) for group_id in self._credits}
        self.cause(source, now_ms, fact, orders)
        self._rest.see(source, now_ms, fact, orders)
        self._waits.see(source, now_ms, fact, orders)
        for group_id, since_ms in since.items():
            if since_ms is not None and self._rest.since(group_id) is None:
                self._spend(now_ms, group_id, since_ms)
        for order in orders:
            if isinstance(order, e.StateChanged) and order.to_state == "CompletingRebalance":
                self._judge(now_ms, order)
                self._without(now_ms, order)
            elif isinstance(order, e.LosePartitions) and isinstance(fact, e.ResponseReceived):
                self._lost(source, now_ms, fact)
        self._note(source, fact, orders)
        too_fast = self._pace.see(source, now_ms, fact, orders)
        if too_fast is not None:
            self.accuse(now_ms, too_fast, (source,))

    def _note(self, source: str, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                self._generations[source] = order.generation_id
            elif isinstance(order, e.SendRequest):
                request = order.request
                if isinstance(request, m.HeartbeatRequest | m.OffsetCommitRequest):
                    self._asked[source, order.request_id] = request.generation_id
        if isinstance(fact, e.ResponseReceived):
            self._asked.pop((source, fact.request_id), None)

    def _lost(self, source: str, now_ms: int, fact: e.ResponseReceived) -> None:
        asked = self._asked.get((source, fact.request_id))
        present = self._generations.get(source, -1)
        if asked is not None and asked != present:
            self.accuse(
                now_ms,
                f"{source} lost its partitions of generation {present} at {seconds(now_ms)} by the "
                f"answer to a request of generation {asked}.",
                (source,),
            )

    def is_news(self, source: str, fact: e.RequestFailed) -> bool:
        """And has not been counted when its answer must have come."""
        told = self._waits.was_told(source, fact.request_id)
        return not told and super().is_news(source, fact)

    def caused(self, cause: Cause) -> None:
        for group_id in cause.groups:
            share = self.budget.share(group_id)
            moved = cause.what.startswith(MOVE) and self._rest.since(group_id) is not None
            if share is not None and not moved and not cause.slow:
                self._credits[group_id].append(_Credit(cause, share.rounds_of(cause)))

    def _spend(self, now_ms: int, group_id: str, since_ms: int) -> None:
        """It was at rest until now: what was over long before brings nothing any more."""
        share = self.budget.share(group_id)
        if share is not None:
            self._credits[group_id] = [
                each
                for each in self._credits[group_id]
                if now_ms < max(since_ms, each.cause.over_ms) + share.quiet_ms
            ]

    def _without(self, now_ms: int, order: e.StateChanged) -> None:
        """Where members are slow, who was not waited for comes back, and brings another one."""
        share = self.budget.share(order.group_id)
        live = sum(of == order.group_id for of in self.truth.live.values())
        if share is not None and share.slow and len(order.members) < live:
            what = f"generation {order.generation_id} began without a member"
            self.budget = self.budget.with_cause(what, now_ms, (order.group_id,), much=False)
            self.caused(self.budget.causes[-1])

    def _credit(self, now_ms: int, group_id: str) -> tuple[_Credit | None, list[_Credit]]:
        """What is left to be spent, and whatever may still be felt."""
        alive = [each for each in self._credits[group_id] if now_ms <= each.cause.until_ms]
        self._credits[group_id] = alive
        return next((each for each in alive if each.left), None), alive

    def _judge(self, now_ms: int, order: e.StateChanged) -> None:
        if order.group_id not in self._credits:
            return
        self.judged += 1
        credit, alive = self._credit(now_ms, order.group_id)
        if credit is None:
            for member in self._waits.late(order.group_id, now_ms):
                what = f"{member} without an answer"
                self.budget = self.budget.with_cause(what, now_ms, (order.group_id,), much=False)
                self.caused(self.budget.causes[-1])
            credit, alive = self._credit(now_ms, order.group_id)
        if credit is not None:
            endless = credit.cause.what.startswith(ENDLESS)
            credit.left -= not endless or now_ms > credit.cause.over_ms + MARGIN_MS
            return
        share = self.budget.share(order.group_id)
        spent = ", ".join(
            f"{c.cause.what} at {seconds(c.cause.at_ms)}: {share.rounds_of(c.cause)}"
            for c in alive[-3:]
            if share is not None
        )
        self.accuse(
            now_ms,
            f"generation {order.generation_id} of {order.group_id} began at {seconds(now_ms)} "
            f"without a cause; budget, spent: {spent or 'nothing happened lately'}.",
        )


@dataclass(slots=True)
class _Stop:
    """A group of which somebody has nothing, since when, and who."""

    since_ms: int
    members: frozenset[str]


class L4ShortStop(Caused):
    """From the first revocation of a rebalance to its last assignment is no more than the bound.

    The bound follows from the configuration (`budget.stop_ms`). A cause that reaches into the stop
    relaxes it by the time that the group may take to settle after it.
    """

    name = "L4"
    looks_at = (*Caused.causes_at, e.RevokePartitions, e.AssignPartitions)

    def __init__(self, truth: Truth, budget: Budget) -> None:
        super().__init__(truth, budget)
        self._stops: dict[str, _Stop] = {}
        self._until_ms: dict[str, int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self.cause(source, now_ms, fact, orders)
        if isinstance(fact, o.MemberLife) and fact.what in GONE:
            self._back(now_ms, fact.group_id, fact.member)
        group_id = self.truth.groups.get(source)
        if group_id is None:
            return
        for order in orders:
            if isinstance(order, e.RevokePartitions | e.LosePartitions):
                stop = self._stops.setdefault(group_id, _Stop(now_ms, frozenset()))
                stop.members |= {source}
            elif isinstance(order, e.AssignPartitions):
                self._back(now_ms, group_id, source)

    def caused(self, cause: Cause) -> None:
        for group_id in cause.groups:
            before_ms = self._until_ms.get(group_id, 0)
            self._until_ms[group_id] = max(before_ms, cause.until_ms)

    def _back(self, now_ms: int, group_id: str, member: str) -> None:
        stop = self._stops.get(group_id)
        if stop is None:
            return
        stop.members -= {member}
        if not stop.members:
            del self._stops[group_id]
            self._judge(now_ms, group_id, stop.since_ms)

    def _judge(self, now_ms: int, group_id: str, since_ms: int) -> None:
        share = self.budget.share(group_id)
        if share is None:
            return
        self.judged += 1
        until_ms = max(since_ms, self._until_ms.get(group_id, 0)) + share.stop_ms
        if now_ms > until_ms:
            reaching = self.budget.reaching(group_id, since_ms)
            why = ", ".join(cause.what for cause in reaching[-3:]) or "nothing happened lately"
            self.accuse(
                now_ms,
                f"{group_id} stood still from {seconds(since_ms)} to {seconds(now_ms)}; budget: "
                f"{seconds(share.stop_ms)}, until {seconds(until_ms)} ({why}).",
            )

    def end(self, now_ms: int) -> None:
        for group_id, stop in sorted(self._stops.items()):
            self._judge(now_ms, group_id, stop.since_ms)
