"""`ksim consume`: ends, formats and refusals that need no group of processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ksim.cli.consume import json_line
from ksim.consumer.message import Message
from ksim.core.values import Record
from tests.cli.commands import ROOT, ksim
from tests.cli.consuming import LIMIT_S, events_in
from tests.kafka_server import KafkaServer

COUNT = 20


def test_an_unreachable_broker_ends_in_time_with_one_line() -> None:
    options = ("-g", "g", "-t", "t", "-X", "bootstrap.timeout.ms=300")
    found = ksim("consume", "-b", "127.0.0.1:1", *options)
    assert found.returncode == 69
    assert found.stderr == (
        "ksim: no Kafka broker at 127.0.0.1:1 within 300 ms: "
        "cannot connect to 127.0.0.1:1: Connection refused\n"
    )


@pytest.mark.parametrize("setting", ["foo=1", "session.timeout.ms=soon", "nothing"])
def test_a_wrong_setting_is_one_line(setting: str) -> None:
    found = ksim("consume", "-b", "127.0.0.1:1", "-g", "g", "-t", "t", "-X", setting)
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1


def test_a_message_is_one_json_object() -> None:
    record = Record(7, 1_000, b"\xff\x00", None, (("h", b"1"), ("n", None)))
    found = json.loads(json_line(Message("t", 3, 1, record)))
    assert found == {
        "topic": "t",
        "partition": 3,
        "offset": 7,
        "timestamp": 1_000,
        "key": "/wA=",
        "key_encoding": "base64",
        "value": None,
        "headers": [["h", "1"], ["n", None]],
    }


def test_headers_that_are_no_text_are_base64_all_of_them() -> None:
    record = Record(7, 1_000, None, b"v", (("h", b"1"), ("b", b"\xff\x00"), ("n", None)))
    found = json.loads(json_line(Message("t", 3, 1, record)))
    assert found["headers"] == [["h", "MQ=="], ["b", "/wA="], ["n", None]]
    assert found["headers_encoding"] == "base64"
    assert "value_encoding" not in found


@pytest.fixture
def topic(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> str:
    from kafka import KafkaProducer

    name = fresh_name("topic")
    kafka.create_topic(name, 2)
    producer: Any = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for number in range(COUNT):
        producer.send(name, value=str(number).encode(), partition=number % 2)
    producer.flush(60)
    producer.close(60)
    return name


@pytest.mark.kafka
def test_it_reads_everything_once_over_two_sessions(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    options = ("-b", kafka.bootstrap, "-g", fresh_name("group"), "-t", topic)
    first = ksim("consume", *options, "--from", "earliest", "--max-messages", "5")
    second = ksim("consume", *options, "--from", "earliest", "--max-messages", str(COUNT - 5))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    values = [json.loads(line)["value"] for line in (first.stdout + second.stdout).splitlines()]
    assert sorted(values, key=int) == [str(number) for number in range(COUNT)]
    assert [event["event"] for event in events_in(second.stderr)] == ["assigned", "revoked"]


@pytest.mark.kafka
def test_a_closed_stdout_is_an_ordinary_end(
    kafka: KafkaServer, topic: str, fresh_name: Callable[[str], str]
) -> None:
    command = [sys.executable, "-m", "ksim.cli.main", "consume", "-b", kafka.bootstrap]
    command += ["-g", fresh_name("group"), "-t", topic, "--from", "earliest"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None  # nothing is read there
    try:
        errors = process.communicate(timeout=LIMIT_S)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 0, errors
    events = [event["event"] for event in events_in(errors)]
    assert events in ([], ["assigned", "revoked"])  # it may see that before it has joined


@pytest.mark.kafka
def test_an_unknown_topic_is_an_error_event_and_a_wait(
    kafka: KafkaServer, fresh_name: Callable[[str], str]
) -> None:
    options = ("-b", kafka.bootstrap, "-g", fresh_name("group"), "-t", fresh_name("absent"))
    found = ksim("consume", *options, "--idle-exit", "1500ms")
    assert found.returncode == 0, found.stderr
    errors = [event["error"] for event in events_in(found.stderr) if event["event"] == "error"]
    assert errors == ["UNKNOWN_TOPIC_OR_PARTITION"]
