"""What one recording decides by itself: order, tenures, callbacks and the commits of a member."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.after.holes import Holes
from ksim.after.lives import Life, Round, Step, joins_of, round_of, syncs_of
from ksim.after.pauses import Pauses
from ksim.after.witness import Event, Tenures, began, commit_events, ends_of, log_events, node_name
from ksim.checks import Violation, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import Release
from ksim.core.values import TopicPartition

Shares = dict[Round, dict[str, bytes]]
# The driver answers for an application that is given up, which may have ended by itself by then.
TWICE: Final = 2


def own_events(
    life: Life, shares: Shares, ends: Mapping[TopicPartition, int], doubts: list[Violation]
) -> Iterator[Event]:
    """Everything that happened to the member, in the order of its steps.

    What nobody can decide by them comes to the `doubts`.
    """
    yield began(life)
    for tp, end in ends.items():
        yield Event(life.first_ms, life.first_ms, -1, "", o.Produced(*tp, end))
    told, marks = _Told(life), _Marks(life.name)
    before = Tenures(life).before_the_recording()
    if before is not None:
        yield before
        yield from marks.begun(life, before)
        yield from told.begun()
    by_step = _commits(life)
    syncs = {each.ended: (made, each) for made, each in syncs_of(life) if not each.error_code}
    shorter: dict[int, list[Event]] = defaultdict(list)
    for seen in (*log_events(life), *_read_again(life, ends)):
        shorter[seen.number].append(seen)
    outs = _Outs(life, doubts)
    for number, step in enumerate(life.steps):
        yield from shorter.get(number, ())
        if isinstance(step.fact, e.RecordsHandedOut):
            yield from outs.handed_out(number, step.at_ms, step.fact)
        elif isinstance(step.fact, e.MarksTaken):
            yield from marks.taken(number, step.at_ms, step.fact)
        yield Event(step.at_ms, step.at_ms, number, life.name, step.fact, step.orders)
        marks.see(step)
        outs.see(step)
        yield from told.of_step(number, step)
        sync = syncs.get(number)
        if sync is not None:
            yield from _stored(number, step.at_ms, sync[0], shares)
        yield from by_step.get(number, ())


def _read_again(life: Life, ends: Mapping[TopicPartition, int]) -> Iterator[Event]:
    """A topic that was gone is there again where somebody reads it, or never was gone."""
    gone: dict[str, set[TopicPartition]] = {}
    for number, step in enumerate(life.steps):
        response = step.fact.response if isinstance(step.fact, e.ResponseReceived) else None
        if isinstance(response, m.MetadataResponse):
            for topic in response.topics:
                if topic.error_code == KafkaError.UNKNOWN_TOPIC_OR_PARTITION:
                    gone[topic.topic] = set()
        elif isinstance(response, m.FetchResponse):
            for item in response.partitions:
                tp, told = TopicPartition(item.topic, item.partition), gone.get(item.topic)
                if told is not None and tp not in told and not item.error_code:
                    told.add(tp)
                    seen = o.Produced(*tp, ends.get(tp, item.next_offset))
                    yield Event(step.at_ms, step.at_ms, number, "", seen)


def _commits(life: Life) -> dict[int, list[Event]]:
    """Each at its request: what is marked then is what it may commit."""
    found: dict[int, list[Event]] = {}
    for token, each in enumerate(life.of_kind(m.OffsetCommitRequest)):
        if not each.asked:
            found.setdefault(each.sent, []).extend(commit_events(life, each, token))
    return found


def _stored(number: int, at_ms: int, made: Round, shares: Shares) -> Iterator[Event]:
    """The coordinator has the generation in its log before it answers SyncGroup."""
    record = group_record(made[0], made[1], shares.get(made, {}))
    token, source = -number - 1, node_name(made[2])
    yield Event(at_ms, at_ms, number, source, None, (e.AppendRecords(token, (record,)),))
    yield Event(at_ms, at_ms, number, source, e.RecordsAppended(token, 0))


def group_record(group_id: str, generation_id: int, given: Mapping[str, bytes]) -> e.GroupRecord:
    """A generation as its coordinator must have stored it."""
    members = tuple(
        e.GroupRecordMember(member_id, None, "", "", 0, 0, b"", given[member_id])
        for member_id in sorted(given)
    )
    return e.GroupRecord(group_id, "consumer", generation_id, None, None, 0, members)


def shares_of(lives: Sequence[Life]) -> Shares:
    """What each round gave to whom: as its leader sent it, and as each member was told."""
    found: Shares = defaultdict(dict)
    instances: dict[tuple[Round, str], str] = {}
    told: list[tuple[Round, m.SyncGroupRequest, bytes]] = []
    for life in lives:
        for joined in joins_of(life):
            for member in joined.response.members:
                if member.group_instance_id is not None:
                    key = round_of(joined), member.group_instance_id
                    instances[key] = member.member_id
        for made, each in syncs_of(life):
            request, response = each.request, each.response
            assert isinstance(request, m.SyncGroupRequest)
            if isinstance(response, m.SyncGroupResponse) and response.error_code == 0:
                for member_id, assignment in request.assignments:
                    found[made].setdefault(member_id, assignment)
                told.append((made, request, response.assignment))
    for made, request, assignment in told:
        if request.group_instance_id is not None:
            # A newer process of an instance has the share that the leader gave to the older one.
            key = made, request.group_instance_id
            found[made].pop(instances.get(key, ""), None)
            instances[key] = request.member_id
        found[made][request.member_id] = assignment
    return found


def all_ends(lives: Sequence[Life]) -> dict[TopicPartition, int]:
    """How far each log went at the least, by what any member was told."""
    found: dict[TopicPartition, int] = {}
    for life in lives:
        for tp, end in ends_of(life):
            found[tp] = max(found.get(tp, 0), end)
    return found


def _follow(due: dict[tuple[TopicPartition, int], int], step: Step) -> None:
    """Where each tenure goes on, after what this step assigns or drops."""
    for order in step.orders:
        if isinstance(order, e.AssignPartitions):
            for item in order.partitions:
                due[TopicPartition(item.topic, item.partition), item.tenure] = item.offset
        elif isinstance(order, e.DropBuffered):
            key = TopicPartition(order.topic, order.partition), order.tenure
            low = due.get(key, order.offset)
            due[key] = order.offset if order.sought or low < 0 else min(low, order.offset)


class _Marks:
    """A mark says that all up to it is done, in its tenure."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next: dict[tuple[TopicPartition, int], int] = {}

    def see(self, step: Step) -> None:
        _follow(self._next, step)

    def begun(self, life: Life, before: Event) -> Iterator[Event]:
        """What was marked before the recording begins is what the member would commit."""
        self.see(Step(before.latest_ms, None, before.orders))
        done = [
            e.Mark(*tp, each.tenure, max(each.to_commit, each.committed) - 1, "")
            for tp, each in sorted(life.state.owned.items())
        ]
        yield from self.taken(-1, before.latest_ms, e.MarksTaken(tuple(done)))

    def taken(self, number: int, at_ms: int, fact: e.MarksTaken) -> Iterator[Event]:
        for mark in fact.marks:
            key = TopicPartition(mark.topic, mark.partition), mark.tenure
            for offset in range(self._next.get(key, mark.offset), mark.offset + 1):
                done = o.Handled(self._name, mark.topic, mark.partition, mark.tenure, offset)
                yield Event(at_ms, at_ms, number, self._name, done)
            self._next[key] = max(self._next.get(key, 0), mark.offset + 1)


class _Outs:
    """Each record that was handed out; where it cannot have been there, its offset counts as well.

    `doubts` are skips of which nobody knows whether the log has a hole there.
    """

    def __init__(self, life: Life, doubts: list[Violation]) -> None:
        self._name = life.name
        self._holes = Holes(life)
        self._pauses = Pauses(life, doubts)
        self._next: dict[tuple[TopicPartition, int], int] = {}
        self._doubts = doubts

    def see(self, step: Step) -> None:
        self._holes.see(step)
        self._pauses.see(step)
        _follow(self._next, step)

    def handed_out(self, number: int, at_ms: int, fact: e.RecordsHandedOut) -> Iterator[Event]:
        """Each record of the range, and before it the offsets of what was fetched without them."""
        tp = TopicPartition(fact.topic, fact.partition)
        due = self._next.get((tp, fact.tenure), fact.first)
        missing = range(0)
        if 0 <= due < fact.first:
            until, known = self._holes.lets_pass(tp, due, fact.first)
            missing = range(due, until)
            if until == fact.first and not known:
                self._doubt(at_ms, tp, due, fact.first)
        for offset in (*missing, *range(fact.first, fact.last + 1)):
            seen = o.HandedOut(self._name, *tp, fact.tenure, offset)
            out = Event(at_ms, at_ms, number, self._name, seen)
            yield from (out,) if offset < fact.last else self._pauses.around(out, fact)
        self._next[tp, fact.tenure] = fact.last + 1

    def _doubt(self, at_ms: int, tp: TopicPartition, due: int, first: int) -> None:
        sentence = (
            f"{self._name} handed out offset {first} of {tp} at {seconds(at_ms)}, and {due} was "
            "next: what was fetched before the recording begins may have lacked the rest."
        )
        self._doubts.append(Violation("S10", at_ms, (self._name,), (str(tp),), (first,), sentence))


class _Told:
    """What the application was told, by what the member waited for."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._open: dict[int, tuple[TopicPartition, ...]] = {}
        self._owned = False
        self._fatal = False
        # How often each end may be told yet, after which nobody has asked for it.
        self._due: dict[int, int] = {}
        self._last_id = life.state.next_revocation_id
        if life.state.release == Release.REVOKING:
            self._due[self._last_id] = TWICE  # it may have been given up before the recording
            self._open[life.state.next_revocation_id] = tuple(sorted(life.state.owned))

    def begun(self) -> Iterator[Event]:
        """What it was told of before the recording begins, and of the end of it."""
        state, at_ms = self._life.state, self._life.first_ms
        owned = tuple(sorted(state.owned))
        if not owned or not (state.announced or state.release != Release.NONE):
            return
        self._owned = True
        yield self._told(-1, at_ms, "assigned", owned)
        if state.release in (Release.REVOKING, Release.COMMITTING):
            revoked = e.RevokePartitions(state.next_revocation_id, owned)
            yield Event(at_ms, at_ms, -1, self._life.name, None, (revoked,))
        if state.release == Release.COMMITTING:
            self._owned = False
            yield self._told(-1, at_ms, "revoked", owned)

    def of_step(self, number: int, step: Step) -> Iterator[Event]:
        fact: Any = step.fact
        if isinstance(fact, e.PartitionsRevoked):
            yield from self._ended(number, step.at_ms, "revoked", fact.revocation_id)
        elif isinstance(fact, e.PartitionsLost):
            yield from self._ended(number, step.at_ms, "lost", fact.revocation_id)
        for order in step.orders:
            match order:
                case e.RevokePartitions() | e.LosePartitions():
                    self._open[order.revocation_id] = order.partitions
                    self._last_id = max(self._last_id, order.revocation_id)
                case e.AbandonPartitions():
                    self._due[order.revocation_id] = TWICE
                case e.AssignPartitions():
                    yield from self.assigned(number, step.at_ms, order)
                case e.ReportError():
                    self._fatal = self._fatal or order.fatal
                case e.Closed() if not self._fatal:
                    name, group_id = self._life.name, self._life.group_id
                    life = o.MemberLife(name, group_id, "closed", "")
                    yield Event(step.at_ms, step.at_ms, number, name, life)
                case _:
                    pass

    def assigned(self, number: int, at_ms: int, order: e.AssignPartitions) -> Iterator[Event]:
        partitions = tuple(TopicPartition(item.topic, item.partition) for item in order.partitions)
        self._owned = True
        yield self._told(number, at_ms, "assigned", partitions)

    def _ended(self, number: int, at_ms: int, kind: str, revocation_id: int) -> Iterator[Event]:
        """Each end is told once: what was revoked, and lost before its last commit, is not."""
        partitions = self._open.pop(revocation_id, None)
        due = self._due.get(revocation_id, 1 if revocation_id <= self._last_id else 0)
        self._due[revocation_id] = due - 1
        if due <= 0:
            yield self._told(number, at_ms, kind, ())
        elif partitions is not None and self._owned:
            self._owned = False
            yield self._told(number, at_ms, kind, partitions)

    def _told(
        self, number: int, at_ms: int, kind: str, partitions: tuple[TopicPartition, ...]
    ) -> Event:
        told = o.CallbackRan(self._life.name, kind, partitions)
        return Event(at_ms, at_ms, number, self._life.name, told)
