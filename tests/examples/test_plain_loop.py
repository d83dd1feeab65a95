"""The plain loop, and its twin that commits before it handles."""

from __future__ import annotations

from typing import Any

import pytest

from examples.broken_twins import commit_before_handling
from examples.plain_loop import consume, settings
from ksim.kit import CheckFailedError
from tests.examples.conftest import COUNT, PARTITIONS, at_work

CONFIG = settings("kafka:9092", "plain-loop", "orders")


def play(cluster: Any, app: Any) -> None:
    """A crash, a process that is stopped for longer than its session, and a departure."""
    cluster.topic("orders", partitions=PARTITIONS)
    cluster.produce("orders", count=COUNT, per_second=100)
    apps = [cluster.start(app, name, CONFIG) for name in ("a", "b", "c")]
    cluster.until(lambda: at_work(apps))
    apps[0].crash("2s")
    apps[1].pause("8s")
    cluster.run("9s")
    apps[2].stop()
    cluster.run("3s")
    cluster.check()


def test_the_plain_loop_loses_nothing(ksim_cluster: Any) -> None:
    play(ksim_cluster, consume)


def test_a_commit_before_handling_is_caught(ksim_cluster: Any) -> None:
    with pytest.raises(CheckFailedError, match="it would be lost") as caught:
        play(ksim_cluster, commit_before_handling)
    assert "S1" in caught.value.report.failed
