"""`ksim serve`: the simulated cluster on sockets, until a signal ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ksim.broker.settings import BROKER_KEYS, COORDINATOR_KEYS, ConfigType, ServeConfig
from ksim.broker.topics import is_legal
from ksim.cli.telling import tell
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import ConfigError
from ksim.serve.cluster import Cluster
from ksim.serve.control import Control, ControlServer
from ksim.serve.recorded import ServeRecorder
from ksim.serve.server import BrokerServer
from ksim.serve.steps import Steps, check_steps
from ksim.serve.watch import Watch

if TYPE_CHECKING:
    from ksim.scenario import Scenario

SECOND: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
OTHER_FILES: Final = 100
MOST_PORT: Final = 65_535
PORT: Final = click.IntRange(0, MOST_PORT)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, type=PORT, help="Port of the first broker; 0 takes free ones.")
@click.option("--brokers", default=1, type=click.IntRange(1, 100), show_default=True)
@click.option("--topic", "topics", multiple=True, metavar="NAME:PARTITIONS")
@click.option(
    "--scenario", "scenario_file", type=click.Path(), help="Its topics, faults and steps."
)
@click.option("--control-port", type=PORT, help="HTTP control port; 0 takes a free one.")
@click.option(
    "--record", type=click.Path(path_type=Path), metavar="DIR",
    help="Record each coordinator, and what it saw of each member.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="For what is chance in Kafka.")
@click.option("-X", "settings", multiple=True, metavar="KEY=VALUE", help="A broker's setting.")
def serve(
    host: str,
    port: int,
    brokers: int,
    topics: tuple[str, ...],
    scenario_file: str | None,
    control_port: int | None,
    record: Path | None,
    seed: int,
    settings: tuple[str, ...],
) -> int:
    """Serve a simulated cluster to any Kafka client.

    One JSON line on standard output says where it listens.

    Example: ksim serve --topic orders:6 -X group.initial.rebalance.delay.ms=0
    """
    config = ServeConfig(host=host, brokers=brokers)
    wanted = [_topic(each) for each in topics]
    scenario: Scenario | None = None
    if scenario_file is not None:
        from ksim.scenario import load  # a cluster without one should be there at once

        scenario = load(scenario_file)
        check_steps(scenario_file, scenario)
        machine = CoordinatorConfig(
            initial_rebalance_delay_ms=scenario.cluster.initial_rebalance_delay_ms
        )
        config = replace(config, brokers=scenario.cluster.brokers, coordinator=machine)
        wanted += [(topic.name, topic.partitions) for topic in scenario.topics]
    config = configured(config, settings)
    check_topics(wanted)
    check_address(host, port, config.brokers)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    recorder = None if record is None else _recorder(record, config, seed)
    try:
        return asyncio.run(_serve(config, wanted, scenario, port, control_port, seed, recorder))
    finally:
        if recorder is not None:
            recorder.close()


def _recorder(directory: Path, config: ServeConfig, seed: int) -> ServeRecorder:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--record {directory}: {error.strerror}") from error
    return ServeRecorder(directory, asdict(config), seed)


def configured(config: ServeConfig, settings: tuple[str, ...]) -> ServeConfig:
    """The configuration with Kafka's KEY=VALUE settings. Raises ConfigError."""
    coordinator: dict[str, Any] = {}
    broker: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = name.removeprefix("broker.")
        if name in COORDINATOR_KEYS:
            key = COORDINATOR_KEYS[name]
            coordinator[key.name] = _number(name, text, key.least) * key.unit
        elif name in BROKER_KEYS:
            key = BROKER_KEYS[name]
            is_truth = key.kind == ConfigType.BOOLEAN
            broker[key.name] = _truth(name, text) if is_truth else _number(name, text, key.least)
        else:
            valid = ", ".join(sorted([*COORDINATOR_KEYS, *BROKER_KEYS]))
            raise ConfigError(f"-X {setting}: unknown key {name!r}; valid are {valid}")
    before = {key.name: getattr(config.coordinator, key.name) for key in COORDINATOR_KEYS.values()}
    return replace(config, coordinator=CoordinatorConfig(**before | coordinator), **broker)


def _number(key: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"-X {key}={text}: a number from {least} on is needed")
    return int(text)


def _truth(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigError(f"-X {key}={text}: true or false")
    return text == "true"


def _topic(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition(":")
    if not name or not count.isdecimal() or not int(count):
        raise ConfigError(f"--topic {text}: NAME:PARTITIONS is needed, like orders:6")
    return name, int(count)


def check_topics(topics: list[tuple[str, int]]) -> None:
    """Raises ConfigError for a name that Kafka would not take, and for one that is there twice."""
    names = [name for name, _ in topics]
    for name in names:
        if not is_legal(name):
            raise ConfigError(f"topic {name!r}: 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-' are legal")
        if names.count(name) > 1:
            raise ConfigError(f"topic {name!r} is given more than once")


def check_address(host: str, port: int, brokers: int) -> None:
    """Raises ConfigError where no broker, or not every one, can have a port."""
    if not host:
        raise ConfigError("--host '': an address or a name is needed, like 127.0.0.1")
    if port + brokers - 1 > MOST_PORT:
        raise ConfigError(
            f"--port {port} with {brokers} brokers: the last port would be {port + brokers - 1}, "
            f"{MOST_PORT} is the highest"
        )


def shown_address(host: str, port: int) -> str:
    """As clients take it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _serve(
    config: ServeConfig,
    topics: list[tuple[str, int]],
    scenario: Scenario | None,
    port: int,
    control_port: int | None,
    seed: int,
    recorder: ServeRecorder | None,
) -> int:
    seen = Watch()
    cluster = Cluster(config, seen.listeners, seed)
    if recorder is not None:
        cluster.recorders = recorder.listeners
    seen.follow(cluster)
    for name, partitions in topics:
        cluster.state.create_topic(name, partitions)
    for fault in () if scenario is None else scenario.faults:
        cluster.faults.add(fault.rule)
    servers = {node_id: BrokerServer(cluster, node_id) for node_id in cluster.state.alive}
    try:
        ports = [
            await each.start(port + at if port else 0) for at, each in enumerate(servers.values())
        ]
        control = None
        if control_port is not None:
            control = ControlServer(config.host, control_port, Control(cluster, seen))
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}: {error}") from error
    _allow_files(config.brokers * config.max_connections + OTHER_FILES)
    stopping = asyncio.Event()
    _take_signals(stopping)
    bootstrap = ",".join(shown_address(config.host, bound) for bound in ports)
    told = {"bootstrap": bootstrap, "control": control and control.server_port}
    tell(json.dumps(told))
    if scenario is not None:
        Steps(cluster, servers, scenario).begin()
    await stopping.wait()
    if control is not None:
        await control.stop()
    for each in servers.values():
        await each.stop()
    return 0


def _allow_files(wanted: int) -> None:
    """Ask for as many open files as connections are allowed; the system may grant fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _take_signals(stopping: asyncio.Event) -> None:
    """The first one ends in order, the second one at once."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            sys.exit(SECOND[number])
        stopping.set()

    for number in SECOND:
        loop.add_signal_handler(number, on_signal, number)
