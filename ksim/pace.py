"""Pace: who asks its coordinator more often than its configuration says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError

BEATS: Final = 20
ALIVE: Final = (KafkaError.NONE, KafkaError.REBALANCE_IN_PROGRESS)


class Pace:
    """Heartbeats of one process in one generation, one after the other, all of them answered well.

    `BEATS` of them must take half of `BEATS` heartbeat intervals at least: an interval may be cut
    short now and then, but not as a rule.
    """

    looks_at = (o.MemberLife, e.SendRequest, e.ResponseReceived, e.RequestFailed)

    def __init__(self, interval_ms: Callable[[str, str], int]) -> None:
        """`interval_ms`: of a group and a member."""
        self._interval_ms = interval_ms
        self._beats: dict[str, tuple[int, deque[int]]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for a member that this step shows to be too fast."""
        response = fact.response if isinstance(fact, e.ResponseReceived) else None
        refused = isinstance(response, m.HeartbeatResponse) and response.error_code not in ALIVE
        if refused or isinstance(fact, e.RequestFailed):
            self._beats.pop(source, None)
        elif isinstance(fact, o.MemberLife):
            self._beats.pop(fact.member, None)
        for order in orders:
            if isinstance(order, e.SendRequest) and isinstance(order.request, m.HeartbeatRequest):
                return self._beat(source, now_ms, order.request)
        return None

    def _beat(self, source: str, now_ms: int, request: m.HeartbeatRequest) -> str | None:
        generation_id, beats = self._beats.get(source, (-1, deque[int]()))
        if generation_id != request.generation_id:
            beats = deque[int](maxlen=BEATS + 1)
            self._beats[source] = request.generation_id, beats
        beats.append(now_ms)
        interval_ms = self._interval_ms(request.group_id, source)
        took_ms = now_ms - beats[0]
        if len(beats) <= BEATS or took_ms >= BEATS * interval_ms // 2:
            return None
        beats.clear()
        return (
            f"{source} sent {BEATS} heartbeats within {seconds(took_ms)} until {seconds(now_ms)}, "
            f"though its interval is {seconds(interval_ms)}."
        )
