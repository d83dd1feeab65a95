"""What facts and orders tell of a member: the state of its rebalances, commits and partitions.

A listener at the seam. It counts by batch and never by record, and looks into nobody's state; what
it calls the state of the member is what its requests and their answers show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError, error_name
from ksim.core.member_state import ClientState
from ksim.core.turn import STORE
from ksim.core.values import TopicPartition

# Upper bounds of what a rebalance and a commit may take, in ms.
REBALANCE_BOUNDS_MS: Final = (100, 500, 1_000, 3_000, 5_000, 10_000, 30_000, 60_000, 300_000)
COMMIT_BOUNDS_MS: Final = (1, 5, 10, 50, 100, 500, 1_000, 5_000, 30_000)
REQUEST_FAILED: Final = "request_failed"
OK: Final = "ok"
REBALANCE_IN_PROGRESS: Final = error_name(KafkaError.REBALANCE_IN_PROGRESS).lower()
FORGOTTEN: Final = (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID)
# Why a tenure was lost where no answer said so, by how the sentence begins.
LOST_BY_TIME: Final = {
    "session.timeout.ms": "session_timeout",
    "max.poll.interval.ms": "poll_timeout",
    "closed at once": "close",
}
# Why a rebalance began, by the fact or answer that began it; a refusal goes first.
REASONS: Final[dict[type, str]] = {
    e.CloseRequested: "close",
    e.PartitionClosed: "partition_closed",
    m.MetadataResponse: "topics_changed",
    m.SyncGroupResponse: "topics_changed",  # they did while the generation was made
}
START: Final = "start"
OWN_STORE: Final = -2  # in the place of a node: the user's offset store


class Kind(StrEnum):
    """What can change."""

    COORDINATOR = "found the coordinator"
    JOINING = "joins"
    JOINED = "joined"
    REFUSED = "was refused"
    IN_PROGRESS = "rebalance in progress"
    REVOKING = "gives its partitions back"
    LOST = "lost its partitions"
    ASSIGNED = "was assigned partitions"
    COMMIT_REFUSED = "commit was refused"
    BROKER_LOST = "lost a broker"
    BROKER_FOUND = "found a broker again"
    STORE_LOST = "lost the offset store"
    STORE_FOUND = "found the offset store again"
    FATAL = "cannot go on"
    LEAVING = "leaves"
    CLOSED = "is closed"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, with what was known of the member then."""

    kind: Kind
    member_id: str
    generation_id: int
    reason: str = ""
    duration_ms: int | None = None
    partitions: int | None = None
    detail: str = ""


class Histogram:
    """How many took how long; the last count is of those beyond all bounds."""

    def __init__(self, bounds_ms: Sequence[int]) -> None:
        self.bounds_ms = bounds_ms
        self.counts = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0

    def add(self, took_ms: int) -> None:
        at = next((at for at, most in enumerate(self.bounds_ms) if took_ms <= most), -1)
        self.counts[at] += 1
        self.sum_ms += took_ms


@dataclass(slots=True)
class Progress:
    """One partition, over all tenures that this member had of it; -1 is not known."""

    owned: bool = False
    tenure: int = -1
    position: int = -1
    mark: int = -1
    committed: int = -1
    high_watermark: int = -1
    moved_ms: int = -1
    records: int = 0
    bytes: int = 0
    buffered_ms: int = -1
    backpressure_ms: int = 0
    ended_ms: int = -1
    unowned_ms: int = 0
    returns: int = 0

    def drained(self, now_ms: int) -> None:
        if self.buffered_ms >= 0:
            self.backpressure_ms += now_ms - self.buffered_ms
        self.buffered_ms = -1


@dataclass(slots=True)
class _Sent:
    node_id: int
    request: m.Request
    sent_ms: int


class Observed:
    """A `StepListener`; `tell` is called with each change of state."""

    def __init__(self, now_ms: int, tell: Callable[[Change], None] | None = None) -> None:
        self.tell = tell
        self.state = ClientState.UNJOINED
        self.ready = False
        self.closed = False
        self.member_id = ""
        self.generation_id = -1
        self.coordinator = -1
        self.reason = ""
        self.began_ms = now_ms
        self.confirmed_ms = -1
        self.rebalances: Counter[str] = Counter()
        self.rebalance_times = Histogram(REBALANCE_BOUNDS_MS)
        self.commits: Counter[str] = Counter()
        self.commit_times = Histogram(COMMIT_BOUNDS_MS)
        self.errors: Counter[str] = Counter()
        self.partitions: dict[TopicPartition, Progress] = {}
        self._cause = START
        self._rebalancing_ms = -1
        self._asked = -1  # the last JoinGroup or SyncGroup; older answers count no more
        self._sent: dict[int, _Sent] = {}
        self._silent: set[int] = set()
        self._now_ms = now_ms
        self._fact: Any = None
        self._facts: Final[dict[type, Callable[[Any], None]]] = {
            e.ResponseReceived: self._on_response,
            e.RequestFailed: self._on_failure,
            e.MarksTaken: self._on_marks,
            e.RecordsHandedOut: self._on_handed_out,
            e.BufferDrained: self._on_drained,
        }
        self._responses: Final[dict[type, Callable[[_Sent, Any], None]]] = {
            m.FindCoordinatorResponse: self._on_coordinator,
            m.JoinGroupResponse: self._on_join,
            m.SyncGroupResponse: self._on_sync,
            m.HeartbeatResponse: self._on_heartbeat,
            m.OffsetCommitResponse: self._on_commit,
            m.OffsetFetchResponse: self._on_offsets,
            m.FetchResponse: self._on_fetch,
        }
        self._orders: Final[dict[type, Callable[[Any], None]]] = {
            e.SendRequest: self._on_send,
            e.RevokePartitions: self._on_revoke,
            e.LosePartitions: self._on_lose,
            e.AssignPartitions: self._on_assign,
            e.BufferRecords: self._on_buffer,
            e.DropBuffered: self._on_drop,
            e.ReportError: self._on_error,
            e.Closed: self._on_closed,
        }

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Take in one step."""
        self._now_ms, self._fact = now_ms, fact
        on_fact = self._facts.get(type(fact))
        if on_fact is not None:
            on_fact(fact)
        for order in orders:
            on_order = self._orders.get(type(order))
            if on_order is not None:
                on_order(order)

    def took(self, tp: TopicPartition, records: int, size: int) -> None:
        """So many records, of so many bytes on the wire, were taken into the buffer."""
        progress = self._progress(tp)
        progress.records += records
        progress.bytes += size

    def _progress(self, tp: TopicPartition) -> Progress:
        return self.partitions.setdefault(tp, Progress())

    def _tell(self, kind: Kind, **more: Any) -> None:
        if self.tell is not None:
            self.tell(Change(kind, self.member_id, self.generation_id, **more))

    # Answers

    def _on_response(self, fact: e.ResponseReceived) -> None:
        sent = self._sent.pop(fact.request_id, None)
        if sent is None:
            return
        if sent.node_id in self._silent:
            self._silent.discard(sent.node_id)
            kind = Kind.STORE_FOUND if sent.node_id == OWN_STORE else Kind.BROKER_FOUND
            self._tell(kind, detail=_node(sent.node_id))
        on_response = self._responses.get(type(fact.response))
        if on_response is not None:
            on_response(sent, fact.response)

    def _on_failure(self, fact: e.RequestFailed) -> None:
        sent = self._sent.pop(fact.request_id, None)
        if sent is None:
            return
        self.errors[REQUEST_FAILED] += 1
        if sent.node_id not in self._silent:
            self._silent.add(sent.node_id)
            kind = Kind.STORE_LOST if sent.node_id == OWN_STORE else Kind.BROKER_LOST
            self._tell(kind, reason=fact.reason, detail=_node(sent.node_id))
        if isinstance(sent.request, m.OffsetCommitRequest):
            self.commits[REQUEST_FAILED] += 1
        if fact.request_id == self._asked:
            self._cause = self._cause or REQUEST_FAILED
            self.state = ClientState.UNJOINED

    def _on_coordinator(self, sent: _Sent, response: m.FindCoordinatorResponse) -> None:
        del sent
        if response.error_code == 0 and response.node_id != self.coordinator:
            self.coordinator = response.node_id
            where = f"node {response.node_id} at {response.host}:{response.port}"
            self._tell(Kind.COORDINATOR, detail=where)

    def _on_join(self, sent: _Sent, response: m.JoinGroupResponse) -> None:
        if self._asked != self._answered or self.state != ClientState.PREPARING_REBALANCE:
            return
        if response.error_code == KafkaError.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
            return
        if response.error_code:
            self._refused("JoinGroup", response.error_code)
            return
        self.state = ClientState.COMPLETING_REBALANCE
        self.member_id, self.generation_id = response.member_id, response.generation_id
        role = "leader" if response.leader == response.member_id else "follower"
        took_ms = self._now_ms - sent.sent_ms
        self._tell(Kind.JOINED, reason=self.reason, duration_ms=took_ms, detail=f"as {role}")

    @property
    def _answered(self) -> int:
        return int(self._fact.request_id)

    def _on_sync(self, sent: _Sent, response: m.SyncGroupResponse) -> None:
        del sent
        if self._asked != self._answered or self.state != ClientState.COMPLETING_REBALANCE:
            return
        if response.error_code:
            self._refused("SyncGroup", response.error_code)
        else:
            self.state = ClientState.STABLE

    def _refused(self, what: str, error_code: int) -> None:
        self.state = ClientState.UNJOINED
        self._cause = self._cause or error_name(error_code).lower()
        self._tell(Kind.REFUSED, reason=error_name(error_code), detail=what)

    def _on_heartbeat(self, sent: _Sent, response: m.HeartbeatResponse) -> None:
        request, code = sent.request, response.error_code
        assert isinstance(request, m.HeartbeatRequest)
        if code in (KafkaError.NONE, KafkaError.REBALANCE_IN_PROGRESS):
            self.confirmed_ms = self._now_ms
        if code == KafkaError.NONE or request.generation_id != self.generation_id:
            return
        news = self._cause == ""
        self._membership(code)
        if code == KafkaError.REBALANCE_IN_PROGRESS and news:
            self._tell(Kind.IN_PROGRESS, reason=REBALANCE_IN_PROGRESS)

    def _membership(self, error_code: int) -> None:
        """What an answer to a member of the current generation says of its membership."""
        if error_code == KafkaError.REBALANCE_IN_PROGRESS or error_code in FORGOTTEN:
            self._cause = self._cause or error_name(error_code).lower()
        if error_code in FORGOTTEN:
            self.state, self.ready = ClientState.UNJOINED, False

    def _on_commit(self, sent: _Sent, response: m.OffsetCommitResponse) -> None:
        request = sent.request
        assert isinstance(request, m.OffsetCommitRequest)
        taken_ms = self._now_ms - sent.sent_ms
        codes = {TopicPartition(a.topic, a.partition): a.error_code for a in response.partitions}
        refused = sorted({code for code in codes.values() if code})
        for item in request.offsets:
            tp = TopicPartition(item.topic, item.partition)
            if codes.get(tp) == 0:
                self._progress(tp).committed = item.offset
        self.commits[error_name(refused[0]).lower() if refused else OK] += 1
        self.commit_times.add(taken_ms)
        if refused:
            if request.generation_id == self.generation_id:
                self._membership(refused[0])
            self._tell(
                Kind.COMMIT_REFUSED, reason=error_name(refused[0]), duration_ms=taken_ms,
                partitions=sum(code != 0 for code in codes.values()),
            )  # fmt: skip

    def _on_offsets(self, sent: _Sent, response: m.OffsetFetchResponse) -> None:
        del sent
        for item in response.partitions:
            if item.error_code == 0:
                self._progress(TopicPartition(item.topic, item.partition)).committed = item.offset

    def _on_fetch(self, sent: _Sent, response: m.FetchResponse) -> None:
        del sent
        for item in response.partitions:
            if item.error_code == 0:
                tp = TopicPartition(item.topic, item.partition)
                self._progress(tp).high_watermark = item.high_watermark

    # What the user's thread did

    def _on_marks(self, fact: e.MarksTaken) -> None:
        for mark in fact.marks:
            progress = self._progress(TopicPartition(mark.topic, mark.partition))
            if progress.tenure == mark.tenure:
                progress.mark = mark.offset + 1

    def _on_handed_out(self, fact: e.RecordsHandedOut) -> None:
        progress = self._progress(TopicPartition(fact.topic, fact.partition))
        if progress.tenure == fact.tenure:
            progress.position, progress.moved_ms = fact.last + 1, self._now_ms

    def _on_drained(self, fact: e.BufferDrained) -> None:
        self._progress(TopicPartition(fact.topic, fact.partition)).drained(self._now_ms)

    # Orders

    def _on_send(self, order: e.SendRequest) -> None:
        request = order.request
        node_id = OWN_STORE if order.channel == STORE else order.node_id
        self._sent[order.request_id] = _Sent(node_id, request, self._now_ms)
        if isinstance(request, m.JoinGroupRequest):
            self._asked = order.request_id
            self._begin()
            self.state = ClientState.PREPARING_REBALANCE
            self._tell(Kind.JOINING, reason=self.reason)
        elif isinstance(request, m.SyncGroupRequest):
            self._asked = order.request_id
        elif isinstance(request, m.LeaveGroupRequest):
            self._tell(Kind.LEAVING, reason=self.reason)

    def _begin(self, otherwise: str = "rejoin") -> None:
        """A rebalance of this member begins, unless one is under way."""
        if self._rebalancing_ms >= 0:
            return
        self._rebalancing_ms = self._now_ms
        fact = getattr(self._fact, "response", self._fact)
        self.reason = self._cause or REASONS.get(type(fact), otherwise)
        self.rebalances[self.reason] += 1
        self.ready = False

    def _on_revoke(self, order: e.RevokePartitions) -> None:
        self._begin()
        self._end_tenures(order.partitions)
        self._tell(Kind.REVOKING, reason=self.reason, partitions=len(order.partitions))

    def _on_lose(self, order: e.LosePartitions) -> None:
        by_time = [kind for start, kind in LOST_BY_TIME.items() if order.reason.startswith(start)]
        self._begin(by_time[0] if by_time else "fatal")
        self._end_tenures(order.partitions)
        self.state, self.ready = ClientState.UNJOINED, False
        self._tell(Kind.LOST, reason=order.reason, partitions=len(order.partitions))

    def _end_tenures(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            progress = self._progress(tp)
            progress.drained(self._now_ms)
            if progress.owned:
                progress.owned, progress.ended_ms = False, self._now_ms

    def _on_assign(self, order: e.AssignPartitions) -> None:
        for item in order.partitions:
            progress = self._progress(TopicPartition(item.topic, item.partition))
            if progress.ended_ms >= 0:
                progress.unowned_ms += self._now_ms - progress.ended_ms
                progress.returns += 1
            progress.owned, progress.tenure = True, item.tenure
            progress.position, progress.mark = item.offset, -1
            progress.moved_ms, progress.ended_ms = self._now_ms, -1
        took_ms = self._now_ms - max(self._rebalancing_ms, self.began_ms)
        self.rebalance_times.add(took_ms)
        self._cause, self._rebalancing_ms, self.ready = "", -1, True
        self._tell(
            Kind.ASSIGNED, reason=self.reason, duration_ms=took_ms, partitions=len(order.partitions)
        )

    def _on_buffer(self, order: e.BufferRecords) -> None:
        for item in order.partitions:
            self._progress(TopicPartition(item.topic, item.partition)).buffered_ms = self._now_ms

    def _on_drop(self, order: e.DropBuffered) -> None:
        progress = self._progress(TopicPartition(order.topic, order.partition))
        if progress.tenure == order.tenure:
            progress.drained(self._now_ms)
            progress.position, progress.moved_ms = order.offset, self._now_ms
            progress.mark = min(progress.mark, order.offset)

    def _on_error(self, order: e.ReportError) -> None:
        self.errors[error_name(order.error_code).lower()] += 1
        if order.fatal:  # others are for the application, or in the log because nobody wants them
            self._tell(Kind.FATAL, reason=order.context)

    def _on_closed(self, order: e.Closed) -> None:
        del order
        self.closed, self.ready, self.state = True, False, ClientState.UNJOINED
        self._sent.clear()
        self._tell(Kind.CLOSED)


def _node(node_id: int) -> str:
    names = {e.ANY_NODE: "any broker", OWN_STORE: ""}
    return names.get(node_id, f"node {node_id}")
