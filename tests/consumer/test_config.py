"""Configuration: every key's type, range and spellings, and what a mistake says."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksim.consumer.config import KEYS, Acknowledge, Config, Strategy
from ksim.consumer.config_docs import text
from ksim.consumer.config_kinds import (
    Addresses,
    Choice,
    Flag,
    Octets,
    Pattern,
    Several,
    Texts,
    Whole,
    plain,
)
from ksim.consumer.config_names import REFUSED, spellings
from ksim.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-secret"
NEEDED: dict[str, Any] = {"group_id": "g", "topics": ("t",)}
LOGIN = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "u", "sasl_plain_password": SECRET}


def config(**options: Any) -> Config:
    return Config(**{**NEEDED, **options})


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(**options)
    return str(caught.value)


def refused_mapping(mapping: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping({"group.id": "g", "topics": "t", **mapping})
    return str(caught.value)


@pytest.mark.parametrize("name", list(KEYS))
def test_no_key_takes_a_value_of_another_type(name: str) -> None:
    for wrong in (object(), 1.5, {"a": 1}, [1]):
        told = refusal(**{name: wrong})
        assert told.startswith(f"{name} = ")
        assert repr(wrong) in told or KEYS[name].secret


@pytest.mark.parametrize("name", [name for name, known in KEYS.items() if known.secret])
def test_a_wrong_secret_is_not_shown(name: str) -> None:
    assert refusal(**{name: (SECRET,)}) == f"{name} = ***: a text is needed"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sesion_timeout_ms": 1}, "= 1: unknown configuration key; nearest: 'session_timeout_ms'"),
        ({"session_timeout_ms": "30s"}, "= '30s': a whole number is needed, 1 to 2147483647 ms"),
        ({"session_timeout_ms": True}, "= True: a whole number is needed"),
        ({"session_timeout_ms": 2**31}, "= 2147483648: 1 to 2147483647 ms"),
        ({"topics": "orders"}, "= 'orders': several texts are needed, such as ('a', 'b')"),
        ({"topics": ("a", "")}, "must not be empty"),
        ({"mode": "both"}, "= 'both': multiplex, partitions"),
        ({"isolation_level": "serial"}, "= 'serial': read_uncommitted, read_committed"),
        ({"group_id": None}, "= None: a text is needed"),
        ({"client_id": "x" * 40_000}, "xxx...: at most 32767 bytes"),
        ({"group_id": "\ud800"}, "surrogates not allowed"),
        ({"commit_retry_max": 10**5_000}, "= int that is too long to be shown: 0 to 2147483647"),
        ({"topics_whitelist": "a{99999999999999999999}"}, "'a{99999999999999999999}': no regular"),
        ({"topics_blacklist": "(" * 5_000 + ")" * 5_000}, "((...: no regular expression: nested"),
        ({"user_data": "text"}, "= 'text': bytes are needed"),
        ({"return_errors": "false"}, "= 'false': True or False"),
        ({"sasl_mechanism": "PLAIN"}, "'PLAINTEXT'; needs SASL_PLAINTEXT or SASL_SSL"),
        ({"ssl_cafile": "ca.pem"}, "'PLAINTEXT'; needs SSL or SASL_SSL"),
        ({"ssl_keyfile": "k", "security_protocol": "SSL"}, "with ssl_certfile = None; needs one"),
        ({"security_protocol": "SASL_SSL"}, "sasl_mechanism = None: needed"),
        ({"sasl_plain_pasword": SECRET}, "= ***: unknown configuration key; nearest"),
    ],
)
def test_a_mistake_shows_key_value_and_what_is_valid(options: dict[str, Any], told: str) -> None:
    found = refusal(**options)
    assert told in found
    assert "\n" not in found
    assert SECRET not in found


def test_values_are_kept_in_one_form() -> None:
    found = config(topics=["a", "b"], acknowledge="each", partition_strategy=["roundrobin"])
    assert found.topics == ("a", "b")
    assert isinstance(found.acknowledge, Acknowledge)
    assert found.strategies == (Strategy.ROUND_ROBIN,)
    assert hash(found) == hash(replace(found))
    assert copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found


def texts_of(name: str) -> tuple[str, Any]:
    """A text for this key that is not its default, and what it means."""
    match KEYS[name].kind:
        case Whole(unit="ms"):
            return "2s", 2_000
        case Whole():
            return "17", 17
        case Flag():
            return ("no", False) if KEYS[name].default else ("yes", True)
        case Choice() as kind:
            return kind.choices[-1].upper(), kind.choices[-1]
        case Several():
            return "roundrobin, range", (Strategy.ROUND_ROBIN, Strategy.RANGE)
        case Addresses():
            return "a:1, b", ("a:1", "b")
        case Texts():
            return "x:1, y:2", ("x:1", "y:2")
        case Octets():
            return "ü", "ü".encode()
        case Pattern():
            return "^a", "^a"
        case _:
            return "some text", "some text"


FITTING: dict[str, dict[str, Any]] = {
    "session_timeout_ms": {"heartbeat_interval_ms": 1},
    **{name: {"security_protocol": "SASL_SSL", **LOGIN} for name in KEYS if name[:4] == "sasl"},
    **{
        name: {"security_protocol": "SSL", "ssl_certfile": "c"}
        for name in KEYS
        if name[:3] == "ssl"
    },
    "security_protocol": LOGIN,
}


@pytest.mark.parametrize("name", list(KEYS))
def test_each_key_is_read_from_text_in_every_spelling(name: str) -> None:
    written, meant = texts_of(name)
    known = KEYS[name]
    for spelt in {name, name.upper(), known.java or name, *known.librdkafka}:
        mapping = {**NEEDED, **FITTING.get(name, {})}
        mapping.pop(name, None)
        if known.java.endswith("store.location") and spelt == known.java:
            mapping[spelt.replace("location", "type")] = "PEM"
        assert getattr(Config.from_mapping({**mapping, spelt: written}), name) == meant


def test_no_spelling_means_two_keys() -> None:
    names = [plain(other) for k in KEYS.values() for other in {k.java, *k.librdkafka} if other]
    assert len(set(names)) == len(names)
    assert not set(map(plain, REFUSED)) & set(spellings(KEYS))


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"enable.auto.commit": "true"}, "call mark_offset for each message"),
        ({"enable.auto.commit": "false"}, "commit_offsets() commits at once"),
        ({"key.deserializer": "x"}, "key.deserializer: remove it: keys and values are handed out"),
        ({"key_deserializer": "x"}, "handed out as bytes"),
        ({"group.protocol": "consumer"}, "group.protocol = 'consumer': only classic is there"),
        ({"ssl.truststore.location": "a.jks"}, "ssl.truststore.location of type JKS: only PEM"),
        ({"ssl.keystore.location": "a", "ssl.keystore.type": "PKCS12"}, "of type PKCS12: only PEM"),
        ({"sesion.timeout.ms": "1"}, "sesion.timeout.ms = '1': unknown configuration key; nearest"),
        ({"auto.offset.reset": "by_duration:PT1H"}, "auto.offset.reset (auto_offset_reset) = "),
        ({"session.timeout.ms": "soon"}, "or a duration such as 1500ms, 30s, 5m"),
        ({"session.timeout.ms": "1", "session_timeout_ms": 1}, "the same key as session.timeout"),
        ({"return_errors": "perhaps"}, "true or false"),
        ({"partition.assignment.strategy": "cooperative-sticky"}, "range, roundrobin"),
        ({"client.rack": "r"}, "fetched from the leaders"),
        ({"sasl.pasword": SECRET}, "sasl.pasword = ***: unknown"),
        ({"ssl_passwort": SECRET}, "= ***: unknown"),
        ({"basic.auth.user.info": f"u:{SECRET}"}, "basic.auth.user.info = ***: unknown"),
        ({"schema.registry.basic.auth.user.info": SECRET}, "info = ***: unknown"),
        ({"jass.config": SECRET}, "= ***: unknown configuration key; nearest: 'ssl_cafile'"),
        ({"kafka_login": SECRET}, "= ***: unknown configuration key; valid: bootstrap_servers"),
        ({"client_info": SECRET}, "= ***: unknown configuration key; nearest: 'client_id'"),
        ({"group.ids": "g"}, "group.ids = 'g': unknown configuration key; nearest: 'group_id'"),
        ({"sasl.jaas.config": f'x.KerberosModule required secret="{SECRET}";'}, "only PlainLogin"),
        (
            {"sasl.jaas.config": f'PlainLoginModule required username="{SECRET}";'},
            "only PlainLogin",
        ),
    ],
)
def test_what_cannot_be_honoured_says_what_to_do(mapping: dict[str, Any], told: str) -> None:
    found = refused_mapping(mapping)
    assert told in found
    assert SECRET not in found


def test_a_jaas_line_is_a_login() -> None:
    for module in ("plain.PlainLoginModule", "scram.ScramLoginModule"):
        line = (
            f"org.apache.kafka.common.security.{module} required\n"
            ' username="a \\"b\\"" password="p\\\\=;";'
        )
        mapping = {"sasl.jaas.config": line, "sasl.mechanism": "PLAIN", "group.protocol": "classic"}
        found = Config.from_mapping({**NEEDED, "security.protocol": "SASL_SSL", **mapping})
        assert (found.sasl_plain_username, found.sasl_plain_password) == ('a "b"', "p\\=;")


def test_java_and_librdkafka_words_are_taken() -> None:
    java = {
        "partition.assignment.strategy": "org.apache.kafka.clients.consumer.RoundRobinAssignor",
        "ssl.endpoint.identification.algorithm": "",
        "security.protocol": "ssl",
    }
    found = Config.from_mapping({**NEEDED, **java})
    assert found.partition_strategy == Strategy.ROUND_ROBIN
    assert (found.ssl_check_hostname, found.security_protocol) == (False, "SSL")
    assert Config.from_mapping({**NEEDED, "auto.offset.reset": "error"}).auto_offset_reset == "none"


def test_secrets_are_shown_nowhere() -> None:
    found = config(security_protocol="SASL_SSL", ssl_certfile="c", ssl_password=SECRET, **LOGIN)
    for shown in (repr(found), str(found), str(found.public()), str(found.warnings())):
        assert SECRET not in shown
    assert found.public()["sasl_plain_password"] == "***"
    assert config().public()["sasl_plain_password"] is None


def test_what_is_unwise_is_a_warning() -> None:
    assert config().warnings() == ()
    (told,) = config(heartbeat_interval_ms=10_001).warnings()
    assert "heartbeat_interval_ms = 10001: above a third of session_timeout_ms = 30000" in told
    (told,) = config(security_protocol="SASL_PLAINTEXT", **LOGIN).warnings()
    assert "not encrypted" in told
    (told,) = config(security_protocol="SSL", ssl_check_hostname=False).warnings()
    assert "ssl_check_hostname = False" in told


def test_the_documentation_is_made_from_the_table() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert written == text(), "python -m ksim.consumer.config_docs > docs/configuration.md"
    assert "| `session_timeout_ms` | duration | 30000 (30s) | 1 to 2147483647 ms |" in written


@pytest.mark.parametrize("wrong", ["h:x", ":1", "h:0", "h:70000", "h:\u0661"])
def test_bootstrap_servers_are_places(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is not host:port") as caught:
        Config(bootstrap_servers=("a:1", wrong), group_id="g", topics=("t",))
    assert repr(wrong) in str(caught.value)
