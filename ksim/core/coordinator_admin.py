"""DescribeGroups, ListGroups and DeleteGroups, for the groups of one coordinator.

Source: Kafka `GroupMetadataManager.describeGroups`, `listGroups`, `deleteGroups`.
"""

from __future__ import annotations

from typing import Final

from ksim.core.coordinator_expiry import delete_group
from ksim.core.coordinator_shard import Shard, refusal
from ksim.core.coordinator_state import ClassicGroup, ClassicMember, Difference, GroupState
from ksim.core.errors import KafkaError
from ksim.core.events import RequestArrived
from ksim.core.messages import (
    DeletedGroup,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)

NOT_FOUND_SINCE: Final = 6  # DescribeGroups (KIP-1043)
CLASSIC: Final = "classic"


def describe_groups(
    shard: Shard, fact: RequestArrived, request: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    error_code = refusal(shard)
    if error_code:
        return DescribeGroupsResponse(tuple(_blank(each, error_code) for each in request.groups))
    return DescribeGroupsResponse(
        tuple(_described(shard, group_id, fact.api_version) for group_id in request.groups)
    )


def _blank(
    group_id: str, error_code: int, message: str | None = None, state: str = ""
) -> DescribedGroup:
    return DescribedGroup(error_code, message, group_id, state, "", "", ())


def _described(shard: Shard, group_id: str, api_version: int) -> DescribedGroup:
    group = shard.state.groups.get(group_id)
    if group is None:
        dead = GroupState.DEAD.value
        if api_version < NOT_FOUND_SINCE:
            return _blank(group_id, KafkaError.NONE, state=dead)
        message = f"Group {group_id} not found."
        return _blank(group_id, KafkaError.GROUP_ID_NOT_FOUND, message, dead)
    stable = group.state == GroupState.STABLE
    return DescribedGroup(
        error_code=KafkaError.NONE,
        error_message=None,
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=(group.protocol_name or "") if stable else "",
        members=tuple(
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                metadata=member.metadata(group.protocol_name) if stable else b"",
                assignment=_assignment(shard, member, stable=stable),
            )
            for member in group.members.values()
        ),
    )


def _assignment(shard: Shard, member: ClassicMember, *, stable: bool) -> bytes:
    """Outside of Stable, what was stored last."""
    if not stable and member.assignment and shard.differs(Difference.ASSIGNMENT_HIDDEN):
        return b""
    return member.assignment


def list_groups(shard: Shard, request: ListGroupsRequest) -> ListGroupsResponse:
    """Groups that pass the filters, by name; a coordinator that resigned has none to tell of."""
    error_code = refusal(shard)
    if error_code == KafkaError.NOT_COORDINATOR:
        return ListGroupsResponse(KafkaError.NONE, ())
    if error_code:
        return ListGroupsResponse(error_code, ())
    states = {state.strip().lower() for state in request.states}
    types = {kind.strip().lower() for kind in request.types}
    groups = [shard.state.groups[group_id] for group_id in sorted(shard.state.groups)]
    return ListGroupsResponse(
        KafkaError.NONE,
        tuple(
            ListedGroup(group.group_id, group.protocol_type or "", group.state.value, CLASSIC)
            for group in groups
            if (not states or group.state.value.lower() in states)
            and (not types or CLASSIC in types)
        ),
    )


def delete_groups(shard: Shard, token: int, request: DeleteGroupsRequest) -> None:
    """One group of the request; a driver splits a request for several."""
    assert len(request.groups) == 1, f"{len(request.groups)} groups in one deletion"
    (group_id,) = request.groups
    group = shard.state.groups.get(group_id)
    error_code = _delete_error(shard, group)
    if error_code == KafkaError.NONE and group is not None:
        delete_group(shard, token, group)
    else:
        shard.respond(token, DeleteGroupsResponse((DeletedGroup(group_id, error_code),)))


def _delete_error(shard: Shard, group: ClassicGroup | None) -> int:
    """The empty group id is as good as any other here."""
    if error_code := refusal(shard):
        return error_code
    if group is None:
        return KafkaError.GROUP_ID_NOT_FOUND
    return KafkaError.NONE if group.state == GroupState.EMPTY else KafkaError.NON_EMPTY_GROUP
