"""Each canary is one small mutation of the machine, a check or the recording.

They are here so that anyone can see that the checks have teeth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksim.checks import S5ExclusiveInApplication, S10Order
from ksim.consumer.engine import Engine
from ksim.core import (
    commits,
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
from ksim.core.errors import KafkaError
from ksim.core.member_state import Reaction
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition
from tests.canary.decision_plants import DECISION_PLANTS
from tests.canary.equivalent_plants import EQUIVALENT_PLANTS
from tests.canary.member_plants import MEMBER_PLANTS, NO_MEMBER, REACT
from tests.canary.stale_plants import STALE_PLANTS

FOR_EVER_MS = 1 << 60
LATER_MS = 1


def commit_delivered() -> None:
    """Commits the last record that was handed out instead of the last one handled."""
    honest = Engine.next_batch

    def next_batch(self: Engine, most: int) -> Any:
        found = honest(self, most)
        for message in found:
            tp = TopicPartition(message.topic, message.partition)
            self.mark(tp, message.tenure, message.offset, "")
        return found

    Engine.next_batch = next_batch  # type: ignore[method-assign]


def commit_what_was_given_up() -> None:
    """Each commit repeats, beside its own, what the member committed in earlier tenures."""
    honest = commits.OffsetCommitRequest
    known: dict[str, dict[tuple[str, int], Any]] = {}

    def request(
        group_id: str, generation_id: int, member_id: str, instance_id: str | None, offsets: Any
    ) -> Any:
        mine = known.setdefault(member_id, {})
        mine.update({(each.topic, each.partition): each for each in offsets})
        return honest(group_id, generation_id, member_id, instance_id, tuple(mine.values()))

    commits.OffsetCommitRequest = request  # type: ignore[assignment,misc]


def commit_goes_back() -> None:
    """Every second commit of a partition names its first record alone."""
    honest = commits.OffsetAndMetadata
    counts: dict[tuple[str, int], int] = {}

    def offset(topic: str, partition: int, number: int, *rest: Any) -> Any:
        key = topic, partition
        counts[key] = count = counts.get(key, 0) + 1
        return honest(topic, partition, 1 if count % 2 == 0 else number, *rest)

    commits.OffsetAndMetadata = offset  # type: ignore[assignment,misc]


def deliver_for_ever() -> None:
    """A member that never stops delivering, its session over or not."""
    honest = Turn.extend_lease
    Turn.extend_lease = lambda self, _: honest(self, FOR_EVER_MS)  # type: ignore[method-assign]
    member.ON_TIMER["session"] = lambda _: None  # type: ignore[index]


def never_let_go() -> None:
    """A member that delivers for ever, and does not believe that it is out of its group."""
    deliver_for_ever()
    for kind in ("heartbeat", "commit"):
        for code in (*NO_MEMBER, KafkaError.REBALANCE_IN_PROGRESS):
            REACT[kind, code] = Reaction.RETRY


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


def broken_check() -> None:
    """S10 crashes at the first record that it sees; the run is broken, and no pass."""

    def see(self: S10Order, *_: Any) -> None:
        raise LookupError(f"{self.name} does not know what to look at")

    S10Order.see = see  # type: ignore[method-assign]


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


def the_last_to_join_leads() -> None:
    """Every member that is added becomes the leader."""
    honest = Shard.add_member

    def add_member(self: Shard, group: ClassicGroup, *each: Any) -> None:
        honest(self, group, *each)
        group.leader = each[0].member_id

    Shard.add_member = add_member  # type: ignore[method-assign]


COORDINATOR_PLANTS: dict[str, Callable[[], None]] = {
    "unknown-member-is-told-22": unknown_member_is_told_22,
    "commit-does-not-keep-alive": commit_does_not_keep_alive,
    "late-follower-is-evicted": late_follower_is_evicted,
    "follower-rejoins-always-rebalance": follower_rejoins_always_rebalance,
    "pending-ids-hold-nothing-back": pending_ids_hold_nothing_back,
    "commit-before-sync-is-taken": commit_before_sync_is_taken,
    "the-last-to-join-leads": the_last_to_join_leads,
}
PLANTS: dict[str, Callable[[], None]] = {
    "commit-delivered": commit_delivered,
    "commit-what-was-given-up": commit_what_was_given_up,
    "commit-goes-back": commit_goes_back,
    "deliver-for-ever": deliver_for_ever,
    "never-let-go": never_let_go,
    "join-never-completes": join_never_completes,
    "another-decision": another_decision,
    "blind-check": blind_check,
    "broken-check": broken_check,
    **MEMBER_PLANTS,
    **DECISION_PLANTS,
    **STALE_PLANTS,
    **EQUIVALENT_PLANTS,
    **COORDINATOR_PLANTS,
}
