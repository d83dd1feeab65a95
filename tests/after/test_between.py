"""What recordings bear witness to about what lies between members."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life, Step
from ksim.core import events as e
from ksim.core import messages as m
from tests.after.test_judge import TP, commit, gives, join, life
from tests.after.test_judge import pattern as pattern  # a fixture
from tests.after.test_own import commits


def seeks(at_ms: int, offset: int) -> Step:
    return Step(at_ms, e.Sought(*TP, 1, offset), (e.DropBuffered(*TP, 1, offset, sought=True),))


@pytest.mark.parametrize(
    ("sought", "offsets", "verdict"),
    [
        (5, [10, 12, 6], "pass"),
        (5, [10, 12, 13, 6], "fail"),  # with the second commit after it, a seek permits no more
        (5, [10, 6, 7], "pass"),
        (5, [10, 6, 5], "fail"),
        (11, [10, 12, 13, 11], "fail"),
        (11, [10, 12, 11], "pass"),  # the first one was under way
    ],
)
def test_a_seek_lets_a_member_go_back_once(
    pattern: Life, sought: int, offsets: list[int], verdict: str
) -> None:
    one = life("one", [gives(0, 1, 1), seeks(150, sought)], [], pattern)
    sent = [
        replace(commit(1, 1, 100 * number, offset), request_id=number)
        for number, offset in enumerate(offsets, 1)
    ]
    assert judge([commits(one, *sent)]).verdicts["S13"] == verdict


def cut_at(at_ms: int, offset: int) -> list[Step]:
    """A new leader, by whose log the member goes back."""
    told = m.TopicMetadata(0, TP.topic, (m.PartitionMetadata(0, TP.partition, 1, 1),))
    end = m.OffsetForLeaderEpochResponse((m.EpochEnd(*TP, 0, 0, offset),))
    return [
        Step(at_ms, e.ResponseReceived(-1, m.MetadataResponse((), (told,))), ()),
        Step(at_ms, e.ResponseReceived(-1, end), (e.DropBuffered(*TP, 1, offset),)),
    ]


@pytest.mark.parametrize(
    ("offsets", "verdict"),
    [
        ([(12, 0), (5, 0)], "pass"),  # the first one was read before the cut, and marked then
        ([(12, 0), (4, 0)], "fail"),
        ([(12, 0), (5, 0), (6, 1), (5, 1)], "fail"),
        ([(12, 1), (5, 1)], "fail"),  # it was read after the cut
    ],
)
def test_what_was_read_before_a_cut_may_be_committed_after_it_was_seen(
    pattern: Life, offsets: list[tuple[int, int]], verdict: str
) -> None:
    one = life("one", [gives(0, 1, 1), *cut_at(150, 5)], [], pattern)
    sent: list[Exchange] = []
    for number, (offset, epoch) in enumerate(offsets, 2):
        item = m.OffsetAndMetadata(*TP, offset, epoch, "")
        each = commit(1, 1, 100 * number, offset)
        request = m.OffsetCommitRequest("g", 1, "id-1", None, (item,))
        sent.append(replace(each, request_id=number, request=request))
    assert judge([commits(one, *sent)]).verdicts["S13"] == verdict


@pytest.mark.parametrize(
    ("at_ms", "offset", "verdict"),
    [
        (500, 50, "undecided"),  # in the millisecond of the other one: which came first?
        (500, 100, "pass"),
        (499, 50, "pass"),
        (501, 50, "fail"),
    ],
)
def test_of_two_commits_of_one_millisecond_nobody_knows_which_came_first(
    pattern: Life, at_ms: int, offset: int, verdict: str
) -> None:
    def takes(number: int, at_ms: int, offset: int) -> Exchange:
        return replace(commit(number, 1, at_ms, offset), ended_ms=at_ms)

    one = commits(life("one", [], [join(1, 0, 10, 1, True)], pattern), takes(1, 500, 100))
    two = commits(life("two", [], [join(2, 0, 10, 1, False)], pattern), takes(2, at_ms, offset))
    assert judge([one, two], one_clock=True).verdicts["S13"] == verdict
