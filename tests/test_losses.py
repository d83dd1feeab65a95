"""L1 on what a member takes from its application, S9 on what that leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import parse
from tests.test_checks import TP, Story, accused

SCENARIO = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
    'session_timeout = "10s"\nmax_poll_interval = "30s"\ncommit_interval = "1m"\n',
    "test",
)
# Whatever a member says of its reasons.
REASONS = ("session.timeout.ms passed", "max.poll.interval.ms passed", "refused")
JOIN = m.JoinGroupRequest("g", 10_000, 10_000, "a", None, "consumer", ())
JOINED = m.JoinGroupResponse(0, 1, "consumer", "range", "a", "a", ())
BEAT = m.HeartbeatRequest("g", 1, "a", None)


def send(number: int, request: m.Request) -> e.SendRequest:
    return e.SendRequest(number, 1, "group", request, 30_000)


def member() -> Story:
    """It joined at 3 s, and owns what was handed out and not committed."""
    story = Story(SCENARIO).start("a").see("a", e.Started(), send(1, JOIN))
    story.see("a", e.ResponseReceived(1, JOINED)).assign("a").hand_out("a", 0)
    return story.see("a", e.UserPolled(False, 7_000))


def beat(story: Story, error_code: int) -> Story:
    """Sent at once, answered a second later."""
    story.see("a", e.TimerFired(), send(2, BEAT))
    return story.see("a", e.ResponseReceived(2, m.HeartbeatResponse(error_code)))


def loses(story: Story, fact: Any = None, *orders: Any, reason: str = "refused") -> Story:
    lost = e.LosePartitions(1, (TP,), reason)
    return story.see("a", e.TimerFired() if fact is None else fact, lost, *orders)


def again(story: Story) -> Story:
    """Another one handles the same record."""
    return story.assign("b", tenure=1).hand_out("b", 0)


def on_heartbeat(error_code: int) -> Callable[[Story], Story]:
    def told(story: Story) -> Story:
        story.see("a", e.TimerFired(), send(2, BEAT))
        return loses(story, e.ResponseReceived(2, m.HeartbeatResponse(error_code)))

    return told


@pytest.mark.parametrize("reason", REASONS)
def test_a_loss_that_nothing_asked_for(reason: str) -> None:
    said = [each.sentence for each in loses(member(), reason=reason).check("L1").violations]
    words = "a took from its application what it owned at 8.000 s, though nobody had told it to"
    assert any(sentence.startswith(words) for sentence in said)
    assert "budget: 1" in accused(again(loses(member(), reason=reason)), "S9")


@pytest.mark.parametrize("error_code", [0, 14, 15, 16, 27])
def test_no_answer_but_one_that_it_is_no_member_takes_anything(error_code: int) -> None:
    assert accused(on_heartbeat(error_code)(member()), "L1")


def late(story: Story, by_ms: int) -> Story:
    story.now_ms += by_ms
    return story


@pytest.mark.parametrize("error_code", [0, 27])
def test_a_heartbeat_confirms_whether_a_rebalance_is_on_or_not(error_code: int) -> None:
    """It was sent at 9 s, and answered at 10 s; the session goes on from when it was sent."""
    story = late(beat(late(member(), 1_000), error_code), 7_999)
    assert accused(loses(story), "L1")
    story = late(beat(late(member(), 1_000), error_code), 8_001)
    assert not loses(story).check("L1").violations


@pytest.mark.parametrize(
    "story",
    [
        lambda: on_heartbeat(22)(member()),
        lambda: on_heartbeat(25)(member()),
        lambda: on_heartbeat(82)(member()),
        lambda: loses(
            member(),
            e.ResponseReceived(9, m.OffsetCommitResponse((m.PartitionError("t", 0, 25),))),
        ),
        lambda: loses(member(), None, e.ReportError(30, "join", True, "", -1, -1, "")),
        lambda: loses(
            member().see("a", e.CloseRequested(1_000, True)), e.CloseRequested(1_000, True)
        ),
        lambda: loses(late(member(), 5_000)),  # ten seconds after it joined
        lambda: loses(
            late(beat(late(member(), 19_000), 0), 8_000)
        ),  # its application was there at 7
        lambda: loses(late(member(), 5_000), e.MarksTaken((), False, 12_000)),
        # Nobody knows of a process that was there before the run.
        lambda: Story(SCENARIO).see("b", e.TimerFired(), e.LosePartitions(1, (TP,), "gone")),
        lambda: member().see("a", e.TimerFired(), e.LosePartitions(1, (), "nothing")),
    ],
)
def test_a_loss_with_a_cause(story: Callable[[], Story]) -> None:
    assert not story().check("L1").violations


@pytest.mark.parametrize(
    ("called", "alone"),
    [
        (e.UserPolled(False, 8_000), True),
        (e.UserPolled(False, 9_000), False),
        (e.UserPolled(True, 8_000), False),  # it waits inside a call
    ],
)
def test_nobody_joins_for_an_application_that_is_away(called: e.UserPolled, alone: bool) -> None:
    """A member that has lost all joins at 39 s, for `max_poll_interval` of 30 s."""
    story = late(member().see("a", called), 30_000)
    story = story.see("a", e.TimerFired(), send(5, JOIN))
    assert story.now_ms == 39_000
    sentence = (
        "a joined at 39.000 s, though its application had not called in for 31.000 s: nobody would "
        "read what it is given."
    )
    assert [found.sentence for found in story.check("L1").violations] == [sentence] * alone


def test_an_application_that_waits_inside_a_call_is_there() -> None:
    story = member().see("a", e.UserPolled(True, 8_000))
    assert accused(loses(late(beat(late(story, 28_000), 0), 1_000)), "L1")


def test_marks_tell_that_the_application_called_in() -> None:
    story = member().see("a", e.MarksTaken((), False, 8_000))
    story = beat(late(story, 26_000), 0)
    assert accused(loses(story), "L1")  # at 37 s: a second is left


def test_a_new_process_begins_anew() -> None:
    story = late(member(), 30_000).see("a", o.MemberLife("a", "g", "crashed", "")).start("a")
    story.see("a", e.Started(), send(1, JOIN)).see("a", e.ResponseReceived(1, JOINED))
    assert accused(loses(story.assign("a", tenure=2)), "L1")
