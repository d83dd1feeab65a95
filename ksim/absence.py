"""Absences: applications that do not call in, and whose members keep what they own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.scenario import GroupSpec, Scenario
from ksim.truth import Truth

LATE_MS: Final = 1_000
CALLS: Final = (o.PartitionsPaused, o.PartitionSought)


@dataclass(slots=True)
class _Hands:
    """Since when a member owns what it does, and its application is busy; None: it is not.

    `held`: records that handlers have not ended yet.
    """

    held: int = 0
    owns_since_ms: int | None = None
    busy_since_ms: int | None = None


class Absences:
    """Who still owns its partitions though its application was busy past `max.poll.interval.ms`.

    An application is busy from when it receives a record until it has handled it, and while it
    stays away; pausing and seeking calls in. One with workers is busy while none of them is idle. A
    second is for the timer. Not judged: applications in partitions mode, of whose threads each may
    call in, processes that stand still, and what is being given back anyway.
    """

    looks_at = (
        *CALLS,
        o.HandedOut,
        o.Handled,
        o.Away,
        o.MemberLife,
        e.AssignPartitions,
        e.RevokePartitions,
        e.LosePartitions,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        self._truth = truth
        self._specs = {group.id: group for group in scenario.groups}
        self._hands: dict[str, _Hands] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for an absence that ends here and should have cost the partitions."""
        hands = self._hands.get(source)
        if hands is None:
            hands = self._hands[source] = _Hands()
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                hands.owns_since_ms = now_ms
            elif isinstance(order, e.RevokePartitions | e.LosePartitions):
                hands.owns_since_ms = None
        return self._noted(source, now_ms, hands, fact)

    def _noted(self, source: str, now_ms: int, hands: _Hands, fact: Any) -> str | None:
        match fact:
            case o.HandedOut():
                hands.held += 1
                if hands.held >= (self._spec(source).workers or 1):
                    hands.busy_since_ms = now_ms
            case o.Handled():
                hands.held = max(0, hands.held - 1)
                return self._calls_in(source, now_ms, hands)
            case o.Away():
                if not fact.for_ms:
                    return self._calls_in(source, now_ms, hands)
                hands.busy_since_ms = now_ms
            case o.PartitionsPaused() | o.PartitionSought() if hands.busy_since_ms is not None:
                hands.busy_since_ms = now_ms
            case o.MemberLife():
                hands.busy_since_ms, hands.held = None, 0
                if fact.what not in ("paused", "resumed", "stopping"):
                    hands.owns_since_ms = None
            case _:
                pass
        return None

    def _spec(self, member: str) -> GroupSpec:
        return self._specs[self._truth.groups[member]].of(member)

    def _calls_in(self, member: str, now_ms: int, hands: _Hands) -> str | None:
        busy_since_ms, hands.busy_since_ms = hands.busy_since_ms, None
        if busy_since_ms is None or hands.owns_since_ms is None:
            return None
        spec = self._spec(member)
        if spec.mode != "multiplex":
            return None
        away_ms = now_ms - max(busy_since_ms, hands.owns_since_ms)
        if away_ms <= spec.max_poll_interval_ms + LATE_MS:
            return None
        return (
            f"{member} still owned its partitions at {seconds(now_ms)}, though its application had "
            f"not called in for {seconds(away_ms)} (max.poll.interval.ms "
            f"{seconds(spec.max_poll_interval_ms)})."
        )
