"""What is wrong with one topic keeps nobody from the others."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.positions import MISSING, NOT_YET_ANSWERS
from ksim.core.subscription import decode_assignment, encode_subscription
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

OTHER = "of-another"
BROKERS = (m.BrokerEndpoint(1, "broker-1", 9092),)


def learn(desk: Desk, **errors: int) -> None:
    """Answer for what was asked, the topic of the other member with this error."""
    while m.MetadataRequest not in desk.open:
        desk.timer()
    asked = desk.open[m.MetadataRequest].request
    assert isinstance(asked, m.MetadataRequest)
    assert asked.topics is not None
    partitions = (m.PartitionMetadata(0, 0, 1, 0),)
    codes = {TOPIC: errors.get("mine", 0), OTHER: errors.get("other", 0)}
    topics = tuple(
        m.TopicMetadata(codes[name], name, () if codes[name] else partitions)
        for name in asked.topics
    )
    desk.answer(m.MetadataRequest, m.MetadataResponse(BROKERS, topics))


def leader() -> Desk:
    """It leads a group in which another one wants a topic of its own."""
    desk = Desk(metadata_max_age_ms=300_000, session_timeout_ms=60_000, rebalance_timeout_ms=60_000)
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    learn(desk)
    lead(desk, 1, TOPIC, OTHER)
    return desk


def lead(desk: Desk, generation_id: int, *topics: str) -> None:
    """Members that want these, one each; the first is this one."""
    members = tuple(
        m.JoinedMember(f"c-{number}", None, encode_subscription((topic,)))
        for number, topic in enumerate(topics)
    )
    answer = m.JoinGroupResponse(0, generation_id, "consumer", "range", "c-0", "c-0", members)
    desk.answer(m.JoinGroupRequest, answer)


def shared_out(desk: Desk) -> dict[str, tuple[TopicPartition, ...]]:
    request = desk.open[m.SyncGroupRequest].request
    assert isinstance(request, m.SyncGroupRequest)
    return {name: decode_assignment(data) for name, data in request.assignments}


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.INVALID_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PARTITION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.UNKNOWN_SERVER_ERROR,
    ],
)
def test_a_leader_shares_out_what_is_there_whatever_is_wrong_with_the_rest(code: int) -> None:
    desk = leader()
    learn(desk, other=code)
    assert shared_out(desk) == {"c-0": (TopicPartition(TOPIC, 0),), "c-1": ()}
    # It did not ask for the other one: its own application is told nothing.
    assert not desk.of(e.ReportError)
    # What may be there soon is asked for again, long before the metadata are old.
    is_final = code in MISSING
    assert ("metadata_backoff" not in desk.member.state.timers) == is_final


def test_a_topic_that_was_just_made_is_waited_for_but_not_for_ever() -> None:
    desk = leader()
    for _ in range(NOT_YET_ANSWERS):
        assert m.SyncGroupRequest not in desk.open
        learn(desk, other=KafkaError.LEADER_NOT_AVAILABLE)
    learn(desk, other=KafkaError.LEADER_NOT_AVAILABLE)
    assert shared_out(desk) == {"c-0": (TopicPartition(TOPIC, 0),), "c-1": ()}


def test_a_topic_that_was_just_made_is_shared_out_when_it_is_there() -> None:
    desk = leader()
    learn(desk, other=KafkaError.LEADER_NOT_AVAILABLE)
    assert m.SyncGroupRequest not in desk.open
    learn(desk)
    everything = {"c-0": (TopicPartition(TOPIC, 0),), "c-1": (TopicPartition(OTHER, 0),)}
    assert shared_out(desk) == everything


def test_what_nobody_asks_for_any_more_holds_up_nobody() -> None:
    desk = leader()
    while m.SyncGroupRequest not in desk.open:
        learn(desk, other=KafkaError.LEADER_NOT_AVAILABLE)
    # The other one has left meanwhile: the round begins anew.
    refused = m.SyncGroupResponse(KafkaError.REBALANCE_IN_PROGRESS, None, None, b"")
    desk.answer(m.SyncGroupRequest, refused)
    while m.JoinGroupRequest not in desk.open:
        desk.timer()
    lead(desk, 2, TOPIC)
    learn(desk)
    assert shared_out(desk) == {"c-0": (TopicPartition(TOPIC, 0),)}
    assert OTHER not in desk.member.state.topic_errors


@pytest.mark.parametrize("code", [KafkaError.INVALID_TOPIC, KafkaError.UNKNOWN_SERVER_ERROR])
def test_who_asked_for_it_is_told_once(code: int) -> None:
    desk = Desk(metadata_max_age_ms=1_000)
    desk.feed(e.Started())
    for _ in range(3):
        learn(desk, mine=code)
    (told,) = desk.of(e.ReportError)
    assert (told.error_code, told.context, told.topic) == (code, f"topic {TOPIC}", TOPIC)
