"""Exclusive ownership where two processes share an instance id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim import observations as o
from ksim.checks import S5ExclusiveInApplication
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.truth import Truth

Instance = tuple[str, str]  # the group, and the id within it


def is_fencing(response: m.Response) -> bool:
    """Whether it tells a process that another one has its instance id; commits say so inside."""
    codes = [
        getattr(response, "error_code", KafkaError.NONE),
        *(getattr(each, "error_code", 0) for each in getattr(response, "partitions", ())),
    ]
    return KafkaError.FENCED_INSTANCE_ID in codes


class S5BesideInstances(S5ExclusiveInApplication):
    """As S5, but a process that another one of its instance has replaced may not know it yet.

    The coordinator gives the share to the new process at once, and to anybody else in the next
    round, while it tells the old one nothing: that is Kafka's static membership, and no member can
    prevent it. Once the old one was told that it is fenced, it may hand out nothing more.
    """

    looks_at = (
        *S5ExclusiveInApplication.looks_at,
        e.RequestArrived,
        e.ResponseReceived,
        o.MemberLife,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._instances: dict[str, Instance] = {}
        self._latest: dict[Instance, str] = {}
        self._fenced: set[str] = set()

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.JoinGroupRequest):
            instance_id = fact.request.group_instance_id
            if instance_id is not None:
                instance = fact.request.group_id, instance_id
                self._instances[fact.client_id] = instance
                self._latest[instance] = fact.client_id
        elif isinstance(fact, e.ResponseReceived):
            if is_fencing(fact.response):
                self._fenced.add(source)
        elif isinstance(fact, o.MemberLife) and fact.what == "started":
            self._fenced.discard(fact.member)
        super().see(source, now_ms, fact, orders)

    def _is_replaced(self, member: str) -> bool:
        mine = self._instances.get(member)
        return mine is not None and self._latest[mine] != member

    def _assigned(self, source: str, now_ms: int, order: e.AssignPartitions) -> None:
        """What the older process is still told of takes nothing from anybody."""
        if not self._is_replaced(source):
            super()._assigned(source, now_ms, order)

    def _judge(self, now_ms: int, fact: o.HandedOut) -> None:
        if not self._is_replaced(fact.member) or fact.member in self._fenced:
            super()._judge(now_ms, fact)
