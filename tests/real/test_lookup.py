"""Names: the resolver is slow, has nothing, or gives addresses where nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ksim.core import messages as m
from ksim.core.events import ANY_NODE
from ksim.real.lookup import Address, Lookup
from tests.real.test_transport import listener, talking

Place = tuple[str, int]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Place]]:
    """What the resolver finds for a name."""
    found: dict[str, list[Place]] = {}
    honest = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if host not in found:
            return honest(host, port, **options)
        return [each for place in found[host] for each in honest(*place, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


@contextmanager
def black_hole() -> Iterator[Place]:
    """A place that drops whoever comes: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()


def test_an_address_where_nobody_answers_is_passed_over(names: dict[str, list[Place]]) -> None:
    with black_hole() as hole, listener() as server, talking("two.test:1") as talk:
        names["two.test"] = [hole, server.getsockname()]
        talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 2_000)
        server.settimeout(0)
        accepted: list[socket.socket] = []

        def connected() -> bool:
            try:
                accepted.append(server.accept()[0])
            except BlockingIOError:
                return False
            return True

        while not connected():
            assert not talk.results, talk.results
            talk.transport.poll(50)
        accepted[0].close()
        ((_, response, _, reason),) = talk.collect(1)
        assert response is None
        assert "closed the connection" in reason


def test_a_slow_resolver_keeps_nobody_else(
    names: dict[str, list[Place]], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    fast = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host == "slow.test":
            let_go.wait()
        return fast(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with listener() as server, talking("slow.test:1") as talk:
        names["slow.test"] = [server.getsockname()]
        talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 100)
        ((_, response, _, reason),) = talk.collect(1)
        assert (response, reason) == (
            None,
            "no answer from slow.test:1 in time: its name is not resolved",
        )
        talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 5_000)
        let_go.set()
        talk.transport.poll(5_000)
        talk.transport.poll(5_000)
        server.settimeout(5)
        server.accept()[0].close()
        assert talk.collect(1)[0][1] is None


def test_a_name_that_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with talking("nowhere.test:1") as talk:
        talk.start(m.MetadataRequest(None), "meta", ANY_NODE, 5_000)
        assert "cannot resolve nowhere.test: " in talk.collect(1)[0][3]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_a_number_needs_no_resolver(host: str) -> None:
    lookup = Lookup(Address(host, 9092), lambda: pytest.fail("nobody has waited"))
    assert lookup.done
