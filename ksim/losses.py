"""Losses: what a member takes from its application, and why it may; when it may join again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.scenario import Scenario
from ksim.tenure_checks import NO_MEMBER
from ksim.truth import Truth

ALIVE: Final = (KafkaError.NONE, KafkaError.REBALANCE_IN_PROGRESS)
TOLD: Final = "told by an answer"
ENDED: Final = "ended by a refusal"
CLOSED: Final = "closed at once"
SESSION: Final = "session over"
AWAY: Final = "application away"


@dataclass(slots=True)
class _Life:
    """What one process knows: since when it was not confirmed, and its application not there.

    `asked` are heartbeats without an answer, and when they were sent; `called_ms` is None while
    the application waits inside a call.
    """

    confirmed_ms: int = 0
    session_ms: int = 0
    called_ms: int | None = 0
    closing: bool = False
    asked: dict[int, int] = field(default_factory=dict[int, int])


class Losses:
    """Why a member takes what it owns from its application at once, without a last commit.

    It may where an answer says that it is no member of its generation any more, where a commit of
    its own is refused, whose records come again (one of the catalogue's equivalents), where a
    refusal ends it, where it is told to close at once, where nothing confirmed it for its session
    timeout, and where its application did not call in for `max.poll.interval.ms`. An answer to a
    heartbeat confirms from when that was sent, a rebalance in progress or not; an answer to a
    JoinGroup from when it came. What the member says of its reasons counts for nothing.

    Nor may it join for an application that has not called in for that long: it would be given what
    nobody reads.
    """

    looks_at = (
        o.MemberLife,
        e.Started,
        e.UserPolled,
        e.MarksTaken,
        e.CloseRequested,
        e.ResponseReceived,
        e.SendRequest,
        e.LosePartitions,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        self._truth = truth
        self._specs = {group.id: group for group in scenario.groups}
        self._lives: dict[str, _Life] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """The sentence for a loss that nothing asked for, or a join that nobody is there for."""
        if self.cause(source, now_ms, fact, orders) != "":
            return self._joins_alone(source, now_ms, orders)
        return (
            f"{source} took from its application what it owned at {seconds(now_ms)}, though nobody "
            "had told it to, its session went on, and its application was there."
        )

    def _joins_alone(self, source: str, now_ms: int, orders: Sequence[Any]) -> str | None:
        """Whoever is away longer than it may gets nothing until it calls in."""
        life = self._lives.get(source)
        if life is None or life.called_ms is None or not any(map(_is_join, orders)):
            return None
        away_ms = now_ms - life.called_ms
        if away_ms <= self._max_poll_interval_ms(source):
            return None
        return (
            f"{source} joined at {seconds(now_ms)}, though its application had not called in for "
            f"{seconds(away_ms)}: nobody would read what it is given."
        )

    def _max_poll_interval_ms(self, member: str) -> int:
        return self._specs[self._truth.groups[member]].of(member).max_poll_interval_ms

    def cause(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """Why this step loses what it does, "" if for nothing; None where it loses nothing."""
        if isinstance(fact, o.MemberLife):
            if fact.what == "started":
                self._lives[fact.member] = _Life(called_ms=now_ms)
            return None
        life = self._lives.get(source)
        if life is None:
            return None
        loses = any(isinstance(order, e.LosePartitions) and order.partitions for order in orders)
        found = self._cause(source, now_ms, life, fact, orders) if loses else None
        _noted(life, now_ms, fact)
        for order in orders:
            if isinstance(order, e.SendRequest):
                _sent(life, now_ms, order)
        return found

    def _cause(
        self, source: str, now_ms: int, life: _Life, fact: Any, orders: Sequence[Any]
    ) -> str:
        if isinstance(fact, e.ResponseReceived):
            codes = _codes(fact)
            refused = isinstance(fact.response, m.OffsetCommitResponse) and codes != {0}
            if refused or not codes.isdisjoint(NO_MEMBER):
                return TOLD
        if any(isinstance(order, e.ReportError) and order.fatal for order in orders):
            return ENDED
        if isinstance(fact, e.CloseRequested) and life.closing:
            return CLOSED
        if now_ms >= life.confirmed_ms + life.session_ms:
            return SESSION
        limit_ms = self._max_poll_interval_ms(source)
        if life.called_ms is not None and now_ms >= life.called_ms + limit_ms:
            return AWAY
        return ""


def _is_join(order: Any) -> bool:
    return isinstance(order, e.SendRequest) and isinstance(order.request, m.JoinGroupRequest)


def _codes(fact: e.ResponseReceived) -> set[int]:
    response = fact.response
    inner = {item.error_code for item in getattr(response, "partitions", ())}
    return {getattr(response, "error_code", 0), *inner}


def _noted(life: _Life, now_ms: int, fact: Any) -> None:
    match fact:
        case e.Started():
            life.called_ms = now_ms
        case e.UserPolled():
            life.called_ms = None if fact.waiting else fact.at_ms
        case e.MarksTaken() if fact.at_ms >= 0:
            life.called_ms = None if fact.waiting else fact.at_ms
        case e.CloseRequested():
            life.closing = True
        case e.ResponseReceived(response=m.HeartbeatResponse() as answer):
            sent_ms = life.asked.pop(fact.request_id, None)
            if sent_ms is not None and answer.error_code in ALIVE:
                life.confirmed_ms = max(life.confirmed_ms, sent_ms)
        case e.ResponseReceived(response=m.JoinGroupResponse() as answer):
            if answer.error_code == KafkaError.NONE:
                life.confirmed_ms = max(life.confirmed_ms, now_ms)
        case _:
            pass


def _sent(life: _Life, now_ms: int, order: e.SendRequest) -> None:
    match order.request:
        case m.HeartbeatRequest():
            life.asked[order.request_id] = now_ms
        case m.JoinGroupRequest() as request:
            life.session_ms = request.session_timeout_ms
        case _:
            pass
