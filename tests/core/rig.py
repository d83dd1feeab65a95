"""A coordinator with a clock and a log, and members that are mere arguments."""

from __future__ import annotations

from typing import Any

from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.coordinator_shard import CLEANUP, check_everything
from ksim.core.events import (
    NEWEST_VERSION,
    AppendRecords,
    LogEntry,
    LogReplayed,
    RecordsAppended,
    RequestArrived,
    SendResponse,
    StateChanged,
    TimerFired,
)
from ksim.core.values import TopicPartition

RANGE = (("range", b"r"),)


class Rig:
    """`answers` is token -> (time, response); appends succeed at once unless `hold` is set."""

    def __init__(self, *, load: bool = True, seed: int = 1, **config: Any) -> None:
        self.machine = Coordinator(CoordinatorConfig(**config), seed)
        self.now = 0
        self.answers: dict[int, tuple[int, Any]] = {}
        self.log: list[LogEntry] = []
        self.changes: list[StateChanged] = []
        self.hold = False
        self.held: list[AppendRecords] = []
        self.tokens = 0
        if load:
            self.feed(LogReplayed(()))

    def feed(self, fact: Any) -> None:
        self.take(self.machine.step(fact, now_ms=self.now))
        if not self.hold:
            check_everything(self.machine._shard)

    def take(self, orders: list[Any]) -> None:
        for order in orders:
            match order:
                case SendResponse(token=token):
                    assert token not in self.answers, f"{token} answered twice"
                    self.answers[token] = (self.now, order.response)
                case AppendRecords():
                    self.held.append(order)
                case StateChanged():
                    self.changes.append(order)
        while self.held and not self.hold:
            self.appended(0)

    def appended(self, error_code: int) -> None:
        order = self.held.pop(0)
        if not error_code:
            self.log.extend(order.entries)
        self.take(self.machine.step(RecordsAppended(order.append_id, error_code), now_ms=self.now))

    def until(self, now: int) -> None:
        """Let time pass, waking the machine whenever it wants."""
        while (at := self.machine.deadline_ms) is not None and at <= now:
            self.now = max(at, self.now)
            self.feed(TimerFired())
        self.now = now

    def ask(self, request: Any, fresh: str | None = None, version: int = NEWEST_VERSION) -> int:
        self.tokens += 1
        name = f"fresh-{self.tokens}" if fresh is None else fresh
        self.feed(RequestArrived(self.tokens, request, "client", name, version))
        return self.tokens

    @property
    def idle(self) -> bool:
        """No timer of any group runs."""
        return set(self.machine.state.timers.live) == {CLEANUP}

    def group(self, name: str = "g") -> Any:
        return self.machine.state.groups[name]

    def at(self, token: int) -> int:
        return self.answers[token][0]

    def answer(self, token: int) -> Any:
        return self.answers[token][1]

    def code(self, token: int) -> int | None:
        """The error code, or None while the request is parked."""
        return int(self.answer(token).error_code) if token in self.answers else None

    # Requests

    def join(
        self,
        member: str = "",
        *,
        instance: str | None = None,
        session: int = 10_000,
        rebalance: int = 10_000,
        protocols: tuple[tuple[str, bytes], ...] = RANGE,
        group: str = "g",
        kind: str = "consumer",
        fresh: str | None = None,
        version: int = NEWEST_VERSION,
    ) -> int:
        request = m.JoinGroupRequest(group, session, rebalance, member, instance, kind, protocols)
        return self.ask(request, fresh, version)

    def add(self, member: str, **options: Any) -> int:
        """Both steps of a dynamic member's join; the token of the second."""
        first = self.join(fresh=member, **options)
        assert self.code(first) == 79
        return self.join(member, **options)

    def sync(
        self,
        member: str,
        generation: int = 1,
        assignments: tuple[tuple[str, bytes], ...] = (),
        *,
        instance: str | None = None,
        kind: str | None = "consumer",
        name: str | None = "range",
        group: str = "g",
    ) -> int:
        return self.ask(
            m.SyncGroupRequest(group, generation, member, instance, kind, name, assignments)
        )

    def heartbeat(
        self, member: str, generation: int = 1, instance: str | None = None, group: str = "g"
    ) -> int | None:
        return self.code(self.ask(m.HeartbeatRequest(group, generation, member, instance)))

    def leave(self, member: str, instance: str | None = None, group: str = "g") -> int | None:
        who = m.MemberIdentity(member, instance)
        response = self.answer(self.ask(m.LeaveGroupRequest(group, (who,))))
        return int(response.first_error)

    def commit(
        self,
        member: str = "",
        generation: int = -1,
        *,
        instance: str | None = None,
        group: str = "g",
        offset: int = 7,
        metadata: str = "",
    ) -> int:
        entry = m.OffsetAndMetadata("t", 0, offset, -1, metadata)
        return self.ask(m.OffsetCommitRequest(group, generation, member, instance, (entry,)))

    def commit_code(self, *arguments: Any, **options: Any) -> int:
        response = self.answer(self.commit(*arguments, **options))
        return int(response.partitions[0].error_code)

    def committed(self, group: str = "g") -> int:
        request = m.OffsetFetchRequest(group, (TopicPartition("t", 0),))
        response = self.answer(self.ask(request))
        assert response.error_code == 0
        return int(response.partitions[0].offset)

    def stable(self, *members: str, **options: Any) -> None:
        """A Stable group of these; the first leads. An instance id is written `id@instance`."""
        joins = []
        for name in members:
            member, _, instance = name.partition("@")
            if instance:
                joins.append(self.join(fresh=member, instance=instance, **options))
            else:
                joins.append(self.add(member, **options))
        while self.group().state == "PreparingRebalance":
            self.until(self.machine.deadline_ms or 0)
        assert [self.code(token) for token in joins] == [0] * len(joins)
        self.sync_all()

    def sync_all(self) -> None:
        group = self.group()
        everyone = tuple((member, member.encode()) for member in group.members)
        tokens = [
            self.sync(
                member.member_id,
                group.generation_id,
                everyone if member.member_id == group.leader else (),
                instance=member.group_instance_id,
                kind=group.protocol_type,
                name=group.protocol_name,
            )
            for member in list(group.members.values())
        ]
        assert [self.code(token) for token in tokens] == [0] * len(tokens)
        assert group.state == "Stable"


BOTH = (("range", b"r"), ("roundrobin", b"o"))
SWAPPED = BOTH[::-1]


def completing(*members: str, **options: Any) -> Rig:
    """A group whose members were just answered; generation 1."""
    rig = Rig(**options)
    for member in members:
        rig.add(member)
    while rig.group().state == "PreparingRebalance":
        rig.until(rig.machine.deadline_ms or 0)
    return rig
