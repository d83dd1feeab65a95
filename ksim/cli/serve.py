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

from ksim.core.coordinator import CoordinatorConfig
from ksim.core.errors import ConfigError
from ksim.serve.cluster import Cluster, ServeConfig
from ksim.serve.server import BrokerServer

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
@click.option("--seed", default=0, show_default=True, help="For what is chance in Kafka.")
@click.option("-X", "settings", multiple=True, metavar="KEY=VALUE", help="A broker's setting.")
def serve(
    host: str,
    port: int,
    brokers: int,
    topics: tuple[str, ...],
    seed: int,
    settings: tuple[str, ...],
) -> int:
    """Serve a simulated cluster to any Kafka client.

    One JSON line on standard output says where it listens.

    Example: ksim serve --topic orders:6 -X group.initial.rebalance.delay.ms=0
    """
    config = configured(ServeConfig(host=host, brokers=brokers), settings)
    wanted = [_topic(each) for each in topics]
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    return asyncio.run(_serve(config, wanted, port, seed))


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
    return replace(config, coordinator=CoordinatorConfig(**coordinator), **broker)


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


async def _serve(config: ServeConfig, topics: list[tuple[str, int]], port: int, seed: int) -> int:
    cluster = Cluster(config, lambda _: [], seed)
    for name, partitions in topics:
        cluster.state.create_topic(name, partitions)
    servers = [BrokerServer(cluster, node_id) for node_id in cluster.state.alive]
    try:
        ports = [await each.start(port + at if port else 0) for at, each in enumerate(servers)]
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}: {error}") from error
    stopping = asyncio.Event()
    _take_signals(stopping)
    bootstrap = ",".join(f"{config.host}:{bound}" for bound in ports)
    sys.stdout.write(json.dumps({"bootstrap": bootstrap, "control": None}) + "\n")
    sys.stdout.flush()
    await stopping.wait()
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
