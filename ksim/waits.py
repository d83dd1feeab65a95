"""Requests of groups that wait for their answers: what was lost shows long before it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import Scenario
from ksim.truth import OF_GROUP, Truth

# For a broker that has to store something first.
MARGIN_MS: Final = 1_000


class Waits:
    """Who waits for an answer for longer than the way there and back takes, once for each request.

    A group goes on without a member whose SyncGroup was lost, or that cannot join before its commit
    has an answer; the request itself may fail half a minute later. Joins wait for others, and for
    how long is not known.
    """

    looks_at = (o.MemberLife, e.SendRequest, e.ResponseReceived, e.RequestFailed)

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        self._truth = truth
        self._late_ms = 2 * scenario.cluster.latency_ms[1] + MARGIN_MS
        self._sent_ms: dict[tuple[str, int], int] = {}
        self._told: set[tuple[str, int]] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.ResponseReceived | e.RequestFailed):
            self._sent_ms.pop((source, fact.request_id), None)
        elif isinstance(fact, o.MemberLife):
            for key in [key for key in self._sent_ms if key[0] == fact.member]:
                del self._sent_ms[key]
        for order in orders:
            if (
                isinstance(order, e.SendRequest)
                and order.channel in OF_GROUP
                and not isinstance(order.request, m.JoinGroupRequest)
            ):
                self._sent_ms[source, order.request_id] = now_ms

    def late(self, group_id: str, now_ms: int) -> list[str]:
        """The members of this group that wait for too long, and have not been told of before."""
        found = [
            key
            for key, sent_ms in self._sent_ms.items()
            if now_ms - sent_ms > self._late_ms and self._truth.groups.get(key[0]) == group_id
        ]
        for key in found:
            del self._sent_ms[key]
            self._told.add(key)
        return [member for member, _ in found]

    def was_told(self, source: str, request_id: int) -> bool:
        """Whether `late` has told of this request."""
        return (source, request_id) in self._told
