"""Deterministic simulation and production consumption of Apache Kafka consumer groups.

Names are loaded when they are first used, so that `import ksim` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ksim.consumer.client import Client
    from ksim.consumer.config import Acknowledge, Config, ConsumerMode, Strategy
    from ksim.consumer.consumer import Consumer
    from ksim.consumer.health import Health, PartitionHealth
    from ksim.consumer.message import (
        ConsumerError,
        Message,
        Notification,
        NotificationType,
        RebalanceListener,
    )
    from ksim.consumer.offsets import (
        BrokerOffsetStore,
        Committed,
        DefaultOffsetStoreFactory,
        OffsetStash,
        OffsetStore,
        OffsetStoreFactory,
    )
    from ksim.consumer.partitions import PartitionConsumer
    from ksim.core.errors import (
        AuthenticationError,
        ClientInUseError,
        CommitFailedError,
        ConfigError,
        GroupFatalError,
        KsimError,
        MisuseError,
        NoBrokerError,
        RefusedError,
        UnreadableBatchError,
    )
    from ksim.core.values import TopicPartition
    from ksim.wiring import sleep_ms

_HOMES: Final = {
    "Client": "ksim.consumer.client",
    "Acknowledge": "ksim.consumer.config",
    "Config": "ksim.consumer.config",
    "ConsumerMode": "ksim.consumer.config",
    "Strategy": "ksim.consumer.config",
    "Consumer": "ksim.consumer.consumer",
    "ConsumerError": "ksim.consumer.message",
    "Message": "ksim.consumer.message",
    "Notification": "ksim.consumer.message",
    "NotificationType": "ksim.consumer.message",
    "RebalanceListener": "ksim.consumer.message",
    "BrokerOffsetStore": "ksim.consumer.offsets",
    "AuthenticationError": "ksim.core.errors",
    "Committed": "ksim.consumer.offsets",
    "DefaultOffsetStoreFactory": "ksim.consumer.offsets",
    "OffsetStash": "ksim.consumer.offsets",
    "OffsetStore": "ksim.consumer.offsets",
    "OffsetStoreFactory": "ksim.consumer.offsets",
    "Health": "ksim.consumer.health",
    "PartitionHealth": "ksim.consumer.health",
    "PartitionConsumer": "ksim.consumer.partitions",
    "ClientInUseError": "ksim.core.errors",
    "CommitFailedError": "ksim.core.errors",
    "ConfigError": "ksim.core.errors",
    "GroupFatalError": "ksim.core.errors",
    "KsimError": "ksim.core.errors",
    "MisuseError": "ksim.core.errors",
    "NoBrokerError": "ksim.core.errors",
    "RefusedError": "ksim.core.errors",
    "UnreadableBatchError": "ksim.core.errors",
    "TopicPartition": "ksim.core.values",
    "sleep_ms": "ksim.wiring",
}

__all__ = [
    "Acknowledge",
    "AuthenticationError",
    "BrokerOffsetStore",
    "Client",
    "ClientInUseError",
    "CommitFailedError",
    "Committed",
    "Config",
    "ConfigError",
    "Consumer",
    "ConsumerError",
    "ConsumerMode",
    "DefaultOffsetStoreFactory",
    "GroupFatalError",
    "Health",
    "KsimError",
    "Message",
    "MisuseError",
    "NoBrokerError",
    "Notification",
    "NotificationType",
    "OffsetStash",
    "OffsetStore",
    "OffsetStoreFactory",
    "PartitionConsumer",
    "PartitionHealth",
    "RebalanceListener",
    "RefusedError",
    "Strategy",
    "TopicPartition",
    "UnreadableBatchError",
    "sleep_ms",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ksim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
