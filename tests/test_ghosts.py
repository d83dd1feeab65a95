"""L1's other half: a member that gives up its id leaves a ghost, for which its group waits."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from tests.test_checks import SCENARIO, Story, accused
from tests.test_tenure_checks import ask

SESSION_MS = 60_000
POLL_INTERVAL_MS = SCENARIO.groups[0].max_poll_interval_ms


def joins(story: Story, member_id: str, instance_id: str | None = None) -> Story:
    request = m.JoinGroupRequest("g", SESSION_MS, 1, member_id, instance_id, "consumer", ())
    return ask(story, request, request_id=1)


def answered(story: Story, error_code: int, member_id: str) -> Story:
    response = m.JoinGroupResponse(error_code, 1, "consumer", "range", "", member_id, ())
    return story.see("a", e.ResponseReceived(1, response))


def member() -> Story:
    """The member a, which was given the id a-1."""
    return answered(joins(Story().start("a"), ""), 0, "a-1")


@pytest.mark.parametrize("error_code", [0, 79])
def test_an_id_that_was_given_and_is_not_used(error_code: int) -> None:
    story = answered(joins(Story().start("a"), ""), error_code, "a-1")
    sentence = accused(joins(story, ""), "L1")
    assert sentence.startswith("a joined g as a newcomer at 4.000 s, and left a-1 behind")


def test_a_refusal_that_says_nothing_of_the_id_ends_nothing() -> None:
    story = member().see("a", e.ResponseReceived(2, m.HeartbeatResponse(22)))
    assert "left a-1 behind" in accused(joins(story, ""), "L1")


def test_the_same_id_again_is_no_ghost() -> None:
    assert not joins(answered(joins(member(), "a-1"), 14, ""), "a-1").check("L1").violations


@pytest.mark.parametrize(
    "response",
    [
        m.HeartbeatResponse(25),
        m.OffsetCommitResponse((m.PartitionError("t", 0, 25),)),
        m.SyncGroupResponse(82, None, None, b""),
    ],
    ids=["heartbeat", "commit", "fenced"],
)
def test_an_id_that_is_unknown_is_given_up(response: m.Response) -> None:
    story = member().see("a", e.ResponseReceived(2, response))
    assert not joins(story, "").check("L1").violations


def test_an_id_that_is_unknown_is_given_up_whatever_its_join_comes_to() -> None:
    story = joins(member(), "a-1").see("a", e.ResponseReceived(2, m.HeartbeatResponse(25)))
    assert not joins(answered(story, 0, "a-1"), "").check("L1").violations


def test_who_has_left_comes_as_a_newcomer() -> None:
    leave = m.LeaveGroupRequest("g", (m.MemberIdentity("a-1", None),))
    assert not joins(ask(member(), leave), "").check("L1").violations


def test_a_new_process_knows_nothing_of_the_old_one() -> None:
    story = member().see("a", o.MemberLife("a", "g", "crashed", "")).start("a")
    assert not joins(story, "").check("L1").violations


def test_a_static_member_goes_by_its_instance_id() -> None:
    assert not joins(member(), "", "a").check("L1").violations


@pytest.mark.parametrize(("away_ms", "fails"), [(0, True), (POLL_INTERVAL_MS, False)])
def test_who_did_not_call_in_may_have_had_to_go(away_ms: int, fails: bool) -> None:
    story = member().hand_out("a", 0)
    story.now_ms += away_ms
    story.see("a", e.UserPolled(False, story.now_ms))  # there again
    assert bool(joins(story, "").check("L1").violations) == fails


def closes(story: Story) -> Story:
    return story.see("a", o.MemberLife("a", "g", "closed", ""))


LEAVE = m.LeaveGroupRequest("g", (m.MemberIdentity("a-1", None),))
LATE = e.LosePartitions(1, (), "max.poll.interval.ms passed without a call")


def test_who_closes_leaves() -> None:
    sentence = accused(closes(member()), "L1")
    assert sentence.startswith("a closed at 4.000 s, and did not leave as a-1")
    assert not closes(ask(member(), LEAVE)).check("L1").violations


@pytest.mark.parametrize(
    "fact",
    [
        e.RequestFailed(5, "no answer"),
        e.ResponseReceived(2, m.HeartbeatResponse(16)),
        e.ResponseReceived(2, m.HeartbeatResponse(25)),
    ],
)
def test_who_has_no_coordinator_cannot_leave(fact: object) -> None:
    assert not closes(member().see("a", fact)).check("L1").violations


@pytest.mark.parametrize(("slept_ms", "fails"), [(SESSION_MS - 2_000, True), (SESSION_MS, False)])
def test_whose_session_is_over_need_not_leave(slept_ms: int, fails: bool) -> None:
    """It counts from when it asked what was answered last; it may own nothing to be lost."""
    beats = m.HeartbeatRequest("g", 1, "a-1", None)
    story = ask(member(), beats, request_id=2)
    story.see("a", e.ResponseReceived(2, m.HeartbeatResponse(0)))
    story.now_ms += slept_ms - 1_000
    assert bool(closes(story).check("L1").violations) == fails


@pytest.mark.parametrize("ended", [(e.Closed(),), ()])
def test_whom_a_refusal_of_its_group_ends_need_not_leave(ended: tuple[e.Closed, ...]) -> None:
    """An answer to what was asked before comes afterwards."""
    refused = m.OffsetCommitResponse((m.PartitionError("t", 0, 30),))
    report = e.ReportError(30, "commit of group g", True)
    story = member().see("a", e.ResponseReceived(2, refused), report, *ended)
    story = closes(story.see("a", e.ResponseReceived(3, m.HeartbeatResponse(0))))
    assert bool(story.check("L1").violations) == (not ended)


@pytest.mark.parametrize("closed", [(e.Closed(),), ()])
def test_what_is_told_of_an_id_after_the_end_is_nobody_s(closed: tuple[e.Closed, ...]) -> None:
    """It closed while its first JoinGroup was under way, whose answer came in the same instant."""
    story = joins(Story().start("a"), "").see("a", e.CloseRequested(1_000, True), *closed)
    story = closes(answered(story, 79, "a-1"))
    assert bool(story.check("L1").violations) == (not closed)


def test_who_does_not_call_in_leaves() -> None:
    assert "and did not leave" in accused(member().see("a", e.TimerFired(), LATE), "L1")
    leave = e.SendRequest(9, 1, "leave", LEAVE, 30_000)
    assert not member().see("a", e.TimerFired(), leave, LATE).check("L1").violations


def static() -> Story:
    return answered(joins(Story().start("a"), "", "i"), 0, "a-1")


def test_a_static_member_goes_without_a_word() -> None:
    assert not closes(static()).check("L1").violations
    assert not static().see("a", e.TimerFired(), LATE).check("L1").violations
    assert "a is static, and left its group" in accused(ask(static(), LEAVE), "L1")


@pytest.mark.parametrize(("request_id", "is_ghost"), [(2, False), (3, True)])
def test_an_answer_from_before_the_end_of_a_session_says_nothing(
    request_id: int, is_ghost: bool
) -> None:
    """A member that stood still gets it when it goes on."""
    story = ask(member(), m.HeartbeatRequest("g", 1, "a-1", None), request_id=2)
    story.see("a", e.TimerFired(), e.LosePartitions(1, (), "session.timeout.ms passed"))
    ask(story, m.HeartbeatRequest("g", 1, "a-1", None), request_id=3)
    story.see("a", e.ResponseReceived(request_id, m.HeartbeatResponse(0)))
    story.see("a", o.MemberLife("a", "g", "closed", ""))
    sentences = [each.sentence for each in story.check("L1").violations]
    assert any("did not leave as a-1" in each for each in sentences) == is_ghost


@pytest.mark.parametrize(("request_id", "is_ghost"), [(2, False), (3, True)])
def test_an_answer_from_before_the_coordinator_was_none_says_nothing(
    request_id: int, is_ghost: bool
) -> None:
    story = ask(member(), m.HeartbeatRequest("g", 1, "a-1", None), request_id=2)
    refused = m.OffsetCommitResponse((m.PartitionError("t", 0, 15),))
    story.see("a", e.ResponseReceived(1, refused))
    ask(story, m.HeartbeatRequest("g", 1, "a-1", None), request_id=3)
    story = closes(story.see("a", e.ResponseReceived(request_id, m.HeartbeatResponse(0))))
    assert bool(story.check("L1").violations) == is_ghost
