"""Exactly once into a database: the example's store, with zombies, forgotten groups and kills."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.sqlite_offset_store import (
    FencedError,
    OtherRecordError,
    SQLiteOffsetStore,
    SQLiteOffsetStoreFactory,
    write_result,
)
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.core import messages as m
from ksim.core.coordinator_hash import group_partition
from ksim.core.values import Record, TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.arms import LIMIT_S, NEVER, RealArm, SimArm
from tests.kafka_server import KafkaServer

ROOT = Path(__file__).parents[2]
TP = TopicPartition("t", 0)
LAST_S = 40
STEPS = ("crash", "crash", "pause", "move", "reuse", "forget", "start")
Written = list[tuple[str, int, int]]
Stores = tuple[SQLiteOffsetStore, SQLiteOffsetStore]


def results(path: Path) -> Written:
    """Place of each result, as often as it is there."""
    with closing(sqlite3.connect(path)) as database:
        rows = "SELECT topic, number, position FROM result ORDER BY 1, 2, 3"
        return database.execute(rows).fetchall()


def message(offset: int, tenure: int = 1, value: bytes = b"x") -> Message:
    return Message("t", 0, tenure, Record(offset, 0, None, value, ()))


def fetch(store: SQLiteOffsetStore, member_id: str, generation_id: int) -> int:
    request = m.OffsetFetchRequest("g", (TP,), member_id, generation_id)
    (found,) = store.fetch_offset(request).partitions
    return found.offset


def commit(store: SQLiteOffsetStore, member_id: str, generation_id: int, offset: int) -> int:
    offsets = (m.OffsetAndMetadata(*TP, offset, -1, ""),)
    request = m.OffsetCommitRequest("g", generation_id, member_id, None, offsets)
    (answer,) = store.commit_offset(request).partitions
    return answer.error_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def stores(path: Path) -> Iterator[Stores]:
    """Those of two members of one group."""
    with (
        closing(SQLiteOffsetStore(str(path), "g")) as one,
        closing(SQLiteOffsetStore(str(path), "g")) as other,
    ):
        yield one, other


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(("m1", 5), ("m2", 6), id="a zombie"),
        pytest.param(("m1", 1), ("m2", 1), id="a group that was forgotten counts from 1 again"),
        pytest.param(("m1", 5), ("m2", 5), id="a failover uses a number twice"),
    ],
)
def test_who_has_lost_its_claim_writes_nothing(
    path: Path, stores: Stores, before: tuple[str, int], after: tuple[str, int]
) -> None:
    old, new = stores
    assert fetch(old, *before) == -1
    assert write_result(old, message(0))
    assert fetch(new, *after) == 1
    with pytest.raises(FencedError, match="claim 1, in the database"):
        old.transaction(message(1)).__enter__()
    assert commit(old, *before, 9) == 22
    assert not write_result(new, message(0))  # it is there already
    assert write_result(new, message(1))
    assert commit(new, *after, 1) == 0  # a lower one changes nothing
    assert fetch(new, *after) == 2
    assert results(path) == [("t", 0, 0), ("t", 0, 1)]


def test_one_member_id_and_number_twice_is_told_apart_by_the_claim(stores: Stores) -> None:
    old, new = stores
    fetch(old, "m1", 5)
    fetch(new, "m1", 5)
    assert not write_result(old, message(0))
    assert write_result(new, message(0))


def test_a_batch_does_not_go_on_with_the_claim_of_a_later_tenure(
    path: Path, stores: Stores
) -> None:
    """Else 6 would be written, and 5 would be refused for ever."""
    ours, theirs = stores
    fetch(ours, "m1", 1)
    assert all(write_result(ours, message(offset)) for offset in range(5))
    fetch(theirs, "m2", 2)
    assert not write_result(ours, message(5))
    assert fetch(ours, "m1", 3) == 5
    assert not write_result(ours, message(6))
    assert write_result(ours, message(5, tenure=2))
    assert not write_result(ours, message(6))
    assert write_result(ours, message(6, tenure=2))
    assert [position for *_, position in results(path)] == list(range(7))


def test_a_claim_that_was_not_stored_is_none(stores: Stores) -> None:
    store, other = stores
    fetch(store, "m1", 1)
    request = m.OffsetFetchRequest("g", (TP, TopicPartition("t", 7)), "m1", 2)
    full = "SELECT RAISE(ROLLBACK, 'disk is full');"
    trigger = f"CREATE TRIGGER full BEFORE INSERT ON place WHEN NEW.number = 7 BEGIN {full} END"
    store._database.execute(trigger)
    with pytest.raises(sqlite3.IntegrityError, match="disk is full"):
        store.fetch_offset(request)
    fetch(other, "m2", 2)
    assert not write_result(store, message(0))
    assert write_result(other, message(0))


def test_another_record_at_a_known_offset_stops_the_application(stores: Stores) -> None:
    """A topic that was made anew counts from 0 again: its records would be dropped in silence."""
    store, _ = stores
    fetch(store, "m1", 1)
    assert write_result(store, message(0))
    assert not write_result(store, message(0))
    with pytest.raises(OtherRecordError, match="the next one is 1"):
        write_result(store, message(0, value=b"y"))


def test_a_handler_that_fails_leaves_neither_result_nor_offset(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    store = SQLiteOffsetStore(str(path), "g")
    fetch(store, "m1", 1)

    def handler() -> None:
        with store.transaction(message(0)) as database:
            database.execute("INSERT INTO result VALUES ('t', 0, 0, x'00')")
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        handler()
    assert results(path) == []
    assert fetch(store, "m1", 1) == -1
    store.close()


class Chaos:
    """Members that write into one database outside of their world, and what befalls them."""

    def __init__(self, seed: int, path: Path) -> None:
        self.arm = SimArm(seed, brokers=3)
        self.arm.create_topic("u", 3)
        self.draw = random.Random(seed)
        self.path = path
        self.alive: list[SimDriver] = []
        self.produced = 0
        self.fenced = 0

    def member(self) -> None:
        arm, factory = self.arm, SQLiteOffsetStoreFactory(str(self.path))
        options = {"topics": ("u",), "client_id": "m"}
        with Consumer(arm.config(**options), offset_store_factory=factory) as consumer:
            driver, store = arm.drivers[-1], factory.store
            assert store is not None
            store._database.execute("PRAGMA synchronous = OFF")  # the machine does not lose power
            self.alive.append(driver)
            for found in consumer:
                driver.sleep_us(self.draw.randrange(60_000))
                self.fenced += not write_result(store, found)
                driver.sleep_us(self.draw.randrange(60_000))
                consumer.mark_offset(found)

    def step(self) -> None:
        match self.draw.choice(STEPS):
            case "crash" if self.alive:
                driver = self.alive.pop(self.draw.randrange(len(self.alive)))
                driver.gate.shut()
                driver.ended = True
            case "pause" if self.alive:
                driver = self.draw.choice(self.alive)
                driver.gate.pause()
                after_us = self.draw.randrange(500, 15_000) * 1_000
                self.arm.world.call_after(after_us, self.resume, driver)
            case "move":
                self.arm.cluster.move_coordinator("g", None)
            case "reuse" | "forget" as how:
                log = self.arm.cluster.state.offsets_logs[group_partition("g")]
                log[:] = log[:-2] if how == "reuse" else []
                self.arm.cluster.move_coordinator("g", None)
            case _ if len(self.alive) < 3:
                self.arm.start(self.member)

    def resume(self, driver: SimDriver) -> None:
        if driver in self.alive:
            driver.gate.resume()

    def run(self) -> None:
        self.arm.start(self.member)
        for _ in range(LAST_S):
            self.step()
            count = self.draw.randrange(4)
            for partition in range(3):
                self.arm.produce(partition, count, topic="u")
            self.produced += count
            self.arm.pass_ms(1_000)
        self.arm.pass_ms(15_000)  # whoever is paused has resumed
        self.arm.start(self.member)
        everything = [("u", number, at) for number in range(3) for at in range(self.produced)]
        self.arm.until(lambda: {*results(self.path)} >= {*everything}, "every result")
        assert results(self.path) == everything
        assert not self.arm.failures


@pytest.mark.parametrize("seeds", [range(at, at + 5) for at in range(0, 30, 5)], ids=str)
def test_kills_at_random_leave_every_result_exactly_once(tmp_path: Path, seeds: range) -> None:
    fenced = 0
    for seed in seeds:
        chaos = Chaos(seed, tmp_path / f"{seed}.db")
        chaos.run()
        chaos.arm.end()
        fenced += chaos.fenced
    assert fenced, "nothing was fenced: these seeds show nothing"


@pytest.mark.kafka
def test_processes_that_are_killed_leave_every_result_exactly_once(
    kafka: KafkaServer, fresh_name: Callable[[str], str], tmp_path: Path
) -> None:
    arm, path = RealArm(kafka, fresh_name), tmp_path / "results.db"
    script = str(ROOT / "examples" / "sqlite_offset_store.py")
    command = [sys.executable, script, kafka.bootstrap, arm.group, arm.topic, str(path)]
    SQLiteOffsetStore(str(path), arm.group).close()
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]

    def until_written(count: int) -> None:
        limit_s = time.monotonic() + LIMIT_S
        while len({*results(path)}) < count:
            assert time.monotonic() < limit_s, f"{len(results(path))} of {count} results"
            NEVER.wait(0.02)

    try:
        arm.produce(0, 100)
        arm.produce(1, 100)
        for kill in range(3):
            until_written(20 + 60 * kill)
            processes[kill].kill()
            processes[kill].wait()
            processes.append(subprocess.Popen(command, cwd=ROOT))
            arm.produce(0, 100)
            arm.produce(1, 100)
        until_written(800)
        for process in processes[3:]:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert results(path) == [(arm.topic, number, at) for number in (0, 1) for at in range(400)]


def test_a_tombstone_is_no_other_record(tmp_path: Path) -> None:
    """It is written once, and may come again."""
    store = SQLiteOffsetStore(str(tmp_path / "results.db"), "g")
    store._database.execute("INSERT INTO result VALUES ('t', 0, 5, NULL)")
    assert store.result_at("t", 0, 5) is None
    store.close()
