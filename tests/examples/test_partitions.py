"""A worker for each partition, and its twin that keeps state across a revoke."""

from __future__ import annotations

from typing import Any

import pytest

from examples.broken_twins import state_kept_across_a_revoke
from examples.partitions import consume, settings
from ksim.kit import CheckFailedError
from tests.examples.conftest import PARTITIONS, at_work

CONFIG = settings("kafka:9092", "partitions", "orders")


def play(cluster: Any, app: Any) -> None:
    """Members come and go in order while records come: nothing is handled twice."""
    cluster.topic("orders", partitions=PARTITIONS)
    cluster.produce("orders", count=1_200, per_second=80)
    apps = [cluster.start(app, "a", CONFIG)]
    for name in ("b", "c"):
        cluster.until(lambda: at_work(apps))
        apps.append(cluster.start(app, name, CONFIG))
    cluster.until(lambda: at_work(apps))
    apps[0].stop("1s")
    cluster.run("4s")
    cluster.check()


def test_batches_of_partitions_are_written_once(ksim_cluster: Any) -> None:
    play(ksim_cluster, consume)


def test_state_kept_across_a_revoke_is_caught(ksim_cluster: Any) -> None:
    with pytest.raises(CheckFailedError, match="time 2 in partitions") as caught:
        play(ksim_cluster, state_kept_across_a_revoke)
    assert "S9" in caught.value.report.failed
