"""Marks, commits, and the way of partitions out of this member's hands."""

from __future__ import annotations

from ksim.core.errors import KafkaError
from ksim.core.events import (
    AbandonPartitions,
    Assigned,
    CommitRequested,
    MarksTaken,
    PartitionsLost,
    PartitionsRevoked,
    RevokePartitions,
)
from ksim.core.member_state import ClientState, Pending, Phase, Reaction, Release
from ksim.core.membership import react
from ksim.core.messages import OffsetAndMetadata, OffsetCommitRequest, OffsetCommitResponse
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition


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
        turn.finish_tickets(KafkaError.NONE)
        return
    if state.coordinator == -1 or state.client_state != ClientState.STABLE:
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
            OffsetAndMetadata(item.topic, item.partition, item.to_commit, -1, item.metadata)
            for item in tenures
        ),
    )
    partitions = tuple(
        Assigned(item.topic, item.partition, item.tenure, item.to_commit) for item in tenures
    )
    turn.send("commit", state.coordinator, request, partitions=partitions, tickets=tickets)


def on_commit(turn: Turn, pending: Pending, response: OffsetCommitResponse) -> None:
    """Note what was acknowledged; a refusal is tried again, reported, or ends the generation."""
    state = turn.state
    errors = {TopicPartition(p.topic, p.partition): p.error_code for p in response.partitions}
    refused = 0
    for sent in pending.partitions:
        tp = TopicPartition(sent.topic, sent.partition)
        error_code = errors.get(tp, int(KafkaError.UNKNOWN_SERVER_ERROR))
        tenure = state.owned.get(tp)
        if error_code != KafkaError.NONE:
            refused = refused or error_code
        elif tenure is not None and tenure.tenure == sent.tenure:
            tenure.committed = sent.offset
    turn.finish_tickets(refused, pending.tickets)
    if not refused:
        turn.succeed("commit_backoff")
        if any(tenure.uncommitted for tenure in state.owned.values()) and not turn.held("commit"):
            turn.arm("commit", state.config.commit_interval_ms)
        return
    if pending.epoch != state.epoch:
        return
    reaction = react(turn, "commit", refused)
    if reaction == Reaction.REPORT:
        turn.report(refused, "commit")
    if reaction in (Reaction.RETRY, Reaction.REDISCOVER, Reaction.REPORT):
        _try_again(turn)
    elif reaction == Reaction.REJOIN and state.release == Release.COMMITTING:
        turn.drop_owned()


def on_commit_failed(turn: Turn, pending: Pending, reason: str) -> None:
    """No answer: it may have been done or not; ask again, which is harmless."""
    del reason
    turn.forget_coordinator()
    turn.back_off("find_backoff")
    turn.state.tickets = pending.tickets + turn.state.tickets
    if pending.epoch == turn.state.epoch:
        turn.back_off("commit_backoff")
        _try_again(turn)
    else:
        turn.finish_tickets(KafkaError.UNKNOWN_MEMBER_ID)


def _try_again(turn: Turn) -> None:
    state = turn.state
    state.commit_due = True
    tries = state.attempts.get("commit_backoff", 0)
    if state.release == Release.COMMITTING and tries > state.config.commit_retry_max:
        turn.succeed("commit_backoff")
        turn.report(KafkaError.REQUEST_TIMED_OUT, f"commit before the rebalance, {tries} tries")
        turn.drop_owned()


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
        turn.notify("rebalance_start", tuple(sorted(state.owned)))
        turn.orders.append(RevokePartitions(state.next_revocation_id, tuple(sorted(state.owned))))
        turn.arm("dwell", state.config.dwell_time_ms)
        turn.arm("release_limit", state.config.rebalance_timeout_ms * 19 // 20)
    elif state.release == Release.COMMITTING:
        _let_go(turn)


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


def on_lost(turn: Turn, fact: PartitionsLost) -> None:
    state = turn.state
    if fact.revocation_id == state.next_revocation_id and state.release == Release.LOSING:
        state.release = Release.NONE


def expire_dwell(turn: Turn) -> None:
    """The handlers took too long; the group does not wait for them."""
    if turn.state.release == Release.REVOKING:
        turn.orders.append(AbandonPartitions(turn.state.next_revocation_id))


def expire_release(turn: Turn) -> None:
    """Waiting longer for a commit would cost this member its place in the group."""
    if turn.state.release == Release.COMMITTING:
        turn.drop_owned()


def expire_commit(turn: Turn) -> None:
    turn.state.commit_due = True


def expire_close(turn: Turn) -> None:
    """`close` has no time left: whatever is still open stays so."""
    assert turn.state.phase == Phase.CLOSING, f"close timer in {turn.state.phase}"
    turn.finish()
