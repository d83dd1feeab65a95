"""Peers that are no Kafka broker, or speak otherwise than is asked: each is told for what it is."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from ksim.consumer.config import Config
from ksim.core.errors import AuthenticationError, NoBrokerError
from ksim.real.clock import now_ms
from ksim.real.sasl import Credentials, Login
from ksim.real.security import Security, security_of
from ksim.real.tls import Plain, Tls, Wrapping
from ksim.real.transport import Transport
from ksim.wire.errors import WireError
from tests.kafka_security import make_certificates

Answer = Callable[[socket.socket], None]
BOOTSTRAP_MS = 1_000
SECRET = "planted-secret"
OPEN = Security()


class Peer(threading.Thread):
    """Takes one connection after the other and does the same to each."""

    def __init__(self, server: socket.socket, answer: Answer) -> None:
        super().__init__(daemon=True)
        self.failures: list[Exception] = []
        self._server = server
        self._answer = answer

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(10)
                self._answer(connection)


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer(server, answer)
        peer.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    peer.join()


def refusal(server: str, security: Security, timeout_ms: int = BOOTSTRAP_MS) -> str:
    transport = Transport((server,), "test", lambda *_: None, security)
    try:
        with pytest.raises((NoBrokerError, AuthenticationError)) as caught:
            transport.bootstrap(timeout_ms)
    finally:
        transport.close()
    return str(caught.value)


def saying(data: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.recv(4_096)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4_096):
            pass

    return answer


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP: is security_protocol right"),
        (b"SSH-2.0-x\r\n", "speaks SSH: is security_protocol right"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "speaks TLS: is security_protocol right"),
        (b"", "closed the connection: is it a Kafka broker"),
        (b"-ERR unknown command\r\n", "is it a Kafka broker"),
        (b"\0\0\0\x02\0\1", "cannot read what"),  # shorter than the header of an answer
        (b"\0\0\0\x04\0\0\0\x01", "cannot read what"),  # and nothing behind it
        (b"\0\0\0\x06\0\0\0\x01\xff\xff", "cannot read what"),
        (b"\0\0\0\x08\0\0\0\x07\0\0\0\0", "cannot read what"),  # an answer to nothing
    ],
)
def test_a_peer_that_is_no_broker_is_told_for_what_it_is(data: bytes, told: str) -> None:
    with listening(saying(data)) as server:
        found = refusal(server, OPEN)
    assert found.startswith(f"no Kafka broker at {server} within {BOOTSTRAP_MS} ms: ")
    assert told in found


def test_no_bytes_of_a_peer_break_the_transport() -> None:
    chance = random.Random(7)
    said: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.recv(4_096)
        body = chance.randbytes(chance.randrange(40))
        if chance.random() < 0.7:  # an answer to the right request, and nonsense then
            body = b"\0\0\0\1" + body
        said.append(len(body).to_bytes(4, "big") + body)
        connection.sendall(said[-1])

    with listening(answer) as server:
        for _ in range(30):
            found = refusal(server, OPEN, 100)
            assert "no Kafka broker" in found
    assert len(said) >= 20


def test_a_port_that_stays_silent_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = refusal(f"127.0.0.1:{server.getsockname()[1]}", OPEN, 300)
    assert "in time: is it a Kafka broker" in found


def test_a_port_that_stays_silent_is_told_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = count()
    monkeypatch.setattr("ksim.real.transport.now_ms", lambda: now_ms() + next(looks))
    test_a_port_that_stays_silent_is_told()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_certificates(tmp_path)
    return tmp_path


def trusting(folder: Path, name: str = "ca.pem") -> Security:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(folder / name))
    return Security(context)


def encrypted(folder: Path, name: str, then: Answer) -> Answer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(folder / f"{name}.pem"))

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            then(secure)

    return answer


@pytest.mark.parametrize(
    ("certificate", "authority", "told"),
    [
        ("broker", "other-ca.pem", "no trust between this client and {}: unable to get local"),
        ("elsewhere", "ca.pem", "no trust between this client and {}: IP address mismatch"),
        ("broker", "ca.pem", "cannot read what {} sent"),
    ],
)
def test_a_certificate_must_be_trusted_and_for_this_host(
    folder: Path, certificate: str, authority: str, told: str
) -> None:
    with listening(encrypted(folder, certificate, saying(b"\0\0\0\2xx"))) as server:
        assert told.format(server) in refusal(server, trusting(folder, authority), 3_000)


@pytest.mark.parametrize(
    ("revoked", "told"),
    [("broker", "no trust between this client and {}: certificate revoked"), ("nothing", "sent")],
)
def test_a_certificate_that_is_revoked_is_not_trusted(
    folder: Path, revoked: str, told: str
) -> None:
    found = security_of(
        Config(
            group_id="g",
            topics=("t",),
            security_protocol="SSL",
            ssl_cafile=str(folder / "ca.pem"),
            ssl_crlfile=str(folder / f"{revoked}-revoked.pem"),
        )
    )
    with listening(encrypted(folder, "broker", saying(b"\0\0\0\2xx"))) as server:
        assert told.format(server) in refusal(server, found, 3_000)


def test_tls_to_a_port_without_it_is_told(folder: Path) -> None:
    with listening(saying(b"\0\0\0\2xx")) as server:
        assert f"{server} does not speak TLS: is" in refusal(server, trusting(folder))
    with listening(saying(b"")) as server:
        assert "during the TLS handshake: is security" in refusal(server, trusting(folder))


def test_tls_is_the_same_in_pieces_of_any_size(folder: Path) -> None:
    """What is encrypted comes out whole, whatever the network makes of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(folder / "broker.pem"))
    for size in (1, 7, 100_000):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        broker = context.wrap_bio(incoming, outgoing, server_side=True)
        security = trusting(folder)
        assert security.context is not None
        client: Wrapping = Tls(security.context, "localhost", "here")

        def receive(size: int = size, client: Wrapping = client) -> bytes:
            data = outgoing.read()  # noqa: B023 - called within this turn
            parts = [data[at : at + size] for at in range(0, len(data), size)]
            return b"".join(map(client.receive, parts))

        while not client.ready:
            incoming.write(client.take())
            with suppress(ssl.SSLWantReadError):
                broker.do_handshake()
            receive()
        client.send(b"question")
        incoming.write(client.take())
        with suppress(ssl.SSLWantReadError):
            broker.do_handshake()
        assert broker.read() == b"question"
        answer = bytes(range(256)) * 300
        broker.write(answer)
        assert receive() == answer
        assert not client.ended


def test_without_tls_bytes_are_what_they_are() -> None:
    plain: Wrapping = Plain()
    plain.send(b"a")
    plain.send(b"b")
    assert (plain.receive(b"c"), plain.take(), plain.take()) == (b"c", b"ab", b"")


def login(mechanism: str) -> Login:
    return Login(Credentials(mechanism, "u", SECRET), "test", 2, "here:1")


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def slowly(tried: Login, data: bytes) -> None:
    for at in range(len(data)):
        tried.receive(data[at : at + 1])


SHAKEN = frame(b"\0\0\0\1" + b"\0\0" + b"\0\0\0\1\0\5PLAIN")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((frame(b"\0\0\0\1\0\x21\0\0\0\2\0\1A\0\1B"),), "the broker's mechanisms are A, B"),
        ((frame(b"\0\0\0\1\0\x22\0\0\0\0"),), "this port of the broker has no logins"),
        ((SHAKEN, frame(b"\0\0\0\2\0\0\x3a\3no\1" + bytes(9))), "refused: no"),
        ((SHAKEN, frame(b"\0\0\0\2\0\0\x3a\0\1" + bytes(9))), "the broker does not say why"),
        ((SHAKEN, frame(b"\0\0\0\2\0\0\0\0\5what" + bytes(9))), "refused: the broker"),
    ],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_each_refusal_of_a_login_is_told(
    mechanism: str, answers: tuple[bytes, ...], told: str
) -> None:
    tried = login(mechanism)
    tried.begin()
    with pytest.raises(AuthenticationError) as caught:
        slowly(tried, b"".join(answers))
    assert str(caught.value).startswith(f"login of 'u' at here:1 by {mechanism} refused: ")
    assert told in str(caught.value)
    assert SECRET not in str(caught.value) + repr(tried)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff",
        b"HTTP/1.1",
        frame(b"\0\0\0\2\0\0\0\0\0\0"),
        frame(b"\0\0\0\1\0\1\0\0\0\0"),
        SHAKEN + SHAKEN,
    ],
)
def test_what_is_no_answer_to_a_login_is_no_refusal(answer: bytes) -> None:
    tried = login("PLAIN")
    tried.begin()
    with pytest.raises(WireError):
        tried.receive(answer)


def test_credentials_do_not_show_the_password() -> None:
    assert SECRET not in repr(Security(None, Credentials("PLAIN", "u", SECRET)))
