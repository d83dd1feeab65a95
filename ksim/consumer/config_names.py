"""Keys as Java and librdkafka spell them, and what cannot be honoured with a hint for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ksim.consumer.config_kinds import Key, plain, unknown
from ksim.core.errors import ConfigError

JAAS: Final = re.compile(
    r"""\s*(?:org\.apache\.kafka\.common\.security\.(?:plain|scram)\.)?
    (?:PlainLoginModule|ScramLoginModule)\s+(?:required|requisite|sufficient|optional)
    (?P<options>(?:\s+\w+\s*=\s*"(?:[^"\\]|\\.)*")*)\s*;\s*""",
    re.VERBOSE,
)
JAAS_OPTION: Final = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
LOGIN: Final = {"username": "sasl_plain_username", "password": "sasl_plain_password"}

BYTES: Final = "remove it: keys and values are handed out as bytes"
TUNED: Final = "remove it: ksim has no such thing to set"
PEM: Final = (
    "only PEM files are read: write one with `keytool -list -rfc -keystore FILE > ca.pem`, or "
    "give the PEM file with the type PEM"
)
PEM_KEY: Final = (
    "only PEM files are read: `openssl pkcs12 -in FILE -out client.pem` makes one of a PKCS12 "
    "file; give it as ssl_certfile, or with the type PEM"
)
INLINE: Final = "PEM text in the configuration is not read: write it to a file for "
KERBEROS: Final = "only PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are there"

# Well-known keys that ksim cannot honour, or that have no meaning to it.
REFUSED: Final = {
    "enable.auto.commit": (
        "remove it: what is marked is committed each commit_interval_ms, and nothing else. "
        "true: call mark_offset for each message that is done. "
        "false: commit_offsets() commits at once, and a long commit_interval_ms leaves it to that"
    ),
    "enable.auto.offset.store": "remove it: a message is stored by mark_offset alone",
    "group.remote.assignor": "remove it: it belongs to group.protocol = consumer",
    "key.deserializer": BYTES,
    "value.deserializer": BYTES,
    "key.serializer": "remove it: it belongs to a producer",
    "value.serializer": "remove it: it belongs to a producer",
    "acks": "remove it: it belongs to a producer",
    "max.poll.records": "remove it: ask with batches(most)",
    "default.api.timeout.ms": "remove it: each call that waits takes its own timeout_ms",
    "check.crcs": "remove it: checksums are always checked",
    "client.rack": "remove it: records are fetched from the leaders alone",
    "allow.auto.create.topics": "remove it: ksim never creates a topic, and waits for it",
    "exclude.internal.topics": "remove it: name them in topics_blacklist",
    "topic.blacklist": "use topics_blacklist",
    "interceptor.classes": TUNED,
    "metric.reporters": TUNED,
    "metrics.num.samples": TUNED,
    "metrics.recording.level": TUNED,
    "metrics.sample.window.ms": TUNED,
    "auto.include.jmx.reporter": TUNED,
    "enable.metrics.push": TUNED,
    "client.dns.lookup": "remove it: all addresses of a name are tried in turn",
    "connections.max.idle.ms": TUNED,
    "reconnect.backoff.ms": "use retry_backoff_ms",
    "reconnect.backoff.max.ms": "use retry_backoff_max_ms",
    "receive.buffer.bytes": TUNED,
    "send.buffer.bytes": TUNED,
    "socket.keepalive.enable": TUNED,
    "socket.nagle.disable": "remove it: it is always so",
    "socket.receive.buffer.bytes": TUNED,
    "socket.send.buffer.bytes": TUNED,
    "statistics.interval.ms": TUNED,
    "debug": "remove it: loggers named ksim.* tell more at DEBUG",
    "log.level": "remove it: set the level of the logger ksim",
    "api.version.request": "remove it: it is always so",
    "api.version": "remove it: brokers are asked for their versions",
    "broker.version.fallback": "remove it: brokers are asked for their versions",
    "enable.partition.eof": "remove it: lag() tells where the end is",
    "queued.min.messages": "use fetch_buffer_bytes",
    "queued.max.messages.kbytes": "use fetch_buffer_bytes, in bytes",
    "consumer.timeout.ms": "remove it: messages() takes timeout_ms",
    "ssl.protocol": "remove it: the best that both sides speak is taken, TLS 1.2 at least",
    "ssl.enabled.protocols": "remove it: the best that both sides speak is taken, TLS 1.2 at least",
    "ssl.provider": TUNED,
    "ssl.truststore.password": "remove it: PEM files of authorities have none",
    "ssl.keystore.password": "a PEM file has none; use ssl_password for the key in it",
    "ssl.truststore.certificates": INLINE + "ssl_cafile",
    "ssl.keystore.certificate.chain": INLINE + "ssl_certfile",
    "ssl.keystore.key": INLINE + "ssl_keyfile",
    "ssl.ca.pem": INLINE + "ssl_cafile",
    "ssl.certificate.pem": INLINE + "ssl_certfile",
    "ssl.key.pem": INLINE + "ssl_keyfile",
    "ssl.context": "it is made of ssl_cafile, ssl_certfile and their like",
    "enable.ssl.certificate.verification": (
        "remove it: certificates are always verified; give the authority in ssl_cafile"
    ),
    "sasl.kerberos.service.name": KERBEROS,
    "sasl.oauthbearer.token.endpoint.url": KERBEROS,
    "sasl.login.callback.handler.class": KERBEROS,
    "sasl.client.callback.handler.class": KERBEROS,
}
STORES: Final = {"ssl.truststore": PEM, "ssl.keystore": PEM_KEY}


def spellings(keys: Mapping[str, Key]) -> dict[str, str]:
    """Each name that is taken, written in ksim's way, to the key that it means."""
    found = {name: name for name in keys}
    for name, known in keys.items():
        for other in (known.java, *known.librdkafka):
            if other:
                found[plain(other)] = name
    return found


def translated(keys: Mapping[str, Key], mapping: Mapping[str, Any], source: str = "") -> Any:
    """Values by ksim's names. Raises ConfigError, with `source` before each."""
    try:
        return _translated(keys, mapping)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}" if source else str(error)) from None


def _translated(keys: Mapping[str, Key], mapping: Mapping[str, Any]) -> dict[str, Any]:
    taken = spellings(keys)
    refused = {plain(name): hint for name, hint in REFUSED.items()}
    found: dict[str, Any] = {}
    spelt: dict[str, str] = {}
    for original, raw in _plain_logins(_without_types(mapping)):
        name = plain(original)
        if name in refused:
            raise ConfigError(f"{original}: {refused[name]}")
        if name not in taken:
            raise unknown(original, raw, list(taken))
        name = taken[name]
        if name in found:
            raise ConfigError(f"{original}: the same key as {spelt[name]}; give one of them")
        spelt[name] = original
        found[name] = keys[name].read(raw, original)
    return found


def _without_types(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that only say how others are to be read. Raises ConfigError."""
    left = {plain(str(name)): str(name) for name in mapping}
    found = {str(name): value for name, value in mapping.items()}
    for store, hint in STORES.items():
        kind = found.pop(left.get(plain(f"{store}.type"), ""), "JKS")
        if plain(f"{store}.location") in left and str(kind).upper() != "PEM":
            raise ConfigError(f"{left[plain(f'{store}.location')]} of type {kind}: {hint}")
    protocol = left.get("group_protocol")
    if protocol is not None and str(found.pop(protocol)).lower() != "classic":
        raise ConfigError(f"{protocol} = {mapping[protocol]!r}: only classic is there")
    return found


def _plain_logins(mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """JAAS lines as the login that stands in them. Raises ConfigError, which shows none of it."""
    for name in sorted(mapping):
        if plain(name) != "sasl_jaas_config":
            yield name, mapping[name]
            continue
        matched = JAAS.fullmatch(str(mapping[name]))
        options = JAAS_OPTION.findall(matched["options"]) if matched else []
        names = [option for option, _ in options]
        if sorted(names) != sorted(LOGIN):
            raise ConfigError(
                f"{name}: only PlainLoginModule and ScramLoginModule with username and password "
                "are read; use sasl_plain_username and sasl_plain_password"
            )
        for option, text in options:
            yield LOGIN[option], re.sub(r"\\(.)", r"\1", text)
