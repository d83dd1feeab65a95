"""Brokers on sockets: frames in, frames out, one request of a connection at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from ksim.broker.faults import FaultAction, FaultRule, error_response
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.serve import groups
from ksim.serve.apis import Answer, Apis
from ksim.serve.cluster import Cluster
from ksim.wire.errors import WireError
from ksim.wire.server import (
    APIS,
    Header,
    is_spoken,
    read_header,
    read_request,
    unsupported_version,
    version_table,
    write_response,
)

LOG: Final = logging.getLogger("ksim.serve")
STREAM_BYTES: Final = 2**20


class Connection:
    """One client. Like Kafka it looks at the next request when the one before is answered."""

    def __init__(
        self, broker: BrokerServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.broker = broker
        self.client_id = ""
        self._reader = reader
        self._writer = writer
        peer = writer.get_extra_info("peername") or ("?", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self._host = f"/{peer[0]}"

    async def run(self) -> None:
        """Serve until the client goes, or until it sends what nobody can read."""
        try:
            while (frame := await self._next_frame()) is not None:
                await self._handle(frame)
                await self._writer.drain()
        except WireError as error:
            LOG.warning("closed the connection of %s: %s", self.peer, error)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went; it need not say goodbye
        finally:
            self.close()

    def close(self) -> None:
        self._writer.transport.abort()

    async def _next_frame(self) -> bytes | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big", signed=True)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        limit = self.broker.cluster.config.socket_request_max_bytes
        if not 0 <= size <= limit:
            raise WireError(f"a frame of {size} bytes: 0 to {limit} are taken")
        return await self._reader.readexactly(size)

    async def _handle(self, frame: bytes) -> None:
        header = read_header(frame)
        api = APIS[header.api_key]
        self.client_id = header.client_id
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
        if found is not None and not (api.name == "Produce" and raw.acks == 0):
            self._writer.write(write_response(header, found))

    async def _faulty(self, kind: str, header: Header, raw: Any) -> Answer | None:
        """Answer under the rules that strike the request and then its answer."""
        faults = self.broker.cluster.faults
        rule = faults.decide("request", kind, header.client_id)
        if rule is not None:
            refused = await self._strike(rule, kind, header, raw)
            if refused is not None:
                return refused
        answer = await self.broker.answer(kind, header, raw, self._host)
        rule = faults.decide("response", kind, header.client_id)
        if rule is not None:
            refused = await self._strike(rule, kind, header, raw)
            if refused is not None:
                return refused
        return answer

    async def _strike(self, rule: FaultRule, kind: str, header: Header, raw: Any) -> Answer | None:
        LOG.warning("%s of %s: %s", kind, header.client_id, rule.action)
        match rule.action:
            case FaultAction.DROP:
                # TCP loses nothing: a client sees a lost message as a connection that is silent.
                await self._reader.read()
                raise ConnectionResetError("the client gave up")
            case FaultAction.DELAY:
                await asyncio.sleep(rule.for_ms / 1_000)
            case FaultAction.DUPLICATE:
                await self.broker.answer(kind, header, raw, self._host)
            case FaultAction.ERROR:
                return self.broker.refuse(kind, header, raw, rule.error_code)
            case FaultAction.CRASH:
                self.broker.disconnect(header.client_id)
                raise ConnectionResetError("crashed by a fault")
        return None


def stamped(answer: Any, error_code: int) -> Any:
    """The same answer with this error wherever it can tell one, and without records."""
    if isinstance(answer, list):
        return [stamped(each, error_code) for each in answer]
    if not isinstance(answer, dict):
        return answer
    found = {key: stamped(item, error_code) for key, item in answer.items()}
    blank = {"error_code": error_code, "records": b"", "base_offset": -1, "offset": -1}
    return {key: blank.get(key, item) for key, item in found.items()}


Handler = Callable[[Any, int], Answer]


def _not_produced(raw: Any, error_code: int) -> Answer:
    blank = {"error_code": error_code, "base_offset": -1}
    return {
        "responses": [
            {
                "name": topic.name,
                "partition_responses": [
                    {"index": item.index, **blank} for item in topic.partition_data
                ],
            }
            for topic in raw.topic_data
        ]
    }


def _named(key: str, topics: Callable[[Any], list[str]]) -> Callable[[Any, int], Answer]:
    return lambda raw, code: {key: [{"name": name, "error_code": code} for name in topics(raw)]}


# What changes something is refused without being tried.
CHANGES: Final[dict[str, Callable[[Any, int], Answer]]] = {
    "Produce": _not_produced,
    "InitProducerId": lambda _, code: {"error_code": code, "producer_id": -1, "producer_epoch": -1},
    "CreateTopics": _named("topics", lambda raw: [topic.name for topic in raw.topics]),
    "CreatePartitions": _named("results", lambda raw: [topic.name for topic in raw.topics]),
    "DeleteTopics": _named("responses", lambda raw: list(raw.topic_names)),
}


class BrokerServer:
    """One broker on its port."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self._apis = apis = Apis(cluster, node_id)
        self._server: asyncio.Server | None = None
        self._handlers: dict[str, Handler] = {
            "Metadata": apis.metadata,
            "DescribeCluster": apis.describe_cluster,
            "FindCoordinator": apis.find_coordinator,
            "Produce": apis.produce,
            "InitProducerId": apis.init_producer_id,
            "ListOffsets": apis.list_offsets,
            "OffsetForLeaderEpoch": apis.offset_for_leader_epoch,
            "CreateTopics": apis.create_topics,
            "CreatePartitions": apis.create_partitions,
            "DeleteTopics": apis.delete_topics,
            "ApiVersions": lambda _, __: version_table(0),
        }

    async def start(self, port: int) -> int:
        """Listen; returns the port (0 asks for any that is free)."""
        host = self.cluster.config.host
        self._server = await asyncio.start_server(self._accept, host, port, limit=STREAM_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        self.cluster.ports[self.node_id] = bound
        return bound

    async def stop(self) -> None:
        """Close the port and all connections."""
        assert self._server is not None
        self._server.close()
        for task in self.connections.values():
            task.cancel()
        await asyncio.gather(*self.connections.values(), return_exceptions=True)

    def disconnect(self, client_id: str) -> None:
        """Break the connections of a client."""
        for connection in list(self.connections):
            if connection.client_id == client_id:
                connection.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        limit = self.cluster.config.max_connections
        if len(self.connections) >= limit:
            LOG.warning("closed the connection of %s: %d are open", connection.peer, limit)
            connection.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self.connections[connection] = task
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # the broker stops; nobody waits for this task's end but `stop`
        finally:
            del self.connections[connection]

    async def answer(self, kind: str, header: Header, raw: Any, client_host: str) -> Answer:
        """The answer to one request, however long it takes."""
        handler = self._handlers.get(kind)
        if handler is not None:
            return handler(raw, header.api_version)
        if kind == "Fetch":
            return await self._apis.fetch(raw, header.api_version)
        if kind == "ListGroups":
            return await self._list_groups(header, raw, client_host)
        requests = groups.READERS[kind](raw, header.api_version)
        answers = await self._ask_all(requests, header, client_host)
        return groups.WRITERS[kind](answers, requests, header.api_version)

    async def _ask_all(
        self, requests: Sequence[m.Request], header: Header, client_host: str
    ) -> list[m.Response]:
        waiting = [self._ask(request, header, client_host) for request in requests]
        return list(await asyncio.gather(*waiting))

    async def _ask(self, request: m.Request, header: Header, client_host: str) -> m.Response:
        """Partitions that do not exist are refused here; the coordinator never sees them."""
        if not isinstance(request, m.OffsetCommitRequest):
            return await self._coordinated(request, header, client_host)
        known = [
            TopicPartition(item.topic, item.partition) in self.cluster.state.logs
            for item in request.offsets
        ]
        pairs = zip(request.offsets, known, strict=True)
        kept = tuple(item for item, is_known in pairs if is_known)
        narrowed = m.OffsetCommitRequest(
            request.group_id,
            request.generation_id,
            request.member_id,
            request.group_instance_id,
            kept,
            request.retention_time_ms,
        )
        response = await self._coordinated(narrowed, header, client_host)
        assert isinstance(response, m.OffsetCommitResponse)
        told = {(each.topic, each.partition): each for each in response.partitions}
        unknown = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
        return m.OffsetCommitResponse(
            tuple(
                told.get((item.topic, item.partition))
                or m.PartitionError(item.topic, item.partition, unknown)
                for item in request.offsets
            )
        )

    def refuse(self, kind: str, header: Header, raw: Any, error_code: int) -> Answer:
        """The answer that refuses a request instead of processing it."""
        version = header.api_version
        reader = groups.READERS.get(kind)
        if reader is not None:
            requests = reader(raw, version)
            answers = [error_response(request, error_code) for request in requests]
            return groups.WRITERS[kind](answers, requests, version)
        if kind in CHANGES:
            return CHANGES[kind](raw, error_code)
        handler = self._apis.fetched_now if kind == "Fetch" else self._handlers.get(kind)
        found = {"error_code": error_code} if handler is None else handler(raw, version)
        refused: Answer = stamped(found, error_code)
        return refused

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
