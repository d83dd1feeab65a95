"""Requests to brokers and their outcomes, over sockets that one thread owns.

Connections are keyed by channel and node. A broker answers the requests of a connection in order
and parks JoinGroup and Fetch, so what parks must never stand before a heartbeat.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ksim.core.errors import ConfigError, NoBrokerError
from ksim.core.events import ANY_NODE, SendRequest
from ksim.core.messages import (
    FindCoordinatorResponse,
    MetadataRequest,
    MetadataResponse,
    Response,
)
from ksim.core.values import Payload
from ksim.real.clock import now_ms
from ksim.real.connection import Connection, Outcome
from ksim.real.lookup import Address
from ksim.real.security import Security
from ksim.texts import DEFAULT_PORT, parse_address

OPEN: Final = Security()
OnResult = Callable[[int, Response | None, Payload | None, str], None]

FIRST_SERVER_NODE: Final = -2  # bootstrap servers are nodes -2, -3, ... until brokers are known
META: Final = "meta"
BOOTSTRAP_REQUEST_ID: Final = -1  # never seen outside: the engine's ids count up from 0
BOOTSTRAP_RETRY_MS: Final = 100
# Timeouts of the selector do not count suspend; the clock does. Looking again this often is
# what bounds the difference after the machine slept.
LONGEST_WAIT_MS: Final = 1_000
WAKE_BYTES: Final = 4_096


def parse_server(text: str) -> Address:
    """Parse `host`, `host:port` or `[ipv6]:port`; raises ConfigError."""
    found = parse_address(text, DEFAULT_PORT)
    if found is None:
        raise ConfigError(f"bootstrap_servers has {text!r}: host:port, such as localhost:9092")
    return Address(*found)


class Transport:
    """Sends orders and calls `on_result` exactly once for each, always from within `poll`.

    All methods are the owner's, except `wake`, which any thread may call.
    """

    def __init__(
        self,
        servers: tuple[str, ...],
        client_id: str,
        on_result: OnResult,
        security: Security = OPEN,
    ) -> None:
        if not servers:
            raise ConfigError("bootstrap_servers = (): at least one host:port")
        parsed = [parse_server(server) for server in servers]
        self._servers = {FIRST_SERVER_NODE - at: address for at, address in enumerate(parsed)}
        self._nodes: dict[int, Address] = {}
        self._client_id = client_id
        self._on_result = on_result
        self._security = security
        self._connections: dict[tuple[str, int], Connection] = {}
        self._outcomes: deque[Outcome] = deque()
        self._rotation = 0
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)

    def bootstrap(self, timeout_ms: int) -> None:
        """Return when a broker has named the cluster's brokers.

        Raises NoBrokerError in time, and AuthenticationError at once.
        """
        assert timeout_ms > 0, f"timeout_ms = {timeout_ms}"
        until_ms = now_ms() + timeout_ms
        retry_at: dict[int, int] = dict.fromkeys(self._servers, now_ms())  # without a try under way
        reasons: dict[int, str] = {}
        while not self._nodes:
            left_ms = max(0, until_ms - now_ms())
            due = [node_id for node_id, at_ms in retry_at.items() if at_ms <= now_ms()]
            for node_id in due:
                if left_ms or node_id not in reasons:
                    del retry_at[node_id]
                    self._send_to(node_id, _bootstrap_order(node_id, max(1, left_ms)))
            waits = [left_ms, *(at_ms - now_ms() for at_ms in retry_at.values())]
            self._step(max(1, min(waits)))
            for outcome in self._take_outcomes():
                node_id = outcome.order.node_id
                retry_at[node_id] = now_ms() + BOOTSTRAP_RETRY_MS
                # The last try may run out of time, and would hide what those before it found.
                if not outcome.late or node_id not in reasons:
                    reasons[node_id] = outcome.reason or "it names no brokers"
            # A try may end some milliseconds late, and alone knows why there is no answer.
            if not left_ms and not self._nodes and len(retry_at) == len(self._servers):
                servers = ", ".join(map(str, self._servers.values()))
                why = "; ".join(dict.fromkeys(reasons.values()))
                raise NoBrokerError(f"no Kafka broker at {servers} within {timeout_ms} ms: {why}")
        for node_id in self._servers:
            self._drop((META, node_id), "bootstrap is over")
        self._outcomes.clear()  # only the bootstrap's own are there

    def send(self, order: SendRequest) -> None:
        """Send to `order.node_id`; the result comes by a later `poll`, never from here."""
        assert not self._closed, "send after close"
        assert order.request_id >= 0, f"request_id = {order.request_id}"
        assert order.request_timeout_ms > 0, f"request_timeout_ms = {order.request_timeout_ms}"
        node_id = self._any_node(order.channel) if order.node_id == ANY_NODE else order.node_id
        self._send_to(node_id, order)

    def poll(self, timeout_ms: int | None) -> None:
        """Wait for sockets, `wake` or this time (None: no limit of its own); give all results.

        Raises AuthenticationError where a broker refuses a login or a certificate is not trusted.
        """
        self._step(LONGEST_WAIT_MS if timeout_ms is None else timeout_ms)
        for outcome in self._take_outcomes():
            order, response, payload, reason, _ = outcome
            self._on_result(order.request_id, response, payload, reason)

    def wake(self) -> None:
        """From any thread: let `poll` return soon."""
        # Full means that a wake is on its way; closed means that nobody polls any more.
        with suppress(BlockingIOError, OSError):
            self._wake_in.send(b"\0")

    def close(self) -> None:
        """Close all connections. Requests without an answer get none."""
        if self._closed:
            return
        self._closed = True
        for key in list(self._connections):
            self._drop(key, "closed")
        self._outcomes.clear()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _step(self, timeout_ms: int) -> None:
        """One round of the selector; outcomes collect in their queue."""
        waits = [timeout_ms, LONGEST_WAIT_MS, 0 if self._outcomes else LONGEST_WAIT_MS]
        wakes = [connection.wake_ms for connection in self._connections.values()]
        waits += [at_ms - now_ms() for at_ms in wakes if at_ms is not None]
        for key, mask in self._selector.select(max(0, min(waits)) / 1_000):
            if key.data is None:
                self._wake_out.recv(WAKE_BYTES)
            else:
                key.data.handle(mask)
        # Answers that came while this process was stopped are read before deadlines are judged.
        for connection in list(self._connections.values()):
            connection.go_on()
            connection.expire(now_ms())
        for at in [at for at, connection in self._connections.items() if connection.closed]:
            refusal = self._connections.pop(at).refusal
            if refusal is not None:
                raise refusal

    def _take_outcomes(self) -> list[Outcome]:
        taken = list(self._outcomes)
        self._outcomes.clear()
        return taken

    def _send_to(self, node_id: int, order: SendRequest) -> None:
        address = self._nodes.get(node_id) or self._servers.get(node_id)
        if address is None:
            self._finish(Outcome(order, None, None, f"unknown node {node_id}"))
            return
        key = (order.channel, node_id)
        connection = self._connections.get(key)
        if connection is not None and connection.address != address:
            self._drop(key, f"node {node_id} moved to {address}")
            connection = None
        if connection is None or connection.closed:
            connection = Connection(
                address,
                self._client_id,
                self._selector,
                self._finish,
                self._security,
                self.wake,
            )
            self._connections[key] = connection
        if connection.closed:
            self._finish(Outcome(order, None, None, connection.reason))
        else:
            connection.send(order, now_ms())

    def _any_node(self, channel: str) -> int:
        """Stay with a broker while its connection holds; otherwise try the next one known."""
        candidates = [*sorted(self._nodes), *sorted(self._servers, reverse=True)]
        for node_id in candidates:
            connection = self._connections.get((channel, node_id))
            if connection is not None and not connection.closed:
                return node_id
        self._rotation += 1
        return candidates[(self._rotation - 1) % len(candidates)]

    def _finish(self, outcome: Outcome) -> None:
        """Keep an outcome for `poll`, after learning where brokers are."""
        response = outcome.response
        if isinstance(response, MetadataResponse) and response.brokers:
            self._nodes = {item.node_id: Address(item.host, item.port) for item in response.brokers}
        elif isinstance(response, FindCoordinatorResponse) and response.error_code == 0:
            self._nodes[response.node_id] = Address(response.host, response.port)
        self._outcomes.append(outcome)

    def _drop(self, key: tuple[str, int], reason: str) -> None:
        connection = self._connections.pop(key, None)
        if connection is not None:
            connection.close(reason)


def _bootstrap_order(node_id: int, timeout_ms: int) -> SendRequest:
    return SendRequest(BOOTSTRAP_REQUEST_ID, node_id, META, MetadataRequest(()), timeout_ms)
