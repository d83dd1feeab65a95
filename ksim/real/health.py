"""`/livez`, `/readyz` and `/metrics` of one consumer over HTTP.

Nobody who asks can hold anything up: probes take no lock, each connection has a time and there are
only so many at once, and the end of the process waits for none.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, NamedTuple

from ksim.consumer.consumer import Consumer

LOG: Final = logging.getLogger("ksim.health")
LIVE_MS: Final = 30_000  # an owner that has not looked up for so long cannot hold its session
MOST_CONNECTIONS: Final = 8
MOST_SCRAPES: Final = 2
CONNECTION_S: Final = 10.0
LOOK_S: Final = 0.2
JSON: Final = "application/json"

Source = Callable[[], Consumer | None]
Page = Callable[[Consumer, str], tuple[bytes, str]]


class Answer(NamedTuple):
    """What goes back."""

    status: HTTPStatus
    body: bytes
    content_type: str = JSON


class Pages:
    """What each path answers; `source` gives the consumer once there is one."""

    def __init__(self, source: Source, metrics: Page | None) -> None:
        self._source = source
        self._metrics = metrics
        self._scrapes = threading.BoundedSemaphore(MOST_SCRAPES)
        self._paths = {"/livez": self._live, "/readyz": self._ready, "/metrics": self._scrape}

    def answer(self, path: str, accept: str) -> Answer:
        """Never raises because of what was asked."""
        found = self._paths.get(path.partition("?")[0])
        if found is None:
            return _json(HTTPStatus.NOT_FOUND, {"error": f"valid are {', '.join(self._paths)}"})
        return found(accept)

    def _live(self, accept: str) -> Answer:
        """The owner runs. A broker that is gone is no reason to start anew: that mends nothing."""
        del accept
        consumer = self._source()
        if consumer is None:
            return _json(HTTPStatus.OK, {"live": True, "state": "STARTING"})
        seen = consumer.glance()
        live = seen.alive and seen.loop_age_ms <= LIVE_MS
        return _json(_ok(live), {"live": live, **_shown(consumer)})

    def _ready(self, accept: str) -> Answer:
        """It has joined; a member without partitions stands by, which is what it should do."""
        del accept
        consumer = self._source()
        if consumer is None:
            return _json(_ok(False), {"ready": False, "state": "STARTING"})
        return _json(_ok(consumer.glance().ready), _shown(consumer))

    def _scrape(self, accept: str) -> Answer:
        consumer = self._source()
        if self._metrics is None:
            return _json(HTTPStatus.NOT_FOUND, {"error": "needs kafka-ksim[prometheus]"})
        if consumer is None:
            return Answer(HTTPStatus.OK, b"", "text/plain")
        # They wait for the lock, which the user's callbacks may hold; probes need connections too.
        if not self._scrapes.acquire(blocking=False):
            return _json(_ok(False), {"error": f"{MOST_SCRAPES} scrapes are under way"})
        try:
            return Answer(HTTPStatus.OK, *self._metrics(consumer, accept))
        finally:
            self._scrapes.release()


def _ok(fine: bool) -> HTTPStatus:
    return HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE


def _shown(consumer: Consumer) -> dict[str, Any]:
    found = asdict(consumer.glance())
    del found["partitions"]
    return found


def _json(status: HTTPStatus, content: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(content).encode() + b"\n")


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Probes are no news."""

    def _answer(self, *, with_body: bool) -> None:
        found = self.server.pages.answer(self.path, self.headers.get("Accept", ""))
        self.send_response(found.status)
        self.send_header("Content-Type", found.content_type)
        self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(found.body)


class HealthServer(ThreadingHTTPServer):
    """Serves from construction to `stop`, in threads that no exit waits for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.pages = pages
        self._open: dict[Any, float] = {}
        self._open_lock = threading.Lock()
        super().__init__((host, port), _Handler)
        thread = threading.Thread(
            target=self.serve_forever, args=(LOOK_S,), name="ksim-health", daemon=True
        )
        thread.start()

    def server_bind(self) -> None:
        """Without looking up the host's name, which may take for ever."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def address(self) -> str:
        """HOST:PORT as bound."""
        host = str(self.server_address[0])
        return f"[{host}]:{self.server_port}" if ":" in host else f"{host}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Beyond the most at once they are turned away."""
        with self._open_lock:
            full = len(self._open) >= MOST_CONNECTIONS
            if not full:
                self._open[request] = time.monotonic()
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                del self._open[request]

    def service_actions(self) -> None:
        """End those whose time is over: who sends a byte now and then counts as silent."""
        limit = time.monotonic() - CONNECTION_S
        with self._open_lock:
            late = [request for request, since in self._open.items() if since < limit]
        for request in late:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody left in the middle, or a page could not be made."""
        del request
        LOG.debug("no answer to %s", client_address, exc_info=True)

    def stop(self) -> None:
        """Close the port; answers that are under way are not waited for."""
        self.shutdown()
        self.server_close()
