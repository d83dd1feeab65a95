"""Metadata, first offsets, and what to fetch where."""

from __future__ import annotations

from ksim.core.errors import KafkaError
from ksim.core.events import (
    Assigned,
    AssignPartitions,
    BufferRecords,
    DropBuffered,
)
from ksim.core.leaders import found_late, holds_up, is_open, note_leaderless
from ksim.core.member_state import (
    ClientState,
    MemberConfig,
    MemberState,
    Pending,
    Position,
    Reaction,
    Release,
    Tenure,
)
from ksim.core.membership import react
from ksim.core.messages import (
    OFFSET_EARLIEST,
    OFFSET_LATEST,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    TopicMetadata,
)
from ksim.core.patterns import wanted_topics
from ksim.core.truncation import (
    confirm_positions,
    doubt_positions,
    forget_commits,
    forget_log,
    note_epoch,
    note_read,
)
from ksim.core.turn import Turn, headers_of
from ksim.core.values import TopicPartition

BEYOND_END_PATIENCE_MS = 5_000
CHANGE_HOLD_MS = 500
CHANGE_HOLD_MOST_MS = 10_000
# Small records take about four times their bytes as objects; memory stays within twice the setting.
OBJECTS_RESERVE = 2
# Looked up in nearly each step: the enumeration itself would take longer than the comparison.
READY, NOT_RELEASING, STABLE = Position.READY, Release.NONE, ClientState.STABLE
NO_ERROR = KafkaError.NONE
RESET_TIMESTAMP = {"earliest": OFFSET_EARLIEST, "latest": OFFSET_LATEST}
UNREADABLE = (KafkaError.CORRUPT_MESSAGE, KafkaError.UNSUPPORTED_COMPRESSION_TYPE)
MISSING = (
    KafkaError.UNKNOWN_TOPIC_OR_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TOPIC,
)
# What is wrong with one topic must not keep the others of a group from theirs. One that has just
# been made may be there soon: an assignment waits for so many answers, which are some seconds.
NOT_YET, NOT_YET_ANSWERS = KafkaError.LEADER_NOT_AVAILABLE, 10


# Metadata


def refresh_metadata(turn: Turn) -> None:
    state = turn.state
    if state.metadata_due and "metadata" not in state.busy and not turn.held("metadata_backoff"):
        state.metadata_due = False
        topics = tuple(sorted({*state.config.topics, *state.group_topics}))
        by_pattern = state.config.topics_whitelist is not None
        # What a leader assigns by must have been asked for after its join was answered.
        turn.send_to_any("metadata", MetadataRequest(None if by_pattern else topics))


def on_metadata(turn: Turn, pending: Pending, response: MetadataResponse) -> None:
    state = turn.state
    for topic in response.topics:
        _learn_topic(turn, topic)
    if state.config.topics_whitelist is not None:
        _forget_vanished(turn, response)
    _subscribe(turn)
    doubt_positions(turn)
    note_leaderless(turn, response)
    turn.arm("metadata_age", state.config.metadata_max_age_ms)
    _forget_unwanted(turn, response)
    awaited = NOT_YET in state.topic_errors.values()
    unsettled = awaited and state.attempts.get("metadata_backoff", 0) < NOT_YET_ANSWERS
    waits = any(topic in state.topic_errors for topic in state.config.topics)
    state.topics_known = state.topics_known or bool(response.topics)
    refused = any(code not in MISSING for code in state.topic_errors.values())
    if refused or waits or not response.topics:
        state.metadata_due = True
        turn.back_off("metadata_backoff")
    else:
        turn.succeed("metadata_backoff")
    state.fetch_due = True
    if pending.epoch == state.epoch:
        state.metadata_fresh = state.metadata_fresh or (state.assigning and not unsettled)
    elif state.assigning:
        state.metadata_due = True


def _forget_unwanted(turn: Turn, response: MetadataResponse) -> None:
    """What nobody in the group asks for any more is no error, and holds up nobody."""
    state = turn.state
    wanted = {*state.config.topics, *state.group_topics, *(t.topic for t in response.topics)}
    for topic in sorted(state.topic_errors.keys() - wanted):
        del state.topic_errors[topic]


def _forget_vanished(turn: Turn, response: MetadataResponse) -> None:
    """All topics were asked for: one that is not in the answer is not there."""
    state = turn.state
    present = {topic.topic for topic in response.topics}
    missing = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    for topic in sorted({*state.counts, *state.config.topics, *state.group_topics} - present):
        _learn_topic(turn, TopicMetadata(missing, topic, ()))


def _subscribe(turn: Turn) -> None:
    """What is wanted now; a member that is in the group with something else joins again."""
    state = turn.state
    config = state.config
    state.subscribed = wanted_topics(
        config.topics, config.topics_whitelist, config.topics_blacklist, sorted(state.counts)
    )
    notice_change(turn)


def notice_change(turn: Turn) -> None:
    """A rebalance is due where the topics, or what the leader shared out, have changed since.

    Brokers that go on telling different things would cause one with each answer: one that comes
    soon after the last is held back, each time for twice as long.
    """
    state = turn.state
    if state.client_state != ClientState.STABLE or state.rejoin_needed or not _has_changed(state):
        return
    times = state.attempts.get("change", 0)
    hold_ms = min(CHANGE_HOLD_MS << min(times - 1, 20), CHANGE_HOLD_MOST_MS) if times else 0
    age_ms = turn.now_ms - state.synced_ms
    if age_ms < hold_ms:
        turn.arm("change", hold_ms - age_ms)
        return
    turn.disarm("change")
    state.rejoin_needed = True
    state.attempts["change"] = times + 1 if age_ms < 4 * hold_ms else 1


def _has_changed(state: MemberState) -> bool:
    if state.subscribed != state.joined_topics:
        return True
    now = {topic: state.counts[topic] for topic in state.group_topics if topic in state.counts}
    return state.is_leader and now != state.assigned_counts


def _learn_topic(turn: Turn, topic: TopicMetadata) -> None:
    state = turn.state
    if topic.error_code != KafkaError.NONE:
        known = state.topic_errors.get(topic.topic)
        state.topic_errors[topic.topic] = topic.error_code
        if topic.error_code in MISSING:
            _forget_leaders(turn, topic.topic, state.counts.pop(topic.topic, 0))
        is_news = known != topic.error_code != NOT_YET
        if is_news and topic.topic in state.config.topics:
            about = TopicPartition(topic.topic, -1)
            turn.report(topic.error_code, f"topic {topic.topic}", about=about)
        return
    state.topic_errors.pop(topic.topic, None)
    state.counts[topic.topic] = len(topic.partitions)
    for partition in topic.partitions:
        tp = TopicPartition(topic.topic, partition.partition)
        # It may be lower than before: a topic that was made anew counts from 0.
        state.epochs[tp] = partition.leader_epoch
        if partition.leader_id >= 0:
            state.leaders[tp] = partition.leader_id
        else:
            state.leaders.pop(tp, None)


def _forget_leaders(turn: Turn, topic: str, partitions: int) -> None:
    for partition in range(partitions):
        tp = TopicPartition(topic, partition)
        turn.state.leaders.pop(tp, None)
        turn.state.epochs.pop(tp, None)


def on_metadata_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.back_off("metadata_backoff")


def expire_metadata(turn: Turn) -> None:
    turn.state.metadata_due = True


# First offsets


def find_positions(turn: Turn) -> None:
    """Ask for what the tenures still lack; when none lacks anything, announce them."""
    state = turn.state
    if state.announced and not is_open(state):
        return  # as in nearly every step
    if state.client_state != STABLE or turn.held("offsets_backoff"):
        return
    asked = [t for t in state.owned.values() if t.waits_for == Position.OFFSET_FETCH]
    target = turn.offsets_at
    if asked and target is not None and "offsets" not in state.busy:
        partitions = tuple(TopicPartition(t.topic, t.partition) for t in asked)
        request = OffsetFetchRequest(
            state.config.group_id, partitions, state.member_id, state.generation_id
        )
        node_id, channel = target
        turn.send("offsets", node_id, request, channel=channel, partitions=headers_of(asked))
    _list_offsets(turn)
    confirm_positions(turn)
    waits = state.announced or state.release != Release.NONE or holds_up(state)
    if not waits and turn.is_confirmed:
        _announce(turn)


def _list_offsets(turn: Turn) -> None:
    state = turn.state
    by_node: dict[int, list[Tenure]] = {}
    for tp, tenure in state.owned.items():
        if tenure.waits_for == Position.LIST_OFFSETS:
            by_node.setdefault(state.leaders.get(tp, -1), []).append(tenure)
    if by_node.pop(-1, None):
        turn.want_metadata()
    timestamp = RESET_TIMESTAMP.get(state.config.auto_offset_reset, OFFSET_LATEST)
    for node_id, tenures in by_node.items():
        key = f"list:{node_id}"
        if key not in state.busy:
            request = ListOffsetsRequest(
                tuple(ListOffsetsPartition(t.topic, t.partition, timestamp) for t in tenures),
                state.config.isolation_level,
            )
            turn.send(
                "list", node_id, request, channel="meta", key=key, partitions=headers_of(tenures)
            )


def _announce(turn: Turn) -> None:
    state = turn.state
    state.announced = True
    state.fetch_due = True
    turn.orders.append(
        AssignPartitions(state.generation_id, headers_of(list(state.owned.values())))
    )
    turn.rebalance_ends("rebalance_ok")


def on_offsets(turn: Turn, pending: Pending, response: OffsetFetchResponse) -> None:
    """Committed offsets; where there is none, the reset policy decides."""
    state = turn.state
    if pending.epoch != state.epoch:
        return
    errors = [response.error_code, *(found.error_code for found in response.partitions)]
    refused = next((code for code in errors if code != KafkaError.NONE), 0)
    if refused:
        _offsets_refused(turn, refused, response)
        return
    turn.succeed("offsets_backoff")
    for found in response.partitions:
        tenure = state.owned.get(TopicPartition(found.topic, found.partition))
        if tenure is None or tenure.waits_for != Position.OFFSET_FETCH:
            continue
        if found.offset >= 0:
            tenure.position = tenure.committed = found.offset
            tenure.metadata = found.metadata
            tenure.waits_for = Position.READY
            note_epoch(tenure, found.offset - 1, found.leader_epoch)
        else:
            _reset(turn, tenure, "no committed offset")
    doubt_positions(turn)


def _offsets_refused(turn: Turn, refused: int, response: OffsetFetchResponse) -> None:
    """Nobody takes "it is not known" for "there is none": all of it is asked again."""
    reaction = react(turn, "offsets", refused)
    if reaction == Reaction.REJOIN:
        turn.back_off("offsets_backoff")
    elif reaction == Reaction.REPORT:
        for found in (found for found in response.partitions if found.error_code == refused):
            tp = TopicPartition(found.topic, found.partition)
            turn.report(refused, f"committed offset of {tp}", about=tp)


def _reset(turn: Turn, tenure: Tenure, why: str) -> None:
    if turn.state.config.auto_offset_reset in RESET_TIMESTAMP:
        tenure.waits_for = Position.LIST_OFFSETS
        return
    tenure.waits_for = Position.STOPPED
    turn.report(
        KafkaError.OFFSET_OUT_OF_RANGE,
        f"{tenure.topic}-{tenure.partition}: {why} and auto_offset_reset is none",
        fatal=True,
    )


def on_list(turn: Turn, pending: Pending, response: ListOffsetsResponse) -> None:
    state = turn.state
    asked = {(p.topic, p.partition): p.tenure for p in pending.partitions}
    refused = False
    for found in response.partitions:
        tenure = state.owned.get(TopicPartition(found.topic, found.partition))
        if tenure is None or tenure.tenure != asked.get((found.topic, found.partition)):
            continue
        if tenure.waits_for != Position.LIST_OFFSETS:
            continue
        if found.error_code != KafkaError.NONE or found.offset < 0:
            _tell_denied(turn, found.error_code, tenure)
            refused = True
            continue
        if found.offset < tenure.position:
            # What was marked and committed beyond it is not in the log any more.
            tenure.to_commit = tenure.refused = -1
            forget_log(tenure)
            forget_commits(turn, tenure, -1)
            turn.orders.append(
                DropBuffered(found.topic, found.partition, tenure.tenure, found.offset)
            )
        found_late(turn, tenure, found.offset)
        tenure.position = found.offset
        tenure.waits_for = Position.READY
        note_epoch(tenure, found.offset - 1, found.leader_epoch)
        state.fetch_due = True
    if refused:
        state.metadata_due = True
        turn.back_off("offsets_backoff")
    else:
        turn.succeed("offsets_backoff")
    doubt_positions(turn)


def on_list_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.back_off("offsets_backoff")


def on_offsets_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending
    if turn.state.config.own_offset_store:
        # Nobody else would say why nothing comes.
        turn.report(KafkaError.UNKNOWN_SERVER_ERROR, "offset store", detail=reason)
    turn.offsets_unanswered()
    turn.back_off("offsets_backoff")


# Fetches


def plan_fetches(turn: Turn) -> None:
    """One fetch under way for each leader, of the tenures there whose buffer is empty."""
    state = turn.state
    if not state.fetch_due or not state.announced or turn.held("fetch_backoff"):
        return
    state.fetch_due = False
    if state.release != NOT_RELEASING:
        return
    by_node: dict[int, list[Tenure]] = {}
    for tp, tenure in state.owned.items():
        if tenure.waits_for == READY and not tenure.buffered and not tenure.paused:
            by_node.setdefault(state.leaders.get(tp, -1), []).append(tenure)
    if by_node.pop(-1, None):
        turn.want_metadata()
    config = state.config
    for node_id, tenures in by_node.items():
        key = f"fetch:{node_id}"
        if key in state.busy:
            continue
        request = FetchRequest(
            config.fetch_max_wait_ms,
            config.fetch_min_bytes,
            config.fetch_max_bytes,
            _partition_max_bytes(config, len(state.owned)),
            tuple(
                FetchPartition(t.topic, t.partition, t.position, _epoch(turn, t)) for t in tenures
            ),
            config.isolation_level,
        )
        turn.send(
            "fetch",
            node_id,
            request,
            channel="fetch",
            key=key,
            timeout_ms=config.request_timeout_ms + config.fetch_max_wait_ms,
            partitions=headers_of(tenures),
        )


def _partition_max_bytes(config: MemberConfig, owned: int) -> int:
    """Each partition's share of the buffer: it is fetched again only when its own is empty."""
    share = config.fetch_buffer_bytes // (OBJECTS_RESERVE * owned)
    return max(1, min(config.max_partition_fetch_bytes, share))


def _epoch(turn: Turn, tenure: Tenure) -> int:
    return turn.state.epochs.get(TopicPartition(tenure.topic, tenure.partition), -1)


def on_fetch(turn: Turn, pending: Pending, response: FetchResponse) -> None:
    """Keep what belongs to tenures that still stand where they stood when it was asked for."""
    state = turn.state
    state.fetch_due = True
    if response.error_code != NO_ERROR:
        turn.back_off("fetch_backoff")
        return
    if state.release != NOT_RELEASING:
        return  # what is on its way out takes nothing more in
    asked = {TopicPartition(p.topic, p.partition): p for p in pending.partitions}
    kept: list[Assigned] = []
    failed = False
    for found in response.partitions:
        tp = TopicPartition(found.topic, found.partition)
        tenure, sent = state.owned.get(tp), asked.get(tp)
        if tenure is None or sent is None or tenure.tenure != sent.tenure:
            continue
        if tenure.position != sent.offset or tenure.waits_for != READY:
            continue
        if found.error_code != NO_ERROR:
            failed = _on_fetch_error(turn, tenure, found) or failed
            continue
        assert found.next_offset >= tenure.position, f"{tp} goes back to {found.next_offset}"
        tenure.strayed_ms = -1
        note_read(turn, tenure, found.next_offset, found.leader_epoch)
        tenure.position = found.next_offset
        if found.record_count:
            tenure.buffered = True
            kept.append(sent)
    if kept:
        turn.orders.append(BufferRecords(state.answering, tuple(kept)))
    if failed:
        turn.back_off("fetch_backoff")
    else:
        turn.succeed("fetch_backoff")


def _on_fetch_error(turn: Turn, tenure: Tenure, found: FetchedPartition) -> bool:
    """Stop, reset or ask again; returns whether to wait before the next fetch."""
    name = f"{found.topic}-{found.partition} at offset {tenure.position}"
    tp = TopicPartition(found.topic, found.partition)
    if found.error_code == KafkaError.OFFSET_OUT_OF_RANGE:
        return _out_of_range(turn, tenure, found, name)
    if found.error_code in UNREADABLE:
        tenure.waits_for = Position.STOPPED
        turn.report(found.error_code, name, about=tp, offset=tenure.position, detail=found.detail)
        return False
    _tell_denied(turn, found.error_code, tenure)
    turn.state.metadata_due = True
    return True


def _tell_denied(turn: Turn, error_code: int, tenure: Tenure) -> None:
    """It is asked again, as the permission may come; but nobody else would say what is wrong."""
    if error_code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        tp = TopicPartition(tenure.topic, tenure.partition)
        turn.report(error_code, f"{tp}", about=tp)


def _out_of_range(turn: Turn, tenure: Tenure, found: FetchedPartition, name: str) -> bool:
    """Reset by the policy; beyond the end only after a while, as a new leader may lag behind."""
    first = tenure.strayed_ms < 0
    if first:
        tenure.strayed_ms = turn.now_ms
        tp = TopicPartition(found.topic, found.partition)
        turn.report(found.error_code, name, about=tp, offset=tenure.position)
    beyond = 0 <= found.high_watermark < tenure.position
    if beyond and turn.now_ms - tenure.strayed_ms < BEYOND_END_PATIENCE_MS:
        turn.state.metadata_due = True
        return True
    tenure.strayed_ms = -1
    _reset(turn, tenure, "offset out of range")
    return False


def on_fetch_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.state.fetch_due = True
    turn.back_off("fetch_backoff")


def expire_fetch(turn: Turn) -> None:
    turn.state.fetch_due = True
