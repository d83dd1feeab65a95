"""Rules that make a broker misbehave on demand, counted by protocol event."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import value


class FaultAction(StrEnum):
    """What a rule does to the message it matches."""

    DROP = "drop"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    ERROR = "error"
    CRASH = "crash"
    LATE = "late"
    DISCONNECT = "disconnect"


@value
class EventRule:
    """The `nth` message (0: every) of `kind` in `direction`, of one client id or of all."""

    direction: str
    kind: str
    member: str | None
    nth: int


@value
class FaultRule:
    """The `nth` message (0: every) of `kind` in `direction`, of one client id or of all.

    `error_code` belongs to ERROR, `for_ms` to DELAY and LATE, where the others on the connection do
    not wait; LATE may also wait `until` an event. DISCONNECT loses the message and its connection.
    `keep` lets a rule match after its first hit; whoever has the time lifts it after `lasts_ms`.
    """

    direction: str
    kind: str
    member: str | None
    nth: int
    action: FaultAction
    error_code: int
    for_ms: int
    keep: bool
    until: EventRule | None = None
    lasts_ms: int | None = None


def kind_of(request: m.Request) -> str:
    """The name a rule uses: SyncGroup, OffsetCommit and so on."""
    return type(request).__name__.removesuffix("Request")


class FaultBook:
    """The rules that are still open, and how often each was met."""

    __slots__ = ("_met", "rules")

    def __init__(self, rules: tuple[FaultRule, ...] = ()) -> None:
        self.rules = list(rules)
        self._met = [0] * len(self.rules)

    def decide(self, direction: str, kind: str, member: str) -> FaultRule | None:
        """The rule that strikes this message; every rule that matches counts it."""
        struck: FaultRule | None = None
        for at in range(len(self.rules) - 1, -1, -1):
            rule = self.rules[at]
            if rule.direction != direction or rule.kind != kind:
                continue
            if rule.member is not None and rule.member != member:
                continue
            self._met[at] += 1
            if (
                rule.nth == 0
                or self._met[at] == rule.nth
                or (rule.keep and self._met[at] > rule.nth)
            ):
                struck = rule
                if not rule.keep:
                    del self.rules[at], self._met[at]
        return struck

    def add(self, rule: FaultRule) -> None:
        """One rule more, counting from now."""
        self.rules.append(rule)
        self._met.append(0)

    def lift(self, rule: FaultRule) -> bool:
        """Forget this very rule; false when it has struck already."""
        for at, each in enumerate(self.rules):
            if each is rule:
                del self.rules[at], self._met[at]
                return True
        return False

    def clear(self) -> None:
        """Healing: no rule strikes any more."""
        self.rules.clear()
        self._met.clear()


def error_response(request: m.Request, error_code: int) -> m.Response:  # noqa: C901 - one arm each
    """The answer that refuses this request with this code instead of processing it."""
    match request:
        case m.MetadataRequest():
            topics = tuple(m.TopicMetadata(error_code, t, ()) for t in request.topics or ())
            return m.MetadataResponse((), topics)
        case m.FindCoordinatorRequest():
            return m.FindCoordinatorResponse(error_code, -1, "", -1)
        case m.JoinGroupRequest():
            return m.JoinGroupResponse(error_code, -1, None, None, "", request.member_id, ())
        case m.SyncGroupRequest():
            return m.SyncGroupResponse(error_code, None, None, b"")
        case m.HeartbeatRequest():
            return m.HeartbeatResponse(error_code)
        case m.LeaveGroupRequest():
            return m.LeaveGroupResponse(error_code)
        case m.OffsetCommitRequest():
            return m.OffsetCommitResponse(
                tuple(m.PartitionError(o.topic, o.partition, error_code) for o in request.offsets)
            )
        case m.OffsetFetchRequest():
            return m.OffsetFetchResponse(error_code, ())
        case m.OffsetDeleteRequest():
            return m.OffsetDeleteResponse(error_code, ())
        case m.DescribeGroupsRequest():
            return m.DescribeGroupsResponse(
                tuple(
                    m.DescribedGroup(error_code, None, group_id, "", "", "", ())
                    for group_id in request.groups
                )
            )
        case m.ListGroupsRequest():
            return m.ListGroupsResponse(error_code, ())
        case m.DeleteGroupsRequest():
            return m.DeleteGroupsResponse(
                tuple(m.DeletedGroup(group_id, error_code) for group_id in request.groups)
            )
        case m.ListOffsetsRequest():
            return m.ListOffsetsResponse(
                tuple(
                    m.ListedOffset(p.topic, p.partition, error_code, -1) for p in request.partitions
                )
            )
        case m.FetchRequest():
            return m.FetchResponse(
                KafkaError.NONE,
                tuple(
                    m.FetchedPartition(p.topic, p.partition, error_code, -1, -1, p.fetch_offset, 0)
                    for p in request.partitions
                ),
            )
        case m.OffsetForLeaderEpochRequest():
            return m.OffsetForLeaderEpochResponse(
                tuple(
                    m.EpochEnd(p.topic, p.partition, error_code, -1, -1) for p in request.partitions
                )
            )
        case m.ProduceRequest():
            return m.ProduceResponse(request.topic, request.partition, error_code, -1)
        case _:
            assert_never(request)
