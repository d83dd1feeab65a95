"""The phases of a rebalance: prepare, gather joins, share out, expire (protocol.md 1, 2, 5)."""

from __future__ import annotations

from ksim.core.coordinator_hash import draw, hash_map_order
from ksim.core.coordinator_state import (
    NO_TOKEN,
    Desk,
    Group,
    GroupMember,
    GroupState,
    NothingContinues,
)
from ksim.core.errors import KafkaError
from ksim.core.messages import JoinedMember, JoinGroupResponse, SyncGroupResponse


def refuse_join(desk: Desk, token: int, error_code: int, member_id: str = "") -> None:
    """The answer of a JoinGroup that is not taken."""
    desk.answer(token, JoinGroupResponse(error_code, -1, None, None, "", member_id, ()))


def refuse_sync(desk: Desk, token: int, error_code: int) -> None:
    desk.answer(token, SyncGroupResponse(error_code, None, None, b""))


def answer_join(desk: Desk, group: Group, member: GroupMember, token: int) -> None:
    """The answer of a JoinGroup that is; only the leader is told of the others."""
    members: tuple[JoinedMember, ...] = ()
    if member.member_id == group.leader:
        members = tuple(
            JoinedMember(m.member_id, m.group_instance_id, m.metadata(group.protocol_name))
            for m in (group.members[name] for name in hash_map_order(group.members))
        )
    desk.answer(
        token,
        JoinGroupResponse(
            0,
            group.generation_id,
            group.protocol_type,
            group.protocol_name,
            group.leader or "",
            member.member_id,
            members,
        ),
    )


def prepare(desk: Desk, group: Group, reason: str, starter: GroupMember | None = None) -> None:
    """Ask everybody to join again."""
    if group.state == GroupState.COMPLETING_REBALANCE:
        for member in group.members.values():
            member.assignment = b""
            if member.awaits_sync:
                refuse_sync(desk, member.sync_token, KafkaError.REBALANCE_IN_PROGRESS)
                member.sync_token = NO_TOKEN
                desk.arm_session(group, member)
    group.pending_sync.clear()
    desk.state.timers.cancel(("sync", group.group_id))
    desk.move(group, GroupState.PREPARING_REBALANCE, reason)
    if not group.in_initial_rebalance:
        if not maybe_complete(desk, group):
            _arm_join(desk, group, group.rebalance_timeout_ms)
        return
    assert starter is not None, f"{group.group_id}: nobody started the first rebalance"
    group.delay_ms = desk.state.config.initial_rebalance_delay_ms
    group.remaining_ms = max(starter.rebalance_timeout_ms - group.delay_ms, 0)
    if group.delay_ms == 0:
        complete(desk, group)
    else:
        _arm_join(desk, group, group.delay_ms)


def _arm_join(desk: Desk, group: Group, after_ms: int) -> None:
    desk.state.timers.arm(("join", group.group_id), desk.now_ms + after_ms, 1)


def maybe_complete(desk: Desk, group: Group, *, ignore_delay: bool = False) -> bool:
    """End the join phase if everybody is there; returns whether it ended."""
    if group.state != GroupState.PREPARING_REBALANCE:
        return False
    if group.in_initial_rebalance and not ignore_delay:
        return False
    if group.pending or not all(m.awaits_join for m in group.members.values()):
        return False
    complete(desk, group)
    return True


def expire_join(desk: Desk, group: Group) -> None:
    """The initial delay or the rebalance timeout is over."""
    if group.state != GroupState.PREPARING_REBALANCE:
        return
    if group.in_initial_rebalance and group.new_member_added and group.remaining_ms:
        group.new_member_added = False
        before_ms = group.delay_ms
        group.delay_ms = min(desk.state.config.initial_rebalance_delay_ms, group.remaining_ms)
        group.remaining_ms = max(group.remaining_ms - before_ms, 0)
        _arm_join(desk, group, group.delay_ms)
        return
    complete(desk, group)


def complete(desk: Desk, group: Group) -> None:
    """End the join phase: who is not there is out, everybody else is in a new generation."""
    desk.state.timers.cancel(("join", group.group_id))
    gone = [m for m in group.members.values() if not m.awaits_join and m.group_instance_id is None]
    for member in gone:
        forget(desk, group, member)
    if not group.members:
        group.generation_id += 1
        group.protocol_name = None
        group.leader = None
        desk.move(group, GroupState.EMPTY, "no member joined")
        desk.append((group.record(),), NothingContinues())
        return
    awaiting = [m.member_id for m in group.members.values() if m.awaits_join]
    if not awaiting:
        _arm_join(desk, group, group.rebalance_timeout_ms)
        return
    if group.leader not in awaiting:
        group.leader = _any(desk, awaiting)
    group.generation_id += 1
    group.protocol_name = select_protocol(group)
    desk.move(group, GroupState.COMPLETING_REBALANCE, "all members joined")
    for member in group.members.values():
        token, member.join_token = member.join_token, NO_TOKEN
        if token != NO_TOKEN:
            answer_join(desk, group, member, token)
        member.is_new = False
        group.pending_sync[member.member_id] = True
        desk.arm_session(group, member)
    desk.state.timers.arm(("sync", group.group_id), desk.now_ms + group.rebalance_timeout_ms, 1)


def _any(desk: Desk, names: list[str]) -> str:
    """Where Kafka follows the hash order of random ids, a draw of the seeded counter."""
    desk.state.draws += 1
    return names[draw(desk.state.seed, desk.state.draws) % len(names)]


def select_protocol(group: Group) -> str:
    """The name with the most first choices among those that all members support."""
    names = hash_map_order(
        name for name, _ in next(iter(group.members.values())).protocols if supported(group, name)
    )
    assert names, f"{group.group_id}: no common protocol"
    votes = dict.fromkeys(names, 0)
    for member in group.members.values():
        votes[next(name for name, _ in member.protocols if name in votes)] += 1
    return max(names, key=lambda name: votes[name])


def supported(group: Group, name: str) -> bool:
    """Whether every member offers this protocol."""
    return all(any(name == n for n, _ in m.protocols) for m in group.members.values())


def forget(desk: Desk, group: Group, member: GroupMember) -> None:
    """Take a member out, with its timer, its parked requests and its office."""
    if member.awaits_join:
        refuse_join(desk, member.join_token, KafkaError.UNKNOWN_MEMBER_ID)
    if member.awaits_sync:
        refuse_sync(desk, member.sync_token, KafkaError.UNKNOWN_MEMBER_ID)
    del group.members[member.member_id]
    group.pending_sync.pop(member.member_id, None)
    desk.cancel_session(group, member.member_id)
    instance_id = member.group_instance_id
    if instance_id is not None and group.static.get(instance_id) == member.member_id:
        del group.static[instance_id]
    if group.leader == member.member_id:
        group.leader = _any(desk, list(group.members)) if group.members else None


def remove(desk: Desk, group: Group, member: GroupMember, reason: str, *, leaving: bool) -> None:
    """A member left or died: the others share anew. Only a leaving one respects the delay."""
    forget(desk, group, member)
    if group.state in (GroupState.COMPLETING_REBALANCE, GroupState.STABLE):
        prepare(desk, group, reason)
    else:
        maybe_complete(desk, group, ignore_delay=not leaving)


def expire_session(desk: Desk, group: Group, member_id: str) -> None:
    """The timer of one member id: a pending id, a new member, or one that fell silent."""
    if group.pending.pop(member_id, None):
        maybe_complete(desk, group, ignore_delay=True)
        return
    member = group.members.get(member_id)
    if member is None:
        return
    if (member.awaits_join or member.awaits_sync) and not member.is_new:
        return
    remove(desk, group, member, f"session of {member_id} expired", leaving=False)


def expire_sync(desk: Desk, group: Group) -> None:
    """Who did not sync within the rebalance timeout is out, heartbeats or not."""
    if not group.pending_sync or group.state not in (
        GroupState.COMPLETING_REBALANCE,
        GroupState.STABLE,
    ):
        return
    for member_id in list(group.pending_sync):
        forget(desk, group, group.members[member_id])
    prepare(desk, group, "members did not sync in time")
