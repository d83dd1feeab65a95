"""Brokers on sockets: which connections there are, and who answers what they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from ksim.broker.apis import Apis, Outcome, known_commit, known_delete, whole_commit, whole_delete
from ksim.broker.faults import error_response
from ksim.broker.links import Passage
from ksim.core import messages as m
from ksim.core.values import TopicPartition
from ksim.serve import groups
from ksim.serve.cluster import Cluster
from ksim.serve.connection import STREAM_BYTES, Answer, Connection
from ksim.serve.requests import request_data
from ksim.wire.server import Header, version_table

LOOKS: Final = 4  # how often within the idle time connections are looked at
LOOK_S: Final = (0.01, 1.0)


class BrokerServer:
    """One broker on its port."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self._apis = Apis(node_id, cluster.commons)
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None

    async def start(self, port: int) -> int:
        """Listen; returns the port (0 asks for any that is free)."""
        host = self.cluster.config.host
        self._server = await asyncio.start_server(self._accept, host, port, limit=STREAM_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        self.cluster.commons.ports[self.node_id] = bound
        self._looking = asyncio.create_task(self._look())
        return bound

    async def _look(self) -> None:
        """End connections that have not moved for too long."""
        least_s, most_s = LOOK_S
        every_s = self.cluster.config.connections_max_idle_ms / 1_000 / LOOKS
        while True:
            await asyncio.sleep(max(least_s, min(most_s, every_s)))
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.look(now_s)

    async def stop(self) -> None:
        """Close the port and all connections."""
        self.crash()
        await asyncio.gather(*self.connections.values(), return_exceptions=True)

    def crash(self) -> None:
        """Close the port and break all connections, without a word."""
        assert self._server is not None
        assert self._looking is not None
        self._server.close()
        self._looking.cancel()
        for connection, task in self.connections.items():
            connection.close()
            task.cancel()

    def disconnect(self, client_id: str) -> None:
        """Break the connections of a client."""
        for connection in list(self.connections):
            if connection.client_id == client_id:
                connection.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cluster = self.cluster
        connection = Connection(
            self, cluster.faults, cluster.config, cluster.queued, reader, writer
        )
        limit = cluster.config.max_connections
        if len(self.connections) >= limit:
            connection.end(f"{limit} are open")
            return
        task = asyncio.current_task()
        assert task is not None
        self.connections[connection] = task
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # the broker stops or the client went; nobody waits for this task but `stop`
        finally:
            del self.connections[connection]

    async def pass_on(self, client_id: str) -> None:
        """Return when a message of this client may pass.

        Raises ConnectionResetError where the client is refused, and where the message was lost as
        soon as the next one would not be: until then the connection is silent.
        """
        cluster = self.cluster
        lost = False
        while (passage := cluster.links.passage(client_id, self.node_id)) != Passage.OPEN:
            if passage == Passage.REFUSED:
                break
            lost = lost or passage == Passage.LOST
            await cluster.wait_for_news(None)
        if lost or passage == Passage.REFUSED:
            raise ConnectionResetError(f"{client_id} is {passage.value}")

    async def answer(self, kind: str, header: Header, raw: Any, client_host: str) -> Answer:
        """The answer to one request, however long it takes."""
        if kind == "ApiVersions":
            return version_table(0)
        data = request_data(raw)
        outcome = self._answered(kind, header, data)
        if outcome is not None:
            return outcome.answer if outcome.enough else await self._more(kind, header, data)
        if kind == "ListGroups":
            return await self._list_groups(header, raw, client_host)
        requests = groups.READERS[kind](raw, header.api_version)
        answers = await self._ask_all(requests, header, client_host)
        return groups.WRITERS[kind](answers, requests, header.api_version)

    def _answered(self, kind: str, header: Header, data: dict[str, Any]) -> Outcome | None:
        """The answer of now, and what it leads to elsewhere."""
        if kind == "Fetch":
            self._tell_positions(header.client_id, data)
        outcome = self._apis.answer(kind, data, header.api_version)
        if outcome is not None and outcome.deleted:
            self.cluster.topics_deleted(outcome.deleted)
        if outcome is not None and outcome.appended:
            self.cluster.tell_news()
        return outcome

    async def _more(self, kind: str, header: Header, data: dict[str, Any]) -> Answer:
        """What is there as soon as it is enough, or when the client has waited long enough."""
        until_ms = self.cluster.now_ms + data["max_wait_ms"]
        while True:
            left_ms = until_ms - self.cluster.now_ms
            if left_ms > 0:
                await self.cluster.wait_for_news(left_ms / 1_000)
            outcome = self._apis.answer(kind, data, header.api_version)
            assert outcome is not None, kind
            if outcome.enough or left_ms <= 0:
                return outcome.answer

    def _tell_positions(self, client_id: str, data: dict[str, Any]) -> None:
        for topic in data["topics"]:
            for asked in topic["partitions"]:
                tp = TopicPartition(topic["topic"], asked["partition"])
                self.cluster.on_fetch(client_id, tp, asked["fetch_offset"])

    async def _ask_all(
        self, requests: Sequence[m.Request], header: Header, client_host: str
    ) -> list[m.Response]:
        waiting = [self._ask(request, header, client_host) for request in requests]
        return list(await asyncio.gather(*waiting))

    async def _ask(self, request: m.Request, header: Header, client_host: str) -> m.Response:
        logs = self.cluster.state.logs
        match request:
            case m.OffsetCommitRequest():
                known = known_commit(request, logs)
                response = await self._coordinated(known, header, client_host)
                assert isinstance(response, m.OffsetCommitResponse)
                return whole_commit(request, response)
            case m.OffsetDeleteRequest():
                asked = known_delete(request, logs)
                response = await self._coordinated(asked, header, client_host)
                assert isinstance(response, m.OffsetDeleteResponse)
                return whole_delete(request, response)
            case _:
                return await self._coordinated(request, header, client_host)

    def refuse(self, kind: str, header: Header, raw: Any, error_code: int) -> Answer:
        """The answer that refuses a request instead of processing it."""
        version = header.api_version
        reader = groups.READERS.get(kind)
        if reader is not None:
            requests = reader(raw, version)
            answers = [error_response(request, error_code) for request in requests]
            return groups.WRITERS[kind](answers, requests, version)
        return self._apis.refuse(kind, request_data(raw), version, error_code)

    def _coordinated(
        self, request: m.Request, header: Header, client_host: str
    ) -> Awaitable[m.Response]:
        host = self.cluster.coordinator(self.node_id, groups.group_of(request))
        return host.ask(request, header.client_id, client_host, header.api_version)

    async def _list_groups(self, header: Header, raw: Any, client_host: str) -> Answer:
        request = m.ListGroupsRequest(tuple(raw.states_filter or ()), tuple(raw.types_filter or ()))
        answers: list[m.ListGroupsResponse] = []
        for host in self.cluster.hosts(self.node_id):
            found = await host.ask(request, header.client_id, client_host, header.api_version)
            assert isinstance(found, m.ListGroupsResponse)
            answers.append(found)
        return groups.listed(answers)
