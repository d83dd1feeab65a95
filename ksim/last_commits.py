"""Last commits: how long a member goes on asking for that of what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.scenario import Scenario
from ksim.truth import Truth

# Another coordinator, or the same one a little later, takes it.
AWAY: Final = (
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
RETRIES: Final = 3


@dataclass(slots=True)
class _Release:
    """Since when partitions are given back, and how often in a row their commit was put off."""

    since_ms: int
    put_off: int = 0


class LastCommits:
    """Whether a member let go of what it had, though the last commit of it was only put off.

    Where a coordinator that is away answers a commit, or nobody does, it is asked for again:
    `RETRIES` times at the least, unless the time is over that the group waits for it (19 of 20
    parts of the rebalance timeout), or that its application gave it to close (five of six parts).
    """

    looks_at = (
        o.MemberLife,
        e.CloseRequested,
        e.PartitionsRevoked,
        e.RequestFailed,
        e.ResponseReceived,
        e.SendRequest,
        e.AssignPartitions,
        e.RevokePartitions,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        self._truth = truth
        self._specs = {group.id: group for group in scenario.groups}
        self._closing_ms: dict[str, int] = {}
        self._releases: dict[str, _Release] = {}
        self._asked: set[tuple[str, int]] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._happened(source, now_ms, fact)
        for order in orders:
            match order:
                case e.RevokePartitions():
                    self._releases[source] = _Release(now_ms)
                case e.AssignPartitions():
                    self._releases.pop(source, None)
                case e.SendRequest(request=m.OffsetCommitRequest()):
                    self._asked.add((source, order.request_id))
                case _:
                    pass

    def _happened(self, source: str, now_ms: int, fact: Any) -> None:
        match fact:
            case o.MemberLife(what="started"):
                self._closing_ms.pop(fact.member, None)
                self._releases.pop(fact.member, None)
                self._asked = {each for each in self._asked if each[0] != fact.member}
            case e.CloseRequested():
                # A second one leaves at once.
                limit_ms = now_ms + fact.timeout_ms * 5 // 6
                self._closing_ms[source] = 0 if source in self._closing_ms else limit_ms
            case e.PartitionsRevoked() if source in self._releases:
                self._releases[source].put_off = 0
            case e.ResponseReceived(response=m.OffsetCommitResponse() as answer):
                codes = {item.error_code for item in answer.partitions}
                self._ended(source, fact.request_id, put_off=not codes.isdisjoint(AWAY))
            case e.RequestFailed() if (source, fact.request_id) in self._asked:
                self._ended(source, fact.request_id, put_off=True)
            case _:
                pass

    def _ended(self, source: str, request_id: int, *, put_off: bool) -> None:
        """One of its commits."""
        self._asked.discard((source, request_id))
        release = self._releases.get(source)
        if release is not None:
            release.put_off = release.put_off + 1 if put_off else 0

    def too_early(self, source: str, now_ms: int, *, refused: bool) -> bool:
        """Whether it could have asked again, or at all, for its last commit when it lets go of all.

        `refused`: it has asked, and the answer is why it lets go.
        """
        release = self._releases.get(source)
        if release is None or not refused <= release.put_off <= RETRIES:
            return False
        spec = self._specs[self._truth.groups[source]].of(source)
        wait_ms = spec.rebalance_timeout_ms or spec.session_timeout_ms
        limit_ms = release.since_ms + wait_ms * 19 // 20
        return now_ms < min(limit_ms, self._closing_ms.get(source, limit_ms))
