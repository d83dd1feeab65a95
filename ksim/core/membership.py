"""Finding the coordinator, joining, syncing, heartbeats and leaving.

Source: AbstractCoordinator and ConsumerCoordinator of Kafka's Java client (protocol.md 8).
"""

from __future__ import annotations

from typing import assert_never

from ksim.core.assignors import ASSIGNORS
from ksim.core.errors import KafkaError
from ksim.core.member_state import (
    DEFAULT_REACTION,
    REACTIONS,
    ClientState,
    Pending,
    Phase,
    Position,
    Reaction,
    Tenure,
)
from ksim.core.messages import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    MemberIdentity,
    SyncGroupRequest,
    SyncGroupResponse,
)
from ksim.core.subscription import (
    PROTOCOL_TYPE,
    MalformedProtocolError,
    Subscription,
    counts_digest,
    decode_subscription,
    encode_assignment,
    encode_subscription,
    read_assignment,
)
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition

JOIN_MARGIN_MS = 5_000
# What brokers answer that do not tell the protocol yet.
NOT_SAID = (None, "")


def react(turn: Turn, kind: str, error_code: int) -> Reaction:
    """Do to identity and coordinator what this refusal asks for; returns which it was."""
    state = turn.state
    reaction = REACTIONS.get((kind, error_code), DEFAULT_REACTION[kind])
    match reaction:
        case Reaction.RETRY | Reaction.REPORT:
            turn.back_off(f"{kind}_backoff")
        case Reaction.REDISCOVER:
            turn.forget_coordinator()
            turn.back_off(f"{kind}_backoff")
        case Reaction.REJOIN | Reaction.ADOPT_ID:
            state.rejoin_needed = True
        case Reaction.FORGET_GENERATION:
            turn.forget_generation(f"{kind} refused: ILLEGAL_GENERATION")
        case Reaction.FORGET_IDENTITY:
            turn.forget_generation(f"{kind} refused: UNKNOWN_MEMBER_ID", identity=True)
        case Reaction.FATAL:
            turn.fail(error_code, f"{kind} of group {state.config.group_id}")
        case _:
            assert_never(reaction)
    return reaction


# What is sent when the time has come


def find_coordinator(turn: Turn) -> None:
    state = turn.state
    if state.coordinator == -1 and "find" not in state.busy and not turn.held("find_backoff"):
        turn.send_to_any("find", FindCoordinatorRequest(state.config.group_id))


def join(turn: Turn) -> None:
    """Send JoinGroup once nothing is owned any more; a static member sends its instance id."""
    state = turn.state
    config = state.config
    if state.client_state == ClientState.PREPARING_REBALANCE or "join" in state.busy:
        return
    if state.coordinator == -1 or turn.held("join_backoff") or state.poll_expired:
        return
    if config.topics_whitelist is not None and not state.topics_known:
        return  # what the pattern takes is not known yet
    assert not state.owned, f"joins while {sorted(state.owned)} are owned"
    assert not state.announced, "joins while the user may still hand out"
    if state.client_state == ClientState.COMPLETING_REBALANCE:
        turn.move(ClientState.UNJOINED)
    turn.move(ClientState.PREPARING_REBALANCE)
    turn.rebalance_begins()
    state.rejoin_needed = False
    state.is_leader = state.assigning = state.sync_due = False
    turn.disarm("session", "heartbeat")
    turn.succeed("heartbeat_backoff")
    state.heartbeat_due = False
    state.joined_topics = state.subscribed
    subscription = encode_subscription(state.subscribed, user_data=config.user_data)
    request = JoinGroupRequest(
        config.group_id,
        config.session_timeout_ms,
        config.rebalance_timeout_ms,
        state.member_id,
        config.group_instance_id,
        PROTOCOL_TYPE,
        tuple((name, subscription) for name in config.assignors),
    )
    timeout_ms = max(config.request_timeout_ms, config.rebalance_timeout_ms + JOIN_MARGIN_MS)
    turn.send("join", state.coordinator, request, timeout_ms=timeout_ms)


def sync(turn: Turn) -> None:
    """Ask for the assignment as soon as there is a coordinator to ask; a leader sends it too."""
    state = turn.state
    if state.coordinator == -1 or turn.held("sync_backoff"):
        return
    if state.sync_due:
        state.sync_due = False
        _sync(turn, ())
    elif state.metadata_fresh:
        _assign(turn)


def _assign(turn: Turn) -> None:
    """Share out by the metadata that was asked for after the join answer."""
    state = turn.state
    subscriptions = _subscriptions(turn)
    wanted = sorted({topic for member in subscriptions for topic in member.topics})
    counts = {topic: state.counts[topic] for topic in wanted if topic in state.counts}
    state.assigned_counts = dict(counts)
    state.assigning = False
    if state.skip_assignment:
        _sync(turn, ())
        return
    shares = ASSIGNORS[state.protocol_name](subscriptions, counts)
    # A static leader that comes back can tell by this whether the shares are still right.
    basis = counts_digest(counts)
    _sync(turn, tuple((name, encode_assignment(shares[name], basis)) for name in sorted(shares)))


def _subscriptions(turn: Turn) -> list[Subscription]:
    """What the peers want; one whose bytes cannot be read gets nothing, and that is told."""
    found: list[Subscription] = []
    for peer in turn.state.peers:
        try:
            found.append(decode_subscription(peer.member_id, peer.group_instance_id, peer.metadata))
        except MalformedProtocolError as error:
            turn.report(
                KafkaError.INCONSISTENT_GROUP_PROTOCOL, f"subscription of {peer.member_id}: {error}"
            )
            found.append(Subscription(peer.member_id, peer.group_instance_id, ()))
    return found


def _sync(turn: Turn, assignments: tuple[tuple[str, bytes], ...]) -> None:
    state = turn.state
    request = SyncGroupRequest(
        state.config.group_id,
        state.generation_id,
        state.member_id,
        state.config.group_instance_id,
        PROTOCOL_TYPE,
        state.protocol_name,
        assignments,
    )
    turn.send("sync", state.coordinator, request)


def heartbeat(turn: Turn) -> None:
    state = turn.state
    if not state.heartbeat_due or state.coordinator == -1 or "heartbeat" in state.busy:
        return
    if turn.held("heartbeat_backoff"):
        return
    state.heartbeat_due = False
    turn.arm("heartbeat", state.config.heartbeat_interval_ms)
    request = HeartbeatRequest(
        state.config.group_id,
        state.generation_id,
        state.member_id,
        state.config.group_instance_id,
    )
    turn.send("heartbeat", state.coordinator, request, timeout_ms=turn.patience_ms)


def leave(turn: Turn) -> bool:
    """Send LeaveGroup if the coordinator knows this member; returns whether it was sent."""
    state = turn.state
    knows = state.member_id != "" and state.coordinator != -1 and "leave" not in state.busy
    if not knows:
        return False
    identity = MemberIdentity(state.member_id, state.config.group_instance_id)
    request = LeaveGroupRequest(state.config.group_id, (identity,))
    # Its own channel: a parked JoinGroup would hold it back.
    turn.send("leave", state.coordinator, request, channel="leave")
    return True


# What the answers do


def on_find(turn: Turn, pending: Pending, response: FindCoordinatorResponse) -> None:
    del pending
    if response.error_code == KafkaError.NONE:
        turn.state.coordinator = response.node_id
        turn.succeed("find_backoff")
    elif react(turn, "find", response.error_code) == Reaction.REPORT:
        turn.report(response.error_code, f"find of group {turn.state.config.group_id}")


def on_join(turn: Turn, pending: Pending, response: JoinGroupResponse) -> None:
    del pending
    state = turn.state
    if state.client_state != ClientState.PREPARING_REBALANCE:
        return
    if response.error_code != KafkaError.NONE:
        turn.move(ClientState.UNJOINED)
        state.rejoin_needed = True
        if response.error_code == KafkaError.MEMBER_ID_REQUIRED:
            state.member_id = response.member_id
        else:
            turn.rebalance_ends("rebalance_error")
        react(turn, "join", response.error_code)
        return
    named = response.protocol_name
    if named is None or named not in ASSIGNORS or not _is_of_consumers(response):
        turn.rebalance_ends("rebalance_error")
        turn.fail(KafkaError.INCONSISTENT_GROUP_PROTOCOL, "join")
        return
    turn.succeed("join_backoff")
    turn.move(ClientState.COMPLETING_REBALANCE)
    turn.begin_epoch()
    state.member_id = response.member_id
    state.generation_id = response.generation_id
    state.protocol_name = named
    state.is_leader = response.leader == response.member_id
    state.skip_assignment = response.skip_assignment
    turn.arm("heartbeat", state.config.heartbeat_interval_ms)
    turn.arm("session", state.config.session_timeout_ms)
    if state.is_leader:
        state.peers = response.members
        state.group_topics = tuple(
            sorted({topic for member in _subscriptions(turn) for topic in member.topics})
        )
        state.assigning, state.metadata_fresh, state.metadata_due = True, False, True
    else:
        state.group_topics = ()
        state.sync_due = True


def _is_of_consumers(response: JoinGroupResponse | SyncGroupResponse) -> bool:
    """A group of another kind has assignments that cannot be read as such."""
    return response.protocol_type in (*NOT_SAID, PROTOCOL_TYPE)


def on_sync(turn: Turn, pending: Pending, response: SyncGroupResponse) -> None:
    state = turn.state
    if pending.epoch != state.epoch or state.client_state != ClientState.COMPLETING_REBALANCE:
        return
    if response.error_code != KafkaError.NONE:
        if response.error_code != KafkaError.REBALANCE_IN_PROGRESS:
            turn.rebalance_ends("rebalance_error")
        reaction = react(turn, "sync", response.error_code)
        if reaction in (Reaction.RETRY, Reaction.REDISCOVER, Reaction.REJOIN):
            rejoin(turn)
        return
    same = response.protocol_name in (*NOT_SAID, state.protocol_name)
    if not same or not _is_of_consumers(response):
        turn.rebalance_ends("rebalance_error")
        turn.fail(KafkaError.INCONSISTENT_GROUP_PROTOCOL, "sync")
        return
    try:
        partitions, basis = read_assignment(response.assignment)
    except MalformedProtocolError as error:
        turn.rebalance_ends("rebalance_error")
        turn.report(KafkaError.INCONSISTENT_GROUP_PROTOCOL, f"assignment: {error}")
        turn.back_off("join_backoff")
        rejoin(turn)
        return
    turn.succeed("sync_backoff")
    turn.move(ClientState.STABLE)
    state.synced_ms = turn.now_ms
    state.heartbeat_due = True  # neither a join nor a sync need have refreshed the session
    if state.is_leader and (state.skip_assignment or basis is not None):
        # The coordinator may have kept what this leader sent before, with an answer that was lost.
        state.rejoin_needed = state.rejoin_needed or not _still_right(turn, partitions, basis)
    _own(turn, partitions)


def _still_right(turn: Turn, partitions: tuple[TopicPartition, ...], basis: bytes | None) -> bool:
    """Whether the shares of before are what this leader would give out now."""
    state = turn.state
    if basis is not None:
        return basis == counts_digest(state.assigned_counts)
    shares = ASSIGNORS[state.protocol_name](_subscriptions(turn), state.assigned_counts)
    return tuple(sorted(shares.get(state.member_id, []))) == partitions


def rejoin(turn: Turn) -> None:
    """Join again with the same id; a generation under way is given up."""
    turn.state.rejoin_needed = True
    if turn.state.client_state in (
        ClientState.COMPLETING_REBALANCE,
        ClientState.PREPARING_REBALANCE,
    ):
        turn.move(ClientState.UNJOINED)


def _own(turn: Turn, partitions: tuple[TopicPartition, ...]) -> None:
    state = turn.state
    assert not state.owned, f"assigned while {sorted(state.owned)} are owned"
    for tp in partitions:
        if tp.topic in state.joined_topics:
            state.owned[tp] = Tenure(tp.topic, tp.partition, state.next_tenure)
            state.next_tenure += 1
    missing = any(tp not in state.leaders for tp in state.owned)
    state.metadata_due = state.metadata_due or missing
    assert all(item.waits_for == Position.OFFSET_FETCH for item in state.owned.values())


def on_heartbeat(turn: Turn, pending: Pending, response: HeartbeatResponse) -> None:
    state = turn.state
    if pending.epoch != state.epoch:
        return
    alive = (KafkaError.NONE, KafkaError.REBALANCE_IN_PROGRESS)
    if response.error_code in alive:
        turn.succeed("heartbeat_backoff")
        if "session" in state.timers:
            state.timers["session"] = max(
                state.timers["session"], pending.sent_ms + state.config.session_timeout_ms
            )
    if response.error_code == KafkaError.NONE:
        turn.extend_lease(pending.sent_ms)
        return
    if response.error_code == KafkaError.REBALANCE_IN_PROGRESS:
        # While completing, the sync answer says the same and decides.
        state.rejoin_needed = state.rejoin_needed or state.client_state == ClientState.STABLE
        return
    if react(turn, "heartbeat", response.error_code) == Reaction.REPORT:
        turn.report(response.error_code, f"heartbeat of group {state.config.group_id}")
    state.heartbeat_due = state.client_state in (
        ClientState.STABLE,
        ClientState.COMPLETING_REBALANCE,
    )


def on_leave(turn: Turn, pending: Pending, response: object) -> None:
    del pending, response
    if turn.state.phase == Phase.CLOSING:
        turn.finish()


# What no answer does


def on_failed(turn: Turn, pending: Pending, reason: str) -> None:
    """The coordinator may have moved or be gone; generation and id are kept."""
    state = turn.state
    if pending.kind == "leave":
        on_leave(turn, pending, None)
        return
    if pending.kind == "find":
        turn.back_off("find_backoff")
        return
    turn.forget_coordinator()
    turn.back_off("find_backoff")
    waits_for = {
        "join": ClientState.PREPARING_REBALANCE,
        "sync": ClientState.COMPLETING_REBALANCE,
    }
    if pending.kind == "heartbeat":
        state.heartbeat_due = pending.epoch == state.epoch
    elif pending.epoch == state.epoch and state.client_state == waits_for[pending.kind]:
        turn.rebalance_ends("rebalance_error")
        rejoin(turn)
    del reason


# What time does


def expire_session(turn: Turn) -> None:
    """Nothing confirmed this member for a session: others may own its partitions by now."""
    turn.forget_generation("session.timeout.ms passed without a confirmation")
    turn.forget_coordinator()


def expire_poll(turn: Turn) -> None:
    """The user's thread did not call in: leave (a static member falls silent) until it does."""
    state = turn.state
    if state.config.group_instance_id is None:
        leave(turn)
    turn.forget_generation("max.poll.interval.ms passed without a call", identity=True)
    state.poll_expired = True
