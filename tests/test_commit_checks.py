"""S3 and S13 on hand-made steps: what they must not let pass, and what they must not accuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from tests.test_checks import BROKER, Story, accused

OFFSET = e.OffsetTombstone("g", "t", 0)
GROUP = e.GroupTombstone("g")


def passes(story: Story, name: str) -> None:
    checker = story.check(name)
    assert checker.verdict == "pass", checker.violations


def owned() -> Story:
    """a has the partition in generation 1, and four records are there."""
    return Story().see("producer", o.Produced("t", 0, 4)).record(1, a=[0], b=[1])


def handed_on() -> Story:
    return owned().record(2, a=[1], b=[0])


def unreadable(*names: str) -> e.GroupRecord:
    members = tuple(
        e.GroupRecordMember(name, None, name, "/h", 1, 1, b"", b"\0\1\x7f") for name in names
    )
    return e.GroupRecord("g", "consumer", 3, "range", "a", 0, members)


def test_s3_a_commit_for_what_another_owns() -> None:
    sentence = accused(owned().commit("b", 2), "S3")
    assert sentence == (
        "b committed offset 2 of t-0 at 4.000 s, but generation 1 of g gives it to a."
    )


def test_s3_a_commit_for_what_was_given_up() -> None:
    assert "generation 2 of g gives it to b" in accused(
        handed_on().commit("a", 2, generation_id=2), "S3"
    )


def test_s3_a_commit_for_what_nobody_ever_gave() -> None:
    assert "gives it to nobody" in accused(owned().record(1, a=[2], b=[1]).commit("a", 1), "S3")


def test_s3_a_commit_beyond_the_end() -> None:
    assert accused(owned().commit("a", 5), "S3").endswith("but the partition ends at 4.")
    passes(owned().commit("a", 4), "S3")


def test_s3_a_new_coordinator_judges_by_what_it_loaded() -> None:
    story = owned().commit("a", 1)
    other = e.GroupRecord("g", "consumer", 1, "range", "b", 0, unreadable("b").members)
    story.see(BROKER, e.LogReplayed((other,))).commit("b", 2)
    assert story.check("S3").judged == 1


@pytest.mark.parametrize(
    "right",
    [
        # The join phase of generation 2 is under way: the record of generation 1 counts.
        lambda: owned().commit("a", 2, generation_id=1),
        # Generation 2 took it from a and gave it to nobody, as cooperative assignors do first.
        lambda: owned().record(2, a=[], b=[1]).commit("a", 2, generation_id=2),
        # The member came back under another id, which has the share of the old one.
        lambda: owned().record(1, a2=[0], b=[1]).commit("a2", 2),
        # The assignment of generation 2 was never stored.
        lambda: owned().append(unreadable("b"), error_code=19).commit("a", 2),
    ],
)
def test_s3_lets_pass(right: Callable[[], Story]) -> None:
    passes(right(), "S3")


@pytest.mark.parametrize(
    "unknown",
    [
        lambda: owned().commit("a", 9, generation_id=-1),
        lambda: owned().commit("z", 2),
        lambda: owned().append(unreadable("a", "b")).commit("b", 2, generation_id=3),
        lambda: owned().append(GROUP).commit("b", 2),
        lambda: Story().commit("a", 2),
    ],
)
def test_s3_does_not_judge(unknown: Callable[[], Story]) -> None:
    assert unknown().check("S3").verdict == "not judged"


@pytest.mark.parametrize("deleted", [e.TopicsDeleted(("t",)), o.TopicIs("t", 0)])
def test_s3_does_not_judge_the_end_of_a_topic_that_was_deleted(deleted: Any) -> None:
    """No coordinator hears of it while the brokers are down: the cluster's word counts as well."""
    passes(owned().see(BROKER, deleted).commit("a", 9), "S3")


def test_s3_judges_the_end_of_a_topic_that_grew() -> None:
    assert "ends at" in accused(owned().see(BROKER, o.TopicIs("t", 3)).commit("a", 9), "S3")


def test_s13_a_lower_commit() -> None:
    assert accused(owned().commit("a", 3).commit("a", 2), "S13") == (
        "a committed offset 2 of t-0 at 7.000 s, but g had committed 3 already."
    )


def test_s13_a_successor_that_restarts_below() -> None:
    story = handed_on().commit("a", 3).commit("b", 1, generation_id=2)
    assert "b committed offset 1" in accused(story, "S13")


def test_s13_a_log_that_lost_what_was_stored() -> None:
    story = owned().commit("a", 3)
    story.see(BROKER, e.LogReplayed((e.OffsetRecord("g", "t", 0, 2, -1, ""),)))
    assert "loaded offset 2 of t-0 for g at 6.000 s, but 3 had been stored" in (
        accused(story, "S13")
    )


def sought(story: Story, offset: int) -> Story:
    return story.see("a", e.Sought("t", 0, 1, offset))


@pytest.mark.parametrize(
    "right",
    [
        lambda: owned().commit("a", 3).commit("a", 3).commit("a", 4),
        lambda: sought(owned().commit("a", 3), 1).commit("a", 2),
        lambda: sought(owned().commit("a", 3).commit("a", 1), 1),
        lambda: owned().commit("a", 3).append(OFFSET).commit("a", 1),
        lambda: owned().commit("a", 3).append(GROUP).commit("a", 1),
        lambda: owned().commit("a", 3).commit("x", 1, generation_id=-1),
        lambda: (
            owned()
            .commit("a", 3)
            .see(BROKER, e.LogReplayed((e.OffsetRecord("g", "t", 0, 3, -1, ""),)))
            .commit("a", 3)
        ),
    ],
)
def test_s13_lets_pass(right: Callable[[], Story]) -> None:
    passes(right(), "S13")


@pytest.mark.parametrize(
    "wrong",
    [
        # Below where it sought; by somebody else; the second time; in a tenure that came after.
        lambda: sought(owned().commit("a", 3), 2).commit("a", 1),
        lambda: sought(owned().commit("a", 3), 1).commit("b", 1),
        lambda: sought(owned().commit("a", 3), 1).commit("a", 2).commit("a", 1),
        lambda: sought(owned().commit("a", 3), 1).assign("a", 3).commit("a", 2),
        lambda: sought(owned().commit("a", 3).commit("a", 1), 2),
    ],
)
def test_s13_a_seek_permits_no_more_than_itself(wrong: Callable[[], Story]) -> None:
    assert "had committed" in accused(wrong(), "S13")


def shortened(by: str) -> Story:
    """a has committed 3 of what is shorter now, or gone."""
    fact = o.Truncated("t", 0, 1, 5) if by == "cut" else o.TopicIs("t", 0)
    return owned().commit("a", 3).see("faults", fact)


def cut_twice() -> Story:
    return shortened("cut").see("faults", o.Truncated("t", 0, 1, 6))


def sends(story: Story, offset: int) -> Story:
    marked = m.OffsetAndMetadata("t", 0, offset, -1, "")
    request = m.OffsetCommitRequest("g", 1, "a", None, (marked,))
    story.see("a", e.TimerFired(), e.SendRequest(5, 1, "group", request, 30_000))
    return story.commit("a", offset)


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        (lambda: shortened("cut").commit("a", 2), "pass"),
        (lambda: shortened("gone").commit("a", 0), "pass"),
        (lambda: shortened("cut").commit("a", 0), "fail"),
        # Once, and not by who knows the new log.
        (lambda: shortened("cut").commit("a", 2).commit("a", 9).commit("a", 4), "fail"),
        (lambda: shortened("gone").commit("a", 2).commit("a", 9).commit("a", 4), "fail"),
        (lambda: shortened("cut").commit("a", 9, leader_epoch=5).commit("a", 4), "fail"),
        (lambda: shortened("cut").commit("a", 9, leader_epoch=4).commit("a", 4), "pass"),
        # Once for each cut: who went back for the first may not know of the second.
        (lambda: cut_twice().commit("a", 2, leader_epoch=5).commit("a", 1, leader_epoch=5), "pass"),
        (lambda: cut_twice().commit("a", 1).commit("a", 9).commit("a", 1), "pass"),
        (lambda: cut_twice().commit("a", 9, leader_epoch=6).commit("a", 1), "fail"),
        (lambda: cut_twice().commit("a", 1).commit("a", 9).commit("a", 1).commit("a", 0), "fail"),
        # What was committed between two seeks; what was marked before the seek; what comes then.
        (lambda: sought(sought(owned().commit("a", 9), 1), 7).commit("a", 2), "pass"),
        (lambda: sends(sends(sought(owned().commit("a", 3), 1), 4), 2), "pass"),
        (lambda: sends(sends(sends(sought(owned().commit("a", 3), 1), 4), 5), 2), "fail"),
    ],
)
def test_s13_what_permits_to_go_back_does_so_once(story: Callable[[], Story], verdict: str) -> None:
    assert story().check("S13").verdict == verdict


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        # What was marked before goes on being committed until the policy has said where it begins.
        (lambda s: reset(sends(sends(s, 5), 6)).commit("a", 1), "pass"),
        (lambda s: sends(sends(sends(reset(s), 1), 2), 1), "fail"),
        # The log came that far, and it goes on from there.
        (lambda s: s.commit("a", 100).commit("a", 1), "fail"),
    ],
)
def test_s13_a_seek_beyond_the_end_permits_until_its_policy_has_been_followed(
    more: Callable[[Story], Story], verdict: str
) -> None:
    story = sought(owned().commit("a", 3), 99)
    assert more(story).check("S13").verdict == verdict


def reset(story: Story) -> Story:
    return story.see("a", e.TimerFired(), e.DropBuffered("t", 0, 1, 0))


def test_s13_a_commit_that_was_not_stored_replaces_nothing() -> None:
    request = m.OffsetCommitRequest("g", 1, "a", None, (m.OffsetAndMetadata("t", 0, 4, -1, ""),))
    order = e.AppendRecords(77, (e.OffsetRecord("g", "t", 0, 4, -1, ""),))
    story = owned().commit("a", 1).see(BROKER, e.RequestArrived(77, request, "a", "f"), order)
    story.see(BROKER, e.LogReplayed((e.OffsetRecord("g", "t", 0, 1, -1, ""),)))
    passes(story.see(BROKER, e.RecordsAppended(77, 0)).commit("a", 2), "S13")


def given_up(offset: int, failed: bool = True) -> Story:
    """a has committed 3; an older commit of its own comes afterwards."""
    marked = m.OffsetAndMetadata("t", 0, offset, -1, "")
    request = m.OffsetCommitRequest("g", 1, "a", None, (marked,))
    story = owned().see("a", e.TimerFired(), e.SendRequest(5, 1, "group", request, 30_000))
    if failed:
        story.see("a", e.RequestFailed(5, "no answer"))
    return story.commit("a", 3)


def test_s13_a_commit_that_was_given_up_may_come_late() -> None:
    passes(given_up(2).commit("a", 2), "S13")
    assert "had committed 3 already" in accused(given_up(2, failed=False).commit("a", 2), "S13")
    assert "had committed 3 already" in accused(given_up(2).commit("a", 1), "S13")
    assert "had committed 3 already" in accused(given_up(2).commit("b", 2), "S13")
