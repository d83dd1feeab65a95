"""The member: one fact and the time in, orders out.

Facts only change what the member knows; what to do about it is decided once, in `_advance`, from
that knowledge alone. So no fact can be missed by coming at an unexpected moment.

Ledger of what differs from Kafka's Java consumer (classic protocol, eager):

- The lease is local: after the shorter of session and rebalance timeout without a confirmation
  nothing is handed out, and after the session timeout what is owned is lost. Java goes on until the
  broker tells it.
- 14 on SyncGroup is tried again by joining again; in Java it is fatal. So is 22 on JoinGroup.
- 22, 25 and 27 on OffsetFetch are taken as what they say of the membership; in Java they are
  fatal.
- What JoinGroup refuses for good ends the member, and so do 24, 30 and 35 on FindCoordinator; Java
  throws and tries again at the next poll. Any other code of FindCoordinator is told, and asked
  again.
- What a heartbeat is refused with that says nothing of the membership is told; Java logs it.
- 3 on a partition of OffsetFetch is told and asked again; Java throws, and asks at the next poll.
- Backoff is exponential with jitter everywhere; Java waits a fixed time for some refusals.
- A commit has a budget of retries of its own; what is refused for good is not asked again.
- A partition of a topic that was not subscribed to is left out; Java ignores the whole assignment
  and joins again. Zero bytes are an assignment of nothing; in Java they are an illegal state.
- `on_partitions_revoked` is not called with nothing to revoke.
- A position beyond the end of its log is reset by the policy only after five seconds.
- A marked offset beyond a truncation is not committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

from ksim.core import asks, commits, membership, positions, reading, truncation
from ksim.core.errors import KafkaError
from ksim.core.events import (
    BufferDrained,
    CloseRequested,
    CommitFinished,
    CommitRequested,
    MarksTaken,
    MemberFact,
    MemberOrder,
    OffsetsRequested,
    PartitionClosed,
    PartitionsLost,
    PartitionsRevoked,
    Paused,
    RecordsHandedOut,
    RequestFailed,
    ResponseReceived,
    Resumed,
    Sought,
    Started,
    TimerFired,
    UserPolled,
)
from ksim.core.member_state import ClientState, MemberConfig, MemberState, Phase, Release
from ksim.core.trace import Plain, plain, value_of
from ksim.core.turn import Turn


def _on_sync(turn: Turn, pending: Any, response: Any) -> None:
    """What changed while the generation was being made is noticed at its end."""
    membership.on_sync(turn, pending, response)
    positions.notice_change(turn)


ON_RESPONSE: Final[dict[str, Callable[[Turn, Any, Any], None]]] = {
    "find": membership.on_find,
    "join": membership.on_join,
    "sync": _on_sync,
    "heartbeat": membership.on_heartbeat,
    "leave": membership.on_leave,
    "commit": commits.on_commit,
    "ask": asks.on_answer,
    "metadata": positions.on_metadata,
    "offsets": positions.on_offsets,
    "list": positions.on_list,
    "epochs": truncation.on_epochs,
    "fetch": positions.on_fetch,
}
ON_FAILURE: Final[dict[str, Callable[[Turn, Any, str], None]]] = {
    "find": membership.on_failed,
    "join": membership.on_failed,
    "sync": membership.on_failed,
    "heartbeat": membership.on_failed,
    "leave": membership.on_failed,
    "commit": commits.on_commit_failed,
    "ask": asks.on_failed,
    "metadata": positions.on_metadata_failed,
    "offsets": positions.on_offsets_failed,
    "list": positions.on_list_failed,
    "epochs": truncation.on_epochs_failed,
    "fetch": positions.on_fetch_failed,
}


def _heartbeat_due(turn: Turn) -> None:
    turn.state.heartbeat_due = True


def _only_wake(turn: Turn) -> None:
    """The end of a backoff: `_advance` sees that nothing is held back any more."""


ON_TIMER: Final[dict[str, Callable[[Turn], None]]] = {
    "session": membership.expire_session,
    "poll": membership.expire_poll,
    "heartbeat": _heartbeat_due,
    "commit": commits.expire_commit,
    "dwell": commits.expire_dwell,
    "release_limit": commits.expire_release,
    "close": commits.expire_close,
    "metadata_age": positions.expire_metadata,
    "change": positions.notice_change,
    "fetch_backoff": positions.expire_fetch,
    "find_backoff": _only_wake,
    "join_backoff": _only_wake,
    "sync_backoff": _only_wake,
    "heartbeat_backoff": _only_wake,
    "commit_backoff": _only_wake,
    "metadata_backoff": _only_wake,
    "offsets_backoff": _only_wake,
    "epochs_backoff": _only_wake,
}


# Looked up in each step, where the enumeration itself would take longer than the comparison.
OVER_OR_NOT_BEGUN: Final = (Phase.NEW, Phase.CLOSED)
CLOSING: Final = Phase.CLOSING
RUNNING: Final = Phase.RUNNING


class Member:
    """The client side of the classic group protocol (Kafka ConsumerCoordinator), sans IO.

    Feed it through a `Session`; perform its orders; feed `TimerFired` at `deadline_ms`.
    """

    __slots__ = ("deadline_ms", "state")

    def __init__(self, config: MemberConfig, seed: int) -> None:
        self.state = MemberState(config, seed)
        self.deadline_ms: int | None = None

    def step(self, fact: MemberFact, *, now_ms: int) -> list[MemberOrder]:
        """Take one fact at `now_ms`; never raises because of a peer."""
        turn = Turn(self.state, now_ms)
        if self.state.closed:
            if isinstance(fact, CommitRequested):
                turn.orders.append(CommitFinished(fact.ticket, KafkaError.UNKNOWN_MEMBER_ID))
            elif isinstance(fact, OffsetsRequested):
                asks.refuse(turn, fact, KafkaError.COORDINATOR_NOT_AVAILABLE)
            return turn.orders
        if isinstance(fact, UserPolled) or (isinstance(fact, MarksTaken) and fact.at_ms >= 0):
            _on_polled(turn, fact)
        if self.deadline_ms is not None and self.deadline_ms <= now_ms:
            _fire_overdue(turn)
        if not self.state.closed:
            _apply(turn, fact)
            _advance(turn)
        # Nothing would ever take such a timer away, and its owner would wake up for it for ever.
        assert not (self.state.closed and self.state.timers), f"closed: {self.state.timers}"
        self.deadline_ms = min(self.state.timers.values(), default=None)
        return turn.orders

    @property
    def will_commit(self) -> bool:
        """Whether a commit is under way or planned, so that more marks need not be told at once."""
        state = self.state
        return "commit" in state.timers or "commit" in state.busy or state.commit_due

    def snapshot(self) -> Plain:
        """The whole state as plain data."""
        return plain(self.state)

    @classmethod
    def restore(cls, data: Plain) -> Member:
        """The member that `snapshot` was taken of."""
        state = value_of(data)
        assert isinstance(state, MemberState), f"not a member: {type(state).__name__}"
        member = cls(state.config, state.seed)
        member.state = state
        member.deadline_ms = min(state.timers.values(), default=None)
        return member


def _fire_overdue(turn: Turn) -> None:
    """Fire what is overdue, session first: who is dead must know it before all else."""
    timers = turn.state.timers
    due = [(name != "session", at_ms, name) for name, at_ms in timers.items()]
    for _, at_ms, name in sorted(item for item in due if item[1] <= turn.now_ms):
        if timers.get(name) == at_ms:
            del timers[name]
            ON_TIMER[name](turn)


def _apply(turn: Turn, fact: MemberFact) -> None:  # noqa: C901 - one arm for each fact
    match fact:
        case ResponseReceived():
            _on_response(turn, fact)
        case TimerFired() | UserPolled():
            pass  # both were seen before the timers
        case RequestFailed():
            _on_failure(turn, fact)
        case MarksTaken():
            commits.on_marks(turn, fact)
        case RecordsHandedOut():
            reading.on_handed_out(turn, fact)
        case BufferDrained():
            reading.on_drained(turn, fact)
        case PartitionsRevoked():
            commits.on_revoked(turn, fact)
        case PartitionsLost():
            commits.on_lost(turn, fact)
        case CommitRequested():
            commits.on_commit_requested(turn, fact)
        case OffsetsRequested():
            asks.on_requested(turn, fact)
        case Paused():
            reading.set_paused(turn, fact.partitions, True)
        case Resumed():
            reading.set_paused(turn, fact.partitions, False)
        case Sought():
            reading.on_sought(turn, fact)
        case PartitionClosed():
            commits.on_partition_closed(turn, fact)
        case Started():
            _on_started(turn)
        case CloseRequested():
            _on_close(turn, fact)
        case _:
            assert_never(fact)


def _on_started(turn: Turn) -> None:
    state = turn.state
    assert state.phase == Phase.NEW, f"started in {state.phase}"
    state.phase = Phase.RUNNING
    state.rejoin_needed = True
    state.metadata_due = True
    state.subscribed = state.config.topics
    turn.arm("poll", state.config.max_poll_interval_ms)


def _on_response(turn: Turn, fact: ResponseReceived) -> None:
    state = turn.state
    pending = state.pending.pop(fact.request_id, None)
    if pending is None:
        return
    _no_longer_busy(turn, fact.request_id, pending.key)
    state.answering = fact.request_id
    ON_RESPONSE[pending.kind](turn, pending, fact.response)


def _on_failure(turn: Turn, fact: RequestFailed) -> None:
    pending = turn.state.pending.pop(fact.request_id, None)
    if pending is not None:
        _no_longer_busy(turn, fact.request_id, pending.key)
        ON_FAILURE[pending.kind](turn, pending, fact.reason)


def _no_longer_busy(turn: Turn, request_id: int, key: str) -> None:
    if turn.state.busy.get(key) == request_id:
        del turn.state.busy[key]


def _on_polled(turn: Turn, fact: UserPolled | MarksTaken) -> None:
    state = turn.state
    if state.phase != RUNNING:
        return
    state.poll_expired = False
    if fact.waiting:
        turn.disarm("poll")
    else:
        state.timers["poll"] = fact.at_ms + state.config.max_poll_interval_ms


def _on_close(turn: Turn, fact: CloseRequested) -> None:
    state = turn.state
    if state.phase == Phase.NEW:
        turn.finish()
    elif state.phase == Phase.RUNNING:
        state.phase = Phase.CLOSING
        state.leave_group = fact.leave_group
        turn.disarm("poll")
        turn.arm("close", fact.timeout_ms)
        commits.hurry(turn)
    else:
        _close_at_once(turn, fact)


def _close_at_once(turn: Turn, fact: CloseRequested) -> None:
    """Asked a second time: only the answer of LeaveGroup is still waited for, and not for long."""
    state = turn.state
    state.timers["close"] = min(state.timers["close"], turn.now_ms + fact.timeout_ms)
    turn.lose("closed at once")
    if not state.left:
        _leave_or_finish(turn)


def _advance(turn: Turn) -> None:
    """Decide what to do next from what is known now."""
    state = turn.state
    if state.phase in OVER_OR_NOT_BEGUN:
        return
    membership.find_coordinator(turn)
    positions.refresh_metadata(turn)
    asks.send(turn)
    if state.phase == CLOSING:
        _advance_close(turn)
        return
    if state.rejoin_needed:
        commits.release(turn)
        if not state.announced and not state.owned:
            membership.join(turn)
    if state.sync_due or state.assigning:
        membership.sync(turn)
    if state.heartbeat_due:
        membership.heartbeat(turn)
    if state.commit_due:
        commits.commit(turn)
    if not state.rejoin_needed:
        positions.find_positions(turn)
    if state.announced and state.fetch_due:
        positions.plan_fetches(turn)


def _advance_close(turn: Turn) -> None:
    """Give partitions back, commit, leave, and be done; heartbeats go on until then."""
    state = turn.state
    commits.release(turn)
    if state.announced or state.release == Release.LOSING:
        if state.heartbeat_due and state.client_state == ClientState.STABLE:
            membership.heartbeat(turn)
        if state.commit_due:
            commits.commit(turn)
        return
    if not state.left:
        _leave_or_finish(turn)


def _leave_or_finish(turn: Turn) -> None:
    state = turn.state
    state.left = True
    if not (state.leave_group and membership.leave(turn)) and "leave" not in state.busy:
        turn.finish()
