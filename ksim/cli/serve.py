"""`ksim serve`: the simulated cluster on sockets, until a signal ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from dataclasses import replace
from typing import Any, Final

import click

from ksim.broker.faults import FaultRule
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import ConfigError
from ksim.scenario import load
from ksim.serve.cluster import Cluster, ServeConfig
from ksim.serve.control import Control, ControlServer
from ksim.serve.server import BrokerServer
from ksim.serve.watch import Watch

SECOND: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}
MINUTE_MS: Final = 60_000
# Kafka's names, where they go, and how many of the target's units one unit is.
COORDINATOR_KEYS: Final = {
    "group.initial.rebalance.delay.ms": ("initial_rebalance_delay_ms", 1),
    "group.min.session.timeout.ms": ("min_session_timeout_ms", 1),
    "group.max.session.timeout.ms": ("max_session_timeout_ms", 1),
    "group.max.size": ("group_max_size", 1),
    "offset.metadata.max.bytes": ("offset_metadata_max", 1),
    "offsets.retention.minutes": ("offsets_retention_ms", MINUTE_MS),
    "offsets.retention.check.interval.ms": ("offsets_retention_check_interval_ms", 1),
}
BROKER_KEYS: Final = {
    "log.retention.bytes": "log_retention_bytes",
    "message.max.bytes": "message_max_bytes",
    "socket.request.max.bytes": "socket_request_max_bytes",
    "max.connections": "max_connections",
    "num.partitions": "num_partitions",
}
AUTO_CREATE: Final = "auto.create.topics.enable"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port of the first broker; 0 takes free ones.")
@click.option("--brokers", default=1, type=click.IntRange(1, 100), show_default=True)
@click.option("--topic", "topics", multiple=True, metavar="NAME:PARTITIONS")
@click.option("--scenario", "scenario_file", type=click.Path(), help="Its topics and faults.")
@click.option("--control-port", type=int, help="HTTP control port; 0 takes a free one.")
@click.option("--seed", default=0, show_default=True, help="For what is chance in Kafka.")
@click.option("-X", "settings", multiple=True, metavar="KEY=VALUE", help="A broker's setting.")
def serve(
    host: str,
    port: int,
    brokers: int,
    topics: tuple[str, ...],
    scenario_file: str | None,
    control_port: int | None,
    seed: int,
    settings: tuple[str, ...],
) -> int:
    """Serve a simulated cluster to any Kafka client.

    One JSON line on standard output says where it listens.

    Example: ksim serve --topic orders:6 -X group.initial.rebalance.delay.ms=0
    """
    config = ServeConfig(host=host, brokers=brokers)
    wanted = [_topic(each) for each in topics]
    rules: list[FaultRule] = []
    if scenario_file is not None:
        scenario = load(scenario_file)
        machine = CoordinatorConfig(
            initial_rebalance_delay_ms=scenario.cluster.initial_rebalance_delay_ms
        )
        config = replace(config, brokers=scenario.cluster.brokers, coordinator=machine)
        wanted += [(topic.name, topic.partitions) for topic in scenario.topics]
        rules += [fault.rule for fault in scenario.faults]
    config = configured(config, settings)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    return asyncio.run(_serve(config, wanted, rules, port, control_port, seed))


def configured(config: ServeConfig, settings: tuple[str, ...]) -> ServeConfig:
    """The configuration with Kafka's KEY=VALUE settings. Raises ConfigError."""
    coordinator: dict[str, Any] = {}
    broker: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        key = key.removeprefix("broker.")
        if key in COORDINATOR_KEYS:
            name, unit = COORDINATOR_KEYS[key]
            coordinator[name] = _number(key, text) * unit
        elif key in BROKER_KEYS:
            broker[BROKER_KEYS[key]] = _number(key, text)
        elif key == AUTO_CREATE:
            broker["auto_create_topics"] = _truth(key, text)
        else:
            valid = ", ".join(sorted([*COORDINATOR_KEYS, *BROKER_KEYS, AUTO_CREATE]))
            raise ConfigError(f"-X {setting}: unknown key {key!r}; valid are {valid}")
    before = {name: getattr(config.coordinator, name) for name, _ in COORDINATOR_KEYS.values()}
    return replace(config, coordinator=CoordinatorConfig(**before | coordinator), **broker)


def _number(key: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"-X {key}={text}: a number from 0 on is needed")
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


async def _serve(
    config: ServeConfig,
    topics: list[tuple[str, int]],
    rules: list[FaultRule],
    port: int,
    control_port: int | None,
    seed: int,
) -> int:
    seen = Watch()
    cluster = Cluster(config, seen.listeners, seed)
    for name, partitions in topics:
        cluster.state.create_topic(name, partitions)
    for rule in rules:
        cluster.faults.add(rule)
    servers = [BrokerServer(cluster, node_id) for node_id in cluster.state.alive]
    try:
        ports = [await each.start(port + at if port else 0) for at, each in enumerate(servers)]
        control = None
        if control_port is not None:
            control = ControlServer(config.host, control_port, Control(cluster, seen))
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}: {error}") from error
    stopping = asyncio.Event()
    _take_signals(stopping)
    bootstrap = ",".join(f"{config.host}:{bound}" for bound in ports)
    told = {"bootstrap": bootstrap, "control": control and control.server_port}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await stopping.wait()
    if control is not None:
        await control.stop()
    for each in servers:
        await each.stop()
    return 0


def _take_signals(stopping: asyncio.Event) -> None:
    """The first one ends in order, the second one at once."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            sys.exit(SECOND[number])
        stopping.set()

    for number in SECOND:
        loop.add_signal_handler(number, on_signal, number)
