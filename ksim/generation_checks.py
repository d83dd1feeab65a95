"""Generations: they rise, each has one leader, and what it sent is what members get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim.checks import Checker, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.truth import Truth, begin_term

KEPT_GENERATIONS = 20


class S12Generations(Checker):
    """Generations rise, each has one leader, and SyncGroup answers what the leader sent.

    A coordinator that takes over may fall back to the last generation in its log. A group that was
    removed, or whose creation could not be stored, begins again at its first generation.
    """

    name = "S12"
    looks_at = (
        e.LogReplayed,
        e.RequestArrived,
        e.RecordsAppended,
        e.StateChanged,
        e.AppendRecords,
        e.SendResponse,
    )

    def __init__(self, truth: Truth) -> None:
        super().__init__(truth)
        self._generation: dict[str, int] = {}
        self._leaders: dict[tuple[str, str, int], str] = {}
        self._sent: dict[tuple[str, int], dict[str, bytes]] = {}
        self._requests: dict[tuple[str, int], m.SyncGroupRequest] = {}
        self._joins: dict[tuple[str, int], str] = {}
        self._creations: dict[tuple[str, int], tuple[str, ...]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        if isinstance(fact, e.LogReplayed):
            for _, created in begin_term(self._creations, source):
                self._forget_all(created)
            self._replayed(fact)
            self._leaders = {key: name for key, name in self._leaders.items() if key[0] != source}
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.SyncGroupRequest):
            self._requests[source, fact.token] = fact.request
        if isinstance(fact, e.RequestArrived) and isinstance(fact.request, m.JoinGroupRequest):
            self._joins[source, fact.token] = fact.request.group_id
        if isinstance(fact, e.RecordsAppended):
            self._stored(source, fact)
        for order in orders:
            if isinstance(order, e.StateChanged) and order.to_state == "CompletingRebalance":
                self._new_generation(now_ms, order)
            elif isinstance(order, e.AppendRecords):
                self._appended(source, order)
            elif isinstance(order, e.SendResponse):
                self._answered(source, now_ms, order)

    def _replayed(self, fact: e.LogReplayed) -> None:
        for entry in fact.entries:
            if isinstance(entry, e.GroupRecord):
                self._generation[entry.group_id] = entry.generation_id
                self._keep(entry)

    def _new_generation(self, now_ms: int, order: e.StateChanged) -> None:
        self.judged += 1
        before = self._generation.get(order.group_id, 0)
        if order.generation_id <= before:
            self.accuse(
                now_ms,
                f"generation {order.generation_id} of {order.group_id} began at {seconds(now_ms)} "
                f"after generation {before}.",
            )
        self._generation[order.group_id] = order.generation_id

    def _appended(self, source: str, order: e.AppendRecords) -> None:
        created = tuple(
            entry.group_id
            for entry in order.entries
            if isinstance(entry, e.GroupRecord) and entry.generation_id == 0
        )
        if created:
            self._creations[source, order.append_id] = created
        for entry in order.entries:
            if isinstance(entry, e.GroupRecord):
                self._keep(entry)
            elif isinstance(entry, e.GroupTombstone):
                self._forget(entry.group_id)

    def _stored(self, source: str, fact: e.RecordsAppended) -> None:
        created = self._creations.pop((source, fact.append_id), ())
        self._forget_all(created if fact.error_code else ())

    def _forget_all(self, group_ids: Sequence[str]) -> None:
        for group_id in group_ids:
            self._forget(group_id)

    def _forget(self, group_id: str) -> None:
        """A group that is not there may begin again at its first generation."""
        self._generation.pop(group_id, None)
        self._leaders = {key: name for key, name in self._leaders.items() if key[1] != group_id}
        self._sent = {key: sent for key, sent in self._sent.items() if key[0] != group_id}

    def _keep(self, entry: e.GroupRecord) -> None:
        shares = {member.member_id: member.assignment for member in entry.members}
        self._sent[entry.group_id, entry.generation_id] = shares
        self._sent.pop((entry.group_id, entry.generation_id - KEPT_GENERATIONS), None)

    def _answered(self, source: str, now_ms: int, order: e.SendResponse) -> None:
        response = order.response
        group_id = self._joins.pop((source, order.token), "")
        if isinstance(response, m.JoinGroupResponse) and response.error_code == 0:
            self._one_leader(source, group_id, now_ms, response)
        request = self._requests.pop((source, order.token), None)
        if request is None or not isinstance(response, m.SyncGroupResponse):
            return
        if response.error_code == 0:
            self.judged += 1
            sent = self._sent.get((request.group_id, request.generation_id), {})
            if sent.get(request.member_id, b"") != response.assignment:
                self.accuse(
                    now_ms,
                    f"SyncGroup told {request.member_id} in generation {request.generation_id} at "
                    f"{seconds(now_ms)} something else than its leader had sent.",
                    (request.member_id,),
                )

    def _one_leader(
        self, source: str, group_id: str, now_ms: int, response: m.JoinGroupResponse
    ) -> None:
        # A static leader that came back under a new id is told its members, and to skip them.
        if not response.members or response.skip_assignment:
            return
        self.judged += 1
        key = source, group_id, response.generation_id
        self._leaders.pop((source, group_id, response.generation_id - KEPT_GENERATIONS), None)
        leader = self._leaders.setdefault(key, response.member_id)
        if leader != response.member_id:
            self.accuse(
                now_ms,
                f"generation {response.generation_id} has two leaders at {seconds(now_ms)}: "
                f"{leader} and {response.member_id}.",
                (leader, response.member_id),
            )
