"""The same tests on a real broker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ksim import Config, MisuseError
from ksim.kit import ApplicationError, CheckFailedError, NotJudgedWarning, OnlySimulatedError
from ksim.kit.real import RealCluster
from tests.kafka_server import KafkaServer
from tests.kit import applications as a

ROOT = Path(__file__).parents[2]
EXAMPLES = ("test_plain_loop.py", "test_worker_pool.py", "test_partitions.py", "test_sqlite.py")


@pytest.fixture
def cluster(kafka: KafkaServer) -> Iterator[RealCluster]:
    with RealCluster(kafka.bootstrap) as made:
        yield made


def own(prefix: str) -> tuple[str, Config]:
    """A topic and a group that no other test on this broker has."""
    topic = f"{prefix}-{os.getpid()}"
    return topic, a.config(topics=(topic,), group_id=topic)


@pytest.mark.slow  # each starts a broker of its own, and waits for real sessions
@pytest.mark.kafka
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_tests_of_the_examples_agree_on_a_real_broker(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--ksim-real", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, f"tests/examples/{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 passed" in found.stdout


@pytest.mark.kafka
def test_processes_are_killed_stopped_and_started_anew(cluster: RealCluster) -> None:
    topic, config = own("befalls")
    cluster.topic(topic, 2)
    cluster.produce(topic, 1_600, per_second=80)
    first = cluster.start(a.configured, "a", config)
    second = cluster.start(a.configured, "b", config)
    cluster.until(lambda: len(first.handled) > 5 < len(second.handled), "1m")
    first.restart()
    second.pause("1s")
    cluster.run("2s")
    second.stop()
    cluster.until(lambda: len({*first.handled, *second.handled}) == 1_600)
    report = cluster.check()
    assert {report.checks[name] for name in ("S1", "S2", "S5", "L2")} == {"pass"}
    assert {report.checks[name] for name in ("S4", "S6", "L1")} == {"not judged"}
    told = {line[13:] for line in report.story}
    assert {"a crashed", "b paused", "b resumed", "b closed"} <= told
    assert sum(type(fact).__name__ == "Handled" for _, _, fact, _ in report.steps) >= 1_600


@pytest.mark.kafka
def test_what_an_application_raises_is_raised_in_the_test(cluster: RealCluster) -> None:
    cluster.start(a.raises_at_once, "a")
    with pytest.raises(ApplicationError, match=r"a raised ValueError(.|\n)*in raises_at_once"):
        cluster.run("30s")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("app", "words"),
    [
        (a.no_consumer, "a has made no Consumer; its process runs"),
        (a.never_polls, "a has never asked its Consumer for a message; its process runs"),
    ],
)
def test_who_reads_nothing_is_told(
    cluster: RealCluster, app: Callable[..., object], words: str
) -> None:
    cluster.start(app, "a")
    cluster.run("4s")
    with pytest.raises(ApplicationError, match=words):
        cluster.check()


@pytest.mark.kafka
def test_each_life_may_have_a_group_of_its_own(cluster: RealCluster) -> None:
    topic, _ = own("lives")
    cluster.topic(topic, 1)
    cluster.produce(topic, 20)
    app = cluster.start(a.group_of_each_life, "a", topic)
    cluster.until(lambda: len(app.handled) == 20, "1m")
    app.restart()
    cluster.until(lambda: len(app.handled) == 40, "1m")
    with pytest.warns(NotJudgedWarning, match="L2 of .* is not judged: its members have another"):
        assert cluster.check().verdict == "pass"


@pytest.mark.kafka
def test_a_commit_before_handling_is_found(cluster: RealCluster) -> None:
    topic, config = own("early")
    cluster.topic(topic, 1)
    cluster.produce(topic, 5)
    cluster.start(a.early, "a", own=config)
    cluster.run("4s")
    with pytest.raises(CheckFailedError, match="it would be lost") as caught:
        cluster.check()
    assert caught.value.report.failed == ("S1", "S2")


def test_what_only_the_simulator_can_do_is_refused() -> None:
    with RealCluster("127.0.0.1:1") as cluster:
        for ask in (
            lambda: cluster.fault(do="drop"),
            lambda: cluster.move_coordinator("g"),
            lambda: cluster.add_partitions("t"),
            lambda: cluster.crash_broker(1),
        ):
            with pytest.raises(OnlySimulatedError):
                ask()


def test_an_application_must_be_found_by_its_name() -> None:
    with RealCluster("127.0.0.1:1") as cluster:
        with pytest.raises(MisuseError, match="a function at the top of a module"):
            cluster.start(lambda: None, "a")
        with pytest.raises(MisuseError, match="an argument cannot be sent"):
            cluster.start(a.plain, "a", cost_ms=lambda: 1)
