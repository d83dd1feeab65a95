"""One client on its socket: frames in, frames out, and an eye on clients that hold up too much."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any, Final, Protocol

from ksim.broker.faults import FaultAction, FaultBook, FaultRule
from ksim.wire.errors import WireError
from ksim.wire.server import (
    APIS,
    Header,
    is_spoken,
    read_header,
    read_request,
    unsupported_version,
    write_response,
)

LOG: Final = logging.getLogger("ksim.serve")
Answer = dict[str, Any]
STREAM_BYTES: Final = 65_536  # the stream stops reading at twice that


class Phase(Enum):
    """What a connection waits for."""

    REQUEST = "a request"
    REST = "the rest of a request"
    ANSWER = "an answer"
    READER = "its reader"


class Limits(Protocol):
    """The settings that a connection obeys."""

    @property
    def socket_request_max_bytes(self) -> int: ...

    @property
    def connections_max_idle_ms(self) -> int: ...


class Node(Protocol):
    """The broker behind the connection."""

    async def answer(self, kind: str, header: Header, raw: Any, client_host: str) -> Answer: ...

    def refuse(self, kind: str, header: Header, raw: Any, error_code: int) -> Answer: ...

    async def pass_on(self, client_id: str) -> None: ...

    def disconnect(self, client_id: str) -> None: ...


class Queued:
    """The bytes of unfinished requests and unread answers, over all connections.

    When they pass the limit, the connection that has held the most for the longest is closed.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.total_bytes = 0
        self._held: dict[Connection, int] = {}

    def hold(self, connection: Connection, size: int) -> None:
        """From now on this connection holds so many bytes."""
        self.total_bytes += size - self._held.pop(connection, 0)
        if size:
            self._held[connection] = size
        while self.total_bytes > self.most_bytes and self._held:
            now_s = asyncio.get_running_loop().time()
            worst = max(self._held, key=lambda each: self._held[each] * (now_s - each.since_s))
            self.total_bytes -= self._held.pop(worst)
            worst.end(f"all connections together hold more than {self.most_bytes} bytes")


class Connection:
    """One client. Like Kafka it looks at the next request when the one before is answered."""

    def __init__(
        self,
        node: Node,
        faults: FaultBook,
        limits: Limits,
        queued: Queued,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.client_id = ""
        self.phase = Phase.REQUEST
        self.since_s = asyncio.get_running_loop().time()
        self.task: asyncio.Task[None] | None = None
        self._node = node
        self._faults = faults
        self._limits = limits
        self._queued = queued
        self._reader = reader
        self._writer = writer
        self._unread_bytes = 0
        self._ended = False
        peer = writer.get_extra_info("peername") or ("?", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self._host = f"/{peer[0]}"

    async def run(self) -> None:
        """Serve until the client goes, or until it sends what nobody can read."""
        self.task = asyncio.current_task()
        try:
            while (frame := await self._next_frame()) is not None:
                self._wait_for(Phase.ANSWER)
                await self._handle(frame)
                await self._written()
        except WireError as error:
            self.end(str(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went; it need not say goodbye
        finally:
            self._queued.hold(self, 0)
            self.close()

    def close(self) -> None:
        self._writer.transport.abort()

    def end(self, reason: str) -> None:
        """Close it, with one line that says why."""
        if not self._ended:
            self._ended = True
            LOG.warning("closed the connection of %s: %s", self.peer, reason)
        self.close()

    def _wait_for(self, phase: Phase) -> None:
        self.phase = phase
        self.since_s = asyncio.get_running_loop().time()

    def look(self, now_s: float) -> None:
        """End what has not moved for too long; called now and then."""
        if self.phase == Phase.ANSWER:
            # Nothing is written while a request is parked: a client that went shows itself here.
            if self._reader.at_eof() and self.task is not None:
                self.task.cancel()
            return
        if self.phase == Phase.READER:
            unread_bytes = self._writer.transport.get_write_buffer_size()
            if unread_bytes < self._unread_bytes:
                self._unread_bytes = unread_bytes
                self.since_s = now_s
        idle_ms = int((now_s - self.since_s) * 1_000)
        if idle_ms > self._limits.connections_max_idle_ms:
            self.end(f"it has waited {idle_ms} ms for {self.phase.value}")

    async def _next_frame(self) -> bytes | None:
        self._wait_for(Phase.REQUEST)
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big", signed=True)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        limit = self._limits.socket_request_max_bytes
        if not 0 <= size <= limit:
            raise WireError(f"a frame of {size} bytes: 0 to {limit} are taken")
        self._wait_for(Phase.REST)
        if size <= STREAM_BYTES:
            return await self._reader.readexactly(size)
        frame = bytearray()
        while len(frame) < size:
            found = await self._reader.read(min(size - len(frame), STREAM_BYTES))
            if not found:
                raise ConnectionResetError("the client went within a frame")
            frame += found
            self._queued.hold(self, len(frame))
        return bytes(frame)

    async def _written(self) -> None:
        """Return when the client has read enough for the next answer."""
        transport = self._writer.transport
        self._wait_for(Phase.READER)
        self._unread_bytes = transport.get_write_buffer_size()
        self._queued.hold(self, self._unread_bytes)
        await self._writer.drain()
        self._queued.hold(self, transport.get_write_buffer_size())

    async def _handle(self, frame: bytes) -> None:
        header = read_header(frame)
        api = APIS[header.api_key]
        self.client_id = header.client_id
        await self._node.pass_on(header.client_id)
        if not is_spoken(api, header.api_version):
            answer = unsupported_version(header)
            if answer is None:
                raise WireError(
                    f"{api.name} {header.api_version}: versions {api.min_version} to "
                    f"{api.max_version} are spoken"
                )
            self._writer.write(answer)
            return
        raw = read_request(header, frame)
        found = await self._faulty(api.name, header, raw)
        await self._node.pass_on(header.client_id)
        if found is not None and not (api.name == "Produce" and raw.acks == 0):
            self._writer.write(write_response(header, found))

    async def _faulty(self, kind: str, header: Header, raw: Any) -> Answer | None:
        """Answer under the rules that strike the request and then its answer."""
        refused = await self._strike("request", kind, header, raw)
        if refused is not None:
            return refused
        answer = await self._node.answer(kind, header, raw, self._host)
        refused = await self._strike("response", kind, header, raw)
        return answer if refused is None else refused

    async def _strike(self, direction: str, kind: str, header: Header, raw: Any) -> Answer | None:
        rule: FaultRule | None = self._faults.decide(direction, kind, header.client_id)
        if rule is None:
            return None
        LOG.warning("%s of %s: %s", kind, header.client_id, rule.action)
        match rule.action:
            case FaultAction.DROP:
                # TCP loses nothing: a client sees a lost message as a connection that is silent.
                while await self._reader.read(STREAM_BYTES):
                    pass
                raise ConnectionResetError("the client gave up")
            case FaultAction.DELAY | FaultAction.LATE:
                await asyncio.sleep(rule.for_ms / 1_000)
            case FaultAction.DUPLICATE:
                await self._node.answer(kind, header, raw, self._host)
            case FaultAction.ERROR:
                return self._node.refuse(kind, header, raw, rule.error_code)
            case FaultAction.CRASH:
                self._node.disconnect(header.client_id)
                raise ConnectionResetError("crashed by a fault")
            case FaultAction.DISCONNECT:
                raise ConnectionResetError("disconnected by a fault")
        return None
