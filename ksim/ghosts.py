"""Ghosts: member ids that a living member has given up, and for which its group still waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError

GONE: Final = ("crashed", "closed", "failed")
GIVEN: Final = (KafkaError.NONE, KafkaError.MEMBER_ID_REQUIRED)
NEAR: Final = (*GIVEN, KafkaError.REBALANCE_IN_PROGRESS)
OF_COORDINATOR: Final = (
    m.JoinGroupResponse,
    m.SyncGroupResponse,
    m.HeartbeatResponse,
    m.OffsetCommitResponse,
)
OF_GROUP: Final = (
    m.JoinGroupRequest,
    m.SyncGroupRequest,
    m.HeartbeatRequest,
    m.OffsetCommitRequest,
)
TOLD: Final = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID)


@dataclass(slots=True)
class _Life:
    """What one process was given, and when its application was last seen to call in.

    `joining` is the JoinGroup under way, unless its member was told since that it is unknown;
    `is_near` says that its coordinator answered last, and as one; `sent` is the last request, and
    `outdated` the last one before its session ended, or before its coordinator was none any more;
    `heard_ms` is when it sent what its coordinator answered last, `asked` when it sent the rest.
    What comes once it `has_closed` in the same instant is nothing to it any more.
    """

    called_in_ms: int
    heard_ms: int = -1
    session_ms: int = 0
    member_id: str = ""
    joining: int | None = None
    is_near: bool = False
    is_static: bool = False
    has_closed: bool = False
    sent: int = -1
    outdated: int = -1
    asked: dict[int, int] = field(default_factory=dict[int, int])

    def knows(self, now_ms: int) -> bool:
        """Whether it knows whom to tell that it leaves, and that its session is not over."""
        return self.is_near and not self.is_static and now_ms < self.heard_ms + self.session_ms

    def ends(self) -> None:
        """Whatever id it has, or is about to have, is gone, or cannot be left."""
        self.member_id, self.joining = "", None


class Ghosts:
    """Who joins under another id than the one that it was given, or goes without leaving.

    A member that closes, or whose application does not call in for `max.poll.interval.ms`, sends
    LeaveGroup if it has an id and its coordinator answered it last, as one, and within its session.
    A static member never does. An id ends when its coordinator says that it is unknown, when its
    member leaves, when a refusal ends its member, whatever an older request is answered afterwards,
    and with its process. The answer to a request from before the end of a session says nothing of
    the time after it; nor does one from before the coordinator said that it is none.

    Whether an id is given up is not judged of static members, whose instance id the coordinator
    goes by, and of members whose application may not have called in for `max.poll.interval.ms`,
    which then leave, or would if they knew whom to tell.
    """

    looks_at = (
        o.HandedOut,
        o.MemberLife,
        e.ResponseReceived,
        e.RequestFailed,
        e.SendRequest,
        e.LosePartitions,
        e.ReportError,
        e.Closed,
    )

    def __init__(self, poll_interval_ms: Callable[[str, str], int]) -> None:
        """`poll_interval_ms`: of a group and a member."""
        self._poll_interval_ms = poll_interval_ms
        self._lives: dict[str, _Life] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for a ghost that this step leaves behind."""
        gone = None
        if isinstance(fact, o.MemberLife):
            gone = self._lived(now_ms, fact)
        life = self._lives.get(source)
        if life is None:
            return gone
        if isinstance(fact, o.HandedOut):
            life.called_in_ms = now_ms
        elif life.has_closed:
            return gone
        elif isinstance(fact, e.ResponseReceived):
            _answered(life, life.asked.pop(fact.request_id, now_ms), fact)
        elif isinstance(fact, e.RequestFailed):
            life.is_near = False
            life.asked.pop(fact.request_id, None)
        life.has_closed = life.has_closed or e.Closed() in orders
        return gone or self._ordered(source, now_ms, life, orders)

    def _ordered(self, source: str, now_ms: int, life: _Life, orders: Sequence[Any]) -> str | None:
        known = life.member_id if life.knows(now_ms) else ""
        sent_before = life.sent
        for order in orders:
            if isinstance(order, e.SendRequest):
                life.sent = order.request_id
                if isinstance(order.request, OF_GROUP):
                    life.asked[order.request_id] = now_ms
            match order:
                case e.SendRequest(request=m.LeaveGroupRequest()):
                    life.ends()
                    if life.is_static:
                        return f"{source} is static, and left its group at {seconds(now_ms)}."
                case e.SendRequest(request=m.JoinGroupRequest() as request):
                    life.joining = order.request_id
                    life.is_static = request.group_instance_id is not None
                    life.session_ms = request.session_timeout_ms
                    return self._joins(source, now_ms, life, request)
                case e.ReportError(fatal=True) if e.Closed() in orders:
                    life.ends()
                case _:
                    pass
        lost = [order.reason for order in orders if isinstance(order, e.LosePartitions)]
        if any(reason.startswith("session") for reason in lost):
            life.is_near, life.outdated = False, sent_before
        if known and life.member_id and any(reason.startswith("max.poll") for reason in lost):
            life.ends()
            return (
                f"{source} gave up {known} at {seconds(now_ms)}, as its application did not call "
                "in, and did not leave: the group waits for a ghost."
            )
        return None

    def _lived(self, now_ms: int, fact: o.MemberLife) -> str | None:
        if fact.what == "started":
            self._lives[fact.member] = _Life(now_ms)
        elif fact.what in GONE:
            life = self._lives.pop(fact.member, None)
            stays = life is not None and life.member_id and life.knows(now_ms)
            if fact.what == "closed" and life is not None and stays:
                return (
                    f"{fact.member} closed at {seconds(now_ms)}, and did not leave as "
                    f"{life.member_id}: the group waits for a ghost."
                )
        return None

    def _joins(
        self, source: str, now_ms: int, life: _Life, request: m.JoinGroupRequest
    ) -> str | None:
        known = life.member_id
        if not known or request.member_id == known or request.group_instance_id is not None:
            return None
        life.member_id = ""
        if now_ms - life.called_in_ms >= self._poll_interval_ms(request.group_id, source):
            return None
        return (
            f"{source} joined {request.group_id} as a newcomer at {seconds(now_ms)}, and left "
            f"{known} behind, which nobody had told it is unknown: the group waits for a ghost."
        )


def _answered(life: _Life, asked_ms: int, fact: e.ResponseReceived) -> None:
    response = fact.response
    codes = {getattr(response, "error_code", 0)}
    codes |= {getattr(each, "error_code", 0) for each in getattr(response, "partitions", ())}
    if isinstance(response, OF_COORDINATOR) and fact.request_id > life.outdated:
        life.is_near, life.heard_ms = codes.issubset(NEAR), asked_ms
        if not life.is_near:
            life.outdated = life.sent
    if isinstance(response, m.JoinGroupResponse) and response.error_code in GIVEN:
        if life.joining == fact.request_id:
            life.member_id, life.joining = response.member_id, None
        return
    if not codes.isdisjoint(TOLD):
        life.ends()
