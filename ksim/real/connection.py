"""One connection to one broker: versions, a login, then requests in order with deadlines each."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NamedTuple

from kafka.errors import IncompatibleBrokerVersion, KafkaError
from kafka.protocol.parser import KafkaProtocol

from ksim.core.errors import AuthenticationError
from ksim.core.events import SendRequest
from ksim.core.messages import Response
from ksim.core.values import Payload
from ksim.real.clock import now_ms
from ksim.real.lookup import Address, Lookup, Target
from ksim.real.sasl import AUTHENTICATE, Login
from ksim.real.security import Security
from ksim.real.tls import Plain, Wrapping, explained
from ksim.wire.codec import WireError, decode_response, encode_request
from ksim.wire.compiled import API_VERSIONS_VERSION, VERSION_DATA, api_versions_request

PROTOCOL: Final[Any] = KafkaProtocol
UNSUPPORTED_VERSION: Final = 35
RECEIVE_BYTES: Final = 262_144
RECEIVE_ROUNDS: Final = 16  # no connection may keep the owner to itself
# What the parser and the decoders raise on bytes that make no sense.
UNREADABLE: Final = (
    KafkaError, WireError, LookupError, ValueError, TypeError, struct.error, MemoryError,
    OverflowError,
)  # fmt: skip
AUTHENTICATE_KEY: Final = 36
CONNECT_MS: Final = 10_000  # for one address of several, as Apache Kafka's client
NEW_LOGIN_PERCENT: Final = 85  # of the lifetime of a login, as Apache Kafka's client at the least
# How others begin who are no Kafka broker, or not on this port.
FOREIGN: Final = {b"\x15\x03": "TLS", b"\x16\x03": "TLS", b"HTTP": "HTTP", b"SSH-": "SSH"}


class Outcome(NamedTuple):
    """How a request ended: with a response, or with a reason why there is none.

    `late`: nothing is known but that time ran out.
    """

    order: SendRequest
    response: Response | None
    payload: Payload | None
    reason: str
    late: bool = False


class State(Enum):
    """The life of a connection; it moves down this list, and from READY to a new login."""

    RESOLVING = "resolving"
    CONNECTING = "connecting"
    ENCRYPTING = "encrypting"
    NEGOTIATING = "negotiating"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    CLOSED = "closed"


# What to look at when a connection ends at this point of its life.
DOUBTS: Final = {
    State.RESOLVING: ": its name is not resolved",
    State.ENCRYPTING: " during the TLS handshake: is security_protocol right for this port?",
    State.NEGOTIATING: ": is it a Kafka broker, and is security_protocol right for this port?",
    State.AUTHENTICATING: " during the login",
}


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
        security: Security,
        wake: Callable[[], None],
    ) -> None:
        self.address = address
        self.state = State.RESOLVING
        self.reason = ""
        self.refusal: AuthenticationError | None = None
        self._client_id = client_id
        self._security = security
        self._wrapping: Wrapping = Plain()
        self._login: Login | None = None
        self._login_version = 0
        self._login_again_ms: int | None = None
        self._first = b""
        self._answers = 0
        self._selector = selector
        self._on_outcome = on_outcome
        self._parser = PROTOCOL(client_id=client_id)
        self._out = bytearray()
        self._socket: socket.socket | None = None
        self._lookup = Lookup(address, wake)
        self._targets: deque[Target] = deque()
        self._began_ms = 0
        self._versions: Any = None
        self._negotiation_id = 0
        self._waiting: deque[tuple[SendRequest, int]] = deque()
        self._in_flight: dict[int, tuple[SendRequest, int]] = {}
        self.go_on()

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

    @property
    def wake_ms(self) -> int | None:
        """When `expire` has to be called next; None: nothing waits."""
        return self._next_address_ms if self._next_address_ms is not None else self.deadline_ms

    @property
    def _next_address_ms(self) -> int | None:
        """When the next address of the name has its turn: one that drops packets never fails."""
        deadline_ms = self.deadline_ms
        if self.state is not State.CONNECTING or not self._targets or deadline_ms is None:
            return None
        share_ms = max(0, deadline_ms - self._began_ms) // (1 + len(self._targets))
        return self._began_ms + min(share_ms, CONNECT_MS)

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
        """End the connection if a request is out of time, and an attempt if its time is over."""
        next_address_ms = self._next_address_ms
        if next_address_ms is not None and next_address_ms <= now_ms:
            self._connect_next("no answer in time")
        deadline_ms = self.deadline_ms
        if deadline_ms is not None and deadline_ms <= now_ms and not self.closed:
            self.close(f"no answer from {self.address} in time{self._doubt()}", late=True)

    def close(self, reason: str, *, late: bool = False) -> None:
        """Close the socket; every request without an answer ends with this reason."""
        if self.closed:
            return
        assert reason, "a connection is closed for a reason"
        self.state = State.CLOSED
        self.reason = reason
        self._drop_socket()
        unanswered = [order for order, _ in (*self._in_flight.values(), *self._waiting)]
        self._in_flight.clear()
        self._waiting.clear()
        for order in unanswered:
            self._on_outcome(Outcome(order, None, None, reason, late))

    def go_on(self) -> None:
        """Connect as soon as the addresses are known; to be called after each wake."""
        if self.state is not State.RESOLVING or not self._lookup.done:
            return
        if self._lookup.reason:
            self.close(self._lookup.reason)
            return
        self.state = State.CONNECTING
        self._targets.extend(self._lookup.targets)
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
            self._began_ms = now_ms()
            return
        self.close(f"cannot connect to {self.address}: {reason}")

    def _finish_connect(self) -> None:
        assert self._socket is not None
        error_number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            self._connect_next(os.strerror(error_number))
            return
        try:
            self._wrapping = self._security.wrapping(self.address.host, self.address)
        except ValueError as error:
            self.close(f"no TLS with {self.address}: {error}")
            return
        self.state = State.ENCRYPTING
        self._encrypt()

    def _encrypt(self) -> None:
        if self._wrapping.ready:
            self.state = State.NEGOTIATING
            self._negotiate(API_VERSIONS_VERSION)
        else:
            self._flush()

    def _negotiate(self, version: int) -> None:
        self._negotiation_id = self._parser.send_request(api_versions_request(version))
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
        _, offered = ranges.get(AUTHENTICATE_KEY, (0, 0))
        self._login_version = min(AUTHENTICATE[0].max_version, offered)
        self._begin_login()

    def _begin_login(self) -> None:
        credentials = self._security.credentials
        if credentials is None:
            self.state = State.READY
            self._send_waiting()
            return
        self.state = State.AUTHENTICATING
        self._login = Login(credentials, self._client_id, self._login_version, self.address)
        self._wrapping.send(self._login.begin())
        self._flush()

    def _log_in(self, data: bytes) -> None:
        assert self._login is not None
        self._wrapping.send(self._login.receive(data))
        if not self._login.done:
            self._flush()
            return
        lifetime_ms = self._login.lifetime_ms * NEW_LOGIN_PERCENT // 100
        self._login_again_ms = now_ms() + lifetime_ms if lifetime_ms else None
        self._login = None
        self.state = State.READY
        self._send_waiting()

    def _send_waiting(self) -> None:
        # A broker ends a connection whose login has run out at the next request, unless that
        # request begins a new login. Nothing may be under way meanwhile.
        if self._waiting and self._login_again_ms is not None and now_ms() >= self._login_again_ms:
            if not self._in_flight:
                self._begin_login()
            return
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
        if self._wrapping.ready:
            self._wrapping.send(self._parser.send_bytes())
        self._out += self._wrapping.take()
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
            if data:
                self._take(data)
            if (not data or self._wrapping.ended) and not self.closed:
                self.close(f"{self.address} closed the connection{self._doubt()}")

    def _take(self, data: bytes) -> None:
        try:
            self._read(self._wrapping.receive(data))
        except AuthenticationError as error:
            self._refuse(error)
        except ssl.SSLError as error:
            self._last_words()
            self.close(explained(error, self.address))
        except UNREADABLE as error:
            self.close(self._senseless(str(error) or type(error).__name__))

    def _read(self, data: bytes) -> None:
        if self.state is State.ENCRYPTING:
            self._encrypt()
        if self.state is State.AUTHENTICATING:
            self._log_in(data)
            return
        self._first = self._first or data[:4]
        for correlation_id, raw in self._parser.receive_bytes(data):
            if correlation_id == self._negotiation_id:
                self._negotiated(raw)
            else:
                self._answered(correlation_id, raw)

    def _senseless(self, error: str) -> str:
        starts = (self._first, self._first[:2])
        foreign = next((FOREIGN[start] for start in starts if start in FOREIGN), None)
        if self.state is State.NEGOTIATING and foreign is not None:
            return f"{self.address} speaks {foreign}: is security_protocol right for this port?"
        return f"cannot read what {self.address} sent: {error}{self._doubt()}"

    def _doubt(self) -> str:
        """What to look at when a connection ends that was never of use."""
        if self.state is State.READY and not self._answers and self._security.credentials is None:
            return " at the first request: does it want a login?"
        return DOUBTS.get(self.state, "")

    def _refuse(self, error: AuthenticationError) -> None:
        self._last_words()
        self.refusal = error
        self.close(str(error))

    def _last_words(self) -> None:
        """An alert tells the broker why, if it can be sent at once."""
        assert self._socket is not None
        with suppress(OSError):
            self._socket.send(self._wrapping.take())

    def _answered(self, correlation_id: int, raw: Any) -> None:
        # Taken out only when it could be read: otherwise closing answers it, once.
        order, _ = self._in_flight[correlation_id]
        response, payload = decode_response(order.request, raw)
        del self._in_flight[correlation_id]
        self._answers += 1
        self._on_outcome(Outcome(order, response, payload, ""))
        if self._waiting and not self._in_flight:
            self._send_waiting()

    def _drop_socket(self) -> None:
        if self._socket is None:
            return
        with suppress(KeyError, ValueError):
            self._selector.unregister(self._socket)
        self._socket.close()
        self._socket = None
