"""Group requests of kafka-python as values of the core, one for each group, and answers back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final

from ksim.core import messages as m
from ksim.core.values import TopicPartition

Answer = dict[str, Any]
BATCHED_SINCE: Final = {"OffsetFetch": 8, "LeaveGroup": 3}


# Requests


def _join_group(raw: Any, version: int) -> list[m.Request]:
    del version
    return [
        m.JoinGroupRequest(
            group_id=raw.group_id,
            session_timeout_ms=raw.session_timeout_ms,
            rebalance_timeout_ms=raw.rebalance_timeout_ms,
            member_id=raw.member_id,
            group_instance_id=raw.group_instance_id,
            protocol_type=raw.protocol_type,
            protocols=tuple((each.name, bytes(each.metadata)) for each in raw.protocols),
        )
    ]


def _sync_group(raw: Any, version: int) -> list[m.Request]:
    del version
    return [
        m.SyncGroupRequest(
            group_id=raw.group_id,
            generation_id=raw.generation_id,
            member_id=raw.member_id,
            group_instance_id=raw.group_instance_id,
            protocol_type=raw.protocol_type,
            protocol_name=raw.protocol_name,
            assignments=tuple((each.member_id, bytes(each.assignment)) for each in raw.assignments),
        )
    ]


def _heartbeat(raw: Any, version: int) -> list[m.Request]:
    del version
    return [
        m.HeartbeatRequest(raw.group_id, raw.generation_id, raw.member_id, raw.group_instance_id)
    ]


def _leave_group(raw: Any, version: int) -> list[m.Request]:
    if version < BATCHED_SINCE["LeaveGroup"]:
        members: tuple[m.MemberIdentity, ...] = (m.MemberIdentity(raw.member_id, None),)
    else:
        members = tuple(
            m.MemberIdentity(each.member_id, each.group_instance_id) for each in raw.members
        )
    return [m.LeaveGroupRequest(raw.group_id, members)]


def _offset_commit(raw: Any, version: int) -> list[m.Request]:
    del version
    return [
        m.OffsetCommitRequest(
            group_id=raw.group_id,
            generation_id=raw.generation_id_or_member_epoch,
            member_id=raw.member_id,
            group_instance_id=raw.group_instance_id,
            offsets=tuple(
                m.OffsetAndMetadata(
                    topic.name,
                    item.partition_index,
                    item.committed_offset,
                    item.committed_leader_epoch,
                    item.committed_metadata or "",
                )
                for topic in raw.topics
                for item in topic.partitions
            ),
            retention_time_ms=raw.retention_time_ms,
        )
    ]


def _asked(topics: Any) -> tuple[TopicPartition, ...] | None:
    if topics is None:
        return None
    return tuple(
        TopicPartition(topic.name, number) for topic in topics for number in topic.partition_indexes
    )


def _offset_fetch(raw: Any, version: int) -> list[m.Request]:
    if version < BATCHED_SINCE["OffsetFetch"]:
        return [m.OffsetFetchRequest(raw.group_id, _asked(raw.topics))]
    return [m.OffsetFetchRequest(group.group_id, _asked(group.topics)) for group in raw.groups]


def _offset_delete(raw: Any, version: int) -> list[m.Request]:
    del version
    partitions = tuple(
        TopicPartition(topic.name, item.partition_index)
        for topic in raw.topics
        for item in topic.partitions
    )
    return [m.OffsetDeleteRequest(raw.group_id, partitions)]


def _describe_groups(raw: Any, version: int) -> list[m.Request]:
    del version
    return [m.DescribeGroupsRequest((group_id,)) for group_id in raw.groups]


def _delete_groups(raw: Any, version: int) -> list[m.Request]:
    del version
    return [m.DeleteGroupsRequest((group_id,)) for group_id in dict.fromkeys(raw.groups_names)]


READERS: Final[dict[str, Callable[[Any, int], list[m.Request]]]] = {
    "JoinGroup": _join_group,
    "SyncGroup": _sync_group,
    "Heartbeat": _heartbeat,
    "LeaveGroup": _leave_group,
    "OffsetCommit": _offset_commit,
    "OffsetFetch": _offset_fetch,
    "OffsetDelete": _offset_delete,
    "DescribeGroups": _describe_groups,
    "DeleteGroups": _delete_groups,
}


def group_of(request: m.Request) -> str:
    """The group that a request of this room is for."""
    match request:
        case m.DescribeGroupsRequest(groups=groups) | m.DeleteGroupsRequest(groups=groups):
            return groups[0]
        case _:
            found: str = getattr(request, "group_id")  # noqa: B009 - all others have it
            return found


# Answers


def _by_topic(items: Sequence[Any], name: str, shown: Callable[[Any], Answer]) -> list[Answer]:
    return [
        {name: topic, "partitions": [shown(item) for item in group]}
        for topic, group in groupby(items, key=lambda item: item.topic)
    ]


def _joined(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests
    (found,) = answers
    nullable = version >= 7  # JoinGroup: before, no protocol was an empty name
    return {
        "error_code": found.error_code,
        "generation_id": found.generation_id,
        "protocol_type": found.protocol_type,
        "protocol_name": found.protocol_name if nullable else found.protocol_name or "",
        "leader": found.leader,
        "skip_assignment": found.skip_assignment,
        "member_id": found.member_id,
        "members": [
            {
                "member_id": each.member_id,
                "group_instance_id": each.group_instance_id,
                "metadata": each.metadata,
            }
            for each in found.members
        ],
    }


def _synced(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    (found,) = answers
    return {
        "error_code": found.error_code,
        "protocol_type": found.protocol_type,
        "protocol_name": found.protocol_name,
        "assignment": found.assignment,
    }


def _only_error(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    (found,) = answers
    return {"error_code": found.error_code}


def _left(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests
    (found,) = answers
    if version < BATCHED_SINCE["LeaveGroup"]:
        return {"error_code": found.first_error}
    return {
        "error_code": found.error_code,
        "members": [
            {
                "member_id": each.member_id,
                "group_instance_id": each.group_instance_id,
                "error_code": each.error_code,
            }
            for each in found.members
        ],
    }


def _partition_error(item: Any) -> Answer:
    return {"partition_index": item.partition, "error_code": item.error_code}


def _committed(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    (found,) = answers
    return {"topics": _by_topic(found.partitions, "name", _partition_error)}


def _offsets_deleted(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    (found,) = answers
    return {
        "error_code": found.error_code,
        "topics": _by_topic(found.partitions, "name", _partition_error),
    }


def _committed_offset(item: Any) -> Answer:
    return {
        "partition_index": item.partition,
        "committed_offset": item.offset,
        "committed_leader_epoch": item.leader_epoch,
        "metadata": item.metadata,
        "error_code": item.error_code,
    }


def _fetched(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    if version >= BATCHED_SINCE["OffsetFetch"]:
        return {
            "groups": [
                {
                    "group_id": request.group_id,
                    "topics": _by_topic(found.partitions, "name", _committed_offset),
                    "error_code": found.error_code,
                }
                for request, found in zip(requests, answers, strict=True)
            ]
        }
    (found,), (request,) = answers, requests
    partitions = found.partitions
    if found.error_code and version < 2:  # OffsetFetch 1 has no error of the whole group
        partitions = tuple(
            m.CommittedOffset(tp.topic, tp.partition, -1, -1, "", found.error_code)
            for tp in request.partitions or ()
        )
    return {
        "error_code": found.error_code,
        "topics": _by_topic(partitions, "name", _committed_offset),
    }


def _described(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    return {
        "groups": [
            {
                "error_code": group.error_code,
                "error_message": group.error_message,
                "group_id": group.group_id,
                "group_state": group.group_state,
                "protocol_type": group.protocol_type,
                "protocol_data": group.protocol_data,
                "members": [
                    {
                        "member_id": each.member_id,
                        "group_instance_id": each.group_instance_id,
                        "client_id": each.client_id,
                        "client_host": each.client_host,
                        "member_metadata": each.metadata,
                        "member_assignment": each.assignment,
                    }
                    for each in group.members
                ],
            }
            for found in answers
            for group in found.groups
        ]
    }


def _groups_deleted(answers: Sequence[Any], requests: Sequence[Any], version: int) -> Answer:
    del requests, version
    return {
        "results": [
            {"group_id": group.group_id, "error_code": group.error_code}
            for found in answers
            for group in found.groups
        ]
    }


WRITERS: Final[dict[str, Callable[[Sequence[Any], Sequence[Any], int], Answer]]] = {
    "JoinGroup": _joined,
    "SyncGroup": _synced,
    "Heartbeat": _only_error,
    "LeaveGroup": _left,
    "OffsetCommit": _committed,
    "OffsetFetch": _fetched,
    "OffsetDelete": _offsets_deleted,
    "DescribeGroups": _described,
    "DeleteGroups": _groups_deleted,
}


def listed(answers: Sequence[m.ListGroupsResponse]) -> Answer:
    """One answer of all coordinators of a broker; one that loads refuses for all."""
    error_code = next((found.error_code for found in answers if found.error_code), 0)
    groups = () if error_code else (group for found in answers for group in found.groups)
    return {
        "error_code": error_code,
        "groups": [
            {
                "group_id": group.group_id,
                "protocol_type": group.protocol_type,
                "group_state": group.group_state,
                "group_type": group.group_type,
            }
            for group in groups
        ],
    }
