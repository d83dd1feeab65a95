"""JoinGroup at the coordinator: who is let in, who starts a rebalance (protocol.md 3.2, 4)."""

from __future__ import annotations

from ksim.core.coordinator_state import (
    NO_TOKEN,
    Desk,
    Group,
    GroupMember,
    GroupState,
    NothingContinues,
    ReplacementContinues,
)
from ksim.core.errors import KafkaError
from ksim.core.events import RequestArrived
from ksim.core.messages import JoinGroupRequest, JoinGroupResponse
from ksim.core.rebalance import (
    answer_join,
    maybe_complete,
    prepare,
    refuse_join,
    refuse_sync,
    select_protocol,
    supported,
)


def on_join(desk: Desk, fact: RequestArrived, request: JoinGroupRequest) -> None:
    """Park the joiner, answer it at once, or refuse it."""
    config = desk.state.config
    in_range = (
        config.min_session_timeout_ms <= request.session_timeout_ms <= config.max_session_timeout_ms
    )
    if not request.group_id:
        refuse_join(desk, fact.token, KafkaError.INVALID_GROUP_ID, request.member_id)
    elif not in_range:
        refuse_join(desk, fact.token, KafkaError.INVALID_SESSION_TIMEOUT, request.member_id)
    elif not desk.state.active:
        refuse_join(desk, fact.token, KafkaError.NOT_COORDINATOR)
    else:
        _join_group(desk, fact, request)


def _join_group(desk: Desk, fact: RequestArrived, request: JoinGroupRequest) -> None:
    group = desk.state.groups.get(request.group_id)
    if group is None:
        if request.member_id:
            refuse_join(desk, fact.token, KafkaError.UNKNOWN_MEMBER_ID, request.member_id)
            return
        group = desk.state.groups[request.group_id] = Group(request.group_id)
        desk.append((group.record(),), NothingContinues())
    if _is_full(desk, group, request.member_id):
        group.pending.pop(request.member_id, None)
        refuse_join(desk, fact.token, KafkaError.GROUP_MAX_SIZE_REACHED)
    elif not _speaks(group, request):
        code = KafkaError.INCONSISTENT_GROUP_PROTOCOL
        refuse_join(desk, fact.token, code, request.member_id)
    elif not request.member_id:
        _join_unnamed(desk, fact, request, group)
    else:
        _join_named(desk, fact, request, group)


def _is_full(desk: Desk, group: Group, member_id: str) -> bool:
    limit = desk.state.config.group_max_size
    member = group.members.get(member_id)
    if group.state == GroupState.EMPTY:
        return False
    if group.state == GroupState.PREPARING_REBALANCE:
        awaiting = sum(m.awaits_join for m in group.members.values())
        return not (member is not None and member.awaits_join) and awaiting >= limit
    return member is None and len(group.members) >= limit


def _speaks(group: Group, request: JoinGroupRequest) -> bool:
    """Whether the joiner shares a protocol with all members."""
    if group.state == GroupState.EMPTY:
        return bool(request.protocol_type and request.protocols)
    if request.protocol_type != group.protocol_type:
        return False
    return any(supported(group, name) for name, _ in request.protocols)


def _join_unnamed(
    desk: Desk, fact: RequestArrived, request: JoinGroupRequest, group: Group
) -> None:
    instance_id = request.group_instance_id
    if instance_id is None:
        group.pending[fact.fresh_member_id] = True
        key = ("session", group.group_id, fact.fresh_member_id)
        desk.state.timers.arm(key, desk.now_ms + request.session_timeout_ms)
        refuse_join(desk, fact.token, KafkaError.MEMBER_ID_REQUIRED, fact.fresh_member_id)
    elif instance_id in group.static:
        _replace(desk, fact, request, group)
    else:
        _add(desk, fact, request, group, fact.fresh_member_id)


def _join_named(desk: Desk, fact: RequestArrived, request: JoinGroupRequest, group: Group) -> None:
    member_id, instance_id = request.member_id, request.group_instance_id
    if instance_id is not None and member_id in group.pending:
        refuse_join(desk, fact.token, KafkaError.UNKNOWN_SERVER_ERROR, member_id)
    elif instance_id is not None and instance_id not in group.static:
        refuse_join(desk, fact.token, KafkaError.UNKNOWN_MEMBER_ID, member_id)
    elif instance_id is not None and group.static[instance_id] != member_id:
        refuse_join(desk, fact.token, KafkaError.FENCED_INSTANCE_ID, member_id)
    elif member_id in group.pending:
        del group.pending[member_id]
        _add(desk, fact, request, group, member_id)
    elif member_id not in group.members:
        refuse_join(desk, fact.token, KafkaError.UNKNOWN_MEMBER_ID, member_id)
    else:
        _rejoin(desk, fact.token, request, group, group.members[member_id])


def _add(
    desk: Desk, fact: RequestArrived, request: JoinGroupRequest, group: Group, member_id: str
) -> None:
    member = GroupMember(
        member_id,
        request.group_instance_id,
        fact.client_id,
        request.session_timeout_ms,
        request.rebalance_timeout_ms,
        request.protocols,
        is_new=True,
        join_token=fact.token,
    )
    if not group.members:
        group.leader = member_id
        group.protocol_type = request.protocol_type
    group.members[member_id] = member
    if member.group_instance_id is not None:
        group.static[member.group_instance_id] = member_id
    until_ms = desk.now_ms + desk.state.config.new_member_join_timeout_ms
    desk.state.timers.arm(("session", group.group_id, member_id), until_ms)
    if group.state == GroupState.PREPARING_REBALANCE:
        group.new_member_added = group.new_member_added or group.in_initial_rebalance
        maybe_complete(desk, group)
    else:
        prepare(desk, group, f"{member_id} joined", member)


def _rejoin(
    desk: Desk, token: int, request: JoinGroupRequest, group: Group, member: GroupMember
) -> None:
    same = request.protocols == member.protocols
    at_once = same and (
        group.state == GroupState.COMPLETING_REBALANCE
        or (group.state == GroupState.STABLE and member.member_id != group.leader)
    )
    if at_once:
        answer_join(desk, group, member, token)
        return
    _update(member, request)
    member.join_token = token
    if group.state == GroupState.PREPARING_REBALANCE:
        maybe_complete(desk, group)
    else:
        prepare(desk, group, f"{member.member_id} joined again")


def _update(member: GroupMember, request: JoinGroupRequest) -> None:
    member.protocols = request.protocols
    member.session_timeout_ms = request.session_timeout_ms
    member.rebalance_timeout_ms = request.rebalance_timeout_ms


def _replace(desk: Desk, fact: RequestArrived, request: JoinGroupRequest, group: Group) -> None:
    """A static member is back with a new id; its predecessor is fenced."""
    instance_id = request.group_instance_id
    assert instance_id is not None, "only static members are replaced"
    old_id = group.static[instance_id]
    leader_before = group.leader or ""
    member = group.members[old_id]
    if member.awaits_join:
        refuse_join(desk, member.join_token, KafkaError.FENCED_INSTANCE_ID, old_id)
    if member.awaits_sync:
        refuse_sync(desk, member.sync_token, KafkaError.FENCED_INSTANCE_ID)
    member.join_token = member.sync_token = NO_TOKEN
    _rename(desk, group, old_id, fact.fresh_member_id, instance_id)
    # The old session timeout counts until something refreshes it.
    desk.arm_session(group, member)
    _update(member, request)
    if group.state == GroupState.STABLE and select_protocol(group) == group.protocol_name:
        desk.append(
            (group.record(),),
            ReplacementContinues(
                group.group_id, member.member_id, old_id, instance_id, leader_before, fact.token
            ),
        )
        return
    member.join_token = fact.token
    if group.state == GroupState.PREPARING_REBALANCE:
        maybe_complete(desk, group)
    else:
        prepare(desk, group, f"{instance_id} came back")


def _rename(desk: Desk, group: Group, old_id: str, new_id: str, instance_id: str) -> None:
    """Let a member go on under another id, in its place."""
    desk.cancel_session(group, old_id)
    members = list(group.members.values())
    group.members.clear()
    for member in members:
        if member.member_id == old_id:
            member.member_id = new_id
        group.members[member.member_id] = member
    group.static[instance_id] = new_id
    if group.pending_sync.pop(old_id, None):
        group.pending_sync[new_id] = True
    if group.leader == old_id:
        group.leader = new_id


def replacement_appended(desk: Desk, done: ReplacementContinues, error_code: int) -> None:
    """The swap is written: tell the newcomer, or put the old id back."""
    group = desk.state.groups.get(done.group_id)
    member = None if group is None else group.members.get(done.member_id)
    if group is None or member is None:
        refuse_join(desk, done.token, KafkaError.UNKNOWN_MEMBER_ID)
        return
    if error_code:
        _rename(desk, group, done.member_id, done.old_member_id, done.group_instance_id)
        desk.arm_session(group, member)
        refuse_join(desk, done.token, error_code)
        return
    if group.state != GroupState.STABLE:
        member.join_token = done.token
        maybe_complete(desk, group)
        return
    desk.answer(
        done.token,
        JoinGroupResponse(
            0,
            group.generation_id,
            group.protocol_type,
            group.protocol_name,
            done.leader_before,
            done.member_id,
            (),
        ),
    )
