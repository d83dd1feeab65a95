"""Deterministic simulation and production consumption of Apache Kafka consumer groups.

Names are loaded when they are first used, so that `import ksim` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ksim.consumer.config import Config, ConsumerMode, Strategy
    from ksim.consumer.consumer import Consumer
    from ksim.consumer.message import ConsumerError, Message, Notification, NotificationType
    from ksim.core.values import TopicPartition

_HOMES: Final = {
    "Config": "ksim.consumer.config",
    "Consumer": "ksim.consumer.consumer",
    "ConsumerError": "ksim.consumer.message",
    "ConsumerMode": "ksim.consumer.config",
    "Message": "ksim.consumer.message",
    "Notification": "ksim.consumer.message",
    "NotificationType": "ksim.consumer.message",
    "Strategy": "ksim.consumer.config",
    "TopicPartition": "ksim.core.values",
}

__all__ = [
    "Config",
    "Consumer",
    "ConsumerError",
    "ConsumerMode",
    "Message",
    "Notification",
    "NotificationType",
    "Strategy",
    "TopicPartition",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ksim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
