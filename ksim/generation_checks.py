"""Generations: they rise, each has one leader, and what it sent is what members get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim.checks import Checker, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.truth import Truth, begin_term

KEPT_GENERATIONS = 20

# A coordinator of one partition of the offsets log, and one of its groups.
Group = tuple[str, str]


def _note(generations: dict[str, int], entry: e.LogEntry) -> None:
    """What the log says of a group last."""
    if isinstance(entry, e.GroupRecord):
        generations[entry.group_id] = entry.generation_id
    elif isinstance(entry, e.GroupTombstone):
        generations.pop(entry.group_id, None)


class S12Generations(Checker):
    """Generations rise, each has one leader, and SyncGroup answers what the leader sent.

    A coordinator that takes over goes on from the last generation in its log, which is no lower
    than what was stored there; one that has not heard of that goes on beside it, and stores
    nothing. A group that was removed, or whose creation could not be stored, begins again at its
    first generation.
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
        self._generation: dict[Group, int] = {}
        self._stored: dict[str, int] = {}
        self._leaders: dict[tuple[str, str, int], str] = {}
        self._sent: dict[tuple[str, str, int], dict[str, bytes]] = {}
        self._requests: dict[tuple[str, int], m.SyncGroupRequest] = {}
        self._joins: dict[tuple[str, int], str] = {}
        self._writes: dict[tuple[str, int], tuple[e.LogEntry, ...]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        gone: list[str] = []
        match fact:
            case e.LogReplayed():
                self._replayed(source, now_ms, fact)
            case e.RequestArrived(request=m.SyncGroupRequest() as request):
                self._requests[source, fact.token] = request
            case e.RequestArrived(request=m.JoinGroupRequest() as request):
                self._joins[source, fact.token] = request.group_id
            case e.RecordsAppended():
                gone = self._appended(source, fact)
            case _:
                pass
        for order in orders:
            if isinstance(order, e.StateChanged) and order.to_state == "CompletingRebalance":
                self._new_generation(source, now_ms, order)
            elif isinstance(order, e.AppendRecords):
                self._append(source, order)
            elif isinstance(order, e.SendResponse):
                self._answered(source, now_ms, order)
        # A timer that was overdue may have made a generation of it in the same step.
        for group_id in gone:
            self._forget(source, group_id)

    def _replayed(self, source: str, now_ms: int, fact: e.LogReplayed) -> None:
        begin_term(self._writes, source)
        self._generation = {key: n for key, n in self._generation.items() if key[0] != source}
        self._leaders = {key: name for key, name in self._leaders.items() if key[0] != source}
        found: dict[str, int] = {}
        for entry in fact.entries:
            _note(found, entry)
            if isinstance(entry, e.GroupRecord):
                self._keep(source, entry)
        for group_id, generation_id in found.items():
            self._generation[source, group_id] = generation_id
            before = self._stored.get(group_id, 0)
            if generation_id < before:
                self.accuse(
                    now_ms,
                    f"{source} loaded generation {generation_id} of {group_id} at "
                    f"{seconds(now_ms)}, but {before} had been stored.",
                )

    def _new_generation(self, source: str, now_ms: int, order: e.StateChanged) -> None:
        self.judged += 1
        group = source, order.group_id
        before = self._generation.get(group, 0)
        if order.generation_id <= before:
            self.accuse(
                now_ms,
                f"generation {order.generation_id} of {order.group_id} began at {seconds(now_ms)} "
                f"after generation {before}.",
            )
        self._generation[group] = order.generation_id

    def _append(self, source: str, order: e.AppendRecords) -> None:
        self._writes[source, order.append_id] = order.entries
        for entry in order.entries:
            if isinstance(entry, e.GroupRecord):
                self._keep(source, entry)
            elif isinstance(entry, e.GroupTombstone):
                self._forget(source, entry.group_id)

    def _appended(self, source: str, fact: e.RecordsAppended) -> list[str]:
        """Groups whose creation could not be stored."""
        gone: list[str] = []
        for entry in self._writes.pop((source, fact.append_id), ()):
            if fact.error_code == 0:
                _note(self._stored, entry)
            elif isinstance(entry, e.GroupRecord) and entry.generation_id == 0:
                self._forget(source, entry.group_id)
                gone.append(entry.group_id)
        return gone

    def _forget(self, source: str, group_id: str) -> None:
        """A group that is not there may begin again at its first generation."""
        self._generation.pop((source, group_id), None)
        group = source, group_id
        self._leaders = {key: name for key, name in self._leaders.items() if key[:2] != group}
        self._sent = {key: sent for key, sent in self._sent.items() if key[:2] != group}

    def _keep(self, source: str, entry: e.GroupRecord) -> None:
        if not entry.members:
            return  # nobody is answered
        shares = {member.member_id: member.assignment for member in entry.members}
        self._sent[source, entry.group_id, entry.generation_id] = shares
        oldest = entry.generation_id - KEPT_GENERATIONS
        self._sent.pop((source, entry.group_id, oldest), None)

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
            sent = self._sent.get((source, request.group_id, request.generation_id), {})
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
