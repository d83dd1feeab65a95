"""More canaries of the member: decisions that only the application or a peer would notice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ksim.consumer.consumer import Consumer
from ksim.core import assignors, commits, member, membership, patterns, positions, reading
from ksim.core.errors import KafkaError
from ksim.core.member_state import MemberState, Position, Reaction, Release, Tenure
from ksim.core.subscription import Subscription
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition
from ksim.sim.application import Application
from tests.canary.member_plants import REACT

NEEDLESS_ROUNDS = 2
FASTER = 10


def begins_at_latest() -> None:
    """Without a committed offset, `auto.offset.reset` earliest begins at the end of the log."""
    positions.RESET_TIMESTAMP["earliest"] = positions.OFFSET_LATEST  # type: ignore[index]


def fatal_heartbeat_not_coordinator() -> None:
    """A heartbeat that reaches a broker which is the coordinator no more ends the member."""
    REACT["heartbeat", KafkaError.NOT_COORDINATOR] = Reaction.FATAL


def rejoins_on_not_coordinator() -> None:
    """A coordinator that has moved costs a rebalance."""
    for kind in ("heartbeat", "commit"):
        REACT[kind, KafkaError.NOT_COORDINATOR] = Reaction.REJOIN


def never_leaves() -> None:
    """A member that closes says nothing to its group, which waits for its session to end."""
    membership.leave = lambda _: False


def poll_never_expires() -> None:
    """A member whose application does not call in keeps what it owns."""
    member.ON_TIMER["poll"] = lambda _: None  # type: ignore[index]


def poll_expiry_keeps_its_place() -> None:
    """A member whose application does not call in gives its partitions up, and does not leave."""

    def expire(turn: Turn) -> None:
        turn.forget_generation("max.poll.interval.ms passed without a call", identity=True)
        turn.state.poll_expired = True

    member.ON_TIMER["poll"] = expire  # type: ignore[index]


def pause_is_ignored() -> None:
    """What the application pauses is handed out as before."""

    def pause(self: Consumer, partitions: Sequence[TopicPartition]) -> None:
        del self, partitions

    Consumer.pause = pause  # type: ignore[method-assign]


def seek_is_ignored() -> None:
    """Where the application seeks to makes no difference."""

    def seek(self: Consumer, topic: str, partition: int, offset: int) -> None:
        del self, topic, partition, offset

    Consumer.seek = seek  # type: ignore[method-assign]


def lost_is_told_as_revoked() -> None:
    """The application is told that it gives back in order what its member has lost."""

    def told(self: Application, partitions: Sequence[TopicPartition]) -> None:
        self._told("revoked", partitions, None)

    Application.on_partitions_lost = told  # type: ignore[method-assign]


def static_member_leaves() -> None:
    """A static member that closes leaves its group, and loses its place to the others."""
    honest = Consumer.close

    def close(self: Consumer, timeout_ms: int = 10_000, leave_group: bool | None = None) -> None:
        del leave_group
        honest(self, timeout_ms, True)

    Consumer.close = close  # type: ignore[method-assign]


def thrice_joined() -> None:
    """Two needless rounds follow each assignment."""
    honest = positions._announce
    rounds: Counter[int] = Counter()

    def announce(turn: Turn) -> None:
        honest(turn)
        key = id(turn.state)
        rounds[key] += 1
        if rounds[key] % (NEEDLESS_ROUNDS + 1):
            membership.rejoin(turn)

    positions._announce = announce


def heartbeats_ten_times() -> None:
    """Heartbeats go out ten times as often as the configuration says."""
    honest = Turn.arm

    def arm(self: Turn, what: str, after_ms: int) -> None:
        honest(self, what, after_ms // FASTER if what == "heartbeat" else after_ms)

    Turn.arm = arm  # type: ignore[method-assign]


def fatal_commit_timeout() -> None:
    """A commit that times out at its coordinator ends the member."""
    REACT["commit", KafkaError.REQUEST_TIMED_OUT] = Reaction.FATAL


def silent_after_a_refused_commit() -> None:
    """Once a commit of it was refused, a member commits nothing more."""
    honest, honest_answer = commits.commit, member.ON_RESPONSE["commit"]
    silent: list[MemberState] = []

    def on_commit(turn: Turn, pending: Any, response: Any) -> None:
        if any(each.error_code for each in response.partitions):
            silent.append(turn.state)
        honest_answer(turn, pending, response)

    def commit(turn: Turn) -> None:
        if any(each is turn.state for each in silent):
            turn.state.commit_due = False
        else:
            honest(turn)

    member.ON_RESPONSE["commit"] = on_commit
    commits.commit = commit


def rejoins_after_a_lost_fetch() -> None:
    """A fetch without an answer costs a rebalance."""
    honest = member.ON_FAILURE["fetch"]

    def on_fetch_failed(turn: Turn, pending: Any, reason: str) -> None:
        honest(turn, pending, reason)
        turn.state.rejoin_needed = True

    member.ON_FAILURE["fetch"] = on_fetch_failed


def loses_at_every_rebalance() -> None:
    """REBALANCE_IN_PROGRESS is taken as ILLEGAL_GENERATION: nothing is committed, all is lost."""
    honest = member.ON_RESPONSE["heartbeat"]

    def on_heartbeat(turn: Turn, pending: Any, response: Any) -> None:
        if response.error_code == KafkaError.REBALANCE_IN_PROGRESS and turn.state.owned:
            turn.forget_generation("a rebalance is on")
        else:
            honest(turn, pending, response)

    member.ON_RESPONSE["heartbeat"] = on_heartbeat  # type: ignore[index]


def rebalance_is_no_sign_of_life() -> None:
    """B84: an answer that says REBALANCE_IN_PROGRESS does not extend the session."""
    honest = member.ON_RESPONSE["heartbeat"]

    def on_heartbeat(turn: Turn, pending: Any, response: Any) -> None:
        timers = turn.state.timers
        session_ms = timers.get("session")
        honest(turn, pending, response)
        if response.error_code and session_ms is not None and "session" in timers:
            timers["session"] = session_ms

    member.ON_RESPONSE["heartbeat"] = on_heartbeat  # type: ignore[index]


def commit_is_not_tried_again() -> None:
    """B85: a commit that only reached the wrong coordinator is given up at once."""
    honest = commits._try_again

    def try_again(turn: Turn, pending: Any, error_code: int) -> None:
        turn.state.attempts["commit_backoff"] = turn.state.config.commit_retry_max + 1
        honest(turn, pending, 0 if error_code in commits.AWAY else error_code)

    commits._try_again = try_again


def no_last_commit_without_coordinator() -> None:
    """B71: what is given back while the coordinator is unknown goes without its last commit."""
    honest = commits.on_revoked

    def on_revoked(turn: Turn, fact: Any) -> None:
        honest(turn, fact)
        if turn.state.coordinator == -1 and turn.state.release == Release.COMMITTING:
            turn.drop_owned()
            turn.disarm("release_limit")

    commits.on_revoked = on_revoked


def snapshot_of_the_end() -> None:
    """B46: what a leader compares with is what it knows when its generation is made."""
    honest = membership.on_sync

    def on_sync(turn: Turn, pending: Any, response: Any) -> None:
        honest(turn, pending, response)
        state = turn.state
        counts = state.counts
        state.assigned_counts = {
            name: counts[name] for name in state.group_topics if name in counts
        }

    membership.on_sync = on_sync


def resume_is_ignored() -> None:
    """What the application has paused stays so until the next assignment."""
    honest = reading.set_paused

    def set_paused(turn: Turn, partitions: Any, paused: bool) -> None:
        if paused:
            honest(turn, partitions, paused)

    reading.set_paused = set_paused


def extras_go_to_the_last() -> None:
    """Range counts its members from the end: the last ones get the extra partitions."""
    honest = assignors.member_order

    def member_order(members: Sequence[Subscription]) -> list[Subscription]:
        return honest(members)[::-1]

    assignors.member_order = member_order


def patterns_take_nothing() -> None:
    """No topic fits any pattern; what is named is still taken."""
    honest = patterns._compiled

    def compiled(pattern: str) -> re.Pattern[str]:
        return honest(rf"(?!){pattern}")

    patterns._compiled = compiled  # type: ignore[assignment]


def resets_without_a_reset() -> None:
    """Where nothing is committed, a member whose `auto.offset.reset` is none begins at the end."""

    def reset(turn: Turn, tenure: Tenure, why: str) -> None:
        del turn, why
        tenure.waits_for = Position.LIST_OFFSETS

    positions._reset = reset


def no_answer_is_no_offset() -> None:
    """B42: no answer of the coordinator is taken for the one that nothing is committed."""
    honest = member.ON_FAILURE["offsets"]

    def on_offsets_failed(turn: Turn, pending: Any, reason: str) -> None:
        for tenure in turn.state.owned.values():
            if tenure.waits_for == Position.OFFSET_FETCH:
                positions._reset(turn, tenure, reason)
        honest(turn, pending, reason)

    member.ON_FAILURE["offsets"] = on_offsets_failed


DECISION_PLANTS: dict[str, Callable[[], None]] = {
    "extras-go-to-the-last": extras_go_to_the_last,
    "patterns-take-nothing": patterns_take_nothing,
    "begins-at-latest": begins_at_latest,
    "fatal-not-coordinator": fatal_heartbeat_not_coordinator,
    "rejoins-not-coordinator": rejoins_on_not_coordinator,
    "never-leaves": never_leaves,
    "poll-never-expires": poll_never_expires,
    "poll-expiry-keeps-group": poll_expiry_keeps_its_place,
    "pause-ignored": pause_is_ignored,
    "seek-ignored": seek_is_ignored,
    "lost-told-as-revoked": lost_is_told_as_revoked,
    "static-leaves": static_member_leaves,
    "thrice-joined": thrice_joined,
    "heartbeats-ten-times": heartbeats_ten_times,
    "begins-at-latest-after-a-seek": begins_at_latest,
    "fatal-commit-timeout": fatal_commit_timeout,
    "silent-after-a-refused-commit": silent_after_a_refused_commit,
    "rejoins-after-a-lost-fetch": rejoins_after_a_lost_fetch,
    "loses-at-every-rebalance": loses_at_every_rebalance,
    "b84-rebalance-is-no-sign-of-life": rebalance_is_no_sign_of_life,
    "b85-commit-not-tried-again": commit_is_not_tried_again,
    "b71-no-last-commit": no_last_commit_without_coordinator,
    "b46-snapshot-of-the-end": snapshot_of_the_end,
    "resume-ignored": resume_is_ignored,
    "resets-without-a-reset": resets_without_a_reset,
    "b42-no-answer-is-no-offset": no_answer_is_no_offset,
}
