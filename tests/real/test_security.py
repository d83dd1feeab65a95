"""TLS and logins against a real broker that wants them, and what each refusal says."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ksim.consumer.config import Config
from ksim.consumer.consumer import Consumer
from ksim.core.errors import AuthenticationError, ConfigError, NoBrokerError
from ksim.real.connection import Connection
from ksim.real.sasl import Login
from ksim.real.security import security_of
from tests.cli.commands import ROOT, ksim
from tests.kafka_security import LOGIN_AGAIN_MS, PASSWORDS, USERS, settings_for
from tests.kafka_server import KafkaServer
from tests.real.processes import until

COUNT = 40
BOOTSTRAP_MS = 5_000  # where it is waited for in vain
QUICK = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 500, "commit_interval_ms": 200}


@pytest.fixture(scope="module")
def secure(kafka_of: Callable[[str], KafkaServer]) -> KafkaServer:
    return kafka_of("secure")


@pytest.fixture
def topic(secure: KafkaServer, fresh_name: Callable[[str], str]) -> str:
    name = fresh_name("topic")
    secure.create_topic(name, 4)
    return name


def produce(secure: KafkaServer, topic: str, first: int, count: int) -> None:
    from kafka import KafkaProducer

    producer: Any = KafkaProducer(bootstrap_servers=secure.bootstrap)
    for number in range(first, first + count):
        producer.send(topic, value=str(number).encode(), partition=number % 4)
    producer.flush(60)
    producer.close(60)


def config(secure: KafkaServer, listener: str, **options: Any) -> Config:
    usual = {
        "bootstrap_servers": (secure.listeners[listener],),
        "group_id": "g",
        "topics": ("t",),
        "bootstrap_timeout_ms": 60_000,
        "auto_offset_reset": "earliest",
    }
    return Config(**{**usual, **options})


def member_config(secure: KafkaServer, topic: str, group: str, mechanism: str) -> Config:
    login = settings_for(mechanism, secure.folder)
    return config(secure, "SASL_SSL", group_id=group, topics=(topic,), **login)


def refusal(found: Config, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        Consumer(found).close()
    return str(caught.value)


class Process:
    """`ksim consume` with its configuration in a file, where a secret belongs."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        self.output = folder / f"{name}.out"
        self.recording = folder / f"{name}.ksim"
        path = folder / f"{name}.toml"
        path.write_text("".join(f"{key} = {json.dumps(v)}\n" for key, v in settings.items()))
        command = [sys.executable, "-m", "ksim.cli.main", "consume", "--config", str(path)]
        command += ["--record", str(self.recording)]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    def lines(self) -> list[dict[str, Any]]:
        whole = self.output.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]

    def values(self) -> list[int]:
        return [int(line["value"]) for line in self.lines() if "value" in line]

    def owned(self) -> list[int]:
        sets = [line["partitions"] for line in self.lines() if line.get("event") == "assigned"]
        return [partition for _, partition in sets[-1]] if sets else []

    def told(self) -> str:
        return self.output.read_text("utf-8")

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(name: str, settings: dict[str, Any]) -> Process:
        started.append(Process(tmp_path, name, settings))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait()


def shared(first: Process, second: Process) -> bool:
    return bool(second.owned()) and sorted(first.owned() + second.owned()) == [0, 1, 2, 3]


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", list(USERS))
def test_two_members_share_and_rebalance_with_a_login(
    secure: KafkaServer,
    topic: str,
    fresh_name: Callable[[str], str],
    member: Callable[..., Process],
    mechanism: str,
) -> None:
    settings: dict[str, Any] = {
        "bootstrap_servers": [secure.listeners["SASL_SSL"]],
        "group_id": fresh_name("group"),
        "topics": [topic],
        "auto_offset_reset": "earliest",
        **QUICK,
        **settings_for(mechanism, secure.folder),
    }
    produce(secure, topic, 0, COUNT)
    first = member("first", settings)
    until(lambda: len(first.values()) == COUNT, "all records at the first member")
    second = member("second", settings)
    until(lambda: shared(first, second), "a shared topic")
    produce(secure, topic, COUNT, COUNT)
    everything = list(range(2 * COUNT))
    until(lambda: sorted(first.values() + second.values()) == everything, "each record once")
    assert second.end() == 0
    until(lambda: sorted(first.owned()) == [0, 1, 2, 3], "everything back at the first member")
    assert first.end() == 0
    for process in (first, second):
        for kept in (process.output.read_bytes(), process.recording.read_bytes()):
            assert PASSWORDS[USERS[mechanism]].encode() not in kept
        assert b'"sasl_plain_password":"***"' in process.recording.read_bytes()


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", list(USERS))
def test_a_login_that_runs_out_is_renewed(
    secure: KafkaServer,
    topic: str,
    fresh_name: Callable[[str], str],
    mechanism: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logins: list[int] = []
    monkeypatch.setattr(Login, "begin", counted(Login.begin, logins))
    connections: list[int] = []
    monkeypatch.setattr(Connection, "send", counted(Connection.send, connections))
    found = config(
        secure,
        "AGAIN",
        group_id=fresh_name("group"),
        topics=(topic,),
        fetch_max_wait_ms=100,
        **QUICK,
        **settings_for(mechanism, secure.folder),
    )
    generations: set[int] = set()
    values: list[int] = []
    with Consumer(found) as consumer:
        for turn in range(4):  # each longer than a login lives
            produce(secure, topic, turn * COUNT, COUNT)
            for message in consumer.messages(timeout_ms=LOGIN_AGAIN_MS + 500):
                values.append(int(message.value or b"-1"))
                consumer.mark_offset(message)
                generations.add(consumer.generation_id)
        consumer.commit_offsets()
        assert consumer.errors() == []
    assert sorted(values) == list(range(4 * COUNT))
    assert generations == {1}
    assert len(logins) > 2 * len(set(connections)), "a login is renewed where it is"


def counted(method: Callable[..., Any], seen: list[int]) -> Callable[..., Any]:
    """The same method, which writes down on what it was called."""

    def call(self: Any, *arguments: Any) -> Any:
        seen.append(id(self))
        kept.append(self)  # so that no other has its id
        return method(self, *arguments)

    kept: list[Any] = []
    return call


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", list(USERS))
def test_a_wrong_password_is_told_at_once(secure: KafkaServer, mechanism: str) -> None:
    wrong = {**settings_for(mechanism, secure.folder), "sasl_plain_password": "planted-wrong"}
    told = refusal(config(secure, "SASL_SSL", **wrong), AuthenticationError)
    where = secure.listeners["SASL_SSL"]
    assert f"login of {USERS[mechanism]!r} at {where} by {mechanism} refused: " in told
    assert "nvalid" in told  # the broker's own words
    assert "planted" not in told


def set_password(secure: KafkaServer, name: str, password: str) -> None:
    """Return when the broker takes this password for SCRAM-SHA-256."""
    from kafka import KafkaAdminClient
    from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

    make_admin, upsertion = cast(Any, KafkaAdminClient), cast(Any, UserScramCredentialUpsertion)
    admin = make_admin(bootstrap_servers=secure.bootstrap)
    try:
        wanted = upsertion(name, ScramMechanism.SCRAM_SHA_256, password)
        assert admin.alter_user_scram_credentials([wanted]) == {name: None}
    finally:
        admin.close()
    settings = {**settings_for("SCRAM-SHA-256", secure.folder), "sasl_plain_username": name}
    found = config(secure, "SASL_SSL", **{**settings, "sasl_plain_password": password})

    def taken() -> bool:
        try:
            Consumer(found).close()
        except AuthenticationError:  # the broker has not read the change yet
            return False
        return True

    until(taken, "a password that the broker knows")


@pytest.mark.kafka
def test_a_password_that_changes_while_a_member_runs_is_told(
    secure: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    """Its next login is refused: it must not try for ever in silence."""
    name, password = fresh_name("a,b=c"), "planted-secret-of-one"
    set_password(secure, name, password)
    options = {
        **settings_for("SCRAM-SHA-256", secure.folder),
        "sasl_plain_username": name,
        "sasl_plain_password": password,
    }
    consumer = Consumer(
        config(secure, "AGAIN", group_id=fresh_name("group"), topics=(topic,), **QUICK, **options)
    )
    assert list(consumer.messages(timeout_ms=500)) == []
    set_password(secure, name, "another")
    with pytest.raises(AuthenticationError) as caught:
        list(consumer.messages(timeout_ms=60_000))
    assert f"login of {name!r} at {secure.listeners['AGAIN']} by SCRAM-SHA-256" in str(caught.value)
    with pytest.raises(AuthenticationError):
        consumer.close()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("listener", "options", "kind", "words"),
    [
        ("SASL_SSL", {"ssl_cafile": "other-ca.pem"}, AuthenticationError, "no trust"),
        ("ELSEWHERE", {}, AuthenticationError, "IP address mismatch"),
        ("MUTUAL", {}, AuthenticationError, "certificate required"),
        ("SASL_SSL", {"security_protocol": "SASL_PLAINTEXT"}, NoBrokerError, "speaks TLS|closed"),
        ("SASL_PLAINTEXT", {}, NoBrokerError, "during the TLS handshake"),
        ("SASL_PLAINTEXT", {"security_protocol": "PLAINTEXT"}, NoBrokerError, "want a login"),
        (
            "MUTUAL",
            {"ssl_certfile": "client.pem", "login": "yes"},
            AuthenticationError,
            "no logins",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    secure: KafkaServer,
    listener: str,
    options: dict[str, str],
    kind: type[Exception],
    words: str,
) -> None:
    files: dict[str, Any] = {
        key: str(secure.folder / value) if key[:4] == "ssl_" else value
        for key, value in options.items()
    }
    protocol = options.get("security_protocol", "SASL_SSL")
    if listener in ("MUTUAL", "ELSEWHERE") and "login" not in options:
        protocol = "SSL"
    files.pop("login", None)
    usual = settings_for("PLAIN", secure.folder)
    if not protocol.startswith("SASL"):
        usual = {key: found for key, found in usual.items() if key[:4] != "sasl"}
    if not protocol.endswith("SSL"):
        usual.pop("ssl_cafile")
    if kind is NoBrokerError:
        files["bootstrap_timeout_ms"] = BOOTSTRAP_MS
    found = config(secure, listener, **{**usual, **files, "security_protocol": protocol})
    with pytest.raises(kind, match=words):
        Consumer(found).close()


@pytest.mark.kafka
@pytest.mark.parametrize("options", [{}, {"ssl_certfile": "locked.pem"}])
def test_both_sides_have_certificates(
    secure: KafkaServer, topic: str, fresh_name: Callable[[str], str], options: dict[str, str]
) -> None:
    chosen = {"ssl_certfile": "client.pem", **options}
    found = config(
        secure,
        "MUTUAL",
        group_id=fresh_name("group"),
        topics=(topic,),
        security_protocol="SSL",
        ssl_cafile=str(secure.folder / "ca.pem"),
        ssl_certfile=str(secure.folder / chosen["ssl_certfile"]),
        ssl_password=PASSWORDS["paula"],
    )
    produce(secure, topic, 0, COUNT)
    with Consumer(found) as consumer:
        values = [int(m.value or b"-1") for _, m in zip(range(COUNT), consumer, strict=False)]
    assert sorted(values) == list(range(COUNT))


@pytest.mark.kafka
def test_large_answers_come_whole_through_tls(
    secure: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    from kafka import KafkaProducer

    producer: Any = KafkaProducer(bootstrap_servers=secure.bootstrap, max_request_size=2_000_000)
    large = [bytes([number]) * 900_000 for number in range(12)]
    for number, value in enumerate(large):
        producer.send(topic, value=value, partition=number % 4)
    producer.flush(60)
    producer.close(60)
    found = member_config(secure, topic, fresh_name("group"), "SCRAM-SHA-512")
    with Consumer(found) as consumer:
        values = [m.value or b"" for _, m in zip(range(len(large)), consumer, strict=False)]
    assert sorted(values) == large


@pytest.mark.kafka
def test_the_secret_is_in_no_log_at_any_level(
    secure: KafkaServer,
    topic: str,
    fresh_name: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for mechanism in USERS:
        found = member_config(secure, topic, fresh_name("group"), mechanism)
        with Consumer(found) as consumer:
            assert list(consumer.messages(timeout_ms=1_000)) == []
    assert any(record.name.startswith("kafka") for record in caplog.records)
    assert "planted-secret" not in caplog.text


@pytest.mark.kafka
def test_the_command_ends_with_the_code_of_what_went_wrong(
    secure: KafkaServer, tmp_path: Path
) -> None:
    options = {**settings_for("PLAIN", secure.folder), "sasl_plain_password": "planted-wrong"}
    path = tmp_path / "c.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in options.items()))
    common = ("-g", "g", "-t", "t", "--config", str(path), "-X", "bootstrap.timeout.ms=5s")
    found = ksim("consume", "-b", secure.listeners["SASL_SSL"], *common)
    assert found.returncode == 77
    assert found.stderr.startswith("ksim: login of 'paula' at 127.0.0.1:")
    assert len(found.stderr.splitlines()) == 1
    wrong = ksim("consume", "-b", secure.listeners["SASL_PLAINTEXT"], *common)
    assert wrong.returncode == 69
    assert "during the TLS handshake: is security_protocol right" in wrong.stderr
    for each in (found, wrong):
        assert "planted" not in each.stdout + each.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ssl_cafile": "absent.pem"}, "absent.pem': No such file or directory"),
        ({"ssl_cafile": "empty.pem"}, "empty.pem': no certificate or crl found"),
        ({"ssl_certfile": "empty.pem"}, "empty.pem': nothing in it can be used"),
        ({"ssl_certfile": "locked.pem"}, "locked.pem': "),
        ({"ssl_crlfile": "empty.pem"}, "empty.pem': no certificate or crl found"),
        ({"ssl_ciphers": "none such"}, "ssl_ciphers = 'none such': nothing in it can be used"),
    ],
)
def test_a_file_that_is_of_no_use_is_named(
    tmp_path: Path, options: dict[str, str], told: str
) -> None:
    from tests.kafka_security import make_certificates

    make_certificates(tmp_path)
    (tmp_path / "empty.pem").write_text("nothing\n")
    files = {k: v if k == "ssl_ciphers" else str(tmp_path / v) for k, v in options.items()}
    found = Config(
        group_id="g", topics=("t",), security_protocol="SSL", **files, ssl_check_hostname=False
    )
    with pytest.raises(ConfigError) as caught:
        security_of(found)
    assert str(caught.value).startswith(f"{next(iter(options))} = ")
    assert told in str(caught.value)


def test_a_heartbeat_that_is_too_slow_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = Config(
        bootstrap_servers=("127.0.0.1:1",),
        group_id="g",
        topics=("t",),
        heartbeat_interval_ms=20_000,
        bootstrap_timeout_ms=50,
    )
    with pytest.raises(NoBrokerError):
        Consumer(found)
    assert [record.name for record in caplog.records] == ["ksim.config"]
    assert "above a third of session_timeout_ms" in caplog.text
