"""When a group is at rest: Stable, each living member owning its part, and nobody else in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.core import events as e
from ksim.truth import Truth

STABLE: Final = "Stable"
GONE: Final = ("started", "crashed", "closed", "failed")


class Rest:
    """Since when each group is at rest."""

    looks_at = (
        o.MemberLife,
        e.LogReplayed,
        e.StateChanged,
        e.AssignPartitions,
        e.RevokePartitions,
        e.LosePartitions,
    )

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._stable: dict[str, int] = {}
        self._owning: set[str] = set()
        self._since_ms: dict[str, int] = {}

    def since(self, group_id: str) -> int | None:
        """Since when it is at rest; None: it is not."""
        return self._since_ms.get(group_id)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step; what it does to rest is seen afterwards."""
        touched: set[str] = set()
        if isinstance(fact, o.MemberLife) and fact.what in GONE:
            self._owning.discard(fact.member)
            touched.add(fact.group_id)
        elif isinstance(fact, e.LogReplayed):
            for entry in fact.entries:
                if isinstance(entry, e.GroupRecord):
                    touched.add(self._note(entry.group_id, STABLE, len(entry.members)))
        for order in orders:
            match order:
                case e.StateChanged():
                    touched.add(self._note(order.group_id, order.to_state, len(order.members)))
                case e.AssignPartitions():
                    self._owning.add(source)
                    touched.add(self._truth.groups.get(source, ""))
                case e.RevokePartitions() | e.LosePartitions():
                    self._owning.discard(source)
                    touched.add(self._truth.groups.get(source, ""))
                case _:
                    pass
        for group_id in touched:
            self._look(now_ms, group_id)

    def _note(self, group_id: str, state: str, members: int) -> str:
        if state == STABLE:
            self._stable[group_id] = members
        else:
            self._stable.pop(group_id, None)
        return group_id

    def _look(self, now_ms: int, group_id: str) -> None:
        live = [name for name, of in self._truth.live.items() if of == group_id]
        whole = self._stable.get(group_id) == len(live)
        if whole and all(name in self._owning for name in live):
            self._since_ms.setdefault(group_id, now_ms)
        else:
            self._since_ms.pop(group_id, None)
