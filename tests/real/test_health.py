"""The pages over real sockets: what they say, and that nobody who asks can hold them up."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from ksim.consumer.consumer import Consumer
from ksim.consumer.health import Health
from ksim.real import health
from ksim.real.health import LIVE_MS, HealthServer, Pages

LIMIT_S = 30.0
FINE = Health(True, 10, True, "STABLE", "m-1", 7, "start", 1_500, 250, ())


class Fixed:
    """Stands for a consumer."""

    def __init__(self, found: Health) -> None:
        self.found = found

    def glance(self) -> Health:
        return self.found


def metrics(consumer: Consumer, accept: str) -> tuple[bytes, str]:
    del consumer
    return f"accepted {accept}\n".encode(), "text/plain"


@contextmanager
def serving(found: Health | None, page: Any = metrics) -> Iterator[HealthServer]:
    consumer = None if found is None else cast(Consumer, Fixed(found))
    server = HealthServer("127.0.0.1", 0, Pages(lambda: consumer, page))
    try:
        yield server
    finally:
        server.stop()


def get(server: HealthServer, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize(
    ("found", "live", "ready"),
    [
        (None, 200, 503),
        (FINE, 200, 200),
        (replace(FINE, ready=False, state="PREPARING_REBALANCE"), 200, 503),
        (replace(FINE, ready=False, state="UNJOINED", heartbeat_age_ms=3_600_000), 200, 503),
        (replace(FINE, loop_age_ms=LIVE_MS), 200, 200),
        (replace(FINE, loop_age_ms=LIVE_MS + 1), 503, 200),
        (replace(FINE, alive=False, ready=False), 503, 503),
    ],
)
def test_probes(found: Health | None, live: int, ready: int) -> None:
    with serving(found) as server:
        assert get(server, "/livez")[0] == live
        status, text = get(server, "/readyz")
        assert status == ready
        shown = json.loads(text)
        assert shown["ready"] == (ready == 200)
        assert shown["state"] == ("STARTING" if found is None else found.state)


def test_a_path_that_is_not_there_names_those_that_are() -> None:
    with serving(FINE) as server:
        assert get(server, "/")[0] == 404
        assert "/livez, /readyz, /metrics" in get(server, "/health")[1]
        assert get(server, "/metrics?name=x", Accept="text/a") == (200, "accepted text/a\n")
        with socket.create_connection(server.server_address[:2], LIMIT_S) as peer:
            peer.sendall(b"HEAD /livez HTTP/1.0\r\n\r\n")
            head = peer.makefile("rb").read()
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert head.endswith(b"\r\n\r\n")


def test_before_the_consumer_is_there_a_scrape_is_empty() -> None:
    with serving(None) as server:
        assert get(server, "/metrics") == (200, "")


def test_who_says_nothing_is_ended_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CONNECTION_S", 0.5)
    with serving(FINE) as server, ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(health.MOST_CONNECTIONS)]
        silent[0].sendall(b"GET /livez HT")
        with connected(server) as refused:
            assert closed(refused), "one more than may be at once is turned away"
        for peer in silent:
            assert closed(peer), "its time is over"
        assert get(server, "/livez")[0] == 200


def test_a_trickle_of_a_request_does_not_prolong_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CONNECTION_S", 0.5)
    with serving(FINE) as server, connected(server) as peer:
        peer.settimeout(0.05)
        until_s = time.monotonic() + LIMIT_S
        ended = False
        while not ended:
            assert time.monotonic() < until_s, "it may go on for ever"
            try:
                peer.sendall(b"x")
                ended = peer.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True


def connected(server: HealthServer) -> socket.socket:
    return socket.create_connection(server.server_address[:2], LIMIT_S)


def closed(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_scrapes_that_wait_hold_up_neither_probes_nor_the_end() -> None:
    asked, held = threading.Semaphore(0), threading.Event()

    def waiting(consumer: Consumer, accept: str) -> tuple[bytes, str]:
        asked.release()
        held.wait(LIMIT_S)
        return metrics(consumer, accept)

    answers: list[tuple[int, str]] = []
    with serving(FINE, waiting) as server:

        def scrape() -> None:
            answers.append(get(server, "/metrics"))

        scrapers = [threading.Thread(target=scrape) for _ in range(health.MOST_SCRAPES)]
        for thread in scrapers:
            thread.start()
        for _ in scrapers:
            assert asked.acquire(timeout=LIMIT_S)
        assert get(server, "/metrics")[0] == 503
        assert get(server, "/livez")[0] == 200
        server.stop()
        assert not answers, "the end did not wait for them"
        held.set()
        for thread in scrapers:
            thread.join()
    assert [status for status, _ in answers] == [200] * health.MOST_SCRAPES


def test_a_page_that_cannot_be_made_ends_that_connection_alone() -> None:
    def broken(consumer: Consumer, accept: str) -> tuple[bytes, str]:
        raise RuntimeError(f"no page of {consumer} as {accept}")

    with serving(FINE, broken) as server:
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            get(server, "/metrics")
        assert get(server, "/readyz")[0] == 200


def test_ipv6() -> None:
    try:
        server = HealthServer("::1", 0, Pages(lambda: None, None))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        assert server.address.startswith("[::1]:")
        assert get(server, "/livez")[0] == 200
        assert get(server, "/metrics")[0] == 404
    finally:
        server.stop()
