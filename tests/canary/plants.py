"""Each canary is one small mutation of the machine, a check or the recording.

They are here so that anyone can see that the checks have teeth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksim.checks import S5ExclusiveInApplication
from ksim.consumer.engine import Engine
from ksim.core import (
    coordinator,
    coordinator_join,
    coordinator_offsets,
    coordinator_rebalance,
    coordinator_requests,
    member,
    positions,
)
from ksim.core.coordinator_shard import Shard
from ksim.core.coordinator_state import ClassicGroup, GroupState
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition

FOR_EVER_MS = 1 << 60
LATER_MS = 1


def commit_delivered() -> None:
    """Commits the last record that was handed out instead of the last one handled."""
    honest = Engine.next_message

    def next_message(self: Engine) -> Any:
        message = honest(self)
        if message is not None:
            tp = TopicPartition(message.topic, message.partition)
            self.mark(tp, message.tenure, message.offset, "")
        return message

    Engine.next_message = next_message  # type: ignore[method-assign]


def deliver_for_ever() -> None:
    """A member that never stops delivering, its session over or not."""
    honest = Turn.extend_lease
    Turn.extend_lease = lambda self, _: honest(self, FOR_EVER_MS)  # type: ignore[method-assign]
    member.ON_TIMER["session"] = lambda _: None  # type: ignore[index]


def join_never_completes() -> None:
    """A coordinator that waits for joins and never ends the phase."""
    coordinator_rebalance.complete_join = lambda *_: None


def another_decision() -> None:
    """Today's machine lets the broker wait a millisecond longer for records."""
    honest = positions.FetchRequest

    def request(max_wait_ms: int, *rest: Any) -> Any:
        return honest(max_wait_ms + LATER_MS, *rest)

    positions.FetchRequest = request  # type: ignore[assignment,misc]


def blind_check() -> None:
    """S5 looks at nothing; the run must then say `not judged`, and not pass."""
    S5ExclusiveInApplication.see = lambda *_: None  # type: ignore[assignment,method-assign]


def unknown_member_is_told_22() -> None:
    """Heartbeat, SyncGroup and LeaveGroup answer ILLEGAL_GENERATION for UNKNOWN_MEMBER_ID."""
    honest = coordinator_requests.member_error
    coordinator_requests.member_error = lambda *each: {25: 22}.get(honest(*each), honest(*each))


def commit_does_not_keep_alive() -> None:
    """An OffsetCommit does not restart the session timer."""
    honest_commit, honest_arm = coordinator.offset_commit, Shard.arm_session

    def offset_commit(*each: Any) -> None:
        Shard.arm_session = lambda *_: None  # type: ignore[assignment,method-assign]
        try:
            honest_commit(*each)
        finally:
            Shard.arm_session = honest_arm  # type: ignore[method-assign]

    coordinator.offset_commit = offset_commit


def late_follower_is_evicted() -> None:
    """A SyncGroup that is answered in Stable does not take its member off the sync timer's list."""
    honest = coordinator_requests._synced

    def synced(shard: Shard, group: ClassicGroup, member_id: str) -> None:
        if group.state != GroupState.STABLE:
            honest(shard, group, member_id)

    coordinator_requests._synced = synced


def follower_rejoins_always_rebalance() -> None:
    """A follower that joins again unchanged starts a rebalance."""
    coordinator_join._must_rebalance = lambda *_: True


def pending_ids_hold_nothing_back() -> None:
    """A join phase ends while ids that were given out are still to come."""
    ClassicGroup.all_joined = property(  # type: ignore[method-assign,assignment]
        lambda self: self.awaiting_join == len(self.members)
    )


def commit_before_sync_is_taken() -> None:
    """An OffsetCommit in CompletingRebalance is accepted."""
    honest = coordinator_offsets._commit_error
    coordinator_offsets._commit_error = lambda *each: {27: 0}.get(honest(*each), honest(*each))


COORDINATOR_PLANTS: dict[str, Callable[[], None]] = {
    "unknown-member-is-told-22": unknown_member_is_told_22,
    "commit-does-not-keep-alive": commit_does_not_keep_alive,
    "late-follower-is-evicted": late_follower_is_evicted,
    "follower-rejoins-always-rebalance": follower_rejoins_always_rebalance,
    "pending-ids-hold-nothing-back": pending_ids_hold_nothing_back,
    "commit-before-sync-is-taken": commit_before_sync_is_taken,
}
PLANTS: dict[str, Callable[[], None]] = {
    "commit-delivered": commit_delivered,
    "deliver-for-ever": deliver_for_ever,
    "join-never-completes": join_never_completes,
    "another-decision": another_decision,
    "blind-check": blind_check,
    **COORDINATOR_PLANTS,
}
