"""Checks of what a coordinator took into its log: whose partition it was, and which way it went.

They need nothing but what a broker sees, so they judge simulated runs and served clusters alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.checks import Checker, Commits, Violation, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import PROTOCOL_TYPE, MalformedProtocolError, decode_assignment
from ksim.core.values import TopicPartition
from ksim.truth import NO_EPOCH, Place, Truth, begin_term

EVERY_PARTITION: Final = -1

# Member id to what it was given; None where the bytes are no assignment of consumers.
Shares = dict[str, frozenset[TopicPartition] | None]


@dataclass(slots=True)
class _Generation:
    """Who owns what, and who did in the generation before."""

    number: int
    shares: Shares
    before: Shares


@dataclass(slots=True)
class _Writes:
    """Appends under way, by source and id: whoever asked, and what is written."""

    waiting: dict[tuple[str, int], tuple[Any, tuple[e.LogEntry, ...]]] = field(
        default_factory=dict[tuple[str, int], tuple[Any, tuple[e.LogEntry, ...]]]
    )

    def ended(self, source: str, fact: Any) -> tuple[Any, tuple[e.LogEntry, ...]] | None:
        """The append that has come to its end well with this fact."""
        if isinstance(fact, e.LogReplayed):
            begin_term(self.waiting, source)
        if not isinstance(fact, e.RecordsAppended):
            return None
        found = self.waiting.pop((source, fact.append_id), None)
        return found if fact.error_code == 0 else None

    def begun(self, source: str, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            if isinstance(order, e.AppendRecords):
                self.waiting[source, order.append_id] = fact, order.entries


def _shares(record: e.GroupRecord) -> Shares:
    found: Shares = {}
    for member in record.members:
        try:
            found[member.member_id] = frozenset(decode_assignment(member.assignment))
        except MalformedProtocolError:
            found[member.member_id] = None
    return found


class S3CommitOfOwner(Commits):
    """A commit of a member is for a partition of its own, and not beyond the partition's end.

    Its own are the partitions that the stored assignment of the commit's generation gives it, and
    those that the generation before gave it and this one gives nobody (a cooperative hand-over).
    Not judged: commits without generation, members and groups whose assignment cannot be read,
    and the ends of topics that were deleted, as the same name may have begun again at 0, or that
    were truncated, as the commit may have been under way.
    """

    name = "S3"
    looks_at = (
        e.LogReplayed,
        e.TopicsDeleted,
        o.TopicIs,
        o.Truncated,
        e.RecordsAppended,
        e.AppendRecords,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._groups: dict[str, _Generation] = {}
        self._writes = _Writes()
        self._deleted: set[str] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        stored = self._writes.ended(source, fact)
        if isinstance(fact, e.LogReplayed):
            self._note(fact.entries)
        elif isinstance(fact, e.TopicsDeleted):
            self._deleted.update(fact.topics)
        elif isinstance(fact, o.Truncated) or (isinstance(fact, o.TopicIs) and not fact.partitions):
            self._deleted.add(fact.topic)
        elif stored is not None:
            self._note(stored[1])
        super().see(source, now_ms, fact, orders)
        self._writes.begun(source, fact, orders)

    def _note(self, entries: Sequence[e.LogEntry]) -> None:
        for entry in entries:
            if isinstance(entry, e.GroupTombstone):
                self._groups.pop(entry.group_id, None)
            elif isinstance(entry, e.GroupRecord):
                known = self._groups.get(entry.group_id)
                readable = entry.protocol_type == PROTOCOL_TYPE
                shares = _shares(entry) if readable else {}
                before: Shares = {}
                if known is not None:
                    again = known.number == entry.generation_id
                    before = known.before if again else known.shares
                self._groups[entry.group_id] = _Generation(entry.generation_id, shares, before)

    def judge(
        self, now_ms: int, client_id: str, request: m.OffsetCommitRequest, entry: e.OffsetRecord
    ) -> None:
        group = self._groups.get(request.group_id)
        if group is None or group.number != request.generation_id:
            return
        own = group.shares.get(request.member_id)
        if own is None:
            return
        self.judged += 1
        tp = TopicPartition(entry.topic, entry.partition)
        end = None if tp.topic in self._deleted else self.truth.ends.get(tp)
        if tp not in own and not self._handed_over(group, request.member_id, tp):
            owners = [name for name, share in group.shares.items() if share and tp in share]
            self.accuse(
                now_ms,
                f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, but "
                f"generation {group.number} of {request.group_id} gives it to "
                f"{', '.join(owners) or 'nobody'}.",
                (client_id, *owners),
                tp,
                (entry.offset,),
            )
        elif end is not None and entry.offset > end:
            self.accuse(
                now_ms,
                f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, but "
                f"the partition ends at {end}.",
                (client_id,),
                tp,
                (end, entry.offset),
            )

    @staticmethod
    def _handed_over(group: _Generation, member_id: str, tp: TopicPartition) -> bool:
        """Whether the member had it before and nobody has it now, or nobody can know."""
        unread = any(share is None for share in group.shares.values())
        taken = any(share and tp in share for share in group.shares.values())
        return not taken and (unread or tp in (group.before.get(member_id) or ()))


@dataclass(slots=True)
class _Sought:
    """Where a client went back to, and the commits that it has sent since.

    The first of these may be of what was marked before; all of them, while it waits at `beyond`,
    where no record was, for its policy to say where it goes on, or for the log to come that far.
    """

    offset: int
    beyond: int | None = None
    sent_since: list[m.OffsetCommitRequest] = field(default_factory=list[m.OffsetCommitRequest])


class S13OffsetsRise(Checker):
    """A committed offset that is replaced is replaced by one that is not lower.

    What counts is the log: a commit that was never stored replaces nothing. Permitted are: a first
    commit after the old one was voided (OffsetDelete, expiry, a deleted group or topic), a commit
    without generation (taken from outside an empty group alone: an explicit reset), and one by a
    client that sought back, down to where it sought (or anywhere, if that was beyond the end of the
    log: it is reset by its policy), until the second commit that was sent after it went. Where a
    partition was truncated a group may go back once for each time, down to where it ended then,
    unless it has committed with the epoch that followed; where a topic was deleted, anywhere.
    A commit that its member had no answer to, and has given up, may
    come late and overwrite a newer one: Kafka has no order between connections. `Sought` may come
    after the commit, where a broker learns of it by the next fetch: the accusation is then taken
    back. A coordinator that loads a log must not find less there than was stored.
    """

    name = "S13"
    looks_at = (
        e.Sought,
        o.TopicIs,
        o.Truncated,
        e.LogReplayed,
        e.RecordsAppended,
        e.AppendRecords,
        e.AssignPartitions,
        e.DropBuffered,
        e.SendRequest,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._stored: dict[str, dict[TopicPartition, int]] = {}
        self._writes = _Writes()
        self._sought: dict[tuple[str, TopicPartition], _Sought] = {}
        self._shorter: dict[str, list[o.Truncated]] = {}
        self._gone: set[str] = set()
        self._used: dict[Place, int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        stored = self._writes.ended(source, fact)
        self._shorten(fact)
        if isinstance(fact, e.Sought):
            self._permit(source, fact)
        elif isinstance(fact, e.LogReplayed):
            self._replayed(source, now_ms, fact.entries)
        elif stored is not None:
            for entry in stored[1]:
                if isinstance(entry, e.OffsetRecord):
                    self._judge(now_ms, stored[0], entry)
                    self._outdate(stored[0], entry)
                self._keep(self._stored, entry)
        for order in orders:
            self._ordered(source, order)
        self._writes.begun(source, fact, orders)

    def _ordered(self, source: str, order: Any) -> None:
        match order:
            case e.AssignPartitions():
                # A new tenure begins at the committed offset: an older seek permits nothing there.
                for item in order.partitions:
                    self._sought.pop((source, TopicPartition(item.topic, item.partition)), None)
            case e.DropBuffered(sought=False):
                sought = self._sought.get((source, TopicPartition(order.topic, order.partition)))
                if sought is not None and sought.beyond is not None:
                    sought.beyond = None
                    sought.sent_since.clear()
            case e.SendRequest(request=m.OffsetCommitRequest() as request) if self._sought:
                for each in request.offsets:
                    sought = self._sought.get((source, TopicPartition(each.topic, each.partition)))
                    if sought is not None:
                        sought.sent_since.append(request)
            case _:
                pass

    def _shorten(self, fact: Any) -> None:
        """Logs that are shorter now, or gone."""
        if isinstance(fact, o.TopicIs) and not fact.partitions:
            self._gone.add(fact.topic)
            fact = o.Truncated(fact.topic, EVERY_PARTITION, 0, NO_EPOCH)
        if isinstance(fact, o.Truncated):
            self._shorter.setdefault(fact.topic, []).append(fact)

    def _unused(self, place: Place) -> Sequence[tuple[int, o.Truncated]]:
        """For what this group may go back still, each with its number."""
        tp = place[1]
        begin = self._used.get(place, -1) + 1
        return [
            (number, cut)
            for number, cut in enumerate(self._shorter.get(tp.topic, ())[begin:], begin)
            if cut.partition in (EVERY_PARTITION, tp.partition)
        ]

    def _outdate(self, fact: Any, entry: e.OffsetRecord) -> None:
        """End the permissions of which this commit makes use, or which it shows to be over.

        One that goes back may do so for the first of several cuts, and know of no later one.
        """
        tp = TopicPartition(entry.topic, entry.partition)
        place = entry.group_id, tp
        before = self._stored.get(entry.group_id, {}).get(tp, -1)
        request = getattr(fact, "request", None)
        if isinstance(fact, e.RequestArrived) and (
            self.truth.gave_up(fact) or self.truth.is_old(request, tp)
        ):
            self._used.pop(place, None)
        elif unused := self._unused(place):
            used = [n for n, cut in unused if self._knows(entry, cut)]
            if entry.offset < before:
                enough = [n for n, cut in unused if cut.end_offset <= entry.offset]
                used.append(enough[0] if enough else unused[-1][0])
            self._used[place] = max(used, default=self._used.get(place, -1))
        mine = getattr(fact, "client_id", ""), tp
        sought = self._sought.get(mine)
        if sought is None:
            return
        if sought.beyond is not None:
            over = entry.offset > sought.beyond
        else:
            over = entry.offset < before or request in sought.sent_since[1:]
        if over:
            del self._sought[mine]

    @staticmethod
    def _keep(stored: dict[str, dict[TopicPartition, int]], entry: e.LogEntry) -> None:
        match entry:
            case e.OffsetRecord():
                tp = TopicPartition(entry.topic, entry.partition)
                stored.setdefault(entry.group_id, {})[tp] = entry.offset
            case e.OffsetTombstone():
                tp = TopicPartition(entry.topic, entry.partition)
                stored.get(entry.group_id, {}).pop(tp, None)
            case e.GroupTombstone():
                stored.pop(entry.group_id, None)
            case e.GroupRecord():
                pass

    def _judge(self, now_ms: int, fact: Any, entry: e.OffsetRecord) -> None:
        self.judged += 1
        request = getattr(fact, "request", None)
        tp = TopicPartition(entry.topic, entry.partition)
        before = self._stored.get(entry.group_id, {}).get(tp, -1)
        simple = isinstance(request, m.OffsetCommitRequest) and request.generation_id < 0
        if entry.offset >= self._floor(entry.group_id, tp, before) or simple:
            return
        if isinstance(fact, e.RequestArrived) and self.truth.gave_up(fact):
            return
        client_id = getattr(fact, "client_id", "")
        sought = self._sought.get((client_id, tp))
        if sought is None or entry.offset < sought.offset:
            self._accuse(now_ms, client_id, entry, before)

    def _knows(self, entry: e.OffsetRecord, cut: o.Truncated) -> bool:
        """Whether who committed this has seen the epoch after the cut, in the same log."""
        return entry.topic not in self._gone and entry.leader_epoch >= cut.leader_epoch

    def _floor(self, group_id: str, tp: TopicPartition, before: int) -> int:
        """How far back this group may go, whatever its members sought.

        Members may commit old positions after their topic was deleted.
        """
        return min([before, *(cut.end_offset for _, cut in self._unused((group_id, tp)))])

    def _accuse(self, now_ms: int, client_id: str, entry: e.OffsetRecord, before: int) -> None:
        tp = TopicPartition(entry.topic, entry.partition)
        self.accuse(
            now_ms,
            f"{client_id} committed offset {entry.offset} of {tp} at {seconds(now_ms)}, but "
            f"{entry.group_id} had committed {before} already.",
            (client_id,),
            tp,
            (before, entry.offset),
        )

    def _permit(self, client_id: str, fact: e.Sought) -> None:
        tp = TopicPartition(fact.topic, fact.partition)
        kept = [each for each in self.violations if not _explains(client_id, tp, fact, each)]
        if len(kept) == len(self.violations):
            # Beyond the end the policy decides where it goes on, once that is known.
            beyond = fact.offset > self.truth.ends.get(tp, fact.offset)
            known = self._sought.setdefault((client_id, tp), _Sought(fact.offset))
            known.offset = min(known.offset, 0 if beyond else fact.offset)
            known.beyond = fact.offset if beyond else None
            known.sent_since.clear()  # what was sent between two seeks may be of the first
        self.violations = kept

    def _replayed(self, source: str, now_ms: int, entries: Sequence[e.LogEntry]) -> None:
        found: dict[str, dict[TopicPartition, int]] = {}
        for entry in entries:
            self._keep(found, entry)
        for group_id, offsets in found.items():
            for tp, offset in offsets.items():
                before = self._stored.get(group_id, {}).get(tp, -1)
                if offset < before:
                    self.accuse(
                        now_ms,
                        f"{source} loaded offset {offset} of {tp} for {group_id} at "
                        f"{seconds(now_ms)}, but {before} had been stored.",
                        (),
                        tp,
                        (before, offset),
                    )
        self._stored.update(found)


def _explains(client_id: str, tp: TopicPartition, fact: e.Sought, each: Violation) -> bool:
    """Whether this seek is why the client's commit went back."""
    same = each.members == (client_id,) and each.partitions == (str(tp),)
    return same and each.offsets[1] >= fact.offset
