"""The two that are asked the same: the machine, and a broker behind sockets."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.session import Session
from ksim.serve import groups
from ksim.wire.client import BY_NAME, read_response, rewritten, write_request
from ksim.wire.errors import WireError
from ksim.wire.server import encoded

Data = dict[str, Any]
Told = Callable[[int, Data], None]
Leader = tuple[str, str | None]
BROKEN: Final = "no answer, but"  # the field of what came instead of one


def _list_groups(raw: Any, version: int) -> list[m.Request]:
    del version
    return [m.ListGroupsRequest(tuple(raw.states_filter or ()), tuple(raw.types_filter or ()))]


def _listed(answers: Any, requests: Any, version: int) -> Data:
    del requests, version
    return groups.listed(answers)


READERS: Final = {**groups.READERS, "ListGroups": _list_groups}
WRITERS: Final = {**groups.WRITERS, "ListGroups": _listed}


@dataclass(slots=True)
class _Call:
    """A request and what came back so far; one for several groups is one for each of them."""

    number: int
    name: str
    version: int
    requests: list[m.Request]
    answers: dict[int, m.Response] = field(default_factory=dict)


class MachineArm:
    """The coordinator with the clock on the wall; its log never refuses.

    `written` are the groups that the log knows of; `drawn` those whose leader was taken by
    chance, where Kafka takes one in hash order.
    """

    def __init__(self, config: CoordinatorConfig, seed: int, told: Told) -> None:
        self._entropy = Random(seed)
        self._told = told
        self._calls: dict[int, tuple[_Call, int]] = {}
        self._next = 0
        self.written: set[str] = set()
        self.drawn: set[str] = set()
        self.machine = Coordinator(config, seed)
        self._session = Session(self.machine, self)
        self._feed(e.LogReplayed(()))

    @staticmethod
    def now_ms() -> int:
        return int(time.monotonic() * 1_000)

    def _feed(self, fact: Any) -> None:
        before = self._leaders()
        self._session.feed(fact, self.now_ms())
        after = self._leaders()
        for group_id in before | after:
            was, now = before.get(group_id), after.get(group_id)
            if was is None or now is None:
                self.drawn.discard(group_id)
            elif was[0] != now[0] and not self._goes_on(group_id, was, now):
                self.drawn.add(group_id)

    def _leaders(self) -> dict[str, Leader]:
        """Leader and instance id: a static leader that came back has only changed its id."""
        return {
            group_id: (group.leader, group.members[group.leader].group_instance_id)
            for group_id, group in self.machine.state.groups.items()
            if group.leader is not None
        }

    def _goes_on(self, group_id: str, was: Leader, now: Leader) -> bool:
        """A static leader may have a new id; only one that is gone, or static and late, is
        replaced."""
        if now[1] is not None and now[1] == was[1]:
            return True
        member = self.machine.state.groups[group_id].members.get(was[0])
        return member is not None and member.group_instance_id is None

    def wake(self) -> int | None:
        """Fire what is due; returns in how many ms something is due next."""
        while (at_ms := self.machine.deadline_ms) is not None and at_ms <= self.now_ms():
            self._feed(e.TimerFired())
        return None if at_ms is None else at_ms - self.now_ms()

    def ask(self, number: int, name: str, version: int, data: Data, client_id: str) -> None:
        raw = BY_NAME[name].request.decode(
            encoded(BY_NAME[name].request, data, version), version=version
        )
        call = _Call(number, name, version, READERS[name](raw, version))
        for at, request in enumerate(call.requests):
            token = self._next = self._next + 1
            self._calls[token] = call, at
            static = getattr(request, "group_instance_id", None)
            bits = self._entropy.getrandbits(128)
            fresh = f"{static or client_id}-{uuid.UUID(int=bits, version=4)}"
            self._feed(e.RequestArrived(token, request, client_id, fresh, version))

    def perform(self, order: Any, now_ms: int) -> None:
        """Carry out one order of the machine."""
        del now_ms
        if isinstance(order, e.SendResponse):
            self._answered(*self._calls.pop(order.token), order.response)
        elif isinstance(order, e.AppendRecords):
            for entry in order.entries:
                if isinstance(entry, e.GroupTombstone):
                    self.written.discard(entry.group_id)
                else:
                    self.written.add(entry.group_id)
            self._feed(e.RecordsAppended(order.append_id, 0))

    def _answered(self, call: _Call, at: int, response: m.Response) -> None:
        call.answers[at] = response
        if len(call.answers) == len(call.requests):
            answers = [call.answers[at] for at in sorted(call.answers)]
            answer = WRITERS[call.name](answers, call.requests, call.version)
            self._told(call.number, rewritten(call.name, call.version, answer))


class BrokerArm:
    """A real coordinator; each request that may be parked has a connection of its own."""

    def __init__(self, host: str, port: int, told: Told) -> None:
        self._address = (host, port)
        self._told = told
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def ask(self, number: int, name: str, version: int, data: Data, client_id: str) -> None:
        self._tasks[number] = asyncio.create_task(
            self._exchange(number, name, version, data, client_id)
        )

    async def _exchange(
        self, number: int, name: str, version: int, data: Data, client_id: str
    ) -> None:
        try:
            answer = await self.call(name, version, data, client_id)
        except (OSError, asyncio.IncompleteReadError, WireError) as error:
            answer = {"error_code": None, BROKEN: f"{type(error).__name__}: {error}"}
        self._told(number, answer)

    async def call(self, name: str, version: int, data: Data, client_id: str) -> Data:
        """One request and its answer."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(write_request(name, version, 1, client_id, data))
            size = int.from_bytes(await reader.readexactly(4), "big")
            _, answer = read_response(name, version, await reader.readexactly(size))
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        return answer

    async def hang_up(self, numbers: Iterable[int]) -> None:
        """Close the connections of these requests, and one where nothing is under way."""
        tasks = [self._tasks.pop(number) for number in numbers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._idle:
            _, writer = self._idle.pop()
            writer.transport.abort()

    async def close(self) -> None:
        await self.hang_up(list(self._tasks))
        for _, writer in self._idle:
            writer.transport.abort()
