"""The check that a record is handled again only where that could not be avoided."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ksim import observations as o
from ksim.budget import NOTHING, SHOWN
from ksim.checks import Checker, is_replaced, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.last_commits import LastCommits
from ksim.losses import SESSION, Losses
from ksim.scenario import Scenario
from ksim.tenure_checks import GONE
from ksim.truth import Place, Truth

REFUSED = "commit refused"
NOT_THERE = "coordinator not there"
NO_FAULTS = (*NOTHING, *SHOWN, "add_partitions")
TO_COORDINATOR = (
    m.OffsetCommitRequest,
    m.HeartbeatRequest,
    m.OffsetFetchRequest,
    m.JoinGroupRequest,
    m.SyncGroupRequest,
    m.FindCoordinatorRequest,
)
STILL_THERE = (KafkaError.NONE, KafkaError.REBALANCE_IN_PROGRESS)


@dataclass(slots=True)
class Window:
    """Offsets from `low` to before `high` may be handled once more, because of `why`."""

    low: int
    high: int
    why: str
    due: bool = False

    def __str__(self) -> str:
        return f"{self.low} to {self.high - 1}: {self.why}" if self.low < self.high else self.why


@dataclass(slots=True)
class _Tenure:
    """One tenure of one partition: whose, how far it was handed out, and what is done of it.

    `done` says when everything below an offset had been handled and could be committed.
    """

    member: str
    number: int
    high: int
    next: int
    ahead: dict[int, int] = field(default_factory=dict[int, int])
    done: deque[tuple[int, int]] = field(default_factory=deque[tuple[int, int]])
    unmarked: int = -1
    window: Window | None = None

    def handled(self, now_ms: int, offset: int, committed: int) -> None:
        """Handlers beside each other end in any order."""
        self.ahead[offset] = now_ms
        while self.next in self.ahead:
            del self.ahead[self.next]
            self.next += 1
        done = self.done
        done.append((now_ms, self.next))
        while done and done[0][1] <= committed:
            done.popleft()

    def begin_at(self, offset: int) -> None:
        """Another position: what was done before does not count towards the next commit."""
        self.next = offset
        self.ahead.clear()
        self.done.clear()

    def done_before(self, floor_ms: int) -> int:
        """The end of what had been done by then, and not committed; -1 for nothing."""
        return max((end for at_ms, end in self.done if at_ms < floor_ms), default=-1)


@dataclass(slots=True)
class _Commits:
    """How the commits of one member fare: under way since when, and whether there is trouble."""

    pending: dict[int, int] = field(default_factory=dict[int, int])
    sent_ms: int = 0
    answered_ms: int = 0
    trouble: str = ""
    refused: set[TopicPartition] = field(default_factory=set[TopicPartition])


class S9Duplicates(Checker):
    """A record is handled again only where a tenure ended with it unacknowledged, once for each.

    When a tenure ends, what it had handed out and the coordinator had not stored as committed at
    that moment may come once more: after a crash, a loss, a hand-over behind the member's back, for
    partitions abandoned by their revocation, and where the last commit was refused or has no
    answer; one that was only put off is no excuse for whoever does not ask again (`last_commits`).
    But what had been done for `commit_interval` while commits went well is stored, however the
    tenure ends. A tenure that was revoked or closed with nothing of that kind may leave nothing but
    the record that its application did not mark: its last commit covers all. In a run where nothing
    has gone wrong yet no session ends, so the end of one leaves nothing either, nor does a loss
    without a cause (`losses`). The older process of an instance goes on beside the newer one until
    it knows; what it hands out until then may come twice. A seek back, a truncation, a commit that
    was given up and came late, and committed offsets that were voided allow what lies above them
    once more. What was in flight at a seek ahead may come once more, as nobody says any more that
    it is done.
    """

    name = "S9"
    looks_at = (
        o.FaultStruck,
        o.HandedOut,
        o.Handled,
        o.LeftUnmarked,
        o.Truncated,
        o.TopicIs,
        e.Sought,
        e.RequestFailed,
        e.AssignPartitions,
        e.DropBuffered,
        e.Closed,
        *Losses.looks_at,
        *LastCommits.looks_at,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        super().__init__(truth)
        self._losses = Losses(truth, scenario)
        self._last_commits = LastCommits(truth, scenario)
        self._specs = {group.id: group for group in scenario.groups}
        self._tenures: dict[Place, _Tenure] = {}
        self._replaced: dict[Place, _Tenure] = {}
        self._windows: dict[Place, list[Window]] = {}
        self._commits: dict[str, _Commits] = {}
        self._ended: dict[Place, int] = {}
        self._abandoned: dict[str, frozenset[TopicPartition]] = {}
        self._asked: set[tuple[str, int]] = set()
        self._unheard: set[str] = set()
        # What was in hand when a tenure was lost: where its process ended by itself the application
        # may go on with it, and a tenure of the next one may have the same number.
        self._in_hand: set[tuple[str, Place, int, int]] = set()
        self._faulted = False

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._last_commits.see(source, now_ms, fact, orders)
        match fact:
            case o.Handled():
                self._handled(now_ms, fact)
                return
            case o.HandedOut():
                self._handed_out(fact)
                return
            case e.ResponseReceived():
                self._answered(source, now_ms, fact)
            case e.RequestFailed():
                self._failed(source, fact)
            case _:
                self._happened(source, now_ms, fact)
        self._ordered(source, now_ms, fact, orders)

    def _happened(self, source: str, now_ms: int, fact: Any) -> None:
        match fact:
            case o.MemberLife() if fact.what in GONE:
                if fact.what == "crashed":
                    self._in_hand = {each for each in self._in_hand if each[0] != fact.member}
                self._end(fact.member, now_ms, fact.what, clean=fact.what == "closed")
            case o.MemberLife() if fact.what == "paused":
                self._of(fact.member).trouble = "paused"
            case o.LeftUnmarked():
                tenure = self._tenure(fact)
                if tenure is not None:
                    tenure.unmarked = fact.offset
            case e.PartitionsRevoked():
                self._abandoned[source] = frozenset(fact.abandoned)
            case o.Truncated():
                self._shorten(fact.topic, fact.end_offset, fact.partition)
            case o.TopicIs() if not fact.partitions:
                self._shorten(fact.topic, 0)
            case o.FaultStruck():
                self._faulted = self._faulted or fact.name not in NO_FAULTS
            case _:
                pass

    # What members do

    def _of(self, member: str) -> _Commits:
        found = self._commits.get(member)
        if found is None:
            found = self._commits[member] = _Commits()
        return found

    def _ordered(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        why = self._losses.cause(source, now_ms, fact, orders)
        if why is not None:
            clean = why == "" or (why == SESSION and not self._faulted)
            self._end(source, now_ms, "lost them", clean=clean)
        for order in orders:
            match order:
                case e.SendRequest():
                    self._sent(source, now_ms, order)
                case e.AssignPartitions():
                    self._assigned(source, now_ms, order)
                case e.DropBuffered():
                    self._again(source, order, isinstance(fact, e.Sought))
                case e.Closed():
                    self._end(source, now_ms, "closed", clean=True)
                case _:
                    pass

    def _sent(self, source: str, now_ms: int, order: e.SendRequest) -> None:
        if isinstance(order.request, TO_COORDINATOR):
            self._asked.add((source, order.request_id))
        if isinstance(order.request, m.OffsetCommitRequest):
            self._of(source).pending[order.request_id] = now_ms
        elif isinstance(order.request, m.JoinGroupRequest | m.LeaveGroupRequest):
            self._end(source, now_ms, "gave them up", clean=True)

    def _answered(self, source: str, now_ms: int, fact: e.ResponseReceived) -> None:
        response = fact.response
        if (source, fact.request_id) in self._asked:
            self._asked.remove((source, fact.request_id))
            self._unheard.discard(source)
        if isinstance(response, m.OffsetCommitResponse):
            commits = self._of(source)
            sent_ms = commits.pending.pop(fact.request_id, None)
            if sent_ms is None:
                return  # of an earlier tenure
            commits.sent_ms, commits.answered_ms = sent_ms, now_ms
            refused = all(item.error_code for item in response.partitions)
            commits.trouble = REFUSED if refused else ""
            for item in response.partitions:
                tp = TopicPartition(item.topic, item.partition)
                if item.error_code:
                    commits.refused.add(tp)
                else:
                    commits.refused.discard(tp)
        elif isinstance(
            response, m.FindCoordinatorResponse | m.HeartbeatResponse | m.JoinGroupResponse
        ) and (response.error_code not in STILL_THERE):
            self._of(source).trouble = NOT_THERE

    def _failed(self, source: str, fact: e.RequestFailed) -> None:
        self._faulted = True
        if (source, fact.request_id) in self._asked:
            self._asked.remove((source, fact.request_id))
            commits = self._of(source)
            commits.pending.pop(fact.request_id, None)
            commits.trouble = "no answer"
            self._unheard.add(source)

    def _assigned(self, source: str, now_ms: int, order: e.AssignPartitions) -> None:
        self._end(source, now_ms, "was assigned anew", clean=True)
        trouble = "no answer" if source in self._unheard else ""
        self._commits[source] = _Commits(answered_ms=now_ms, trouble=trouble)
        self._abandoned.pop(source, None)
        for item in order.partitions:
            place = self.truth.place(source, item.topic, item.partition)
            before = self._tenures.get(place)
            mine = _Tenure(source, item.tenure, item.offset, item.offset)
            if before is not None and is_replaced(self.truth, source, self._instance):
                # The older process of an instance, and it does not know that it has nothing.
                mine.window = self._allow(place, item.offset, item.offset, f"{source} was replaced")
                self._replaced[place] = mine
                continue
            if before is not None:
                self._close(place, now_ms, "passed them on unknowingly")
                if is_replaced(self.truth, before.member, self._instance):
                    self._replaced[place] = before
            if place in self.truth.set_back:
                low, high = self.truth.committed.get(place, 0), self._ended.get(place, 0)
                self._allow(place, low, high, "an older commit came late")
            self._tenures[place] = mine

    def _tenure(self, fact: o.Handled | o.LeftUnmarked) -> _Tenure | None:
        """The tenure that this record belongs to, if it still goes on."""
        found = self._tenures.get(self.truth.place(fact.member, fact.topic, fact.partition))
        if found is None or (found.member, found.number) != (fact.member, fact.tenure):
            return None
        return found

    def _instance(self, member: str) -> str | None:
        group = self._specs.get(self.truth.groups.get(member, ""))
        return None if group is None else group.of(member).instance_id

    def _handed_out(self, fact: o.HandedOut) -> None:
        if self.truth.is_gone(fact):
            return
        place = self.truth.place(fact.member, fact.topic, fact.partition)
        for tenure in self._tenures.get(place), self._replaced.get(place):
            if tenure and tenure.number == fact.tenure and tenure.member == fact.member:
                tenure.high = max(tenure.high, fact.offset + 1)
                if tenure.window is not None:
                    tenure.window.high = tenure.high

    # Ends of tenures

    def _end(self, member: str, now_ms: int, how: str, *, clean: bool) -> None:
        mine = [place for place, tenure in self._tenures.items() if tenure.member == member]
        for place in mine:
            trouble = self._trouble(member, place) if clean else ""
            refused = trouble == REFUSED
            if refused or trouble == NOT_THERE:
                early = self._last_commits.too_early(member, now_ms, refused=refused)
                trouble = "" if early else trouble
            if not clean:
                self._close(place, now_ms, how)
            elif trouble:
                self._close(place, now_ms, f"{how}, {trouble}")
            else:
                self._ended[place] = self.truth.committed.get(place, 0)
                unmarked = self._tenures.pop(place).unmarked
                if unmarked >= 0:
                    self._allow(place, unmarked, unmarked + 1, f"{member} did not mark it")

    def _trouble(self, member: str, place: Place) -> str:
        """Why the last commit of a tenure need not cover all; nothing if it does."""
        commits = self._commits.get(member) or _Commits()
        if place in self.truth.set_back:
            return "an older commit came late"
        if place[1] in self._abandoned.get(member, ()):
            return "abandoned"
        if place[1] in commits.refused:
            return REFUSED
        return commits.trouble or ("commit unanswered" if commits.pending else "")

    def _close(self, place: Place, now_ms: int, why: str) -> None:
        tenure = self._tenures.pop(place)
        self._in_hand |= {
            (tenure.member, place, tenure.number, offset)
            for offset in range(tenure.next, tenure.high)
            if offset not in tenure.ahead
        }
        why = f"{tenure.member} {why}"
        low = self._ended[place] = self.truth.committed.get(place, 0)
        if place in self.truth.old_commits:
            low = 0  # what was committed of a topic that was deleted says nothing of this one
        # Who was replaced cannot commit, and need not know it yet.
        is_fenced = is_replaced(self.truth, tenure.member, self._instance)
        is_excused = is_fenced or bool(self._trouble(tenure.member, place))
        due = -1 if is_excused else self._due(tenure, now_ms)
        if tenure.unmarked >= 0:
            due = min(due, tenure.unmarked)  # nor did its application ask for more
        if low < due:
            why += f", {low} to {due - 1} were due for a commit"
        tenure.window = self._allow(place, max(low, due), tenure.high, why, due=low < due)

    def _due(self, tenure: _Tenure, now_ms: int) -> int:
        """The end of what a commit must have covered by now, as all commits went well; or -1."""
        group = self._specs.get(self.truth.groups.get(tenure.member, ""))
        if group is None:
            return -1
        commits = self._commits.get(tenure.member) or _Commits()
        floor_ms = now_ms - group.of(tenure.member).commit_interval_ms
        # While a commit is under way there is no other: the interval begins anew with its answer.
        return tenure.done_before(floor_ms if commits.answered_ms <= floor_ms else commits.sent_ms)

    def _again(self, source: str, order: e.DropBuffered, sought: bool) -> None:
        place = self.truth.place(source, order.topic, order.partition)
        tenure = self._tenures.get(place)
        if tenure is not None:
            if sought and tenure.next < order.offset:
                why = f"{source} sought ahead to {order.offset}"
                self._allow(place, tenure.next, tenure.high, why)
            if sought or order.offset < tenure.next:
                tenure.begin_at(order.offset)
            self._allow(place, order.offset, tenure.high, f"{source} went back to {order.offset}")

    def _shorten(self, topic: str, end: int, partition: int | None = None) -> None:
        """Nothing that was handed out from here on is there any more: it cannot come again."""
        tenures = (*self._tenures.items(), *self._replaced.items())
        for (_, tp), tenure in tenures:
            if tp.topic == topic and partition in (None, tp.partition) and tenure.high > end:
                tenure.high = end
                tenure.begin_at(min(tenure.next, end))
        for (_, tp), windows in self._windows.items():
            for window in (
                windows if tp.topic == topic and partition in (None, tp.partition) else ()
            ):
                # What one goes on with unknowingly may come twice from where the log goes on.
                window.low, window.high = min(window.low, end), min(window.high, end)

    def _allow(self, place: Place, low: int, high: int, why: str, *, due: bool = False) -> Window:
        """Once more for these; a window of none is kept where the sentence needs its reason."""
        window = Window(low, high, why, due)
        self._windows.setdefault(place, []).append(window)
        return window

    # The verdict

    def _handled(self, now_ms: int, fact: o.Handled) -> None:
        self.judged += 1
        if self.truth.is_gone(fact):
            return
        place = self.truth.place(fact.member, fact.topic, fact.partition)
        tenure = self._tenure(fact)
        in_hand = fact.member, place, fact.tenure, fact.offset
        if in_hand in self._in_hand:
            self._in_hand.remove(in_hand)
        elif tenure is not None:
            tenure.handled(now_ms, fact.offset, self.truth.committed.get(place, 0))
        times = self.truth.handled[place][fact.offset]
        if times > 1:
            self._judge(now_ms, place, fact, times)

    def _judge(self, now_ms: int, place: Place, fact: o.Handled, times: int) -> None:
        windows = self._windows.get(place, [])
        budget = 1 + sum(each.low <= fact.offset < each.high for each in windows)
        if times > budget + self.truth.voided.get(place, 0):
            told = [str(each) for each in windows if each.due or each.low < each.high]
            why = "; ".join(told[-3:])
            self.accuse(
                now_ms,
                f"{fact.member} handled offset {fact.offset} of {place[1]} at {seconds(now_ms)}, "
                f"time {times} in {place[0]}; budget: {budget} "
                f"({why or 'no tenure ended with anything unacknowledged'}).",
                (fact.member,),
                place[1],
                (fact.offset,),
            )
