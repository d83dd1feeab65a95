"""Produce, Fetch, ListOffsets and OffsetForLeaderEpoch of pure brokers."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.broker.records import MAX_TIMESTAMP_SINCE
from ksim.core.errors import KafkaError
from tests.broker.served_broker import RECORD_BYTES, Brokers, batch, fetch


def fetched(brokers: Brokers, data: Any) -> Any:
    (topic,) = brokers.ask("Fetch", data).answer["responses"]
    (partition,) = topic["partitions"]
    return partition


def test_records_get_offsets_and_are_fetched_as_they_came() -> None:
    brokers = Brokers()
    assert [brokers.produce(batch(n))["base_offset"] for n in (2, 3)] == [0, 2]
    found = fetched(brokers, fetch(0))
    assert (found["high_watermark"], len(found["records"])) == (5, 2 * RECORD_BYTES)
    assert len(fetched(brokers, fetch(2))["records"]) == RECORD_BYTES


@pytest.mark.parametrize(
    ("produced", "error"),
    [
        (None, KafkaError.CORRUPT_MESSAGE),
        ([batch(size=200)], KafkaError.MESSAGE_TOO_LARGE),
        ([], KafkaError.INVALID_RECORD),
        ([batch(), batch()], KafkaError.INVALID_RECORD),
        ([batch()._replace(producer_id=1)], KafkaError.INVALID_RECORD),
        ([batch(sequence=5)], KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER),
    ],
)
def test_what_is_not_taken(produced: Any, error: int) -> None:
    brokers = Brokers(message_max_bytes=150)
    brokers.produce(batch(sequence=0))
    (topic,) = brokers.produced(produced)["responses"]
    (told,) = topic["partition_responses"]
    assert (told["error_code"], told["base_offset"]) == (error, -1)


@pytest.mark.parametrize(
    ("acks", "error"),
    [(-1, 0), (0, 0), (1, 0), (2, KafkaError.INVALID_REQUIRED_ACKS)],
)
def test_acks_are_all_one_or_none(acks: int, error: int) -> None:
    brokers = Brokers()
    item = {"index": 0, "records": [batch()]}
    data = {"acks": acks, "topic_data": [{"name": "t", "partition_data": [item]}]}
    (topic,) = brokers.ask("Produce", data).answer["responses"]
    assert topic["partition_responses"][0]["error_code"] == error
    assert fetched(brokers, fetch(0, min_bytes=0))["high_watermark"] == (0 if error else 1)


def test_a_broker_answers_for_what_it_leads_alone() -> None:
    brokers = Brokers()
    assert brokers.produce(batch(), partition=1)["error_code"] == KafkaError.NOT_LEADER_OR_FOLLOWER
    missing = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    assert brokers.produce(batch(), partition=2)["error_code"] == missing
    told = fetched(brokers, fetch(0, partition=1))
    assert told["error_code"] == KafkaError.NOT_LEADER_OR_FOLLOWER


@pytest.mark.parametrize(
    ("epoch", "error"),
    [(-1, 0), (0, KafkaError.FENCED_LEADER_EPOCH), (1, 0), (2, KafkaError.UNKNOWN_LEADER_EPOCH)],
)
def test_epochs_of_leaders_are_compared(epoch: int, error: int) -> None:
    brokers = Brokers()
    brokers.state.fail(2)
    assert fetched(brokers, fetch(0, partition=1, epoch=epoch))["error_code"] == error


@pytest.mark.parametrize(
    ("offset", "least", "enough"),
    [(0, 1, True), (0, 500, False), (1, 1, False), (2, 500, True)],
)
def test_a_fetch_is_enough_with_its_bytes_or_with_an_error(
    offset: int, least: int, enough: bool
) -> None:
    brokers = Brokers()
    brokers.produce(batch())
    assert brokers.ask("Fetch", fetch(offset, min_bytes=least)).enough == enough


def test_a_fetch_never_waits_for_more_than_it_may_get() -> None:
    brokers = Brokers()
    brokers.produce(batch())
    assert brokers.ask("Fetch", fetch(0, min_bytes=500, max_bytes=50)).enough
    assert not brokers.ask("Fetch", fetch(1, min_bytes=500, max_bytes=50)).enough
    assert brokers.ask("Fetch", {**fetch(0), "topics": []}).enough


@pytest.mark.parametrize(("epoch", "error"), [(-1, 0), (0, 0), (3, 70)])
def test_there_are_no_fetch_sessions_to_go_on_with(epoch: int, error: int) -> None:
    outcome = Brokers().ask("Fetch", fetch(0, min_bytes=0, session_epoch=epoch))
    assert (outcome.answer["error_code"], outcome.enough) == (error, True)


def test_an_offset_out_of_range_tells_no_other() -> None:
    found = fetched(Brokers(), fetch(7))
    assert found["error_code"] == KafkaError.OFFSET_OUT_OF_RANGE
    assert (found["high_watermark"], found["log_start_offset"]) == (-1, -1)


@pytest.mark.parametrize("bound", ["client", "partition", "broker"])
def test_an_answer_has_at_least_one_batch_and_no_more_than_allowed(bound: str) -> None:
    brokers = Brokers(**({"fetch_max_bytes": 150} if bound == "broker" else {}))
    for _ in range(3):
        brokers.produce(batch())
    small = {"client": {"max_bytes": 10}, "partition": {"partition_max_bytes": 250}}
    size = len(fetched(brokers, fetch(0, **small.get(bound, {})))["records"])
    assert size == {"client": 100, "partition": 200, "broker": 100}[bound]


@pytest.mark.parametrize(
    ("timestamp", "version", "told"),
    [
        (-2, 1, (0, 0, 0)),
        (-1, 1, (0, 2, 2)),
        (5, 1, (0, 0, 0)),
        (8, 1, (0, -1, -1)),
        (-3, MAX_TIMESTAMP_SINCE, (0, 0, 0)),
        (-3, MAX_TIMESTAMP_SINCE - 1, (KafkaError.UNSUPPORTED_VERSION, -1, -1)),
        (-4, 7, (KafkaError.UNSUPPORTED_VERSION, -1, -1)),
    ],
)
def test_offsets_are_listed(timestamp: int, version: int, told: tuple[int, int, int]) -> None:
    brokers = Brokers()
    brokers.produce(batch(2))
    for node_id in (2, 1):
        brokers.state.fail(node_id)
    brokers.state.recover(1)  # it leads again, in epoch 2, and the records are of epoch 0
    asked = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": timestamp}
    data = {"topics": [{"name": "t", "partitions": [asked]}]}
    (topic,) = brokers.ask("ListOffsets", data, version).answer["topics"]
    (found,) = topic["partitions"]
    assert (found["error_code"], found["offset"], found["leader_epoch"]) == told


@pytest.mark.parametrize(
    ("asked", "told"), [(-1, (-1, -1)), (0, (0, 2)), (1, (1, 2)), (2, (-1, -1))]
)
def test_the_end_of_an_epoch(asked: int, told: tuple[int, int]) -> None:
    brokers = Brokers()
    brokers.produce(batch(2), partition=0)
    brokers.state.fail(1)  # broker 2 leads in epoch 1 and has written nothing
    item = {"partition": 0, "current_leader_epoch": -1, "leader_epoch": asked}
    data = {"topics": [{"topic": "t", "partitions": [item]}]}
    (topic,) = brokers.ask("OffsetForLeaderEpoch", data, node_id=2).answer["topics"]
    assert [(p["leader_epoch"], p["end_offset"]) for p in topic["partitions"]] == [told]
