"""TLS without sockets: bytes of the network in, bytes of Kafka out, and the reverse."""

from __future__ import annotations

import ssl
from typing import Final, Protocol

from ksim.core.errors import AuthenticationError

READ_BYTES: Final = 262_144
# What says that the other side's certificate, or ours, is not believed.
DISTRUST: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


class Wrapping(Protocol):
    """What stands between a socket and Kafka's frames."""

    @property
    def ready(self) -> bool:
        """Kafka's bytes may be sent."""

    @property
    def ended(self) -> bool:
        """The other side will send no more."""

    def receive(self, data: bytes) -> bytes:
        """Kafka's bytes of what came from the network."""

    def send(self, data: bytes) -> None:
        """Take bytes of Kafka's."""

    def take(self) -> bytes:
        """What the network is to be given."""


class Plain:
    """Nothing in between."""

    ready = True
    ended = False

    def __init__(self) -> None:
        self._out = b""

    def receive(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> None:
        self._out += data

    def take(self) -> bytes:
        taken, self._out = self._out, b""
        return taken


class Tls:
    """A client's end of TLS. `receive` raises AuthenticationError and ssl.SSLError.

    The first `take` has the beginning of the handshake.
    """

    def __init__(self, context: ssl.SSLContext, host: str, where: object) -> None:
        self.ready = False
        self.ended = False
        self._where = where
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._shake()

    def receive(self, data: bytes) -> bytes:
        self._in.write(data)
        try:
            if not self.ready:
                self._shake()
            return self._decrypted() if self.ready else b""
        except ssl.SSLCertVerificationError as error:
            raise self._distrust(error.verify_message) from None
        except ssl.SSLError as error:
            if any(word in reason_of(error) for word in DISTRUST):
                raise self._distrust(_words(error)) from None
            raise

    def send(self, data: bytes) -> None:
        assert self.ready, "nothing is sent before the handshake is done"
        self._tls.write(data)

    def take(self) -> bytes:
        return self._out.read()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.ready = True

    def _decrypted(self) -> bytes:
        found = bytearray()
        try:
            while part := self._tls.read(READ_BYTES):
                found += part
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return bytes(found)

    def _distrust(self, why: str) -> AuthenticationError:
        return AuthenticationError(f"no trust between this client and {self._where}: {why}")


def reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's word for what is wrong; empty where it has none."""
    found: str | None = getattr(error, "reason", None)
    return found or ""


def _words(error: ssl.SSLError) -> str:
    return reason_of(error).replace("_", " ").lower() or "OpenSSL does not say why"


def explained(error: ssl.SSLError, where: object) -> str:
    """Why a connection by TLS cannot be, in one line."""
    if reason_of(error) in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return f"{where} does not speak TLS: is security_protocol right for this port?"
    return f"TLS with {where} failed: {_words(error)}"
