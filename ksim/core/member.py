"""The member: one fact and the time in, orders out.

Facts only change what the member knows; what to do about it is decided once, in `_advance`, from
that knowledge alone. So no fact can be missed by coming at an unexpected moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

from ksim.core import commits, membership, positions
from ksim.core.errors import KafkaError
from ksim.core.events import (
    BufferDrained,
    CloseRequested,
    CommitFinished,
    CommitRequested,
    MarksTaken,
    MemberFact,
    MemberOrder,
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

ON_RESPONSE: Final[dict[str, Callable[[Turn, Any, Any], None]]] = {
    "find": membership.on_find,
    "join": membership.on_join,
    "sync": membership.on_sync,
    "heartbeat": membership.on_heartbeat,
    "leave": membership.on_leave,
    "commit": commits.on_commit,
    "metadata": positions.on_metadata,
    "offsets": positions.on_offsets,
    "list": positions.on_list,
    "fetch": positions.on_fetch,
}
ON_FAILURE: Final[dict[str, Callable[[Turn, Any, str], None]]] = {
    "find": membership.on_failed,
    "join": membership.on_failed,
    "sync": membership.on_failed,
    "heartbeat": membership.on_failed,
    "leave": membership.on_failed,
    "commit": commits.on_commit_failed,
    "metadata": positions.on_metadata_failed,
    "offsets": positions.on_offsets_failed,
    "list": positions.on_list_failed,
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
    "fetch_backoff": positions.expire_fetch,
    "find_backoff": _only_wake,
    "join_backoff": _only_wake,
    "sync_backoff": _only_wake,
    "heartbeat_backoff": _only_wake,
    "commit_backoff": _only_wake,
    "metadata_backoff": _only_wake,
    "offsets_backoff": _only_wake,
}


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
            return turn.orders
        if isinstance(fact, UserPolled):
            _on_polled(turn, fact)
        if self.deadline_ms is not None and self.deadline_ms <= now_ms:
            _fire_overdue(turn)
        if not self.state.closed:
            _apply(turn, fact)
            _advance(turn)
        self.deadline_ms = min(self.state.timers.values(), default=None)
        return turn.orders

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
            positions.on_handed_out(turn, fact)
        case BufferDrained():
            positions.on_drained(turn, fact)
        case PartitionsRevoked():
            commits.on_revoked(turn, fact)
        case PartitionsLost():
            commits.on_lost(turn, fact)
        case CommitRequested():
            commits.on_commit_requested(turn, fact)
        case Paused():
            positions.set_paused(turn, fact.partitions, True)
        case Resumed():
            positions.set_paused(turn, fact.partitions, False)
        case Sought():
            positions.on_sought(turn, fact)
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


def _on_polled(turn: Turn, fact: UserPolled) -> None:
    state = turn.state
    if state.phase != Phase.RUNNING:
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


def _advance(turn: Turn) -> None:
    """Decide what to do next from what is known now."""
    state = turn.state
    if state.phase in (Phase.NEW, Phase.CLOSED):
        return
    membership.find_coordinator(turn)
    positions.refresh_metadata(turn)
    if state.phase == Phase.CLOSING:
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
    if not state.announced and not state.rejoin_needed:
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
    if state.left:
        return
    state.left = True
    wants = state.leave_group and state.config.group_instance_id is None
    if not (wants and membership.leave(turn)) and "leave" not in state.busy:
        turn.finish()
