"""Metadata, first offsets, and what to fetch where."""

from __future__ import annotations

from ksim.core.errors import KafkaError
from ksim.core.events import (
    Assigned,
    AssignPartitions,
    BufferDrained,
    BufferRecords,
    DropBuffered,
    RecordsHandedOut,
    Sought,
)
from ksim.core.member_state import (
    ClientState,
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
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition

RESET_TIMESTAMP = {"earliest": OFFSET_EARLIEST, "latest": OFFSET_LATEST}
MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PARTITION, KafkaError.TOPIC_AUTHORIZATION_FAILED)


# Metadata


def refresh_metadata(turn: Turn) -> None:
    state = turn.state
    if state.metadata_due and "metadata" not in state.busy and not turn.held("metadata_backoff"):
        state.metadata_due = False
        topics = tuple(sorted({*state.config.topics, *state.group_topics}))
        # What a leader assigns by must have been asked for after its join was answered.
        turn.send_to_any("metadata", MetadataRequest(topics))


def on_metadata(turn: Turn, pending: Pending, response: MetadataResponse) -> None:
    state = turn.state
    for topic in response.topics:
        _learn_topic(turn, topic)
    turn.arm("metadata_age", state.config.metadata_max_age_ms)
    unsettled = any(code not in (0, *MISSING) for code in state.topic_errors.values())
    waits = any(topic in state.topic_errors for topic in state.config.topics)
    if unsettled or waits or not response.topics:
        state.metadata_due = True
        turn.back_off("metadata_backoff")
    else:
        turn.succeed("metadata_backoff")
    state.fetch_due = True
    if pending.epoch == state.epoch:
        state.metadata_fresh = state.metadata_fresh or (state.assigning and not unsettled)
    elif state.assigning:
        state.metadata_due = True
    _notice_growth(turn)


def _learn_topic(turn: Turn, topic: TopicMetadata) -> None:
    state = turn.state
    if topic.error_code != KafkaError.NONE:
        known = state.topic_errors.get(topic.topic)
        state.topic_errors[topic.topic] = topic.error_code
        if topic.error_code in MISSING:
            state.counts.pop(topic.topic, None)
            if known != topic.error_code and topic.topic in state.config.topics:
                turn.report(topic.error_code, f"topic {topic.topic}")
        return
    state.topic_errors.pop(topic.topic, None)
    state.counts[topic.topic] = len(topic.partitions)
    for partition in topic.partitions:
        tp = TopicPartition(topic.topic, partition.partition)
        if partition.leader_id >= 0:
            state.leaders[tp] = partition.leader_id
        else:
            state.leaders.pop(tp, None)


def _notice_growth(turn: Turn) -> None:
    """A leader whose topics changed since it assigned makes the group share them anew."""
    state = turn.state
    if state.is_leader and state.client_state == ClientState.STABLE:
        now = {topic: state.counts[topic] for topic in state.group_topics if topic in state.counts}
        if now != state.assigned_counts:
            state.rejoin_needed = True


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
    if state.client_state != ClientState.STABLE or turn.held("offsets_backoff"):
        return
    asked = [t for t in state.owned.values() if t.waits_for == Position.OFFSET_FETCH]
    if asked and state.coordinator != -1 and "offsets" not in state.busy:
        partitions = tuple(TopicPartition(t.topic, t.partition) for t in asked)
        request = OffsetFetchRequest(state.config.group_id, partitions)
        turn.send("offsets", state.coordinator, request, partitions=_headers(asked))
    _list_offsets(turn)
    unknown = (Position.OFFSET_FETCH, Position.LIST_OFFSETS)
    if state.announced or state.release != Release.NONE:
        return
    if not any(tenure.waits_for in unknown for tenure in state.owned.values()):
        _announce(turn)


def _headers(tenures: list[Tenure]) -> tuple[Assigned, ...]:
    return tuple(Assigned(t.topic, t.partition, t.tenure, t.position) for t in tenures)


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
                tuple(ListOffsetsPartition(t.topic, t.partition, timestamp) for t in tenures)
            )
            turn.send(
                "list", node_id, request, channel="meta", key=key, partitions=_headers(tenures)
            )


def _announce(turn: Turn) -> None:
    state = turn.state
    state.announced = True
    state.fetch_due = True
    turn.orders.append(AssignPartitions(state.generation_id, _headers(list(state.owned.values()))))
    turn.notify("rebalance_ok", tuple(state.owned))


def on_offsets(turn: Turn, pending: Pending, response: OffsetFetchResponse) -> None:
    """Committed offsets; where there is none, the reset policy decides."""
    state = turn.state
    if pending.epoch != state.epoch:
        return
    errors = [response.error_code, *(found.error_code for found in response.partitions)]
    refused = next((code for code in errors if code != KafkaError.NONE), 0)
    if refused:
        reaction = react(turn, "offsets", refused)
        if reaction in (Reaction.FORGET_GENERATION, Reaction.FORGET_IDENTITY):
            return
        turn.back_off("offsets_backoff")
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
        else:
            _reset(turn, tenure, "no committed offset")


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
    for found in response.partitions:
        tenure = state.owned.get(TopicPartition(found.topic, found.partition))
        if tenure is None or tenure.tenure != asked.get((found.topic, found.partition)):
            continue
        if tenure.waits_for != Position.LIST_OFFSETS:
            continue
        if found.error_code != KafkaError.NONE or found.offset < 0:
            state.metadata_due = True
            turn.back_off("offsets_backoff")
            continue
        tenure.position = found.offset
        tenure.waits_for = Position.READY
        state.fetch_due = True


def on_list_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.back_off("offsets_backoff")


def on_offsets_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.forget_coordinator()
    turn.back_off("find_backoff")
    turn.back_off("offsets_backoff")


# Fetches


def plan_fetches(turn: Turn) -> None:
    """One fetch under way for each leader, of the tenures there whose buffer is empty."""
    state = turn.state
    if not state.fetch_due or not state.announced or turn.held("fetch_backoff"):
        return
    state.fetch_due = False
    if state.release != Release.NONE:
        return
    by_node: dict[int, list[Tenure]] = {}
    for tp, tenure in state.owned.items():
        if tenure.waits_for == Position.READY and not tenure.buffered and not tenure.paused:
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
            config.max_partition_fetch_bytes,
            tuple(FetchPartition(t.topic, t.partition, t.position) for t in tenures),
        )
        turn.send(
            "fetch",
            node_id,
            request,
            channel="fetch",
            key=key,
            timeout_ms=config.request_timeout_ms + config.fetch_max_wait_ms,
            partitions=_headers(tenures),
        )


def on_fetch(turn: Turn, pending: Pending, response: FetchResponse) -> None:
    """Keep what belongs to tenures that still stand where they stood when it was asked for."""
    state = turn.state
    state.fetch_due = True
    if response.error_code != KafkaError.NONE:
        turn.back_off("fetch_backoff")
        return
    if state.release != Release.NONE:
        return  # what is on its way out takes nothing more in
    asked = {TopicPartition(p.topic, p.partition): p for p in pending.partitions}
    kept: list[Assigned] = []
    failed = False
    for found in response.partitions:
        tp = TopicPartition(found.topic, found.partition)
        tenure, sent = state.owned.get(tp), asked.get(tp)
        if tenure is None or sent is None or tenure.tenure != sent.tenure:
            continue
        if tenure.position != sent.offset or tenure.waits_for != Position.READY:
            continue
        if found.error_code != KafkaError.NONE:
            failed = _on_fetch_error(turn, tenure, found) or failed
            continue
        assert found.next_offset >= tenure.position, f"{tp} goes back to {found.next_offset}"
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
    if found.error_code == KafkaError.OFFSET_OUT_OF_RANGE:
        turn.report(found.error_code, name)
        _reset(turn, tenure, "offset out of range")
        return False
    if found.error_code == KafkaError.CORRUPT_MESSAGE:
        tenure.waits_for = Position.STOPPED
        turn.report(found.error_code, name)
        return False
    turn.state.metadata_due = True
    return True


def on_fetch_failed(turn: Turn, pending: Pending, reason: str) -> None:
    del pending, reason
    turn.state.metadata_due = True
    turn.state.fetch_due = True
    turn.back_off("fetch_backoff")


def expire_fetch(turn: Turn) -> None:
    turn.state.fetch_due = True


# What the user does to positions


def _tenure(turn: Turn, topic: str, partition: int, tenure: int) -> Tenure | None:
    found = turn.state.owned.get(TopicPartition(topic, partition))
    return found if found is not None and found.tenure == tenure else None


def on_drained(turn: Turn, fact: BufferDrained) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is not None:
        tenure.buffered = False
        turn.state.fetch_due = True


def on_handed_out(turn: Turn, fact: RecordsHandedOut) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is not None:
        assert fact.first <= fact.last, f"handed out {fact.first}..{fact.last}"


def on_sought(turn: Turn, fact: Sought) -> None:
    tenure = _tenure(turn, fact.topic, fact.partition, fact.tenure)
    if tenure is None:
        return
    tenure.position = fact.offset
    tenure.waits_for = Position.READY
    tenure.to_commit = -1
    tenure.buffered = False
    turn.state.fetch_due = True
    turn.orders.append(DropBuffered(fact.topic, fact.partition, fact.tenure))


def set_paused(turn: Turn, partitions: tuple[TopicPartition, ...], paused: bool) -> None:
    for tp in partitions:
        if tp in turn.state.owned:
            turn.state.owned[tp].paused = paused
    turn.state.fetch_due = True
