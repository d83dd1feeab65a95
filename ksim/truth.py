"""What really happened to the records of a run: what was written, and what each group handled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.unplaced import Unplaced

T = TypeVar("T")
NO_OFFSETS: Final[dict[int, int]] = {}
NO_EPOCH: Final = -1
NOTHING_COMMITTED: Final = -1
EARLIEST, LATEST, NONE = "earliest", "latest", "none"
KEPT_COMMITS: Final = 4
KEPT_ASKS: Final = 64
OF_GROUP: Final = ("group", "leave")

# A partition as one group sees it.
Place = tuple[str, TopicPartition]
Asked = tuple[int, m.OffsetCommitRequest]


def begin_term(writes: dict[tuple[str, int], T], source: str) -> list[tuple[tuple[str, int], T]]:
    """Take out what the term before had under way: it is in the log now, or nowhere.

    The numbers of its writes are given anew.
    """
    return [(key, writes.pop(key)) for key in list(writes) if key[0] == source]


@dataclass(frozen=True, slots=True)
class Cut:
    """What stood from `low` on and was written up to `last_ms` is gone; `leader_epoch` follows."""

    low: int
    last_ms: int
    leader_epoch: int


@dataclass(slots=True)
class Truth:
    """What happened to the records, group by group, as the checkers share it.

    Only records that are still there count as handled, and `committed` is where a successor begins.
    `set_back` holds what was committed where a
    commit that its member had given up has overwritten it, until the next commit.

    `firsts` is where a group has to begin, whatever its members say: at the start of the log where
    the coordinator told them that nothing is committed and `resets` (by group) says earliest; at
    the committed offset where it named one. With latest a group that is told that nothing is
    committed goes on at the end, and gives up what lies before (`given_up`); so does one that is
    told that its position is not in the log any more. Where a topic of the same name
    took the place of another, positions of the old one may go on, as in Kafka by names alone: the
    first record that is handled is where such a group begins, or its old end if there is none; and
    who is told of a commit of the old one skips what lies before it. So is each commit of who was
    given the old one, until it is assigned anew, handles a record of the new one, or is told that
    its position is not in the log. With none nobody begins anew: who is told so is `unplaced`.
    """

    resets: dict[str, str] = field(default_factory=dict[str, str])
    unplaced: Unplaced = field(default_factory=Unplaced)
    ends: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    firsts: dict[Place, int] = field(default_factory=dict[Place, int])
    handled: dict[Place, dict[int, int]] = field(default_factory=dict[Place, dict[int, int]])
    committed: dict[Place, int] = field(default_factory=dict[Place, int])
    voided: dict[Place, int] = field(default_factory=dict[Place, int])
    prefix: dict[Place, int] = field(default_factory=dict[Place, int])
    groups: dict[str, str] = field(default_factory=dict[str, str])
    live: dict[str, str] = field(default_factory=dict[str, str])
    cuts: dict[TopicPartition, list[Cut]] = field(default_factory=dict[TopicPartition, list[Cut]])
    set_back: dict[Place, int] = field(default_factory=dict[Place, int])
    healed_ms: int | None = None
    given_up: dict[Place, int] = field(default_factory=dict[Place, int])
    # From where to where the group did not look when it last began at the end.
    left_behind: dict[Place, tuple[int, int]] = field(default_factory=dict[Place, tuple[int, int]])
    old_commits: dict[Place, int] = field(default_factory=dict[Place, int])
    _apart: set[str] = field(default_factory=set[str])
    _given: dict[tuple[str, TopicPartition], bool] = field(
        default_factory=dict[tuple[str, TopicPartition], bool]
    )  # whether its topic has been deleted since
    _sought: set[Place] = field(default_factory=set[Place])
    _skips: dict[Place, int] = field(default_factory=dict[Place, int])
    _highest: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    _old_ends: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    _told: dict[tuple[str, TopicPartition], int] = field(
        default_factory=dict[tuple[str, TopicPartition], int]
    )
    _out_of_range: set[tuple[str, str, int]] = field(default_factory=set[tuple[str, str, int]])
    _written_ms: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    _asked: dict[str, deque[Asked]] = field(default_factory=dict[str, deque[Asked]])
    _of_group: dict[str, deque[int]] = field(default_factory=dict[str, deque[int]])
    _given_up: list[m.OffsetCommitRequest] = field(default_factory=list[m.OffsetCommitRequest])
    _outlived: list[tuple[m.OffsetCommitRequest, TopicPartition]] = field(
        default_factory=list[tuple[m.OffsetCommitRequest, TopicPartition]]
    )
    _appends: dict[tuple[str, int], tuple[Any, tuple[e.LogEntry, ...]]] = field(
        default_factory=dict[tuple[str, int], tuple[Any, tuple[e.LogEntry, ...]]]
    )

    def note(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Keep the ground truth up to date, before any checker looks."""
        noted = NOTED.get(type(fact))
        if noted is not None:
            noted(self, source, now_ms, fact)
        group_id = self.groups.get(source, "")
        if self.resets.get(group_id) == NONE:
            self.unplaced.note(group_id, source, now_ms, fact, orders)
        for order in orders:
            if isinstance(order, e.SendRequest):
                if order.channel in OF_GROUP or isinstance(order.request, m.FindCoordinatorRequest):
                    self._of_group.setdefault(source, deque(maxlen=KEPT_ASKS)).append(
                        order.request_id
                    )
                if isinstance(order.request, m.OffsetCommitRequest):
                    asked = self._asked.setdefault(source, deque(maxlen=KEPT_COMMITS))
                    asked.append((order.request_id, order.request))
                    self._commits(source, order.request)
            elif isinstance(order, e.AppendRecords):
                self._appends[source, order.append_id] = fact, order.entries
            elif isinstance(order, e.AssignPartitions):
                self._assigned(source, order)

    def _produced(self, _: str, now_ms: int, fact: o.Produced) -> None:
        tp = TopicPartition(fact.topic, fact.partition)
        # Who has not noticed may still be beyond the new end when the topic itself is deleted.
        self._highest[tp] = max(self.ends.get(tp, 0), self._highest.get(tp, 0))
        self.ends[tp] = fact.end_offset
        self._written_ms[tp] = now_ms

    # Records that are gone

    def _cut(self, tp: TopicPartition, low: int, leader_epoch: int) -> None:
        cut = Cut(low, self._written_ms.get(tp, -1), leader_epoch)
        self.cuts.setdefault(tp, []).append(cut)

    def is_gone(self, fact: o.HandedOut | o.Handled, *, deleted: bool = True) -> bool:
        """Whether this record was cut off; another one may stand at its offset.

        A record of a topic that was deleted is gone, too, unless `deleted` is false: then a member
        that cannot know may go on with what it has, whatever was cut off before or since.
        """
        if not self.cuts:
            return False
        tp = TopicPartition(fact.topic, fact.partition)
        written_ms = fact.timestamp_ms
        cuts: Sequence[Cut] = self.cuts.get(tp, ())
        if not deleted:
            since = self._cuts_since_made_anew(tp)
            earlier = cuts[: len(cuts) - len(since)]
            cuts = () if earlier and written_ms <= earlier[-1].last_ms else since
        return any(cut.low <= fact.offset and 0 <= written_ms <= cut.last_ms for cut in cuts)

    def is_deleted(self, tp: TopicPartition) -> bool:
        """Whether there was such a log, and is none now."""
        return tp in self._old_ends and tp not in self.ends

    def is_old(self, request: Any, tp: TopicPartition) -> bool:
        """Whether this commit is of a log that was deleted: it was under way then, or is of who
        was given that one, and knew of no other when it was sent.
        """
        return (request, tp) in self._outlived

    def _commits(self, member: str, request: m.OffsetCommitRequest) -> None:
        """What was given before its topic was deleted is committed by its name alone."""
        for item in request.offsets:
            tp = TopicPartition(item.topic, item.partition)
            if self._given.get((member, tp)):
                self._outlived.append((request, tp))

    def _cuts_since_made_anew(self, tp: TopicPartition) -> Sequence[Cut]:
        cuts = self.cuts.get(tp, [])
        ends = [at for at, cut in enumerate(cuts, 1) if cut.leader_epoch == NO_EPOCH]
        return cuts[max(ends, default=0) :]

    def stands_for(self, entry: e.OffsetRecord) -> int:
        """Where a successor begins that finds this commit: its epoch may end before its offset.

        A topic that was made anew counts its epochs from 0 again.
        """
        if entry.leader_epoch == NO_EPOCH:
            return entry.offset
        cuts = self._cuts_since_made_anew(TopicPartition(entry.topic, entry.partition))
        ends = [cut.low for cut in cuts if cut.leader_epoch > entry.leader_epoch]
        return min([entry.offset, *ends])

    def _healed(self, _: str, now_ms: int, fact: o.Healed) -> None:
        self.healed_ms = now_ms
        self._apart.update(fact.apart)
        for name in fact.apart:
            self.live.pop(name, None)

    def _truncated(self, _: str, __: int, fact: o.Truncated) -> None:
        """Other records will stand where these have been."""
        tp = TopicPartition(fact.topic, fact.partition)
        # Who has not noticed may still be beyond the new end when the topic itself is deleted.
        self._highest[tp] = max(self.ends.get(tp, 0), self._highest.get(tp, 0))
        self.ends[tp] = fact.end_offset
        self._cut(tp, fact.end_offset, fact.leader_epoch)
        for place in [place for place in self.handled if place[1] == tp]:
            done = self.handled[place]
            self.handled[place] = {at: n for at, n in done.items() if at < fact.end_offset}
        for kept in (self.firsts, self.prefix, self.committed, self.given_up):
            for place in [place for place in kept if place[1] == tp]:
                # A position of the topic that was deleted goes on, wherever this one is cut off.
                goes_on = kept is self.firsts or kept is self.prefix
                if not (goes_on and place in self.old_commits):
                    kept[place] = min(kept[place], fact.end_offset)
        for place in [place for place in self._skips if place[1] == tp]:
            # Who waits beyond the end, where its application wants to go on, does so still.
            if place not in self._sought:
                self._skips[place] = min(self._skips[place], fact.end_offset)

    def _topic_is(self, _: str, __: int, fact: o.TopicIs) -> None:
        """A topic of the same name begins anew."""
        if fact.partitions:
            return
        for tp in [tp for tp in self.ends if tp.topic == fact.topic]:
            highest = max(self.ends.pop(tp), self._highest.pop(tp, 0))
            self._old_ends[tp] = max(highest, self._old_ends.get(tp, 0))
            self._cut(tp, 0, NO_EPOCH)
        for asked in self._asked.values():
            for _id, request in asked:
                self._outlived += [
                    (request, TopicPartition(item.topic, item.partition))
                    for item in request.offsets
                    if item.topic == fact.topic
                ]
        self._given |= {mine: True for mine in self._given if mine[1].topic == fact.topic}
        for place in [place for place in self.committed if place[1].topic == fact.topic]:
            self.old_commits[place] = self.committed[place]
        for place in [place for place in self.handled if place[1].topic == fact.topic]:
            del self.handled[place]
        for kept in (self.firsts, self.prefix, self.given_up, self._skips):
            for place in [place for place in kept if place[1].topic == fact.topic]:
                del kept[place]

    def _lived(self, _: str, __: int, fact: o.MemberLife) -> None:
        self.groups[fact.member] = fact.group_id
        if fact.what == "started" and fact.member not in self._apart:
            self.live[fact.member] = fact.group_id
        elif fact.what in ("crashed", "closed", "failed"):
            self.live.pop(fact.member, None)

    def _arrived(self, _: str, __: int, fact: e.RequestArrived) -> None:
        """Who joins as a newcomer takes its instance from whoever had it, whenever that began."""
        request, name = fact.request, fact.client_id
        if not isinstance(request, m.JoinGroupRequest) or name not in self.live:
            return
        if not request.member_id and request.group_instance_id is not None:
            self.live[name] = self.live.pop(name)

    def _answered(self, source: str, _: int, fact: e.ResponseReceived) -> None:
        """What brokers say of committed offsets, and of the log, is no claim of the member's."""
        if isinstance(fact.response, m.OffsetCommitResponse):
            waiting = [each for each in self._asked.get(source, ()) if each[0] != fact.request_id]
            self._asked[source] = deque(waiting, maxlen=KEPT_COMMITS)
        learned = LEARNED.get(type(fact.response))
        if learned is not None:
            learned(self, source, fact.response)

    def _told_offsets(self, source: str, response: m.OffsetFetchResponse) -> None:
        for found in response.partitions:
            if not found.error_code:
                tp = TopicPartition(found.topic, found.partition)
                self._told[source, tp] = max(found.offset, NOTHING_COMMITTED)

    def _fetched(self, source: str, response: m.FetchResponse) -> None:
        for found in response.partitions if self.cuts or self._skips else ():
            if found.error_code == KafkaError.OFFSET_OUT_OF_RANGE:
                self._out_of_range.add((source, found.topic, found.partition))

    def _told_epochs(self, source: str, response: m.OffsetForLeaderEpochResponse) -> None:
        for found in response.partitions:
            if not found.error_code and found.end_offset < 0:
                self._out_of_range.add((source, found.topic, found.partition))

    def _listed(self, source: str, response: m.ListOffsetsResponse) -> None:
        """Who is where no log is begins anew: from the first record, or giving up all until now."""
        for found in response.partitions if self._out_of_range else ():
            mine = source, found.topic, found.partition
            if found.error_code or mine not in self._out_of_range:
                continue
            self._out_of_range.discard(mine)
            place = self.place(*mine)
            self._given[source, place[1]] = False
            self._skips.pop(place, None)
            if self.resets.get(place[0], EARLIEST) == LATEST:
                self._give_up(place, found.offset)

    def _give_up(self, place: Place, end: int) -> None:
        """What lies before is not wanted any more; nor does anybody commit it."""
        self.given_up[place] = end
        self.prefix[place] = max(self.prefix.get(place, 0), end)

    def due(self, fact: o.HandedOut | o.Handled, due: int) -> int:
        """Which record comes next in a tenure, or the end that its group has gone on to since."""
        place = self.place(fact.member, fact.topic, fact.partition)
        end = self.given_up.get(place, due)
        return end if due < end <= fact.offset else due

    def _assigned(self, source: str, order: e.AssignPartitions) -> None:
        for item in order.partitions:
            place = self.place(source, item.topic, item.partition)
            self._sought.discard(place)
            self._skips.pop(place, None)
            self._given[source, place[1]] = False
            told = self._told.pop((source, place[1]), None)
            reset = self.resets.get(place[0], EARLIEST)
            first = item.offset if told is None else min(item.offset, told)
            if told is not None and told == self.old_commits.get(place):
                self.prefix[place] = max(self.prefix.get(place, 0), told)
            if told == NOTHING_COMMITTED:
                first = 0 if reset == EARLIEST else item.offset
                if reset == LATEST:
                    # It begins at the end, as it was told to.
                    end = min(item.offset, self.ends.get(place[1], 0))
                    self.left_behind[place] = self.handled_up_to(*place), end
                    self._give_up(place, end)
            self.firsts[place] = min(self.firsts.get(place, first), first)

    def _appended(self, source: str, _: int, fact: e.RecordsAppended) -> None:
        cause, entries = self._appends.pop((source, fact.append_id), (None, ()))
        if fact.error_code == 0:
            self._stored(entries, cause)

    def _loaded(self, source: str, _: int, fact: e.LogReplayed) -> None:
        begin_term(self._appends, source)
        self._stored(fact.entries, fact)

    def is_of_group(self, source: str, request_id: int) -> bool:
        """Whether this request of the member was about its group, and not about reading."""
        return request_id in self._of_group.get(source, ())

    def gave_up(self, fact: e.RequestArrived) -> bool:
        """Whether this is a commit that its member had no answer to, and waits for no more."""
        return fact.request in self._given_up

    def _failed(self, source: str, _: int, fact: e.RequestFailed) -> None:
        for request_id, request in self._asked.get(source, ()):
            if request_id == fact.request_id:
                self._given_up.append(request)

    def _stored(self, entries: Sequence[e.LogEntry], cause: Any) -> None:
        for entry in entries:
            match entry:
                case e.OffsetRecord():
                    self._committed(entry, cause)
                case e.OffsetTombstone():
                    self._void((entry.group_id, TopicPartition(entry.topic, entry.partition)))
                case e.GroupTombstone():
                    for place in [each for each in self.committed if each[0] == entry.group_id]:
                        self._void(place)
                case e.GroupRecord():
                    pass

    def _committed(self, entry: e.OffsetRecord, cause: Any) -> None:
        place = entry.group_id, TopicPartition(entry.topic, entry.partition)
        request = getattr(cause, "request", None)
        before = self.committed.get(place, -1)
        at = self.committed[place] = self.stands_for(entry)
        if not isinstance(cause, e.LogReplayed):  # else it is the same history once more
            if at >= (skipped := self._skips.get(place, 0)):
                # A successor does not go back there.
                self.prefix[place] = max(self.prefix.get(place, 0), skipped)
            self.old_commits.pop(place, None)
            self.set_back.pop(place, None)
            if request in self._given_up and at < before:
                self.set_back[place] = before
        of_old = self._given.get((getattr(cause, "client_id", ""), place[1]), False)
        if of_old or self.is_deleted(place[1]) or self.is_old(request, place[1]):
            self.old_commits[place] = entry.offset

    def _void(self, place: Place) -> None:
        if self.committed.pop(place, None) is not None:
            self.voided[place] = self.voided.get(place, 0) + 1

    def place(self, member: str, topic: str, partition: int) -> Place:
        """The partition as the group of this member sees it."""
        return self.groups.get(member, ""), TopicPartition(topic, partition)

    def _handled(self, _: str, __: int, fact: o.Handled) -> None:
        if self.is_gone(fact):
            return
        place = self.place(fact.member, fact.topic, fact.partition)
        if self._given.get((fact.member, place[1])):
            self._given[fact.member, place[1]] = False
        done = self.handled.get(place)
        if done is None:
            done = self.handled[place] = {}
        done[fact.offset] = done.get(fact.offset, 0) + 1
        self._sought.discard(place)
        if self._old_ends.get(place[1], -1) >= fact.offset:
            self.firsts[place] = min(self.firsts.get(place, fact.offset), fact.offset)

    def _skipped(self, source: str, _: int, fact: e.Sought) -> None:
        """What an application jumps over it does not want to see: for as long as it has the place.

        A commit from before a seek back may be under way.
        """
        place = self.place(source, fact.topic, fact.partition)
        before = self._skips.get(place, 0) if self._asked.get(source) else 0
        self._skips[place] = max(before, fact.offset)
        self._sought.add(place)
        self._out_of_range.discard((source, fact.topic, fact.partition))

    def handled_up_to(self, group_id: str, tp: TopicPartition) -> int:
        """The first offset, from the first that the group was given, that it has not handled."""
        place = group_id, tp
        first = self.firsts.get(place)
        done = self.handled.get(place, NO_OFFSETS)
        if first is None and tp in self._old_ends:
            at = min(self._old_ends[tp], self.ends.get(tp, 0))
        else:
            at = self.prefix[place] = _end_of(done, max(self.prefix.get(place, 0), first or 0))
        skipped = self._skips.get(place, 0)
        return _end_of(done, skipped) if skipped > at else at


def _end_of(done: dict[int, int], at: int) -> int:
    """The first offset from here on that is not among these."""
    while at in done:
        at += 1
    return at


LEARNED: Final[dict[type, Callable[[Truth, str, Any], None]]] = {
    m.OffsetFetchResponse: Truth._told_offsets,
    m.FetchResponse: Truth._fetched,
    m.OffsetForLeaderEpochResponse: Truth._told_epochs,
    m.ListOffsetsResponse: Truth._listed,
}
NOTED: Final[dict[type, Callable[[Truth, str, int, Any], None]]] = {
    o.Handled: Truth._handled,
    o.Produced: Truth._produced,
    o.MemberLife: Truth._lived,
    o.Healed: Truth._healed,
    o.Truncated: Truth._truncated,
    o.TopicIs: Truth._topic_is,
    e.Sought: Truth._skipped,
    e.RecordsAppended: Truth._appended,
    e.LogReplayed: Truth._loaded,
    e.RequestArrived: Truth._arrived,
    e.RequestFailed: Truth._failed,
    e.ResponseReceived: Truth._answered,
}
