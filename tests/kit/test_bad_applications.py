"""Applications that cannot work in a simulation, or at all: each is told what, where and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ksim.core.errors import KsimError
from ksim.kit import ApplicationError, BlockedError, BlockingCallError, SimulatedCluster
from tests.kit import applications as a

LIMIT_S = 2.0  # of those that block: a busy machine may hold up any other for a while


@pytest.fixture
def cluster() -> Iterator[SimulatedCluster]:
    with SimulatedCluster(3) as made:
        made.topic("payments", partitions=2)
        made.produce("payments", 10)
        yield made


@pytest.mark.parametrize(
    ("app", "kind", "words"),
    [
        (
            a.raises_at_once,
            ApplicationError,
            r"a raised ValueError\('no such setting'\) at 0.000 s",
        ),
        (a.exits, ApplicationError, r"a raised SystemExit\('no such file'\)"),
        (
            a.sleeps,
            BlockingCallError,
            r"applications.py:\d+ calls time.sleep\(0.25\).*sleep_ms\(250\)",
        ),
        (a.sleeps_by_another_name, BlockingCallError, r"calls time.sleep\(0.25\)"),
        (a.sleeps_by_a_class, BlockingCallError, r"calls time.sleep\(0.25\)"),
        (a.sleeps_by_default, BlockingCallError, r"calls time.sleep\(0.25\)"),
        (a.sleeps_by_keyword, BlockingCallError, r"calls time.sleep\(0.25\)"),
        (a.swallows, BlockingCallError, r"calls time.sleep\(0.25\)"),
        (a.starts_threads, BlockingCallError, r"py:\d+ calls Thread.start\(\).*consumer.run\("),
        (a.starts_a_pool, BlockingCallError, r"py:\d+ calls Thread.start\(\).*consumer.run\("),
        (a.spins, BlockedError, r"a blocks the simulation(.|\n)*applications.py.*in spins"),
        (a.waits_for_a_lock, BlockedError, r"for 2 s(.|\n)*in waits_for_a_lock\n +lock.acquire"),
    ],
)
def test_the_run_ends_and_says_why(
    cluster: SimulatedCluster, app: Callable[..., object], kind: type[KsimError], words: str
) -> None:
    if kind is BlockedError:
        cluster.watchdog.limit_s = LIMIT_S
    cluster.start(app, "a")
    cluster.start(a.plain, "b")
    with pytest.raises(kind, match=words):
        cluster.run("1m")
    with pytest.raises(kind, match=words):
        cluster.check()


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (a.no_consumer, r"a has made no Consumer; it stands at .*applications.py:\d+"),
        (a.never_polls, r"a has never asked its Consumer for a message; it stands at .*py:\d+"),
        (print, "a has made no Consumer; it has ended"),
    ],
)
def test_who_reads_nothing_is_told(
    cluster: SimulatedCluster, app: Callable[..., object], words: str
) -> None:
    cluster.start(app, "a")
    cluster.start(a.plain, "b")
    cluster.run("1m")
    with pytest.raises(ApplicationError, match=words):
        cluster.check()


def test_the_cause_is_the_exception_itself(cluster: SimulatedCluster) -> None:
    cluster.start(a.raises_at_once, "a")
    with pytest.raises(ApplicationError) as caught:
        cluster.run("1s")
    assert isinstance(caught.value.__cause__, ValueError)
