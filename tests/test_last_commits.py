"""S9 on members that let go of what they had, though their last commit was only put off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import parse
from tests.test_checks import TP, Story, accused

SCENARIO = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
    'session_timeout = "30s"\nrebalance_timeout = "20s"\ncommit_interval = "1m"\n',
    "test",
)
MARKED = m.OffsetAndMetadata("t", 0, 1, -1, "")
COMMIT = m.OffsetCommitRequest("g", 1, "a", None, (MARKED,))
HEARTBEAT = m.HeartbeatRequest("g", 1, "a", None)
JOIN = m.JoinGroupRequest("g", 30_000, 20_000, "a", None, "consumer", ())


def send(number: int, request: m.Request) -> e.SendRequest:
    return e.SendRequest(number, 1, "group", request, 30_000)


def gives_back() -> Story:
    """Since 5 s, after it has handled a record."""
    story = Story(SCENARIO).assign("a").hand_out("a", 0)
    story.see("a", e.TimerFired(), e.RevokePartitions(1, (TP,)))
    return story.see("a", e.PartitionsRevoked(1, ()))


def commits(story: Story, *error_codes: int) -> Story:
    for number, error_code in enumerate(error_codes, 10):
        story.see("a", e.TimerFired(), send(number, COMMIT))
        answer = m.OffsetCommitResponse((m.PartitionError("t", 0, error_code),))
        story.see("a", e.ResponseReceived(number, answer))
    return story


def fails(story: Story) -> Story:
    """Another one has no answer; of a heartbeat nobody counts it."""
    story.see("a", e.TimerFired(), send(20, COMMIT), send(21, HEARTBEAT))
    return story.see("a", e.RequestFailed(20, "cut")).see("a", e.RequestFailed(21, "cut"))


def lets_go(story: Story) -> Story:
    """It joins, and another one handles the record again."""
    story.see("a", e.TimerFired(), send(30, JOIN))
    return story.assign("b").hand_out("b", 0)


def late(story: Story, by_ms: int) -> Story:
    story.now_ms += by_ms
    return story


def not_found(story: Story) -> Story:
    story.see("a", e.TimerFired(), send(9, m.FindCoordinatorRequest("g")))
    answer = m.FindCoordinatorResponse(15, -1, "", -1)
    return story.see("a", e.ResponseReceived(9, answer))


@pytest.mark.parametrize(
    "story",
    [
        lambda: commits(gives_back(), 16),
        lambda: commits(gives_back(), 14, 15, 7),
        lambda: not_found(gives_back()),  # it has not even asked
        lambda: not_found(commits(gives_back(), 16)),
        lambda: commits(fails(commits(gives_back(), 16)), 16),
        lambda: commits(commits(gives_back(), 16, 16, 16, 0), 16),
        lambda: commits(gives_back().see("a", e.CloseRequested(12_000, True)), 16),
    ],
)
def test_whoever_does_not_ask_again_has_no_excuse(story: Callable[[], Story]) -> None:
    assert "time 2 in g; budget: 1" in accused(lets_go(story()), "S9")


@pytest.mark.parametrize(
    "story",
    [
        lambda: commits(gives_back(), 16, 16, 16, 16),  # it has tried
        lambda: fails(commits(gives_back(), 16, 16, 16)),
        lambda: commits(gives_back(), 27),  # that is for good
        lambda: late(commits(gives_back(), 16), 17_000),  # the group waits no longer
        lambda: late(not_found(gives_back()), 17_000),
        lambda: late(commits(gives_back().see("a", e.CloseRequested(6_000, True)), 16), 3_000),
        lambda: commits(
            gives_back()
            .see("a", e.CloseRequested(60_000, True))
            .see("a", e.CloseRequested(1_000, True)),
            16,
        ),
    ],
)
def test_whoever_has_asked_for_as_long_as_it_may_is_excused(story: Callable[[], Story]) -> None:
    assert not lets_go(story()).check("S9").violations


def test_what_was_put_off_before_counts_for_nothing_afterwards() -> None:
    """A generation ago it was put off, and then taken; now there was nothing to give back."""
    story = commits(gives_back(), 16).see("a", e.TimerFired(), send(30, JOIN))
    story.assign("a", offset=1, tenure=2).hand_out("a", 1, tenure=2)
    story = commits(story, 16)
    story.now_ms += 1_000
    story.see("a", e.TimerFired(), send(40, JOIN))
    assert not story.assign("b", offset=1).hand_out("b", 1).check("S9").violations
