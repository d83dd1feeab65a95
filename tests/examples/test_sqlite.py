"""Exactly once into a database, and its twin whose store is not fenced."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.broken_twins import unfenced_store
from examples.sqlite_offset_store import COST_MS, consume, settings
from ksim import Message, sleep_ms
from ksim.kit import CheckFailedError
from tests.examples.conftest import COUNT, PARTITIONS, all_handled

CONFIG = replace(settings("kafka:9092", "sqlite", "orders"), max_poll_interval_ms=6_000)


def stalls(message: Message) -> None:
    """One record takes so long that the group goes on without this member."""
    sleep_ms(13_000 if message.offset == 7 else COST_MS)


def play(cluster: Any, app: Any, path: Path) -> None:
    """A member that stalls until others have done its work, and a crash."""
    cluster.topic("orders", partitions=PARTITIONS)
    cluster.produce("orders", count=COUNT)
    apps = [cluster.start(app, name, CONFIG, str(path)) for name in ("a", "b")]
    apps.append(cluster.start(app, "c", CONFIG, str(path), work=stalls))
    cluster.until(lambda: all_handled(apps))
    cluster.run("10s")
    apps[0].crash("1s")
    cluster.run("2s")
    cluster.check(exactly_once=True)


def results(path: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT number, position FROM result ORDER BY 1, 2").fetchall()


def test_each_result_is_there_exactly_once(ksim_cluster: Any, tmp_path: Path) -> None:
    play(ksim_cluster, consume, tmp_path / "results.db")
    each = COUNT // PARTITIONS
    expected = [(number, offset) for number in range(PARTITIONS) for offset in range(each)]
    assert results(tmp_path / "results.db") == expected


def test_an_unfenced_store_is_caught(ksim_cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match="its effect must happen once") as caught:
        play(ksim_cluster, unfenced_store, tmp_path / "results.db")
    assert "X1" in caught.value.report.failed
    assert len(results(tmp_path / "results.db")) > COUNT
