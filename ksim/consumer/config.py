"""Configuration: frozen, keyword-only, validated; defaults follow sarama-cluster and Kafka."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from ksim.core.errors import ConfigError
from ksim.core.member_state import MemberConfig


class Strategy(StrEnum):
    """How partitions are shared among the members."""

    RANGE = "range"
    ROUND_ROBIN = "roundrobin"


class ConsumerMode(StrEnum):
    """MULTIPLEX: one stream of messages. PARTITIONS: one stream for each partition."""

    MULTIPLEX = "multiplex"
    PARTITIONS = "partitions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How a member behaves; times in ms. Raises ConfigError: the value and the valid choices."""

    bootstrap_servers: tuple[str, ...] = ()
    group_id: str
    topics: tuple[str, ...]
    client_id: str = "ksim"
    group_instance_id: str | None = None
    partition_strategy: Strategy = Strategy.RANGE
    mode: ConsumerMode = ConsumerMode.MULTIPLEX
    auto_offset_reset: str = "latest"
    session_timeout_ms: int = 30_000
    rebalance_timeout_ms: int | None = None
    heartbeat_interval_ms: int = 3_000
    max_poll_interval_ms: int = 300_000
    commit_interval_ms: int = 1_000
    commit_retry_max: int = 3
    dwell_time_ms: int | None = None
    request_timeout_ms: int = 30_000
    bootstrap_timeout_ms: int = 30_000
    retry_backoff_ms: int = 100
    retry_backoff_max_ms: int = 1_000
    metadata_max_age_ms: int = 300_000
    fetch_min_bytes: int = 1
    fetch_max_bytes: int = 52_428_800
    fetch_max_wait_ms: int = 500
    max_partition_fetch_bytes: int = 1_048_576
    return_notifications: bool = False
    return_errors: bool = False

    def __post_init__(self) -> None:
        for name in ("session_timeout_ms", "heartbeat_interval_ms", "commit_interval_ms"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be above 0 ms")
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ConfigError(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms}: "
                f"must be below session_timeout_ms = {self.session_timeout_ms}"
            )
        if self.auto_offset_reset not in ("earliest", "latest", "none"):
            raise ConfigError(
                f"auto_offset_reset = {self.auto_offset_reset!r}: earliest, latest or none"
            )
        if not self.group_id:
            raise ConfigError("group_id = '': must not be empty")
        if not self.topics:
            raise ConfigError("topics = (): at least one topic")

    @property
    def effective_rebalance_timeout_ms(self) -> int:
        """The rebalance timeout sent to the coordinator; the session timeout unless set."""
        return self.rebalance_timeout_ms or self.session_timeout_ms

    @property
    def effective_dwell_time_ms(self) -> int:
        """How long a revocation may wait for work in flight, with a margin to join in time."""
        dwell_ms = self.dwell_time_ms
        limit_ms = self.effective_rebalance_timeout_ms * 9 // 10
        return limit_ms if dwell_ms is None else min(dwell_ms, limit_ms)

    def member_config(self) -> MemberConfig:
        """What the machine needs of this."""
        return MemberConfig(
            group_id=self.group_id,
            topics=tuple(sorted(set(self.topics))),
            group_instance_id=self.group_instance_id,
            assignor=self.partition_strategy.value,
            auto_offset_reset=self.auto_offset_reset,
            session_timeout_ms=self.session_timeout_ms,
            rebalance_timeout_ms=self.effective_rebalance_timeout_ms,
            heartbeat_interval_ms=self.heartbeat_interval_ms,
            max_poll_interval_ms=self.max_poll_interval_ms,
            commit_interval_ms=self.commit_interval_ms,
            commit_retry_max=self.commit_retry_max,
            dwell_time_ms=self.effective_dwell_time_ms,
            request_timeout_ms=self.request_timeout_ms,
            retry_backoff_ms=self.retry_backoff_ms,
            retry_backoff_max_ms=self.retry_backoff_max_ms,
            metadata_max_age_ms=self.metadata_max_age_ms,
            fetch_min_bytes=self.fetch_min_bytes,
            fetch_max_bytes=self.fetch_max_bytes,
            fetch_max_wait_ms=self.fetch_max_wait_ms,
            max_partition_fetch_bytes=self.max_partition_fetch_bytes,
        )

    def public(self) -> dict[str, Any]:
        """All keys as JSON can say them; there is no secret among them yet."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Config:
        """From keys in ksim's names or with dots for underscores (`session.timeout.ms`)."""
        known = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for key in sorted(mapping):
            name = ALIASES.get(key, key.replace(".", "_").replace("-", "_"))
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; nearest: {near[0]}" if near else ""
                raise ConfigError(f"unknown configuration key {key!r}{hint}")
            values[name] = _convert(name, str(known[name].type), mapping[key])
        return cls(**values)


ALIASES = {
    "partition.assignment.strategy": "partition_strategy",
    "auto.commit.interval.ms": "commit_interval_ms",
    "fetch.wait.max.ms": "fetch_max_wait_ms",
    "metadata.broker.list": "bootstrap_servers",
}
RESETS = {"beginning": "earliest", "smallest": "earliest", "end": "latest", "largest": "latest"}


def _convert(name: str, type_name: str, raw: Any) -> Any:
    if "tuple" in type_name:
        return tuple(raw.split(",")) if isinstance(raw, str) else tuple(raw)
    if "int" in type_name:
        return raw if raw is None or isinstance(raw, int) else duration_or_count(name, raw)
    if "bool" in type_name:
        return raw if isinstance(raw, bool) else str(raw).lower() in ("1", "true", "yes")
    if name == "partition_strategy":
        if raw not in tuple(Strategy):
            raise ConfigError(f"partition_strategy = {raw!r}: {', '.join(Strategy)}")
        return Strategy(raw)
    if name == "mode":
        return ConsumerMode(raw)
    return RESETS.get(raw, raw) if name == "auto_offset_reset" else raw


def duration_or_count(name: str, raw: str) -> int:
    """Parse "1500", "1500ms", "30s" or "5m"; bare numbers are ms where the name ends so."""
    text = raw.strip()
    for suffix, factor in (("ms", 1), ("s", 1_000), ("m", 60_000), ("", 1)):
        if text.endswith(suffix) and text[: len(text) - len(suffix)].isdigit():
            return int(text[: len(text) - len(suffix)]) * factor
    raise ConfigError(f"{name} = {raw!r}: a whole number, or a duration such as 1500ms, 30s, 5m")
