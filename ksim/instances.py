"""Instances: by what a coordinator tells a static member from one that took its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.checks import seconds
from ksim.core import events as e
from ksim.core import messages as m

NAMING: Final = (m.SyncGroupRequest, m.HeartbeatRequest, m.OffsetCommitRequest)


class Instances:
    """Whether a static member names its instance in all that it asks its coordinator for.

    A process that another one of its instance has replaced is told so (FENCED_INSTANCE_ID) by that
    name alone; without it it hears that nobody knows it, joins anew, and takes the place back, for
    as long as both live. Source: KIP-345.
    """

    looks_at = (o.MemberLife, e.SendRequest)

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> str | None:
        """One sentence for a request that leaves out the instance, or names another."""
        if isinstance(fact, o.MemberLife) and fact.what == "started":
            self._names.pop(fact.member, None)
        for order in orders:
            if not isinstance(order, e.SendRequest):
                continue
            request = order.request
            if isinstance(request, m.JoinGroupRequest):
                self._names[source] = request.group_instance_id
            elif isinstance(request, NAMING) and source in self._names:
                joined_as = self._names[source]
                if request.generation_id >= 0 and request.group_instance_id != joined_as:
                    return (
                        f"{source} joined as instance {joined_as}, and named "
                        f"{request.group_instance_id} in a {type(request).__name__} at "
                        f"{seconds(now_ms)}: whoever takes its place cannot be told from it."
                    )
        return None
