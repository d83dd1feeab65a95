"""A partition without a leader holds up no other one, and its application is told."""

from __future__ import annotations

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.leaders import LEADERLESS_ANSWERS
from ksim.core.member_state import Position
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

BOTH = (TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1))


def learn(desk: Desk, leader: int, epoch: int = 0, error_code: int = 0) -> None:
    """Partition 0 has its leader, partition 1 this one; -1: nobody."""
    while m.MetadataRequest not in desk.open:
        desk.timer()
    code = KafkaError.LEADER_NOT_AVAILABLE if leader < 0 else 0
    partitions = (m.PartitionMetadata(0, 0, 1, 0), m.PartitionMetadata(code, 1, leader, epoch))
    topic = m.TopicMetadata(error_code, TOPIC, () if error_code else partitions)
    brokers = (m.BrokerEndpoint(1, "broker-1", 9092),)
    desk.answer(m.MetadataRequest, m.MetadataResponse(brokers, (topic,)))


def assigned(
    leader: int = -1, epoch: int = 0, committed: int = -1, read: int = -1, **options: str
) -> Desk:
    """A member that was given both partitions; 10 is committed of the first one."""
    desk = Desk(metadata_max_age_ms=1_000, session_timeout_ms=60_000, **options)
    desk.feed(e.Started())
    desk.answer(m.FindCoordinatorRequest, m.FindCoordinatorResponse(0, 1, "broker-1", 9092))
    learn(desk, leader, epoch)
    code = KafkaError.MEMBER_ID_REQUIRED
    desk.answer(m.JoinGroupRequest, m.JoinGroupResponse(code, -1, None, None, "", "c-1", ()))
    joined = m.JoinGroupResponse(0, 1, "consumer", "range", "other", "c-1", ())
    desk.answer(m.JoinGroupRequest, joined)
    told = m.SyncGroupResponse(0, "consumer", "range", encode_assignment(BOTH))
    desk.answer(m.SyncGroupRequest, told)
    found = (
        m.CommittedOffset(TOPIC, 0, 10, -1, "", 0),
        m.CommittedOffset(TOPIC, 1, committed, read, "", 0),
    )
    desk.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(0, found))
    return desk


def told_of(desk: Desk) -> list[e.ReportError]:
    return [order for order in desk.of(e.ReportError) if order.partition == 1]


def positions(desk: Desk) -> list[int]:
    (order,) = desk.of(e.AssignPartitions)
    return [item.offset for item in order.partitions]


def test_it_is_announced_without_a_position_and_told_once() -> None:
    desk = assigned()
    assert not desk.of(e.AssignPartitions)
    for _ in range(LEADERLESS_ANSWERS + 2):
        learn(desk, -1)
    assert positions(desk) == [10, -1]
    (fetch,) = desk.requests(m.FetchRequest)
    assert [item.partition for item in fetch.partitions] == [0]
    (told,) = told_of(desk)
    assert (told.error_code, told.fatal) == (KafkaError.LEADER_NOT_AVAILABLE, False)
    assert told.context == "orders-1 has no leader: nothing of it comes until it has one"


def test_once_it_has_a_leader_it_is_read_from_where_its_policy_says() -> None:
    desk = assigned()
    for _ in range(LEADERLESS_ANSWERS):
        learn(desk, -1)
    learn(desk, 2)
    listed = m.ListedOffset(TOPIC, 1, 0, 7, 0)
    desk.answer(m.ListOffsetsRequest, m.ListOffsetsResponse((listed,)))
    (begun,) = desk.of(e.DropBuffered)
    assert (begun.partition, begun.offset, begun.sought) == (1, 7, False)
    *_, fetch = desk.requests(m.FetchRequest)
    assert [(item.partition, item.fetch_offset) for item in fetch.partitions] == [(1, 7)]


def test_a_leader_that_is_missing_once_is_waited_for() -> None:
    desk = assigned()
    assert not desk.of(e.AssignPartitions)
    learn(desk, 2)
    listed = m.ListedOffset(TOPIC, 1, 0, 7, 0)
    desk.answer(m.ListOffsetsRequest, m.ListOffsetsResponse((listed,)))
    assert positions(desk) == [10, 7]
    assert not desk.of(e.DropBuffered)
    assert not told_of(desk)


def test_a_position_that_nobody_can_confirm_is_announced() -> None:
    """Its partition went offline, which is a leader epoch of its own."""
    desk = assigned(leader=-1, epoch=3, committed=20, read=2)
    assert not desk.of(e.AssignPartitions)
    for _ in range(LEADERLESS_ANSWERS):
        learn(desk, -1, epoch=3)
    assert positions(desk) == [10, 20]
    assert desk.member.state.owned[BOTH[1]].waits_for == Position.EPOCH_END
    learn(desk, 2, epoch=4)
    end = m.EpochEnd(TOPIC, 1, 0, 2, 15)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((end,)))
    *_, fetch = desk.requests(m.FetchRequest)
    assert [(item.partition, item.fetch_offset) for item in fetch.partitions] == [(1, 15)]


def test_a_topic_that_nobody_may_look_at_is_told_as_such() -> None:
    desk = assigned(leader=2)
    for _ in range(LEADERLESS_ANSWERS):
        learn(desk, -1, error_code=KafkaError.TOPIC_AUTHORIZATION_FAILED)
    assert positions(desk) == [10, -1]
    assert not told_of(desk)
    (told,) = desk.of(e.ReportError)
    assert told.error_code == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_one_that_goes_offline_later_is_told_each_time() -> None:
    desk = assigned(leader=1, committed=20)
    assert positions(desk) == [10, 20]
    for times in (1, 2):
        for _ in range(LEADERLESS_ANSWERS + 1):
            learn(desk, -1)
        assert len(told_of(desk)) == times
        learn(desk, 1)


def test_where_nothing_is_committed_and_nothing_resets_the_application_must_decide() -> None:
    """It is told to leave, and is given nothing."""
    desk = assigned(auto_offset_reset="none")
    for _ in range(LEADERLESS_ANSWERS + 1):
        learn(desk, -1)
    assert not desk.of(e.AssignPartitions)
    assert [told.fatal for told in desk.of(e.ReportError)][:1] == [True]
