"""Positions after a change of leader: is what was read still in the log?

A new leader may lack what an old one had. Before a position is used under another leader epoch,
the leader is asked where the epoch that was read last ends in its log; a position beyond that end
stands in a part that is gone. Source: KIP-320, Kafka `OffsetsForLeaderEpochClient`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ksim.core.errors import KafkaError
from ksim.core.events import DropBuffered
from ksim.core.member_state import Epoch, Pending, Position, Tenure
from ksim.core.messages import (
    EpochEnd,
    EpochPartition,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
)
from ksim.core.turn import Turn, headers_of
from ksim.core.values import TopicPartition

KEPT_EPOCHS: Final = 8
NO_EPOCH: Final = -1
NO_TENURE: Final = -1


def epoch_at(tenure: Tenure, offset: int) -> int:
    """The leader epoch of the record at `offset`, as far as it was read in this tenure."""
    found = [epoch.leader_epoch for epoch in tenure.epochs if epoch.start_offset <= offset]
    return found[-1] if found else NO_EPOCH


def note_epoch(tenure: Tenure, start_offset: int, leader_epoch: int) -> None:
    """Records from `start_offset` on were read in this epoch; a lower one is of another log."""
    known = tenure.epochs[-1].leader_epoch if tenure.epochs else NO_EPOCH
    tenure.latest_epoch = max(tenure.latest_epoch, leader_epoch)
    if leader_epoch > known:
        tenure.epochs = (*tenure.epochs, Epoch(start_offset, leader_epoch))[-KEPT_EPOCHS:]
    elif NO_EPOCH < leader_epoch < known:
        forget_log(tenure)
        tenure.latest_epoch = leader_epoch
        tenure.epochs = (Epoch(start_offset, leader_epoch),)


def forget_log(tenure: Tenure) -> None:
    """What comes may be of another log under the same name, whose epochs begin at 0 again: what
    was confirmed in an epoch of the one before says nothing of it.
    """
    tenure.epochs = ()
    tenure.latest_epoch = tenure.confirmed_epoch = NO_EPOCH


def note_read(turn: Turn, tenure: Tenure, next_offset: int, leader_epoch: int) -> None:
    """Records up to `next_offset` were read; the last of them was written in this epoch.

    Where a seek went back, what is read again cannot be younger than all that was read before,
    unless the log was cut and written anew below it, which nobody was asked about: what is
    committed beyond is of the part that is gone.
    """
    if NO_EPOCH < tenure.latest_epoch < leader_epoch:
        forget_commits(turn, tenure, next_offset - 1)
    note_epoch(tenure, tenure.position, leader_epoch)


def skip_epochs(tenure: Tenure, offset: int) -> None:
    """A seek: marks of what was read go on being committed with its epochs, or whoever comes next
    would not see that the log was truncated below them. Of what a seek skips none is known.
    """
    tenure.epochs = tuple(epoch for epoch in tenure.epochs if epoch.start_offset < offset)
    if tenure.epochs and offset > tenure.position:
        tenure.epochs = (*tenure.epochs, Epoch(tenure.position, NO_EPOCH))[-KEPT_EPOCHS:]


def doubt_positions(turn: Turn) -> None:
    """After new metadata: positions that were read under an older leader are to be confirmed.

    A leader of a lower epoch leads another log, of a topic that was made anew: what was confirmed
    before says nothing of it.
    """
    state = turn.state
    for tp, tenure in state.owned.items():
        current = state.epochs.get(tp, NO_EPOCH)
        if NO_EPOCH < current < tenure.confirmed_epoch:
            tenure.confirmed_epoch = NO_EPOCH
        read = epoch_at(tenure, tenure.position - 1)
        ready = tenure.waits_for == Position.READY
        if ready and NO_EPOCH < read < current and tenure.confirmed_epoch < current:
            tenure.waits_for = Position.EPOCH_END


def confirm_positions(turn: Turn) -> None:
    """Ask each leader for the ends of the epochs that its tenures were read in."""
    state = turn.state
    if turn.held("epochs_backoff"):
        return
    by_node: dict[int, list[TopicPartition]] = {}
    for tp, tenure in state.owned.items():
        if tenure.waits_for == Position.EPOCH_END:
            by_node.setdefault(state.leaders.get(tp, -1), []).append(tp)
    if by_node.pop(-1, None):
        turn.want_metadata()
    for node_id, partitions in by_node.items():
        key = f"epochs:{node_id}"
        if key in state.busy:
            continue
        tenures = [state.owned[tp] for tp in partitions]
        asked = tuple(
            EpochPartition(
                tenure.topic,
                tenure.partition,
                state.epochs.get(TopicPartition(tenure.topic, tenure.partition), NO_EPOCH),
                epoch_at(tenure, tenure.position - 1),
            )
            for tenure in tenures
        )
        request = OffsetForLeaderEpochRequest(asked)
        headers = headers_of(tenures)
        turn.send("epochs", node_id, request, channel="meta", key=key, partitions=headers)


def on_epochs(turn: Turn, pending: Pending, response: OffsetForLeaderEpochResponse) -> None:
    state = turn.state
    asked = {TopicPartition(p.topic, p.partition): p for p in pending.partitions}
    refused = False
    for found in response.partitions:
        tp = TopicPartition(found.topic, found.partition)
        tenure, sent = state.owned.get(tp), asked.get(tp)
        if tenure is None or sent is None or tenure.tenure != sent.tenure:
            continue
        if tenure.waits_for != Position.EPOCH_END or tenure.position != sent.offset:
            continue
        if found.error_code != KafkaError.NONE:
            refused = True
        elif found.end_offset < tenure.position:
            _truncated(turn, tenure, found)
        else:
            tenure.confirmed_epoch = state.epochs.get(tp, NO_EPOCH)
            tenure.waits_for = Position.READY
            state.fetch_due = True
    if refused:
        state.metadata_due = True
        turn.back_off("epochs_backoff")
    else:
        turn.succeed("epochs_backoff")


def on_epochs_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.back_off("epochs_backoff")


def forget_commits(turn: Turn, tenure: Tenure, end: int) -> None:
    """A commit under way may land beyond `end`; what will stand there has to be committed anew.

    Whoever finds that commit goes back, as it carries the epoch of the part that is gone.
    """
    if tenure.committed > end:
        tenure.committed = -1
    if tenure.refused > end:
        tenure.refused = -1
    pending = turn.state.pending
    for request_id, sent in pending.items():
        if sent.kind == "commit":
            partitions = tuple(
                replace(at, tenure=NO_TENURE)
                if at.tenure == tenure.tenure and at.offset > end
                else at
                for at in sent.partitions
            )
            pending[request_id] = replace(sent, partitions=partitions)


def _truncated(turn: Turn, tenure: Tenure, found: EpochEnd) -> None:
    """Go on where the logs part; with auto_offset_reset none the application must decide."""
    tp = TopicPartition(tenure.topic, tenure.partition)
    must_decide = turn.state.config.auto_offset_reset == "none"
    end = found.end_offset
    turn.report(
        KafkaError.OFFSET_OUT_OF_RANGE,
        f"{tp} was truncated at {end}, read up to {tenure.position}",
        fatal=must_decide,
        about=tp,
    )
    if end < 0:
        tenure.waits_for = Position.STOPPED if must_decide else Position.LIST_OFFSETS
        forget_log(tenure)
        turn.orders.append(DropBuffered(*tp, tenure.tenure, 0))
        tenure.to_commit = -1
        forget_commits(turn, tenure, -1)
        return
    tenure.position = end
    forget_commits(turn, tenure, end)
    tenure.epochs = tuple(epoch for epoch in tenure.epochs if epoch.start_offset < end)
    # Of what lies below this tenure's beginning nothing is known but what the leader says here.
    note_epoch(tenure, end - 1, found.leader_epoch)
    tenure.confirmed_epoch = turn.state.epochs.get(tp, NO_EPOCH)
    tenure.waits_for = Position.STOPPED if must_decide else Position.READY
    if tenure.to_commit > end:
        # What was marked beyond the end is not in the log any more; all before it is done.
        tenure.to_commit, tenure.metadata = end, ""
        if tenure.uncommitted and not turn.held("commit"):
            turn.arm("commit", turn.state.config.commit_interval_ms)
    turn.state.fetch_due = True
    turn.orders.append(DropBuffered(*tp, tenure.tenure, end))
