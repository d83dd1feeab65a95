"""Marks, commits, and the way of partitions out of this member's hands."""

from __future__ import annotations

from typing import Final

from ksim.core.errors import KafkaError
from ksim.core.events import (
    AbandonPartitions,
    Assigned,
    CommitRequested,
    MarksTaken,
    PartitionClosed,
    PartitionsLost,
    PartitionsRevoked,
    RevokePartitions,
)
from ksim.core.member_state import (
    REACTIONS,
    ClientState,
    Pending,
    Phase,
    Reaction,
    Release,
    Tenure,
)
from ksim.core.membership import react
from ksim.core.messages import OffsetAndMetadata, OffsetCommitRequest, OffsetCommitResponse
from ksim.core.truncation import epoch_at
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition

# Who keeps the offsets is not there, or not yet: it may come back.
AWAY: Final = (
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)


def on_marks(turn: Turn, fact: MarksTaken) -> None:
    """Keep the highest mark of each tenure; one of a tenure that is over is only counted."""
    state = turn.state
    for mark in fact.marks:
        tenure = state.owned.get(TopicPartition(mark.topic, mark.partition))
        if tenure is None or tenure.tenure != mark.tenure:
            state.stale_marks += 1
        elif mark.offset + 1 > tenure.to_commit:
            tenure.to_commit = mark.offset + 1
            tenure.metadata = mark.metadata
    if not turn.held("commit") and any(tenure.uncommitted for tenure in state.owned.values()):
        turn.arm("commit", state.config.commit_interval_ms)


def on_commit_requested(turn: Turn, fact: CommitRequested) -> None:
    turn.state.tickets += (fact.ticket,)
    turn.state.commit_due = True


def commit(turn: Turn) -> None:
    """Send what is marked and not acknowledged, if the group would take it."""
    state = turn.state
    if not state.commit_due or "commit" in state.busy or turn.held("commit_backoff"):
        return
    tenures = [tenure for tenure in state.owned.values() if tenure.uncommitted]
    if not tenures:
        state.commit_due = False
        turn.disarm("commit")
        turn.finish_tickets(state.refusal)
        return
    target = turn.offsets_at
    if target is None or state.client_state != ClientState.STABLE:
        return
    state.commit_due = False
    turn.disarm("commit")
    tickets, state.tickets = state.tickets, ()
    request = OffsetCommitRequest(
        state.config.group_id,
        state.generation_id,
        state.member_id,
        state.config.group_instance_id,
        tuple(
            OffsetAndMetadata(
                item.topic,
                item.partition,
                item.to_commit,
                epoch_at(item, item.to_commit - 1),
                item.metadata,
            )
            for item in tenures
        ),
    )
    partitions = tuple(
        Assigned(item.topic, item.partition, item.tenure, item.to_commit) for item in tenures
    )
    node_id, channel = target
    turn.send("commit", node_id, request, channel=channel, partitions=partitions, tickets=tickets)


def on_commit(turn: Turn, pending: Pending, response: OffsetCommitResponse) -> None:
    """Note what was acknowledged; a refusal is tried again, reported, or ends the generation."""
    state = turn.state
    refusals = _note_answers(turn, pending, response)
    refused = next(iter(refusals), 0)
    if pending.epoch != state.epoch:
        turn.finish_tickets(refused, pending.tickets)
        return
    if not refused:
        turn.finish_tickets(state.refusal, pending.tickets)
        turn.succeed("commit_backoff")
        _wait_for_interval(turn)
        return
    reaction = react(turn, "commit", refused)
    if reaction in (Reaction.RETRY, Reaction.REDISCOVER):
        _try_again(turn, pending, refused)
        return
    turn.finish_tickets(refused, pending.tickets)
    if reaction == Reaction.REPORT:
        turn.succeed("commit_backoff")
        _wait_for_interval(turn)
    elif reaction == Reaction.REJOIN and state.release == Release.COMMITTING:
        turn.drop_owned()


def _note_answers(turn: Turn, pending: Pending, response: OffsetCommitResponse) -> list[int]:
    """Keep each partition's answer; returns the refusals, those of identity and retries first."""
    state = turn.state
    errors = {TopicPartition(p.topic, p.partition): p.error_code for p in response.partitions}
    refusals: list[tuple[bool, int]] = []
    for sent in pending.partitions:
        tp = TopicPartition(sent.topic, sent.partition)
        error_code = errors.get(tp, int(KafkaError.UNKNOWN_SERVER_ERROR))
        tenure = state.owned.get(tp)
        for_good = REACTIONS.get(("commit", error_code), Reaction.REPORT) == Reaction.REPORT
        if error_code != KafkaError.NONE:
            refusals.append((for_good, error_code))
            if for_good and pending.epoch == state.epoch:
                turn.report(error_code, f"commit of {tp}", about=tp, offset=sent.offset)
        if tenure is None or tenure.tenure != sent.tenure:
            continue
        if error_code == KafkaError.NONE:
            tenure.committed = sent.offset
        elif for_good:
            # Asking again would be refused again; whoever asks is told so.
            tenure.refused, tenure.refused_code = sent.offset, error_code
        else:
            _doubt(tenure, sent.offset)
    return [error_code for _, error_code in sorted(refusals)]


def _doubt(tenure: Tenure, offset: int) -> None:
    """It may have been stored, and then stands there in place of what was acknowledged before."""
    if tenure.committed != offset:
        tenure.committed = -1


def _wait_for_interval(turn: Turn) -> None:
    waiting = any(tenure.uncommitted for tenure in turn.state.owned.values())
    if waiting and not turn.held("commit"):
        turn.arm("commit", turn.state.config.commit_interval_ms)


def on_commit_failed(turn: Turn, pending: Pending, reason: str) -> None:
    """No answer: it may have been done or not; ask again, which is harmless."""
    del reason
    turn.offsets_unanswered()
    for sent in pending.partitions:
        tenure = turn.state.owned.get(TopicPartition(sent.topic, sent.partition))
        if tenure is not None and tenure.tenure == sent.tenure:
            _doubt(tenure, sent.offset)
    if pending.epoch == turn.state.epoch:
        turn.back_off("commit_backoff")
        _try_again(turn, pending, KafkaError.REQUEST_TIMED_OUT)
    else:
        turn.finish_tickets(KafkaError.UNKNOWN_MEMBER_ID, pending.tickets)


def _try_again(turn: Turn, pending: Pending, error_code: int) -> None:
    """Within the budget at once; after it who asked is told, and marks wait for their interval.

    A release that has spent its budget goes on without the commit: the group does not wait. Where
    its coordinator is away the last commit of all is tried for as long as `close` has time, as
    nobody will make it later.
    """
    state = turn.state
    tries = state.attempts.get("commit_backoff", 0)
    last = state.phase == Phase.CLOSING and state.release == Release.COMMITTING
    if tries <= state.config.commit_retry_max or (last and error_code in AWAY):
        state.tickets = pending.tickets + state.tickets
        state.commit_due = True
        return
    turn.succeed("commit_backoff")
    turn.report(error_code, f"commit, {tries} tries")
    turn.finish_tickets(error_code, pending.tickets)
    if state.release == Release.COMMITTING:
        turn.drop_owned()
    else:
        _wait_for_interval(turn)


# Partitions on their way out


def release(turn: Turn) -> None:
    """Ask for what is owned back, wait for the answer, commit, and only then let it go."""
    state = turn.state
    if not state.owned and not state.announced:
        return
    if not state.announced:
        turn.drop_owned()
    elif state.release == Release.NONE:
        state.release = Release.REVOKING
        state.next_revocation_id += 1
        turn.rebalance_begins()
        turn.orders.append(RevokePartitions(state.next_revocation_id, tuple(sorted(state.owned))))
        turn.arm("dwell", state.config.dwell_time_ms)
        turn.arm("release_limit", state.config.rebalance_timeout_ms * 19 // 20)
        if state.phase == Phase.CLOSING:
            hurry(turn)
    elif state.release == Release.COMMITTING:
        _let_go(turn)


def hurry(turn: Turn) -> None:
    """`close` has so long: two thirds for what is in flight, then the commit, and a sixth to leave.

    Nothing that is in flight may cost what is done its commit, nor the commit the LeaveGroup.
    """
    state = turn.state
    left_ms = state.timers["close"] - turn.now_ms
    if state.release == Release.REVOKING:
        dwell_ms = turn.now_ms + left_ms * 2 // 3
        state.timers["dwell"] = min(state.timers.get("dwell", dwell_ms), dwell_ms)
    if state.release in (Release.REVOKING, Release.COMMITTING):
        state.timers["release_limit"] = turn.now_ms + left_ms * 5 // 6


def _let_go(turn: Turn) -> None:
    """After the last commit, or when it can no longer be made."""
    state = turn.state
    if "commit" in state.busy:
        return
    if any(tenure.uncommitted for tenure in state.owned.values()):
        state.commit_due = True
        commit(turn)
        return
    turn.drop_owned()
    turn.disarm("release_limit")


def on_revoked(turn: Turn, fact: PartitionsRevoked) -> None:
    state = turn.state
    if fact.revocation_id != state.next_revocation_id or state.release != Release.REVOKING:
        return
    turn.disarm("dwell")
    turn.succeed("commit_backoff")
    state.release = Release.COMMITTING
    state.commit_due = True


def on_partition_closed(turn: Turn, fact: PartitionClosed) -> None:
    """Its reader wants no more of it: all that is owned is shared out again."""
    tenure = turn.state.owned.get(TopicPartition(fact.topic, fact.partition))
    if tenure is not None and tenure.tenure == fact.tenure:
        turn.state.rejoin_needed = True


def on_lost(turn: Turn, fact: PartitionsLost) -> None:
    state = turn.state
    if fact.revocation_id == state.next_revocation_id and state.release == Release.LOSING:
        state.release = Release.NONE


def expire_dwell(turn: Turn) -> None:
    """The handlers took too long; the group does not wait for them."""
    if turn.state.release == Release.REVOKING:
        turn.orders.append(AbandonPartitions(turn.state.next_revocation_id))


def expire_release(turn: Turn) -> None:
    """Waiting longer for a commit would cost this member its place in the group.

    A member that is closing has no time left for it, and must leave.
    """
    state = turn.state
    if state.release != Release.COMMITTING:
        return
    if state.phase == Phase.CLOSING and any(each.uncommitted for each in state.owned.values()):
        turn.report(KafkaError.REQUEST_TIMED_OUT, "commit, while closing")
    turn.drop_owned()


def expire_commit(turn: Turn) -> None:
    turn.state.commit_due = True


def expire_close(turn: Turn) -> None:
    """`close` has no time left: whatever is still open stays so."""
    assert turn.state.phase == Phase.CLOSING, f"close timer in {turn.state.phase}"
    turn.finish()
