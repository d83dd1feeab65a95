"""Configuration: frozen, keyword-only, validated; defaults follow sarama-cluster and Kafka."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ksim.consumer.config_files import read_file
from ksim.consumer.config_kinds import (
    HIDDEN,
    Addresses,
    Choice,
    Flag,
    Key,
    Octets,
    Pattern,
    Several,
    Text,
    Texts,
    Whole,
    choice_of,
    key,
    keys_of,
    unknown,
)
from ksim.consumer.config_names import translated
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


class Acknowledge(StrEnum):
    """MARK: `mark_offset` says that all up to a record is done. EACH: `message.ack()` for each."""

    MARK = "mark"
    EACH = "each"


HEARTBEATS_IN_REBALANCE: Final = 3
HEARTBEATS_IN_SESSION: Final = 3
JAVA_STRATEGIES: Final = {
    "org.apache.kafka.clients.consumer.RangeAssignor": "range",
    "org.apache.kafka.clients.consumer.RoundRobinAssignor": "roundrobin",
}
RESETS: Final = {
    "beginning": "earliest",
    "smallest": "earliest",
    "end": "latest",
    "largest": "latest",
    "error": "none",
}
ENDPOINT_CHECKS: Final = {"https": True, "none": False, "": False}
MS: Final = Whole(1, "ms")
FETCH_BYTES: Final = Whole(1, "bytes")
# Kafka's numbers of them are the places here.
ISOLATION_LEVELS: Final = ("read_uncommitted", "read_committed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How a member behaves; times in ms. Raises ConfigError: the value and the valid choices.

    All keys with their meaning stand in `docs/configuration.md`.
    """

    bootstrap_servers: tuple[str, ...] = key(
        Addresses(),
        (),
        "Brokers to begin with, each host:port; the others are learned from them.",
        java="bootstrap.servers",
        librdkafka=("bootstrap.servers", "metadata.broker.list"),
    )
    group_id: str = key(Text(), "", "The consumer group; it must be given.", java="group.id")
    topics: tuple[str, ...] = key(
        Texts(), (), "Topics by name; these or `topics_whitelist` must be given."
    )
    topics_whitelist: str | None = key(
        Pattern(), None, "Consume every topic with such a name that is not blacklisted."
    )
    topics_blacklist: str | None = key(
        Pattern(), None, "Never consume these, unless they stand in `topics`."
    )
    user_data: bytes | None = key(
        Octets(), None, "Sent with each subscription; DescribeGroups shows it."
    )
    client_id: str = key(
        Text(), "ksim", "How brokers name this client in logs, quotas and tools.", java="client.id"
    )
    group_instance_id: str | None = key(
        Text(),
        None,
        "Makes a static member, whose partitions wait for it while it restarts.",
        java="group.instance.id",
    )
    partition_strategy: Strategy | tuple[Strategy, ...] = key(
        Several(choice_of(Strategy, JAVA_STRATEGIES)),
        Strategy.RANGE,
        "How partitions are shared; several are offered in this order.",
        java="partition.assignment.strategy",
    )
    mode: ConsumerMode = key(
        choice_of(ConsumerMode),
        ConsumerMode.MULTIPLEX,
        "One stream of messages, or one for each partition.",
    )
    acknowledge: Acknowledge = key(
        choice_of(Acknowledge),
        Acknowledge.MARK,
        "A mark says that all up to it is done; `each`: every message is acknowledged by itself.",
    )
    max_in_flight: int = key(
        Whole(1),
        1_000,
        'Messages that may be unacknowledged at a time, with `acknowledge = "each"`.',
    )
    auto_offset_reset: str = key(
        Choice(("earliest", "latest", "none"), RESETS),
        "latest",
        "Where to begin without a committed offset; `none` is an error then.",
        java="auto.offset.reset",
    )
    isolation_level: str = key(
        Choice(ISOLATION_LEVELS),
        "read_uncommitted",
        "Whether records of open and aborted transactions are handed out (librdkafka's default is "
        "read_committed, this one is Java's).",
        java="isolation.level",
    )
    session_timeout_ms: int = key(
        MS,
        30_000,
        "A member that is not heard of for so long loses its partitions.",
        java="session.timeout.ms",
    )
    rebalance_timeout_ms: int | None = key(
        MS,
        None,
        "How long a rebalance waits for each member; none: the session timeout.",
    )
    heartbeat_interval_ms: int = key(
        MS,
        3_000,
        "How often a member says that it lives; at most a third of the session timeout is wise.",
        java="heartbeat.interval.ms",
    )
    max_poll_interval_ms: int = key(
        MS,
        300_000,
        "A member that neither asks for a message nor marks one for so long leaves its group.",
        java="max.poll.interval.ms",
    )
    commit_interval_ms: int = key(
        MS, 1_000, "How often marks are committed.", java="auto.commit.interval.ms"
    )
    commit_retry_max: int = key(
        Whole(0), 3, "How often a commit that was refused for a passing reason is sent again."
    )
    dwell_time_ms: int | None = key(
        Whole(0, "ms"),
        None,
        "How long a rebalance waits for work in flight; none: 9/10 of the rebalance timeout.",
    )
    request_timeout_ms: int = key(
        MS,
        30_000,
        "A request without an answer for so long ends its connection.",
        java="request.timeout.ms",
        librdkafka="socket.timeout.ms",
    )
    bootstrap_timeout_ms: int = key(
        MS, 30_000, "How long to look for a first broker; later outages are waited out for ever."
    )
    retry_backoff_ms: int = key(
        MS, 100, "The first wait before something is tried again.", java="retry.backoff.ms"
    )
    retry_backoff_max_ms: int = key(
        MS, 1_000, "The longest of these waits, which double.", java="retry.backoff.max.ms"
    )
    metadata_max_age_ms: int = key(
        MS,
        300_000,
        "How often to look for new topics and partitions.",
        java="metadata.max.age.ms",
        librdkafka="topic.metadata.refresh.interval.ms",
    )
    fetch_min_bytes: int = key(
        FETCH_BYTES, 1, "A broker answers a fetch when it has so much.", java="fetch.min.bytes"
    )
    fetch_max_bytes: int = key(
        FETCH_BYTES, 52_428_800, "The most of one answer to a fetch.", java="fetch.max.bytes"
    )
    fetch_max_wait_ms: int = key(
        Whole(0, "ms"),
        500,
        "A broker answers a fetch after so long, whatever it has.",
        java="fetch.max.wait.ms",
        librdkafka="fetch.wait.max.ms",
    )
    max_partition_fetch_bytes: int = key(
        FETCH_BYTES,
        1_048_576,
        "The most of one partition in an answer; a larger batch comes alone.",
        java="max.partition.fetch.bytes",
        librdkafka=("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    )
    fetch_buffer_bytes: int = key(
        Whole(1, "bytes", 2**40),
        67_108_864,
        "How much may be fetched and not yet handed out, over all partitions.",
    )
    flight_recorder_bytes: int = key(
        Whole(0, "bytes"),
        4_194_304,
        "How much of what this member saw and decided is kept for `dump_recording`; 0: nothing.",
    )
    flight_recorder_ms: int = key(MS, 300_000, "For how long it is kept at most.")
    flight_recorder_dir: str | None = key(
        Text(), None, "Where it is written when the consumer ends by an error; none: nowhere."
    )
    security_protocol: str = key(
        Choice(("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")),
        "PLAINTEXT",
        "How to speak with brokers: as they are, with TLS, with a login, or with both.",
        java="security.protocol",
    )
    ssl_cafile: str | None = key(
        Text(),
        None,
        "PEM file of the authorities that are trusted; none: those of the operating system.",
        java="ssl.truststore.location",
        librdkafka="ssl.ca.location",
    )
    ssl_certfile: str | None = key(
        Text(),
        None,
        "PEM file of this client's certificate, and its key if that has no file of its own.",
        java="ssl.keystore.location",
        librdkafka="ssl.certificate.location",
    )
    ssl_keyfile: str | None = key(
        Text(),
        None,
        "PEM file of the key to the certificate.",
        librdkafka="ssl.key.location",
    )
    ssl_password: str | None = key(
        Text(),
        None,
        "What the key is encrypted with.",
        java="ssl.key.password",
        secret=True,
    )
    ssl_check_hostname: bool = key(
        Flag(ENDPOINT_CHECKS),
        True,
        "Whether a broker's certificate must carry the name that it is reached by.",
        java="ssl.endpoint.identification.algorithm",
    )
    ssl_crlfile: str | None = key(
        Text(),
        None,
        "PEM file of certificates that are revoked, for each authority of the chain.",
        librdkafka="ssl.crl.location",
    )
    ssl_ciphers: str | None = key(
        Text(),
        None,
        "Ciphers up to TLS 1.2, in OpenSSL's names, separated by colons.",
        java="ssl.cipher.suites",
    )
    sasl_mechanism: str | None = key(
        Choice(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")),
        None,
        "How to log in, with SASL_PLAINTEXT or SASL_SSL.",
        java="sasl.mechanism",
        librdkafka=("sasl.mechanism", "sasl.mechanisms"),
    )
    sasl_plain_username: str | None = key(
        Text(), None, "Who logs in, by any mechanism.", librdkafka="sasl.username"
    )
    sasl_plain_password: str | None = key(
        Text(), None, "The password of the login.", librdkafka="sasl.password", secret=True
    )
    return_notifications: bool = key(Flag(), False, "Whether `notifications()` is kept.")
    return_errors: bool = key(
        Flag(), False, "Whether `errors()` is read; otherwise errors are logged."
    )

    def __new__(cls, **values: Any) -> Config:
        """Unknown keys are mistakes of configuration like any other."""
        for name in values:
            if name not in KEYS:
                raise unknown(name, values[name], list(KEYS))
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, known in KEYS.items():
            object.__setattr__(self, name, known.check(getattr(self, name)))
        if self.heartbeat_interval_ms >= self.session_timeout_ms:
            raise ConfigError(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms}: "
                f"must be below session_timeout_ms = {self.session_timeout_ms}"
            )
        if not self.topics and self.topics_whitelist is None:
            raise ConfigError("topics = (): at least one topic, or a topics_whitelist")
        self._check_security()

    def _check_security(self) -> None:
        """A login or a certificate that would not be used is a mistake, and so is one too few."""
        protocol = self.security_protocol
        logins = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
        for name in logins:
            if self.uses_sasl and getattr(self, name) is None:
                raise ConfigError(f"{name} = None: needed with security_protocol = {protocol!r}")
        certificates = ("ssl_cafile", "ssl_certfile", "ssl_crlfile", "ssl_ciphers")
        for names, used, instead in (
            (logins, self.uses_sasl, "SASL_PLAINTEXT or SASL_SSL"),
            (certificates, self.uses_tls, "SSL or SASL_SSL"),
            (("ssl_keyfile", "ssl_password"), self.ssl_certfile is not None, ""),
        ):
            for name in names:
                if getattr(self, name) is not None and not used:
                    shown = KEYS[name].shown(getattr(self, name))
                    other = f"security_protocol = {protocol!r}; needs {instead}"
                    other = other if instead else "ssl_certfile = None; needs one"
                    raise ConfigError(f"{name} = {shown}: not used with {other}")

    @property
    def uses_sasl(self) -> bool:
        """Each connection begins with a login."""
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        """Each connection is encrypted."""
        return self.security_protocol.endswith("SSL")

    def warnings(self) -> tuple[str, ...]:
        """What is valid, and most likely not what is wanted."""
        found: list[str] = []
        third_ms = self.session_timeout_ms // HEARTBEATS_IN_SESSION
        if self.heartbeat_interval_ms > third_ms:
            found.append(
                f"heartbeat_interval_ms = {self.heartbeat_interval_ms}: above a third of "
                f"session_timeout_ms = {self.session_timeout_ms}, so that two lost heartbeats "
                "may end the session"
            )
        if self.security_protocol == "SASL_PLAINTEXT":
            found.append("security_protocol = 'SASL_PLAINTEXT': the login is not encrypted")
        if self.uses_tls and not self.ssl_check_hostname:
            found.append(
                "ssl_check_hostname = False: any broker with a trusted certificate is believed"
            )
        return tuple(found)

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """What is offered to the group, the preferred one first."""
        found = self.partition_strategy
        return found if isinstance(found, tuple) else (found,)

    @property
    def effective_rebalance_timeout_ms(self) -> int:
        """The rebalance timeout sent to the coordinator; the session timeout unless set."""
        return self.rebalance_timeout_ms or self.session_timeout_ms

    @property
    def effective_heartbeat_interval_ms(self) -> int:
        """How often a member asks; a rebalance is heard of by a heartbeat alone.

        One that hears of it only after the rebalance timeout is put out of the group each time,
        comes back as a newcomer, and puts out the others in the same way, for ever.
        """
        most_ms = max(1, self.effective_rebalance_timeout_ms // HEARTBEATS_IN_REBALANCE)
        return min(self.heartbeat_interval_ms, most_ms)

    @property
    def effective_dwell_time_ms(self) -> int:
        """How long a revocation may wait for work in flight, with a margin to join in time."""
        dwell_ms = self.dwell_time_ms
        limit_ms = self.effective_rebalance_timeout_ms * 9 // 10
        return limit_ms if dwell_ms is None else min(dwell_ms, limit_ms)

    def member_config(self, *, own_offset_store: bool = False) -> MemberConfig:
        """What the machine needs of this."""
        return MemberConfig(
            group_id=self.group_id,
            topics=tuple(sorted(set(self.topics))),
            group_instance_id=self.group_instance_id,
            topics_whitelist=self.topics_whitelist,
            topics_blacklist=self.topics_blacklist,
            user_data=self.user_data,
            own_offset_store=own_offset_store,
            assignors=tuple(strategy.value for strategy in self.strategies),
            auto_offset_reset=self.auto_offset_reset,
            session_timeout_ms=self.session_timeout_ms,
            rebalance_timeout_ms=self.effective_rebalance_timeout_ms,
            heartbeat_interval_ms=self.effective_heartbeat_interval_ms,
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
            fetch_buffer_bytes=self.fetch_buffer_bytes,
            isolation_level=ISOLATION_LEVELS.index(self.isolation_level),
        )

    def public(self) -> dict[str, Any]:
        """All keys as JSON can say them; a secret is only said to be there."""
        found = asdict(self)
        for name, known in KEYS.items():
            if known.secret and found[name] is not None:
                found[name] = HIDDEN
        if self.user_data is not None:
            found["user_data"] = base64.b64encode(self.user_data).decode()
        return found

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Config:
        """From keys as ksim, Java or librdkafka spell them (`session.timeout.ms`); texts too."""
        return cls(**translated(KEYS, mapping))

    @classmethod
    def from_file(cls, path: str | Path, **values: Any) -> Config:
        """From a .toml or .properties file; `values` go before what stands there."""
        return cls(**{**translated(KEYS, read_file(Path(path)), str(path)), **values})


KEYS: Final[dict[str, Key]] = keys_of(Config)
