"""The login of a connection by kafka-python's mechanisms. The one file that touches `kafka.net`.

Its requests are framed here and not by `KafkaProtocol`, which writes what it sends to its log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

from ksim.core.errors import AuthenticationError
from ksim.wire.errors import WireError

HANDSHAKE: Final[tuple[Any, Any]] = (SaslHandshakeRequest, SaslHandshakeResponse)
AUTHENTICATE: Final[tuple[Any, Any]] = (SaslAuthenticateRequest, SaslAuthenticateResponse)
HANDSHAKE_VERSION: Final = 1  # the one that is followed by SaslAuthenticate
SIZE_BYTES: Final = 4
MOST_BYTES: Final = 65_536
UNSUPPORTED_MECHANISM, ILLEGAL_STATE, REFUSED = 33, 34, 58


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, and how."""

    mechanism: str
    username: str
    password: str = field(repr=False)

    def begin(self) -> Any:
        """The mechanism at its beginning."""
        name = self.username
        if self.mechanism != "PLAIN":
            name = name.replace("=", "=3D").replace(",", "=2C")  # as SCRAM separates by them
        make: Any = get_sasl_mechanism
        return make(self.mechanism)(
            sasl_mechanism=self.mechanism,
            sasl_plain_username=name,
            sasl_plain_password=self.password,
        )


class Login:
    """One login: bytes of the broker in, bytes for it out. Raises AuthenticationError."""

    def __init__(
        self, credentials: Credentials, client_id: str, version: int, where: object
    ) -> None:
        self.done = False
        self.lifetime_ms = 0  # 0: for as long as the connection
        self._credentials = credentials
        self._mechanism = credentials.begin()
        self._client_id = client_id
        self._version = version
        self._where = where
        self._asked: tuple[Any, int] = (None, 0)
        self._correlation_id = 0
        self._read = bytearray()

    def begin(self) -> bytes:
        """The first request."""
        return self._ask(HANDSHAKE, HANDSHAKE_VERSION, mechanism=self._credentials.mechanism)

    def receive(self, data: bytes) -> bytes:
        """What to send next, if anything. Raises WireError for what is no answer."""
        self._read += data
        size = int.from_bytes(self._read[:SIZE_BYTES], "big", signed=True)
        if len(self._read) >= SIZE_BYTES and not 0 <= size <= MOST_BYTES:
            raise WireError(f"an answer to a login has {size} bytes")
        if len(self._read) < SIZE_BYTES + size or len(self._read) < SIZE_BYTES:
            return b""
        frame = bytes(self._read[SIZE_BYTES : SIZE_BYTES + size])
        del self._read[: SIZE_BYTES + size]
        kind, version = self._asked
        response = kind.decode(frame, version=version, header=True)
        if response.header.correlation_id != self._correlation_id or self._read:
            raise WireError("the broker answers what was not asked")
        return self._shaken(response) if kind is HANDSHAKE[1] else self._answered(response)

    def _ask(self, kind: tuple[Any, Any], version: int, **body: Any) -> bytes:
        self._correlation_id += 1
        request = kind[0](version=version, **body)
        request.with_header(correlation_id=self._correlation_id, client_id=self._client_id)
        self._asked = (kind[1], version)
        return bytes(request.encode(framed=True, header=True))

    def _shaken(self, response: Any) -> bytes:
        if response.error_code == UNSUPPORTED_MECHANISM:
            offered = ", ".join(response.mechanisms)
            raise self._refusal(f"the broker's mechanisms are {offered}")
        if response.error_code == ILLEGAL_STATE:
            raise self._refusal("this port of the broker has no logins")
        if response.error_code:
            raise WireError(f"SaslHandshake has error {response.error_code}")
        return self._ask(AUTHENTICATE, self._version, auth_bytes=self._mechanism.auth_bytes())

    def _answered(self, response: Any) -> bytes:
        if response.error_code in (REFUSED, ILLEGAL_STATE):
            raise self._refusal(response.error_message or "the broker does not say why")
        if response.error_code:
            raise WireError(f"SaslAuthenticate has error {response.error_code}")
        try:
            self._mechanism.receive(response.auth_bytes)
        except (LookupError, ValueError):
            raise self._refusal("the broker does not prove that it knows the password") from None
        if not self._mechanism.is_done():
            return self._ask(AUTHENTICATE, self._version, auth_bytes=self._mechanism.auth_bytes())
        if not self._mechanism.is_authenticated():
            raise self._refusal("the broker's answer is no consent")
        self.done = True
        self.lifetime_ms = response.session_lifetime_ms if self._version else 0
        return b""

    def _refusal(self, why: str) -> AuthenticationError:
        who, how = self._credentials.username, self._credentials.mechanism
        return AuthenticationError(f"login of {who!r} at {self._where} by {how} refused: {why}")
