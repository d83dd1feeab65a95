"""One connection to one broker: versions first, then requests in order, each with a deadline."""

from __future__ import annotations

import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NamedTuple

from kafka.errors import IncompatibleBrokerVersion, KafkaError
from kafka.protocol.broker_version_data import BrokerVersionData
from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.parser import KafkaProtocol

from ksim.core.events import SendRequest
from ksim.core.messages import Response
from ksim.core.values import Payload
from ksim.wire.codec import WireError, decode_response, encode_request

PROTOCOL: Final[Any] = KafkaProtocol
VERSION_DATA: Final[Any] = BrokerVersionData
API_VERSIONS: Final[Any] = ApiVersionsRequest
API_VERSIONS_VERSION: Final = 3  # brokers that do not know it answer in version 0
UNSUPPORTED_VERSION: Final = 35
RECEIVE_BYTES: Final = 262_144
RECEIVE_ROUNDS: Final = 16  # no connection may keep the owner to itself
# What the parser and the decoders raise on bytes that make no sense.
UNREADABLE: Final = (KafkaError, WireError, LookupError, ValueError)


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Outcome(NamedTuple):
    """How a request ended: with a response, or with a reason why there is none."""

    order: SendRequest
    response: Response | None
    payload: Payload | None
    reason: str


class State(Enum):
    """The life of a connection; it only moves down this list."""

    CONNECTING = "connecting"
    NEGOTIATING = "negotiating"
    READY = "ready"
    CLOSED = "closed"


class Connection:
    """A non-blocking socket with Kafka's framing. Only its owner's thread touches it.

    A request that gets no answer in time ends the connection, as answers come in order: what
    waits behind it would wait for the same broker.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        selector: selectors.BaseSelector,
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self.address = address
        self.state = State.CONNECTING
        self._selector = selector
        self._on_outcome = on_outcome
        self._parser = PROTOCOL(client_id=client_id)
        self._out = bytearray()
        self._socket: socket.socket | None = None
        self._targets: deque[tuple[socket.AddressFamily, Any]] = deque()
        self._versions: Any = None
        self._negotiation_id = 0
        self._waiting: deque[tuple[SendRequest, int]] = deque()
        self._in_flight: dict[int, tuple[SendRequest, int]] = {}
        self._resolve()

    @property
    def closed(self) -> bool:
        """True when nothing can be sent any more."""
        return self.state is State.CLOSED

    @property
    def deadline_ms(self) -> int | None:
        """When the next request runs out of time; None: nothing waits."""
        deadlines = [at_ms for _, at_ms in self._in_flight.values()]
        deadlines += [at_ms for _, at_ms in self._waiting]
        return min(deadlines, default=None)

    def send(self, order: SendRequest, now_ms: int) -> None:
        """Send now, or as soon as the broker's versions are known; its outcome follows."""
        assert not self.closed, f"send on the closed connection to {self.address}"
        self._waiting.append((order, now_ms + order.request_timeout_ms))
        if self.state is State.READY:
            self._send_waiting()

    def handle(self, mask: int) -> None:
        """React to what the selector saw."""
        if self.closed:
            return  # closed by an earlier event of the same round
        if self.state is State.CONNECTING:
            self._finish_connect()
            return
        if mask & selectors.EVENT_READ:
            self._receive()
        if mask & selectors.EVENT_WRITE and not self.closed:
            self._flush()

    def expire(self, now_ms: int) -> None:
        """End the connection if a request is out of time."""
        deadline_ms = self.deadline_ms
        if deadline_ms is not None and deadline_ms <= now_ms and not self.closed:
            self.close(f"no answer from {self.address} in time")

    def close(self, reason: str) -> None:
        """Close the socket; every request without an answer ends with this reason."""
        if self.closed:
            return
        assert reason, "a connection is closed for a reason"
        self.state = State.CLOSED
        self._drop_socket()
        unanswered = [order for order, _ in (*self._in_flight.values(), *self._waiting)]
        self._in_flight.clear()
        self._waiting.clear()
        for order in unanswered:
            self._on_outcome(Outcome(order, None, None, reason))

    def _resolve(self) -> None:
        try:
            found = socket.getaddrinfo(*self.address, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self.close(f"cannot resolve {self.address.host}: {error}")
            return
        self._targets.extend((family, target) for family, _, _, _, target in found)
        self._connect_next("no address")

    def _connect_next(self, reason: str) -> None:
        """Try the addresses of the name in turn; the last failure is the reason of the end."""
        while self._targets:
            family, target = self._targets.popleft()
            self._drop_socket()
            try:
                self._socket = socket.socket(family, socket.SOCK_STREAM)
                self._socket.setblocking(False)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(BlockingIOError):
                    self._socket.connect(target)
            except OSError as error:
                reason = str(error)
                continue
            self._selector.register(self._socket, selectors.EVENT_WRITE, self)
            return
        self.close(f"cannot connect to {self.address}: {reason}")

    def _finish_connect(self) -> None:
        assert self._socket is not None
        error_number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            self._connect_next(os.strerror(error_number))
            return
        self.state = State.NEGOTIATING
        self._negotiate(API_VERSIONS_VERSION)

    def _negotiate(self, version: int) -> None:
        request = API_VERSIONS(
            version=version, client_software_name="ksim", client_software_version="1"
        )
        self._negotiation_id = self._parser.send_request(request)
        self._flush()

    def _negotiated(self, response: Any) -> None:
        if response.error_code == UNSUPPORTED_VERSION and response.API_VERSION == 0:
            if self._negotiation_id > 1:
                raise WireError("ApiVersions in version 0 is refused")
            self._negotiate(0)
            return
        if response.error_code:
            raise WireError(f"ApiVersions has error {response.error_code}")
        ranges = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys}
        self._versions = VERSION_DATA(api_versions=ranges)
        self.state = State.READY
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting:
            order, deadline_ms = self._waiting.popleft()
            message = encode_request(order.request)
            try:
                message.API_VERSION = self._versions.api_version(message)
            except IncompatibleBrokerVersion as error:
                self._on_outcome(Outcome(order, None, None, str(error)))
                continue
            correlation_id = self._parser.send_request(message)
            assert correlation_id not in self._in_flight
            self._in_flight[correlation_id] = (order, deadline_ms)
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None
        self._out += self._parser.send_bytes()
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(f"lost the connection to {self.address}: {error}")
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if self._selector.get_key(self._socket).events != wanted:
            self._selector.modify(self._socket, wanted, self)

    def _receive(self) -> None:
        for _ in range(RECEIVE_ROUNDS):
            if self.closed:
                return
            assert self._socket is not None
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(f"lost the connection to {self.address}: {error}")
                return
            if not data:
                self.close(f"{self.address} closed the connection")
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            for correlation_id, raw in self._parser.receive_bytes(data):
                if correlation_id == self._negotiation_id:
                    self._negotiated(raw)
                else:
                    self._answered(correlation_id, raw)
        except UNREADABLE as error:
            text = str(error) or type(error).__name__
            self.close(f"cannot read what {self.address} sent: {text}")

    def _answered(self, correlation_id: int, raw: Any) -> None:
        # Taken out only when it could be read: otherwise closing answers it, once.
        order, _ = self._in_flight[correlation_id]
        response, payload = decode_response(order.request, raw)
        del self._in_flight[correlation_id]
        self._on_outcome(Outcome(order, response, payload, ""))

    def _drop_socket(self) -> None:
        if self._socket is None:
            return
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self._socket = None
