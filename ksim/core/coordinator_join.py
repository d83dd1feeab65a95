"""JoinGroup: sections 3.2 and 4 of Kafka's classic protocol.

Source: Kafka `GroupMetadataManager.classicGroupJoin`.
"""

from __future__ import annotations

from typing import Final

from ksim.core.coordinator_rebalance import (
    complete_join,
    join_success,
    maybe_complete_join,
    prepare_rebalance,
    rebalance_or_complete,
)
from ksim.core.coordinator_shard import Shard, append_error, join_error, refusal
from ksim.core.coordinator_state import (
    ClassicGroup,
    ClassicMember,
    CoordinatorConfig,
    Difference,
    GroupCreation,
    GroupState,
    StaticReplacement,
)
from ksim.core.errors import KafkaError
from ksim.core.events import RequestArrived
from ksim.core.messages import JoinGroupRequest, JoinGroupResponse

MEMBER_ID_REQUIRED_SINCE: Final = 4
SKIP_ASSIGNMENT_SINCE: Final = 9


def join_group(shard: Shard, fact: RequestArrived, request: JoinGroupRequest) -> None:
    state = shard.state
    refused = _outer_error(state.config, request)
    if refused is None and (error_code := refusal(shard)):
        refused = join_error(error_code, "")
    if refused is not None:
        shard.respond(fact.token, refused)
        return
    group = state.groups.get(request.group_id)
    if group is None and request.member_id:
        shard.respond(fact.token, join_error(KafkaError.UNKNOWN_MEMBER_ID, request.member_id))
        return
    created = group is None
    if group is None:
        group = state.groups[request.group_id] = ClassicGroup(request.group_id)
    if not _has_room(state.config, group, request.member_id):
        shard.remove_member(group, request.member_id)
        shard.respond(fact.token, join_error(KafkaError.GROUP_MAX_SIZE_REACHED, ""))
    elif not group.supports(request.protocol_type, request.protocols):
        shard.respond(
            fact.token, join_error(KafkaError.INCONSISTENT_GROUP_PROTOCOL, request.member_id)
        )
    elif request.member_id:
        _join_known(shard, group, fact, request)
    else:
        _join_new(shard, group, fact, request)
    if _left_over(group) and shard.differs(Difference.REFUSED_JOIN_COMPLETES):
        complete_join(shard, group, "all remaining members joined")
    if created and not shard.differs(Difference.JOIN_WRITES_NO_GROUP):
        record = ClassicGroup(group.group_id)
        group.created_by = shard.append(
            (shard.group_record(record),), GroupCreation(group.group_id)
        )


def _left_over(group: ClassicGroup) -> bool:
    """A join phase that could end, where only a member that was refused room is gone."""
    preparing = group.state == GroupState.PREPARING_REBALANCE
    return preparing and group.all_joined and group.previous_state != GroupState.EMPTY


def _outer_error(config: CoordinatorConfig, request: JoinGroupRequest) -> JoinGroupResponse | None:
    if not request.group_id:
        return join_error(KafkaError.INVALID_GROUP_ID, request.member_id)
    shortest, longest = config.min_session_timeout_ms, config.max_session_timeout_ms
    if not shortest <= request.session_timeout_ms <= longest:
        return join_error(KafkaError.INVALID_SESSION_TIMEOUT, request.member_id)
    return None


def _has_room(config: CoordinatorConfig, group: ClassicGroup, member_id: str) -> bool:
    """Kafka `acceptJoiningMember`: pending ids do not count."""
    match group.state:
        case GroupState.EMPTY | GroupState.DEAD:
            return True
        case GroupState.PREPARING_REBALANCE:
            member = group.members.get(member_id)
            awaiting = member is not None and member.join_token is not None
            return awaiting or group.awaiting_join < config.group_max_size
        case GroupState.COMPLETING_REBALANCE | GroupState.STABLE:
            return member_id in group.members or len(group.members) < config.group_max_size


def _join_new(
    shard: Shard, group: ClassicGroup, fact: RequestArrived, request: JoinGroupRequest
) -> None:
    if request.group_instance_id is None and fact.api_version < MEMBER_ID_REQUIRED_SINCE:
        _add(shard, group, fact, request, fact.fresh_member_id)
        return
    if request.group_instance_id is None:
        group.pending_joins[fact.fresh_member_id] = True
        shard.arm_pending(group, fact.fresh_member_id, request.session_timeout_ms)
        shard.respond(fact.token, join_error(KafkaError.MEMBER_ID_REQUIRED, fact.fresh_member_id))
        return
    before_id = group.static_members.get(request.group_instance_id)
    if before_id is None:
        _add(shard, group, fact, request, fact.fresh_member_id)
    else:
        _replace_static(shard, group, group.members[before_id], fact, request)


def _add(
    shard: Shard,
    group: ClassicGroup,
    fact: RequestArrived,
    request: JoinGroupRequest,
    member_id: str,
) -> None:
    member = ClassicMember(
        member_id=member_id,
        group_instance_id=request.group_instance_id,
        client_id=fact.client_id,
        client_host=fact.client_host,
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        protocols=request.protocols,
        is_new=True,
    )
    if group.state == GroupState.PREPARING_REBALANCE and group.previous_state == GroupState.EMPTY:
        later = group.generation_id > 0
        group.new_member_added = not (later and shard.differs(Difference.DELAY_GROWS_ONCE))
    shard.add_member(group, member, request.protocol_type)
    shard.park_join(group, member, fact.token)
    shard.arm_session(group, member, shard.state.config.new_member_join_timeout_ms)
    rebalance_or_complete(shard, group, f"new member {member_id}")


def _join_known(
    shard: Shard, group: ClassicGroup, fact: RequestArrived, request: JoinGroupRequest
) -> None:
    if request.member_id in group.pending_joins:
        if request.group_instance_id is None:
            _add(shard, group, fact, request, request.member_id)
        else:
            unknown = KafkaError.UNKNOWN_SERVER_ERROR
            shard.respond(fact.token, join_error(unknown, request.member_id))
        return
    error_code = member_error(group, request.member_id, request.group_instance_id)
    if error_code != KafkaError.NONE:
        shard.respond(fact.token, join_error(error_code, request.member_id))
        return
    member = group.members[request.member_id]
    if _must_rebalance(group, member, request):
        _update(shard, group, member, fact.token, request)
        rebalance_or_complete(shard, group, f"{member.member_id} joined again")
    else:
        leader = group.leader or ""
        shard.respond(fact.token, join_success(shard, group, member, leader))


def _must_rebalance(group: ClassicGroup, member: ClassicMember, request: JoinGroupRequest) -> bool:
    """A leader may ask for a rebalance by joining; others only with a changed offer."""
    if group.state == GroupState.PREPARING_REBALANCE:
        return True
    if group.state == GroupState.STABLE and group.leader == member.member_id:
        return True
    return member.protocols != request.protocols


def _update(
    shard: Shard,
    group: ClassicGroup,
    member: ClassicMember,
    token: int,
    request: JoinGroupRequest,
) -> None:
    shard.offer_protocols(group, member, request.protocols)
    member.rebalance_timeout_ms = request.rebalance_timeout_ms
    member.session_timeout_ms = request.session_timeout_ms
    shard.park_join(group, member, token)


def _replace_static(
    shard: Shard,
    group: ClassicGroup,
    before: ClassicMember,
    fact: RequestArrived,
    request: JoinGroupRequest,
) -> None:
    """A static member came back without its id: it gets a new one, and often no rebalance."""
    leader = group.leader or ""
    member = shard.replace_static_member(group, before, fact.fresh_member_id)
    shard.arm_session(group, member)
    _update(shard, group, member, fact.token, request)
    if group.state == GroupState.PREPARING_REBALANCE:
        maybe_complete_join(shard, group)
    elif group.state == GroupState.STABLE and shard.select_protocol(group) == group.protocol_name:
        shard.append(
            (shard.group_record(group),),
            StaticReplacement(
                group_id=group.group_id,
                token=fact.token,
                api_version=fact.api_version,
                member_id=member.member_id,
                leader=leader,
                before_id=before.member_id,
                before_session_timeout_ms=before.session_timeout_ms,
                before_rebalance_timeout_ms=before.rebalance_timeout_ms,
                before_protocols=before.protocols,
            ),
        )
    else:
        prepare_rebalance(shard, group, f"static member {member.group_instance_id} replaced")


def static_replaced(shard: Shard, done: StaticReplacement, error_code: int) -> None:
    """The swap of ids is in the log, or must be taken back."""
    group = shard.state.groups.get(done.group_id)
    member = group.members.get(done.member_id) if group is not None else None
    if group is None or member is None:
        return
    parked = member.join_token == done.token
    if error_code == KafkaError.NONE:
        if parked:
            shard.answer_join(group, member, _replaced(shard, group, member, done))
        return
    if parked:
        shard.answer_join(group, member, join_error(append_error(error_code), ""))
    shard.offer_protocols(group, member, done.before_protocols)
    member.session_timeout_ms = done.before_session_timeout_ms
    member.rebalance_timeout_ms = done.before_rebalance_timeout_ms
    shard.arm_session(group, shard.replace_static_member(group, member, done.before_id))


def _replaced(
    shard: Shard, group: ClassicGroup, member: ClassicMember, done: StaticReplacement
) -> JoinGroupResponse:
    """A leader that restarted is told who leads, and that there is nothing to assign.

    Before version 9 nobody could say the latter: it is told the leader's id of before, so that
    it does not believe that it leads.
    """
    if done.api_version < SKIP_ASSIGNMENT_SINCE:
        return join_success(shard, group, member, done.leader)
    leads = group.leader == member.member_id
    return join_success(shard, group, member, group.leader or "", skip_assignment=leads)


def group_created(shard: Shard, append_id: int, group_id: str, error_code: int) -> None:
    """A group whose record was refused is gone, unless a later write made it last."""
    group = shard.state.groups.get(group_id)
    if group is None or group.created_by != append_id:
        return
    if error_code == KafkaError.NONE:
        group.created_by = None
    else:
        shard.forget_group(group, append_error(error_code), "creation was not stored")


def member_error(group: ClassicGroup, member_id: str, group_instance_id: str | None) -> int:
    """Kafka `validateMember`: the instance id is looked at before the member id."""
    if group_instance_id is not None:
        held_by = group.static_members.get(group_instance_id)
        if held_by is None:
            return KafkaError.UNKNOWN_MEMBER_ID
        if held_by != member_id:
            return KafkaError.FENCED_INSTANCE_ID
    elif member_id not in group.members:
        return KafkaError.UNKNOWN_MEMBER_ID
    return KafkaError.NONE
