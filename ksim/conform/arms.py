"""The two that are asked the same: the machine, and a broker behind sockets."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from random import Random
from typing import Any, Final

from ksim.core import events as e
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.messages import Request
from ksim.core.session import Session
from ksim.serve import groups
from ksim.wire.client import BY_NAME, read_response, rewritten, write_request
from ksim.wire.server import encoded

Data = dict[str, Any]
Told = Callable[[int, Data], None]
ANSWER_BYTES: Final = 2**20


class MachineArm:
    """The coordinator with the clock on the wall; its log never refuses."""

    def __init__(self, config: CoordinatorConfig, seed: int, told: Told) -> None:
        self._entropy = Random(seed)
        self._told = told
        self._tokens: dict[int, tuple[int, str, int, Request]] = {}
        self._next = 0
        self.machine = Coordinator(config, seed)
        self._session = Session(self.machine, self)
        self._feed(e.LogReplayed(()))

    @staticmethod
    def now_ms() -> int:
        return int(time.monotonic() * 1_000)

    def _feed(self, fact: Any) -> None:
        self._session.feed(fact, self.now_ms())

    def wake(self) -> int | None:
        """Fire what is due; returns in how many ms something is due next."""
        while (at_ms := self.machine.deadline_ms) is not None and at_ms <= self.now_ms():
            self._feed(e.TimerFired())
        return None if at_ms is None else at_ms - self.now_ms()

    def ask(self, number: int, name: str, version: int, data: Data, client_id: str) -> None:
        raw = BY_NAME[name].request.decode(
            encoded(BY_NAME[name].request, data, version), version=version
        )
        (request,) = groups.READERS[name](raw, version)
        token = self._next = self._next + 1
        self._tokens[token] = (number, name, version, request)
        static = getattr(request, "group_instance_id", None)
        bits = self._entropy.getrandbits(128)
        fresh = f"{static or client_id}-{uuid.UUID(int=bits, version=4)}"
        self._feed(e.RequestArrived(token, request, client_id, fresh, version))

    def perform(self, order: Any, now_ms: int) -> None:
        """Carry out one order of the machine."""
        del now_ms
        if isinstance(order, e.SendResponse):
            number, name, version, request = self._tokens.pop(order.token)
            answer = groups.WRITERS[name]([order.response], [request], version)
            self._told(number, rewritten(name, version, answer))
        elif isinstance(order, e.AppendRecords):
            self._feed(e.RecordsAppended(order.append_id, 0))


class BrokerArm:
    """A real coordinator; each request that may be parked has a connection of its own."""

    def __init__(self, host: str, port: int, told: Told) -> None:
        self._address = (host, port)
        self._told = told
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, number: int, name: str, version: int, data: Data, client_id: str) -> None:
        self._tasks.append(
            asyncio.create_task(self._exchange(number, name, version, data, client_id))
        )

    async def _exchange(
        self, number: int, name: str, version: int, data: Data, client_id: str
    ) -> None:
        self._told(number, await self.call(name, version, data, client_id))

    async def call(self, name: str, version: int, data: Data, client_id: str) -> Data:
        """One request and its answer."""
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(*self._address, limit=ANSWER_BYTES)
        try:
            writer.write(write_request(name, version, 1, client_id, data))
            size = int.from_bytes(await reader.readexactly(4), "big")
            _, answer = read_response(name, version, await reader.readexactly(size))
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append((reader, writer))
        return answer

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self._idle:
            writer.transport.abort()
