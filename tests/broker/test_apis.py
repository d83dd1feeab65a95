"""Who is who, topics, refusals and commits, as plain data without any socket."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.broker.apis import CHANGES, known_commit, known_delete, whole_commit, whole_delete
from ksim.broker.topics import MOST_PARTITIONS, is_legal
from ksim.core import messages as m
from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from tests.broker.served_broker import Brokers, batch, fetch


def metadata(*names: str, create: bool = False) -> Any:
    return {"topics": [{"name": n} for n in names], "allow_auto_topic_creation": create}


def test_metadata_names_leaders_and_what_is_missing() -> None:
    brokers = Brokers()
    answer = brokers.ask("Metadata", metadata("t", "u", "a b")).answer
    assert [(b["node_id"], b["port"]) for b in answer["brokers"]] == [(1, 9001), (2, 9002)]
    assert [topic["error_code"] for topic in answer["topics"]] == [
        KafkaError.NONE,
        KafkaError.UNKNOWN_TOPIC_OR_PARTITION,
        KafkaError.INVALID_TOPIC,
    ]
    assert [p["leader_id"] for p in answer["topics"][0]["partitions"]] == [1, 2]


def test_metadata_without_topics_means_all_in_version_0_alone() -> None:
    brokers = Brokers()
    assert brokers.ask("Metadata", metadata(), version=0).answer["topics"]
    assert not brokers.ask("Metadata", metadata(), version=1).answer["topics"]


@pytest.mark.parametrize(("enabled", "asked"), [(True, True), (True, False), (False, True)])
def test_topics_are_created_where_both_sides_want_it(enabled: bool, asked: bool) -> None:
    brokers = Brokers(auto_create_topics=enabled, num_partitions=3)
    brokers.ask("Metadata", metadata("u", "..", create=asked))
    assert brokers.state.counts == ({"t": 2, "u": 3} if enabled and asked else {"t": 2})


def test_a_partition_whose_brokers_are_gone_has_no_leader() -> None:
    brokers = Brokers()
    brokers.state.fail(2)
    (topic,) = brokers.ask("Metadata", metadata("t")).answer["topics"]
    assert [p["leader_id"] for p in topic["partitions"]] == [1, 1]
    assert [p["leader_epoch"] for p in topic["partitions"]] == [0, 1]


@pytest.mark.parametrize("version", [1, 4])
def test_coordinators_are_found_by_kafkas_hash(version: int) -> None:
    brokers = Brokers()
    data = {"key": "g", "key_type": 0, "coordinator_keys": ["g"]}
    answer = brokers.ask("FindCoordinator", data, version).answer
    found = answer if version < 4 else answer["coordinators"][0]
    assert found["node_id"] == brokers.state.coordinator(group_partition("g")).node_id
    transactional = brokers.ask("FindCoordinator", {**data, "key_type": 1}, 1).answer
    assert transactional["error_code"] == KafkaError.INVALID_REQUEST


def init_producer(
    transactional_id: str | None = None, producer_id: int = -1, producer_epoch: int = -1
) -> Any:
    return {
        "transactional_id": transactional_id,
        "producer_id": producer_id,
        "producer_epoch": producer_epoch,
    }


def test_producer_ids_are_given_once_and_never_for_transactions() -> None:
    brokers = Brokers()
    ids = [
        brokers.ask("InitProducerId", init_producer(), node_id=node).answer for node in (1, 2, 1)
    ]
    assert [each["producer_id"] for each in ids] == [1, 2, 3]
    for data in (init_producer("x"), init_producer(producer_id=1), init_producer(producer_epoch=0)):
        refused = brokers.ask("InitProducerId", data).answer
        assert refused["error_code"] == KafkaError.INVALID_REQUEST
    kept = init_producer(producer_id=1, producer_epoch=0)
    assert brokers.ask("InitProducerId", kept).answer["error_code"] == 0


def topic_of(name: str, count: int, factor: int = -1, placed: Any = ()) -> Any:
    return {
        "name": name,
        "num_partitions": count,
        "replication_factor": factor,
        "assignments": [{"partition_index": at, "broker_ids": nodes} for at, nodes in placed],
    }


def create(*topics: Any, only: bool = False) -> Any:
    return {"topics": list(topics), "validate_only": only}


@pytest.mark.parametrize(
    ("topic", "error"),
    [
        (topic_of("u", 3), KafkaError.NONE),
        (topic_of("u", -1, 2), KafkaError.NONE),
        (topic_of("t", 3, 9), KafkaError.TOPIC_ALREADY_EXISTS),
        (topic_of("a/b", 0, 9), KafkaError.INVALID_TOPIC),
        (topic_of("t.t", 1), KafkaError.INVALID_TOPIC),
        (topic_of("u", 0, 9), KafkaError.INVALID_PARTITIONS),
        (topic_of("u", MOST_PARTITIONS + 1), KafkaError.POLICY_VIOLATION),
        (topic_of("u", 1, 3), KafkaError.INVALID_REPLICATION_FACTOR),
        (topic_of("u", 0, 0), KafkaError.INVALID_REPLICATION_FACTOR),
        (topic_of("u", -1, -1, [(0, [1]), (1, [2, 1])]), KafkaError.NONE),
        (topic_of("u", 2, -1, [(0, [1])]), KafkaError.INVALID_REQUEST),
        (topic_of("u", -1, -1, [(1, [1])]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
        (topic_of("u", -1, -1, [(0, [3])]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
        (topic_of("u", -1, -1, [(0, [1, 1])]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
        (topic_of("u", -1, -1, [(0, [])]), KafkaError.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_topics_are_created(topic: Any, error: int) -> None:
    for only in (True, False):
        brokers = Brokers(num_partitions=4)
        brokers.state.create_topic("t_t", 1)
        (told,) = brokers.ask("CreateTopics", create(topic, only=only)).answer["topics"]
        assert told["error_code"] == error
        count = len(topic["assignments"]) or (
            topic["num_partitions"] if topic["num_partitions"] > 0 else 4
        )
        assert brokers.state.counts.get("u") == (None if error or only else count)


def test_what_one_request_names_twice_is_refused_once() -> None:
    brokers = Brokers()
    twice = KafkaError.INVALID_REQUEST
    found = brokers.ask(
        "CreateTopics", create(topic_of("u", 1), topic_of("v", 1), topic_of("u", 2))
    )
    assert told(found.answer["topics"]) == [("v", 0), ("u", twice)]
    grown = {"name": "t", "count": 5, "assignments": None}
    data = {"topics": [grown, {**grown, "count": 6}], "validate_only": False}
    assert told(brokers.ask("CreatePartitions", data).answer["results"]) == [("t", twice)]
    gone = brokers.ask("DeleteTopics", {"topic_names": ["t", "v", "t"]})
    assert told(gone.answer["responses"]) == [("t", twice), ("v", 0)]
    assert (gone.deleted, brokers.state.counts) == (("v",), {"t": 2})
    asked = {"topics": [{"name": "t"}, {"name": "t"}], "allow_auto_topic_creation": False}
    assert told(brokers.ask("Metadata", asked).answer["topics"]) == [("t", 0)]


def told(answers: Any) -> list[tuple[str, int]]:
    return [(each["name"], each["error_code"]) for each in answers]


def test_partitions_of_one_request_are_bounded_all_together() -> None:
    brokers = Brokers()
    half = MOST_PARTITIONS // 2 + 1
    found = brokers.ask("CreateTopics", create(topic_of("u", half), topic_of("v", half)))
    refused = KafkaError.POLICY_VIOLATION
    assert told(found.answer["topics"]) == [("u", refused), ("v", refused)]
    assert brokers.state.counts == {"t": 2}


@pytest.mark.parametrize(
    ("placed", "error"),
    [
        (None, 0),
        ([[1], [2]], 0),
        ([], KafkaError.INVALID_REPLICA_ASSIGNMENT),
        ([[1], [3]], KafkaError.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_new_partitions_are_placed_where_there_are_brokers(placed: Any, error: int) -> None:
    brokers = Brokers()
    given = None if placed is None else [{"broker_ids": nodes} for nodes in placed]
    data = {"topics": [{"name": "t", "count": 4, "assignments": given}], "validate_only": False}
    assert told(brokers.ask("CreatePartitions", data).answer["results"]) == [("t", error)]
    assert brokers.state.counts["t"] == (2 if error else 4)


@pytest.mark.parametrize(
    ("name", "count", "error"),
    [
        ("t", 5, KafkaError.NONE),
        ("u", 5, KafkaError.UNKNOWN_TOPIC_OR_PARTITION),
        ("t", 2, KafkaError.INVALID_PARTITIONS),
        ("t", MOST_PARTITIONS + 1, KafkaError.INVALID_PARTITIONS),
    ],
)
def test_topics_grow_and_never_shrink(name: str, count: int, error: int) -> None:
    brokers = Brokers()
    data = {"topics": [{"name": name, "count": count, "assignments": None}], "validate_only": False}
    (told,) = brokers.ask("CreatePartitions", data).answer["results"]
    assert (told["error_code"], brokers.state.counts["t"]) == (error, 2 if error else 5)


def test_a_deletion_says_what_is_gone() -> None:
    outcome = Brokers().ask("DeleteTopics", {"topic_names": ["u", "t"]})
    assert outcome.deleted == ("t",)
    assert outcome.appended, "who waits for records of it has to look again"
    missing = KafkaError.UNKNOWN_TOPIC_OR_PARTITION
    assert [each["error_code"] for each in outcome.answer["responses"]] == [missing, 0]


def test_names_of_topics_follow_kafkas_rule() -> None:
    assert all(is_legal(name) for name in ("a", "A.b_c-9", "x" * 249))
    assert not any(is_legal(name) for name in ("", ".", "..", "a b", "ä", "x" * 250))


def test_what_is_refused_changes_nothing() -> None:
    brokers = Brokers()
    requests = {
        "CreateTopics": create(topic_of("u", 1)),
        "CreatePartitions": {"topics": [{"name": "t", "count": 9}], "validate_only": False},
        "DeleteTopics": {"topic_names": ["t"]},
        "InitProducerId": {"transactional_id": None},
        "Produce": {
            "topic_data": [{"name": "t", "partition_data": [{"index": 0, "records": [batch()]}]}]
        },
    }
    assert requests.keys() == CHANGES.keys()
    for kind, data in requests.items():
        assert "29" in repr(brokers.refuse(kind, data, 29)), kind
    assert brokers.state.counts == {"t": 2}
    assert brokers.state.logs[TopicPartition("t", 0)].end_offset == 0
    assert brokers.commons.producer_ids == 0


def test_a_refused_fetch_has_no_records() -> None:
    brokers = Brokers()
    brokers.produce(batch())
    (topic,) = brokers.refuse("Fetch", fetch(0), 6)["responses"]
    assert [(p["error_code"], p["records"]) for p in topic["partitions"]] == [(6, b"")]
    assert brokers.refuse("ApiVersions", {}, 6) == {"error_code": 6}


def test_a_commit_for_a_partition_that_is_not_there_never_reaches_the_coordinator() -> None:
    offsets = tuple(m.OffsetAndMetadata("t", p, p, -1, "") for p in (7, 0, 8))
    request = m.OffsetCommitRequest("g", 1, "a", None, offsets)
    known = known_commit(request, Brokers().state.logs)
    assert [item.partition for item in known.offsets] == [0]
    told = whole_commit(request, m.OffsetCommitResponse((m.PartitionError("t", 0, 25),)))
    assert [(each.partition, each.error_code) for each in told.partitions] == [
        (7, 3), (0, 25), (8, 3),
    ]  # fmt: skip


def test_offsets_of_a_partition_that_is_not_there_are_no_work_for_the_coordinator() -> None:
    asked = tuple(TopicPartition("t", partition) for partition in (7, 0))
    request = m.OffsetDeleteRequest("g", asked)
    known = known_delete(request, Brokers().state.logs)
    assert known.partitions == (TopicPartition("t", 0),)
    done = m.OffsetDeleteResponse(0, (m.PartitionError("t", 0, 0),))
    found = [(each.partition, each.error_code) for each in whole_delete(request, done).partitions]
    assert found == [(7, KafkaError.UNKNOWN_TOPIC_OR_PARTITION), (0, 0)]
    refused = m.OffsetDeleteResponse(KafkaError.GROUP_ID_NOT_FOUND, ())
    assert whole_delete(request, refused) == refused
