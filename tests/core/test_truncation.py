"""Which epoch a record was read in, and what a leader's answer does to a position."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import Position, Tenure
from ksim.core.truncation import KEPT_EPOCHS, NO_EPOCH, epoch_at, note_epoch, skip_epochs
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

TP = TopicPartition(TOPIC, 0)


def test_epochs_are_kept_by_where_they_begin() -> None:
    tenure = Tenure(TOPIC, 0, 1)
    assert epoch_at(tenure, 5) == NO_EPOCH
    for start, epoch in ((0, 1), (10, 1), (20, 3), (25, NO_EPOCH)):
        note_epoch(tenure, start, epoch)
    assert [epoch_at(tenure, offset) for offset in (0, 19, 20, 99)] == [1, 1, 3, 3]
    for number in range(4, 40):
        note_epoch(tenure, number * 10, number)
    assert len(tenure.epochs) == KEPT_EPOCHS


def test_an_epoch_that_is_lower_is_of_another_log() -> None:
    """A topic that was made anew counts from 0 again."""
    tenure = Tenure(TOPIC, 0, 1, confirmed_epoch=3)
    note_epoch(tenure, 0, 3)
    assert tenure.confirmed_epoch == 3
    note_epoch(tenure, 5, 0)
    assert [epoch_at(tenure, offset) for offset in (4, 5)] == [NO_EPOCH, 0]
    assert (tenure.confirmed_epoch, tenure.latest_epoch) == (NO_EPOCH, 0)


@pytest.mark.parametrize(
    ("offset", "known"), [(30, [1, 1, 3, NO_EPOCH]), (25, [1, 1, 3, 3]), (20, [1, 1, 1, 1])]
)
def test_after_a_seek_what_was_read_below_it_keeps_its_epoch(offset: int, known: list[int]) -> None:
    tenure = Tenure(TOPIC, 0, 1, position=25)
    note_epoch(tenure, 0, 1)
    note_epoch(tenure, 20, 3)
    skip_epochs(tenure, offset)
    assert [epoch_at(tenure, at) for at in (0, 19, 24, 29)] == known
    note_epoch(tenure, 30, 4)
    assert epoch_at(tenure, 30) == 4


def at_an_older_epoch() -> Desk:
    """Position 12, read in epoch 0, and a leader of epoch 1 that is asked about it."""
    desk = Desk(metadata_max_age_ms=1_000)
    desk.feed(e.Started())
    desk.join()
    fetched = tuple(m.FetchedPartition(TOPIC, p, 0, 12, 0, 12, 2, 0) for p in range(2))
    desk.answer(m.FetchRequest, m.FetchResponse(0, fetched))
    led(desk, 1)
    return desk


def led(desk: Desk, leader_epoch: int) -> None:
    """Until the leader of the first partition is known to have this epoch."""
    while m.MetadataRequest not in desk.open:
        desk.timer()
    partitions = (m.PartitionMetadata(0, 0, 1, leader_epoch), m.PartitionMetadata(0, 1, 1, 0))
    brokers = (m.BrokerEndpoint(1, "broker-1", 9092),)
    topic = m.TopicMetadata(0, TOPIC, partitions)
    desk.answer(m.MetadataRequest, m.MetadataResponse(brokers, (topic,)))


def test_only_a_position_of_an_older_epoch_is_doubted() -> None:
    desk = at_an_older_epoch()
    assert desk.requests(m.OffsetForLeaderEpochRequest) == [
        m.OffsetForLeaderEpochRequest((m.EpochPartition(TOPIC, 0, 1, 0),))
    ]


@pytest.mark.parametrize("end_offset", [12, 30])
def test_a_position_within_its_epoch_stays(end_offset: int) -> None:
    desk = at_an_older_epoch()
    answer = m.EpochEnd(TOPIC, 0, 0, 0, end_offset)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    tenure = desk.member.state.owned[TP]
    assert (tenure.position, tenure.waits_for) == (12, Position.READY)
    assert not desk.of(e.DropBuffered)


@pytest.mark.parametrize(("between", "asked"), [(1, 1), (0, 2)])
def test_what_was_confirmed_says_nothing_of_a_log_whose_epochs_begin_again(
    between: int, asked: int
) -> None:
    desk = at_an_older_epoch()
    answer = m.EpochEnd(TOPIC, 0, 0, 0, 12)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    led(desk, between)
    led(desk, 1)
    assert len(desk.requests(m.OffsetForLeaderEpochRequest)) == asked


def test_a_position_beyond_its_epoch_goes_back_with_its_marks() -> None:
    desk = at_an_older_epoch()
    tenure = desk.member.state.owned[TP]
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure.tenure, 11, ""),)))
    answer = m.EpochEnd(TOPIC, 0, 0, 0, 11)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    assert (tenure.position, tenure.to_commit) == (11, 11)
    assert desk.of(e.DropBuffered) == [e.DropBuffered(TOPIC, 0, tenure.tenure, 11)]


def test_a_leader_that_knows_no_such_epoch_means_a_reset() -> None:
    desk = at_an_older_epoch()
    answer = m.EpochEnd(TOPIC, 0, 0, -1, -1)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    assert desk.requests(m.ListOffsetsRequest) == [
        m.ListOffsetsRequest((m.ListOffsetsPartition(TOPIC, 0, -2),))
    ]


@pytest.mark.parametrize(
    "code", [KafkaError.FENCED_LEADER_EPOCH, KafkaError.NOT_LEADER_OR_FOLLOWER]
)
def test_a_refusal_is_asked_again_with_newer_metadata(code: int) -> None:
    desk = at_an_older_epoch()
    answer = m.EpochEnd(TOPIC, 0, code, -1, -1)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    assert desk.member.state.owned[TP].waits_for == Position.EPOCH_END
    assert m.MetadataRequest in desk.open
    desk.learn()
    while m.OffsetForLeaderEpochRequest not in desk.open:
        desk.timer()


def test_a_position_from_list_offsets_has_the_epoch_that_came_with_it() -> None:
    desk = at_an_older_epoch()
    answer = m.EpochEnd(TOPIC, 0, 0, -1, -1)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    listed = m.ListedOffset(TOPIC, 0, 0, 8, 1)
    desk.answer(m.ListOffsetsRequest, m.ListOffsetsResponse((listed,)))
    tenure = desk.member.state.owned[TP]
    assert (tenure.position, epoch_at(tenure, 7), tenure.waits_for) == (8, 1, Position.READY)


@pytest.mark.parametrize(("end_offset", "committed"), [(11, 10), (-1, -1)])
def test_a_commit_under_way_beyond_the_end_does_not_count_as_committed(
    end_offset: int, committed: int
) -> None:
    desk = at_an_older_epoch()
    tenure = desk.member.state.owned[TP]
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure.tenure, 11, ""),)))
    desk.feed(e.CommitRequested(1))
    answer = m.EpochEnd(TOPIC, 0, 0, 0, end_offset)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    accepted = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, accepted)
    assert tenure.committed == committed
    assert desk.of(e.CommitFinished) == [e.CommitFinished(1, 0)]


def test_a_commit_under_way_within_the_log_counts() -> None:
    desk = at_an_older_epoch()
    tenure = desk.member.state.owned[TP]
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure.tenure, 10, ""),)))
    desk.feed(e.CommitRequested(1))
    answer = m.EpochEnd(TOPIC, 0, 0, 0, 11)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    accepted = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, accepted)
    assert tenure.committed == 11


def test_after_a_truncation_below_its_beginning_a_position_has_the_epoch_that_was_told() -> None:
    """Or the next truncation would not be seen."""
    desk = at_an_older_epoch()
    tenure = desk.member.state.owned[TP]
    answer = m.EpochEnd(TOPIC, 0, 0, 0, 4)
    desk.answer(m.OffsetForLeaderEpochRequest, m.OffsetForLeaderEpochResponse((answer,)))
    assert (tenure.position, epoch_at(tenure, 3)) == (4, 0)


def marked_up_to_12() -> tuple[Desk, Tenure]:
    """All that was read in epoch 0 is marked."""
    desk = Desk()
    desk.feed(e.Started())
    desk.join()
    fetched = tuple(m.FetchedPartition(TOPIC, p, 0, 12, 8, 12, 2, 0) for p in range(2))
    desk.answer(m.FetchRequest, m.FetchResponse(0, fetched))
    tenure = desk.member.state.owned[TP]
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure.tenure, 11, ""),)))
    return desk, tenure


def test_who_begins_anew_forgets_the_epochs_of_what_is_gone() -> None:
    """What is read then is committed with its epoch, or nobody would see it truncated."""
    desk, tenure = marked_up_to_12()
    desk.feed(e.BufferDrained(TOPIC, 0, tenure.tenure))
    gone = (m.FetchedPartition(TOPIC, 0, KafkaError.OFFSET_OUT_OF_RANGE, -1, -1, -1, 0, -1),)
    desk.answer(m.FetchRequest, m.FetchResponse(0, gone))
    listed = m.ListedOffset(TOPIC, 0, 0, 0, 0)
    while m.ListOffsetsRequest not in desk.open:
        desk.timer()
    desk.answer(m.ListOffsetsRequest, m.ListOffsetsResponse((listed,)))
    again = (m.FetchedPartition(TOPIC, 0, 0, 3, 0, 3, 3, 0),)
    desk.answer(m.FetchRequest, m.FetchResponse(0, again))
    assert [epoch_at(tenure, offset) for offset in (0, 2)] == [0, 0]


@pytest.mark.parametrize(
    ("next_offset", "epoch", "committed"),
    [
        (6, 1, -1),  # written anew below what is committed
        (6, 0, 12),  # what was there before
        (14, 1, 12),  # a newer record beyond it says nothing
    ],
)
def test_what_is_read_again_in_a_newer_epoch_was_written_anew(
    next_offset: int, epoch: int, committed: int
) -> None:
    desk, tenure = marked_up_to_12()
    desk.feed(e.CommitRequested(1))
    accepted = m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, 0),))
    desk.answer(m.OffsetCommitRequest, accepted)
    desk.feed(e.Sought(TOPIC, 0, tenure.tenure, 0))
    again = m.FetchedPartition(TOPIC, 0, 0, next_offset, 0, next_offset, 1, epoch)
    desk.answer(m.FetchRequest, m.FetchResponse(0, (again,)))
    assert (tenure.position, tenure.committed) == (next_offset, committed)
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure.tenure, 11, ""),)))
    assert tenure.uncommitted == (committed == -1)
