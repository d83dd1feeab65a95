"""The control port: tests in any language add faults, move coordinators, and ask who owned what."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from ksim.broker.faults import FaultRule
from ksim.core.errors import ConfigError, KsimError
from ksim.serve import watch
from ksim.serve.cluster import Cluster
from ksim.serve.watch import Watch

MOST_BYTES: Final = 65_536
FAULTS: Final = "/faults/"


class NotFoundError(KsimError):
    """There is no such path or fault."""


class Control:
    """What each request does; it runs in the loop of the cluster."""

    def __init__(self, cluster: Cluster, seen: Watch) -> None:
        self._cluster = cluster
        self._watch = seen
        self._rules: dict[int, FaultRule] = {}
        self._added = 0

    def handle(self, method: str, path: str, body: Any) -> Any:
        """The answer as JSON data. Raises NotFoundError, or ConfigError for a bad body."""
        looks: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "/groups"): lambda: watch.groups(self._cluster),
            ("GET", "/ownership"): lambda: watch.ownership(self._cluster),
            ("GET", "/trace"): self._watch.trace,
            ("GET", "/checks"): self._watch.checks,
            ("POST", "/faults"): lambda: self._add(body),
            ("POST", "/coordinator"): lambda: self._move(body),
        }
        found = looks.get((method, path))
        if found is not None:
            return found()
        if method == "DELETE" and path.startswith(FAULTS):
            return self._lift(path.removeprefix(FAULTS))
        valid = ", ".join([f"{name} {where}" for name, where in looks] + ["DELETE /faults/ID"])
        raise NotFoundError(f"{method} {path}: valid are {valid}")

    def _add(self, body: Any) -> Any:
        from ksim.scenario import fault_of  # when a test asks for it, not at every start

        rule = fault_of(_object(body), "POST /faults").rule
        self._added = number = self._added + 1  # never again: who lifts twice lifts nobody else's
        self._rules[number] = rule
        self._cluster.faults.add(rule)
        return {"id": number}

    def _lift(self, text: str) -> Any:
        rule = self._rules.pop(int(text), None) if text.isdecimal() else None
        if rule is None:
            raise NotFoundError(f"fault {text}: there are {sorted(self._rules)}")
        return {"lifted": self._cluster.faults.lift(rule)}

    def _move(self, body: Any) -> Any:
        wanted = _object(body)
        group, node = wanted.get("group"), wanted.get("node")
        alive = self._cluster.state.alive
        known = node is None or (type(node) is int and node in alive)  # true is not 1 here
        if not isinstance(group, str) or not known:
            raise ConfigError(f'{wanted}: {{"group": NAME, "node": one of {alive} or null}}')
        return {"node": self._cluster.move_coordinator(group, node)}


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ConfigError(f"{body!r}: a JSON object is needed")
    return body


class _Handler(BaseHTTPRequestHandler):
    server: ControlServer
    timeout = 30.0  # seconds that a slow client may hold a thread

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Requests of tests are no news."""

    def _answer(self, method: str) -> None:
        try:
            found, status = self.server.ask(method, self.path, self._body()), HTTPStatus.OK
        except NotFoundError as error:
            found, status = {"error": str(error)}, HTTPStatus.NOT_FOUND
        except RecursionError:
            found, status = {"error": "the body is nested too deeply"}, HTTPStatus.BAD_REQUEST
        except (KsimError, ValueError) as error:
            found, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Any:
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 <= size <= MOST_BYTES:
            raise ConfigError(f"a body of {size} bytes: {MOST_BYTES} at most")
        return json.loads(self.rfile.read(size)) if size else None


class ControlServer(ThreadingHTTPServer):
    """HTTP in threads of its own; what is asked is done in the loop of the cluster."""

    daemon_threads = True

    def __init__(self, host: str, port: int, control: Control) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Handler)
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def ask(self, method: str, path: str, body: Any) -> Any:
        """Do it in the loop and wait for the answer."""

        async def handled() -> Any:
            return self._control.handle(method, path, body)

        return asyncio.run_coroutine_threadsafe(handled(), self._loop).result()

    async def stop(self) -> None:
        """Close the port; the loop goes on meanwhile, as threads may wait for it."""
        await asyncio.to_thread(self.shutdown)
        self.server_close()
