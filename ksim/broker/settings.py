"""The settings of a served cluster under Kafka's names, and what DescribeConfigs tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ksim.core.coordinator_state import CoordinatorConfig
from ksim.core.errors import KafkaError

Answer = dict[str, Any]
Data = Mapping[str, Any]
MIB: Final = 2**20
MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Limits and behaviour of a served cluster; sizes in bytes."""

    host: str = "127.0.0.1"
    brokers: int = 1
    coordinator: CoordinatorConfig = field(default_factory=CoordinatorConfig)
    log_retention_bytes: int = 256 * MIB
    message_max_bytes: int = 8 * MIB
    fetch_max_bytes: int = 55 * MIB
    socket_request_max_bytes: int = 100 * MIB
    max_connections: int = 1_000
    connections_max_idle_ms: int = 600_000
    queued_max_bytes: int = 256 * MIB
    coordinator_load_ms: int = 20
    num_partitions: int = 1
    auto_create_topics: bool = False


class ConfigType(IntEnum):
    """Kafka's `ConfigResponse.ConfigType`."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    LIST = 7


class Source(IntEnum):
    """Kafka's `ConfigResponse.ConfigSource`."""

    STATIC_BROKER = 4
    DEFAULT = 5


class Key(NamedTuple):
    """Where a setting stands, how many of that field's units one unit is, and the least value."""

    name: str
    unit: int = 1
    kind: ConfigType = ConfigType.INT
    least: int = 0


COORDINATOR_KEYS: Final = {
    "group.initial.rebalance.delay.ms": Key("initial_rebalance_delay_ms"),
    "group.min.session.timeout.ms": Key("min_session_timeout_ms"),
    "group.max.session.timeout.ms": Key("max_session_timeout_ms"),
    "group.max.size": Key("group_max_size", least=1),
    "offset.metadata.max.bytes": Key("offset_metadata_max"),
    "offsets.retention.minutes": Key("offsets_retention_ms", MINUTE_MS, least=1),
    "offsets.retention.check.interval.ms": Key(
        "offsets_retention_check_interval_ms", kind=ConfigType.LONG, least=1
    ),
}
BROKER_KEYS: Final = {
    "log.retention.bytes": Key("log_retention_bytes", kind=ConfigType.LONG),
    "message.max.bytes": Key("message_max_bytes"),
    "fetch.max.bytes": Key("fetch_max_bytes"),
    "socket.request.max.bytes": Key("socket_request_max_bytes"),
    "max.connections": Key("max_connections"),
    "connections.max.idle.ms": Key("connections_max_idle_ms", kind=ConfigType.LONG),
    "queued.max.bytes": Key("queued_max_bytes", kind=ConfigType.LONG),
    "coordinator.load.ms": Key("coordinator_load_ms"),
    "num.partitions": Key("num_partitions", least=1),
    "auto.create.topics.enable": Key("auto_create_topics", kind=ConfigType.BOOLEAN),
}
# A topic has what its broker says.
TOPIC_KEYS: Final = {
    "cleanup.policy": None,
    "max.message.bytes": "message.max.bytes",
    "retention.bytes": "log.retention.bytes",
}
CLEANUP_POLICY: Final = "delete"


def _text(config: ServeConfig, name: str) -> str:
    """The value of a broker's setting as Kafka writes it."""
    key = COORDINATOR_KEYS.get(name)
    found = getattr(config if key is None else config.coordinator, (key or BROKER_KEYS[name]).name)
    if isinstance(found, bool):
        return str(found).lower()
    return str(found // (key or BROKER_KEYS[name]).unit)


class _Entry(NamedTuple):
    name: str
    value: str
    is_default: bool
    kind: ConfigType


def _broker_entries(config: ServeConfig) -> list[_Entry]:
    usual = ServeConfig()
    found: list[_Entry] = []
    for name, key in (COORDINATOR_KEYS | BROKER_KEYS).items():
        value = _text(config, name)
        found.append(_Entry(name, value, value == _text(usual, name), key.kind))
    return found


def _topic_entries(config: ServeConfig) -> list[_Entry]:
    of_broker = {entry.name: entry for entry in _broker_entries(config)}
    return [
        _Entry(name, CLEANUP_POLICY, True, ConfigType.LIST)
        if origin is None
        else of_broker[origin]._replace(name=name)
        for name, origin in TOPIC_KEYS.items()
    ]


class Resource(IntEnum):
    """Kafka's `ConfigResource.Type`, those that there are here."""

    TOPIC = 2
    BROKER = 4


def describe_configs(
    config: ServeConfig, node_id: int, topics: Sequence[str], data: Data, version: int
) -> Answer:
    """The answer of this broker to DescribeConfigs."""
    del version
    return {
        "results": [
            _described(config, node_id, topics, resource, synonyms=data["include_synonyms"])
            for resource in data["resources"]
        ]
    }


def _described(
    config: ServeConfig, node_id: int, topics: Sequence[str], resource: Data, *, synonyms: bool
) -> Answer:
    kind, name = resource["resource_type"], resource["resource_name"]
    error_code, message = _refusal(node_id, topics, kind, name)
    entries: list[_Entry] = []
    if not error_code and kind == Resource.TOPIC:
        entries = _topic_entries(config)
    elif not error_code and name:  # an empty name asks for what was set for all brokers: nothing
        entries = _broker_entries(config)
    wanted = resource["configuration_keys"]
    return {
        "error_code": error_code,
        "error_message": message,
        "resource_type": kind,
        "resource_name": name,
        "configs": [
            _shown(entry, kind, synonyms=synonyms)
            for entry in entries
            if not wanted or entry.name in wanted
        ],
    }


def _refusal(node_id: int, topics: Sequence[str], kind: int, name: str) -> tuple[int, str | None]:
    if kind == Resource.TOPIC:
        missing = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
        return (KafkaError.NONE, None) if name in topics else (missing, f"no topic {name!r}")
    if kind != Resource.BROKER:
        valid = ", ".join(f"{each.value} ({each.name})" for each in Resource)
        return KafkaError.INVALID_REQUEST, f"resource type {kind}: valid are {valid}"
    if name not in ("", str(node_id)):
        return KafkaError.INVALID_REQUEST, f"broker {name!r} was asked of broker {node_id}"
    return KafkaError.NONE, None


def _shown(entry: _Entry, kind: int, *, synonyms: bool) -> Answer:
    source = Source.DEFAULT if entry.is_default else Source.STATIC_BROKER
    same = {"name": entry.name, "value": entry.value, "source": source}
    return {
        "name": entry.name,
        "value": entry.value,
        "read_only": kind == Resource.BROKER,
        "config_source": source,
        "is_default": entry.is_default,
        "is_sensitive": False,
        "synonyms": [same] if synonyms else [],
        "config_type": entry.kind,
        "documentation": None,
    }
