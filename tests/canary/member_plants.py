"""The member's canaries of the bug catalogue, M01 to M12: each a small error in one decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Engine
from ksim.core import member, membership
from ksim.core.acks import HandedOut
from ksim.core.errors import KafkaError
from ksim.core.member_state import REACTIONS, Position, Reaction
from ksim.core.turn import Turn, headers_of
from ksim.core.values import TopicPartition

NO_MEMBER = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION)
REACT: dict[tuple[str, int], Reaction] = REACTIONS  # type: ignore[assignment]


def m01_refused_commit_is_ignored() -> None:
    """M01: a commit that is refused because the member is none is reported, and life goes on."""
    for code in NO_MEMBER:
        REACT["commit", code] = Reaction.REPORT


def m03_highest_finished_is_committed() -> None:
    """M03: an acknowledgement counts for all records before it, whether they are finished or not.

    It needs handlers beside each other, with `acknowledge = "each"`.
    """
    honest = HandedOut.finish

    def finish(self: HandedOut, offset: int) -> int:
        honest(self, offset)
        return offset

    HandedOut.finish = finish  # type: ignore[method-assign]


def m04_positions_outlive_their_tenure() -> None:
    """M04: position and mark of a partition are kept over a revocation."""
    honest_drop, honest_own = Turn.drop_owned, membership._own
    # The state is held with what is kept of it: no member of a later run has its id.
    kept: dict[tuple[int, TopicPartition], tuple[int, int, object]] = {}

    def drop_owned(self: Turn) -> None:
        for tp, tenure in self.state.owned.items():
            if tenure.waits_for == Position.READY:
                kept[id(self.state), tp] = tenure.position, tenure.to_commit, self.state
        honest_drop(self)

    def own(turn: Turn, partitions: Any) -> None:
        honest_own(turn, partitions)
        for tp, tenure in turn.state.owned.items():
            if (id(turn.state), tp) in kept:
                tenure.position, tenure.to_commit, _ = kept[id(turn.state), tp]
                tenure.waits_for = Position.READY

    Turn.drop_owned = drop_owned  # type: ignore[method-assign]
    membership._own = own


def m05_late_marks_are_kept() -> None:
    """M05: a mark of a tenure that is over counts for the next tenure of the partition."""
    honest_mark, honest_assign = Engine.mark, Engine._assign
    kept: dict[tuple[Engine, TopicPartition], int] = {}

    def mark(
        self: Engine, tp: TopicPartition, _: Any, offset: int, metadata: str, *__: Any
    ) -> None:
        if tp not in self.streams:
            kept[self, tp] = offset
        honest_mark(self, tp, None, offset, metadata)

    def assign(self: Engine, order: Any) -> None:
        honest_assign(self, order)
        for tp, stream in self.streams.items():
            if (self, tp) in kept:
                self._raise_mark(stream, kept.pop((self, tp)), "")

    Engine.mark = mark  # type: ignore[method-assign]
    Engine._assign = assign  # type: ignore[method-assign]


def m06_fetch_answers_are_not_compared() -> None:
    """M06: a fetch answer is taken as one for the tenure and the position of this moment."""
    honest = member.ON_RESPONSE["fetch"]

    def on_fetch(turn: Turn, pending: Any, response: Any) -> None:
        owned = turn.state.owned
        present = headers_of(owned.values())
        kept = tuple(
            found
            for found in response.partitions
            if (tenure := owned.get(TopicPartition(found.topic, found.partition))) is not None
            and found.next_offset >= tenure.position
            and not tenure.buffered
            and tenure.waits_for == Position.READY
        )
        honest(turn, replace(pending, partitions=present), replace(response, partitions=kept))

    member.ON_RESPONSE["fetch"] = on_fetch  # type: ignore[index]


def m07_old_refusals_count() -> None:
    """M07: a heartbeat of an earlier generation that is refused resets the present identity."""
    honest = member.ON_RESPONSE["heartbeat"]

    def on_heartbeat(turn: Turn, pending: Any, response: Any) -> None:
        if response.error_code in NO_MEMBER:
            pending = replace(pending, epoch=turn.state.epoch)
        honest(turn, pending, response)

    member.ON_RESPONSE["heartbeat"] = on_heartbeat  # type: ignore[index]


def m08_rejoin_is_forgotten() -> None:
    """M08: what asks for a rejoin after the JoinGroup answer is forgotten.

    Here the flag goes down when JoinGroup is sent; an end of SyncGroup that is none raises it.
    """

    def forgetting(honest: Callable[[Turn, Any, Any], None]) -> Callable[[Turn, Any, Any], None]:
        def on_end(turn: Turn, pending: Any, end: Any) -> None:
            honest(turn, pending, end)
            turn.state.rejoin_needed = turn.state.rejoin_needed and turn.state.generation_id < 0

        return on_end

    member.ON_RESPONSE["sync"] = forgetting(member.ON_RESPONSE["sync"])  # type: ignore[index]
    member.ON_FAILURE["sync"] = forgetting(member.ON_FAILURE["sync"])  # type: ignore[index]


def m09a_id_is_dropped_when_a_join_has_to_wait() -> None:
    """M09a: a JoinGroup that is refused for the moment costs the member its id."""
    honest = membership.react

    def react(turn: Turn, kind: str, error_code: int) -> Reaction:
        reaction = honest(turn, kind, error_code)
        if kind == "join" and reaction in (Reaction.RETRY, Reaction.REDISCOVER):
            turn.state.member_id = ""
        return reaction

    membership.react = react


def m09b_id_is_dropped_with_the_generation() -> None:
    """M09b: ILLEGAL_GENERATION costs the member its id, which is still good."""
    for kind in ("sync", "heartbeat", "commit", "offsets"):
        REACT[kind, KafkaError.ILLEGAL_GENERATION] = Reaction.FORGET_IDENTITY


def m10a_no_heartbeats_in_a_rebalance() -> None:
    """M10a: heartbeats stop at the first REBALANCE_IN_PROGRESS."""
    honest = membership.heartbeat

    def heartbeat(turn: Turn) -> None:
        if not turn.state.rejoin_needed:
            honest(turn)

    membership.heartbeat = heartbeat


def m10b_no_heartbeats_in_callbacks() -> None:
    """M10b: no heartbeat goes out while a callback of the application runs."""
    honest_run, honest_heartbeat = Consumer._run_owed, membership.heartbeat
    calling: set[int] = set()

    def run_owed(self: Consumer) -> None:
        calling.add(key := id(self._engine._member.state))
        try:
            honest_run(self)
        finally:
            calling.discard(key)

    def heartbeat(turn: Turn) -> None:
        if id(turn.state) not in calling:
            honest_heartbeat(turn)

    Consumer._run_owed = run_owed  # type: ignore[method-assign]
    membership.heartbeat = heartbeat


def m12a_no_heartbeats_without_partitions() -> None:
    """M12a: a member sends heartbeats only while it owns something."""
    honest = membership.heartbeat

    def heartbeat(turn: Turn) -> None:
        if turn.state.owned:
            honest(turn)

    membership.heartbeat = heartbeat


def m12b_heartbeats_by_records() -> None:
    """M12b: a heartbeat is due after a fetch that returned records, and not by time."""
    honest = member.ON_RESPONSE["fetch"]

    def on_fetch(turn: Turn, pending: Any, response: Any) -> None:
        honest(turn, pending, response)
        due = any(found.record_count for found in response.partitions)
        turn.state.heartbeat_due = turn.state.heartbeat_due or due

    member.ON_RESPONSE["fetch"] = on_fetch  # type: ignore[index]
    member.ON_TIMER["heartbeat"] = lambda _: None  # type: ignore[index]


def lease_of_the_session_alone() -> None:
    """What may be handed out ends with the session, though a rebalance may end sooner."""
    honest = Turn.extend_lease

    def extend_lease(self: Turn, confirmed_ms: int) -> None:
        config = self.state.config
        longer_ms = max(0, config.session_timeout_ms - config.rebalance_timeout_ms)
        honest(self, confirmed_ms + longer_ms)

    Turn.extend_lease = extend_lease  # type: ignore[method-assign]


MEMBER_PLANTS: dict[str, Callable[[], None]] = {
    "m01-refused-commit": m01_refused_commit_is_ignored,
    "m03-highest-finished": m03_highest_finished_is_committed,
    "m04-kept-positions": m04_positions_outlive_their_tenure,
    "m05-late-marks": m05_late_marks_are_kept,
    "m06-old-fetch": m06_fetch_answers_are_not_compared,
    "m07-old-refusal": m07_old_refusals_count,
    "m08-forgotten-rejoin": m08_rejoin_is_forgotten,
    "m09a-id-dropped-by-join": m09a_id_is_dropped_when_a_join_has_to_wait,
    "m09b-id-dropped-by-22": m09b_id_is_dropped_with_the_generation,
    "m10a-silent-rebalance": m10a_no_heartbeats_in_a_rebalance,
    "m10b-silent-callback": m10b_no_heartbeats_in_callbacks,
    "m12a-silent-idle": m12a_no_heartbeats_without_partitions,
    "m12b-heartbeat-by-record": m12b_heartbeats_by_records,
    "lease-of-session": lease_of_the_session_alone,
}
