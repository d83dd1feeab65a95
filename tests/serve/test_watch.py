"""S3 and S13 on a served cluster: what a client can do wrong, and what only looks like it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ksim.core import events as e
from ksim.core import messages as m
from ksim.serve.watch import KEPT_BYTES, KEPT_STEPS, Watch
from tests.serve.served import Served
from tests.serve.test_serve import NO_DELAY, control, produce


def checks(served: Served) -> dict[str, str]:
    found: dict[str, str] = control(served, "GET", "/checks")["checks"]
    return found


def member(bootstrap: str) -> Any:
    from confluent_kafka import Consumer

    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "g",
            "client.id": "c",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )


def commit(consumer: Any, offset: int) -> None:
    from confluent_kafka import TopicPartition

    where = [TopicPartition("t", 0, offset)]
    (told,) = consumer.commit(offsets=where, asynchronous=False)
    assert told.error is None


def read(consumer: Any, offset: int) -> None:
    """Consume up to and including this offset of partition 0."""
    while (found := consumer.poll(10)) is not None and found.offset() != offset:
        assert not found.error()
    assert found is not None


def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "log", "--topic", "t:1", "--control-port", "0", *NO_DELAY)


@contextmanager
def reading(tmp_path: Path) -> Iterator[tuple[Served, Any]]:
    """A cluster, and the one member of its group, which owns sixty records."""
    with served(tmp_path) as cluster:
        produce(cluster.bootstrap, 0, 60, 1)
        consumer = member(cluster.bootstrap)
        consumer.subscribe(["t"])
        read(consumer, 0)
        yield cluster, consumer
        consumer.close()


def test_a_commit_that_goes_back_is_told(tmp_path: Path) -> None:
    with reading(tmp_path) as (cluster, consumer):
        commit(consumer, 6)
        assert (checks(cluster)["S3"], checks(cluster)["S13"]) == ("pass", "pass")
        commit(consumer, 3)
        (violation,) = control(cluster, "GET", "/checks")["violations"]
        assert (violation["check"], violation["offsets"]) == ("S13", [6, 3])


def test_a_seek_back_explains_a_lower_commit_before_and_after(tmp_path: Path) -> None:
    from confluent_kafka import TopicPartition

    with reading(tmp_path) as (cluster, consumer):
        for wanted in (True, False):
            read(consumer, 8)
            commit(consumer, 9)
            consumer.seek(TopicPartition("t", 0, 2))
            if wanted:
                read(consumer, 3)
            commit(consumer, 4 if wanted else 2)
        read(consumer, 3)
        assert checks(cluster)["S13"] == "pass"


def test_a_commit_from_outside_an_empty_group_is_a_reset(tmp_path: Path) -> None:
    with served(tmp_path) as cluster:
        produce(cluster.bootstrap, 0, 60, 1)
        consumer = member(cluster.bootstrap)
        for offset in (9, 2):
            commit(consumer, offset)
        assert (checks(cluster)["S13"], checks(cluster)["S3"]) == ("pass", "not judged")
        consumer.close()


def test_a_commit_beyond_what_was_written(tmp_path: Path) -> None:
    with reading(tmp_path) as (cluster, consumer):
        commit(consumer, 1_000)
        (violation,) = control(cluster, "GET", "/checks")["violations"]
        assert violation["check"] == "S3"
        assert "but the partition ends at" in violation["sentence"]


def test_large_requests_do_not_pile_up_in_the_trace() -> None:
    watch = Watch()
    large = b"\0" * (KEPT_BYTES // 4)
    join = m.JoinGroupRequest("g", 1, 1, "", None, "consumer", (("range", large),))
    for token in range(20):
        watch.see("broker-1/1", token, e.RequestArrived(token, join, "c", "c-1", 9), ())
    assert [step["at_ms"] for step in watch.steps] == [17, 18, 19]
    small = m.HeartbeatRequest("g", 1, "c-1", None)
    for token in range(20, 20 + KEPT_STEPS + 5):
        watch.see("broker-1/1", token, e.RequestArrived(token, small, "c", "c-1", 4), ())
    assert (len(watch.steps), watch.steps[0]["at_ms"]) == (KEPT_STEPS, 25)
