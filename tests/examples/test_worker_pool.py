"""The worker pool, and its twin that swallows an error."""

from __future__ import annotations

from typing import Any

import pytest

from examples.broken_twins import swallowed_error
from examples.worker_pool import UnavailableError, consume, settings
from ksim import Message, sleep_ms
from ksim.kit import CheckFailedError
from tests.examples.conftest import COUNT, PARTITIONS, at_work

CONFIG = settings("kafka:9092", "worker-pool", "orders")


def now_and_then(message: Message, attempt: int) -> None:
    """A service that takes its time, and is away at first for some records."""
    sleep_ms(20)
    if attempt == 0 and message.offset % 20 == 7:
        raise UnavailableError


def play(cluster: Any, app: Any) -> None:
    """A crash, and a process that is stopped for longer than its session."""
    cluster.topic("orders", partitions=PARTITIONS)
    cluster.produce("orders", count=COUNT, per_second=100)
    apps = [cluster.start(app, name, CONFIG, ask=now_and_then) for name in ("a", "b", "c")]
    cluster.until(lambda: at_work(apps))
    apps[0].crash("2s")
    apps[1].pause("8s")
    cluster.run("10s")
    cluster.check()


def test_the_worker_pool_loses_nothing(ksim_cluster: Any) -> None:
    play(ksim_cluster, consume)


def test_a_swallowed_error_is_caught(ksim_cluster: Any) -> None:
    with pytest.raises(CheckFailedError, match="it would be lost") as caught:
        play(ksim_cluster, swallowed_error)
    assert {"S1", "L2"} <= set(caught.value.report.failed)
