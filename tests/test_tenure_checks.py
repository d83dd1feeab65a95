"""S7, S8 and S9 on hand-made steps: what they must not let pass, and what they must not accuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.scenario import parse
from tests.test_checks import BROKER, TP, Story, accused

COMMIT = m.OffsetCommitRequest("g", 1, "a", None, (m.OffsetAndMetadata("t", 0, 2, -1, ""),))
JOIN = m.JoinGroupRequest("g", 6_000, 6_000, "a", None, "consumer", ())
HEARTBEAT = m.HeartbeatRequest("g", 1, "a", None)
LEAVE = m.LeaveGroupRequest("g", (m.MemberIdentity("a", None),))


def passes(story: Story, name: str) -> None:
    checker = story.check(name)
    assert checker.verdict == "pass", checker.violations


def ask(story: Story, request: Any, member: str = "a", request_id: int = 9) -> Story:
    order = e.SendRequest(request_id, 1, "group", request, 30_000)
    return story.see(member, e.TimerFired(), order)


def lose(story: Story, member: str = "a") -> Story:
    told = e.ResponseReceived(9, m.HeartbeatResponse(KafkaError.UNKNOWN_MEMBER_ID))
    return story.see(member, told, e.LosePartitions(1, (TP,), "gone"))


def life(story: Story, what: str, member: str = "a") -> Story:
    return story.see(member, o.MemberLife(member, "g", what, ""))


# S7


def member_of(*members: str) -> Story:
    """a synced under its id and owns the partition; these are in the group afterwards."""
    story = Story().start("a").share("a", 1, a=[0]).assign("a")
    return story.stable(2, *members)


def test_s7_a_hand_out_after_the_eviction() -> None:
    assert accused(member_of("b").hand_out("a", 0), "S7") == (
        "a handed out offset 0 of t-0 at 5.000 s, but it was out of the group since 4.000 s."
    )


def test_s7_a_new_coordinator_that_does_not_know_the_member() -> None:
    story = member_of("a").see(
        BROKER, e.LogReplayed((e.GroupRecord("g", "consumer", 1, "range", "b", 0, ()),))
    )
    assert "it was out of the group" in accused(story.hand_out("a", 0), "S7")


def test_s7_a_hand_out_after_the_member_was_told() -> None:
    story = answered(ask(member_of("a"), COMMIT), 22).hand_out("a", 0)
    assert "it was out of the group since 6.000 s" in accused(story, "S7")
    older = m.OffsetCommitRequest("g", 0, "a", None, COMMIT.offsets)
    passes(answered(ask(member_of("a"), older), 22).hand_out("a", 0), "S7")


@pytest.mark.parametrize(
    "right",
    [
        lambda: member_of("a", "b").hand_out("a", 0),
        # Another id of the same member was forgotten.
        lambda: member_of("a").stable(3, "a").hand_out("a", 0),
        # It joined again and was given the partition anew.
        lambda: member_of("b").share("a", 3, a=[0]).assign("a", tenure=2).hand_out("a", 0),
        # What its handler held may end.
        lambda: (
            Story()
            .share("a", 1, a=[0])
            .assign("a")
            .hand_out("a", 0, handle=False)
            .stable(2, "b")
            .see("a", o.Handled("a", "t", 0, 1, 0))
        ),
    ],
)
def test_s7_lets_pass(right: Callable[[], Story]) -> None:
    passes(right(), "S7")


# S8


def told(*kinds: str) -> Story:
    story = Story().known("a")
    for kind in kinds:
        story.tell("a", kind, TP)
    return story


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda: told("assigned", "assigned"),
            "told assigned (t-0) at 0.000 s, but it still owned",
        ),
        (lambda: told("revoked"), "told revoked (t-0) at 0.000 s, but it owned nothing."),
        (lambda: told("assigned", "revoked", "lost"), "told lost (t-0) at 0.000 s, but it owned"),
        (lambda: told("assigned").tell("a", "revoked"), "told revoked (nothing) at 0.000 s, but"),
        (lambda: told("assigned", "revoked").hand_out("a", 0), "had not been told it owns"),
        (lambda: told().hand_out("a", 0), "had not been told it owns"),
        (lambda: life(told("assigned"), "closed"), "was never told the end of t-0"),
    ],
)
def test_s8_accuses(wrong: Callable[[], Story], words: str) -> None:
    assert words in accused(wrong(), "S8")


@pytest.mark.parametrize(
    "right",
    [
        lambda: told("assigned", "revoked", "assigned", "lost", "assigned").hand_out("a", 0),
        lambda: life(told("assigned", "revoked"), "closed"),
        # The next life knows nothing of the one that crashed.
        lambda: life(told("assigned"), "crashed").start("a").tell("a", "assigned", TP),
    ],
)
def test_s8_lets_pass(right: Callable[[], Story]) -> None:
    passes(right(), "S8")


# S9


def handled() -> Story:
    """a handled four records, and two of them are committed."""
    return Story().start("a").assign("a").hand_out("a", 0, 1, 2, 3).commit("a", 2)


def anew(story: Story, *offsets: int) -> Story:
    return story.assign("b", offsets[0], 7).hand_out("b", *offsets, tenure=7)


def answered(story: Story, error_code: int) -> Story:
    answer = m.OffsetCommitResponse((m.PartitionError("t", 0, error_code),))
    return story.see("a", e.ResponseReceived(9, answer))


def cut(story: Story) -> Story:
    return story.see("a", e.RequestFailed(9, "cut"))


@pytest.mark.parametrize(
    ("right", "why"),
    [
        (lambda: life(handled(), "crashed"), "a crashed"),
        (lambda: lose(handled()), "a lost them"),
        (handled, "a passed them on unknowingly"),
        (lambda: ask(ask(handled(), COMMIT), JOIN, request_id=10), "commit unanswered"),
        (lambda: ask(answered(ask(handled(), COMMIT), 27), JOIN), "commit refused"),
        (lambda: ask(cut(ask(handled(), COMMIT)), LEAVE, request_id=10), "no answer"),
        (lambda: ask(handled().see("a", e.PartitionsRevoked(1, (TP,))), JOIN), "abandoned"),
    ],
)
def test_s9_what_was_not_acknowledged_may_come_once_more(
    right: Callable[[], Story], why: str
) -> None:
    passes(anew(right(), 2, 3), "S9")
    sentence = accused(anew(right(), 1), "S9")
    assert sentence.startswith("b handled offset 1 of t-0 at ")
    assert "time 2 in g; budget: 1 (2 to 3: a " in sentence
    assert why in sentence


def test_s9_not_one_more_than_there_were_windows() -> None:
    story = anew(life(handled(), "crashed"), 2, 3)
    story.assign("c", 2, 8).hand_out("c", 2, tenure=8)
    passes(story, "S9")
    story.commit("c", 3)
    ask(story, JOIN, "c").assign("d", 2, 9).hand_out("d", 2, tenure=9)
    assert "d handled offset 2 of t-0 at 27.000 s, time 4 in g; budget: 3" in accused(story, "S9")


@pytest.mark.parametrize("request_", [JOIN, LEAVE])
def test_s9_a_clean_end_leaves_nothing(request_: Any) -> None:
    sentence = accused(anew(ask(answered(ask(handled(), COMMIT), 0), request_), 2), "S9")
    assert sentence.endswith("budget: 1 (no tenure ended with anything unacknowledged).")


def test_s9_a_commit_whose_answer_was_lost_counts_if_it_was_stored() -> None:
    story = ask(handled(), COMMIT).commit("a", 4).see("a", e.RequestFailed(9, "cut"))
    assert "time 2" in accused(anew(ask(story, JOIN), 3), "S9")


@pytest.mark.parametrize(
    "right",
    [
        lambda: (
            handled()
            .see("a", e.Sought("t", 0, 1, 1), e.DropBuffered("t", 0, 1, 1))
            .hand_out("a", 1, 2, 3)
        ),
        lambda: anew(ask(handled().append(e.OffsetTombstone("g", "t", 0)), JOIN), 0, 1),
        lambda: anew(ask(handled().append(e.GroupTombstone("g")), JOIN), 0, 1),
    ],
)
def test_s9_lets_pass(right: Callable[[], Story]) -> None:
    passes(right(), "S9")


def test_s9_a_seek_back_allows_nothing_below_itself() -> None:
    story = handled().see("a", e.Sought("t", 0, 1, 2), e.DropBuffered("t", 0, 1, 2))
    assert "offset 1" in accused(story.hand_out("a", 1), "S9")


def expire(story: Story) -> Story:
    return story.see("a", e.TimerFired(), e.LosePartitions(1, (TP,), "session.timeout.ms passed"))


def test_s9_a_session_does_not_end_where_nothing_goes_wrong() -> None:
    assert "time 2" in accused(anew(expire(handled()), 2), "S9")
    started = handled().see("faults", o.FaultStruck("start", "g-3", 0))
    assert "time 2" in accused(anew(expire(started), 2), "S9")
    cut = handled().see("faults", o.FaultStruck("hold", "g-1", 0))
    passes(anew(expire(cut), 2, 3), "S9")


def late(story: Story, ms: int) -> Story:
    story.now_ms += ms
    return story


def test_s9_what_was_due_for_a_commit_does_not_come_again() -> None:
    story = life(late(handled(), 60_000), "crashed")
    sentence = accused(anew(story, 2), "S9")
    assert sentence.endswith("budget: 1 (a crashed, 2 to 3 were due for a commit).")
    # Here the commit that had to cover them has no answer yet, or the process stood still.
    passes(anew(life(late(ask(handled(), COMMIT), 60_000), "crashed"), 2, 3), "S9")
    passes(anew(life(late(life(handled(), "paused"), 60_000), "crashed"), 2, 3), "S9")


def test_s9_nothing_is_due_where_the_coordinator_was_silent_when_the_share_was_taken_up() -> None:
    def begun(*before: Any) -> Story:
        story = ask(Story().start("a"), HEARTBEAT)
        for fact in before:
            story.see("a", fact)
        story.assign("a").hand_out("a", 0, 1, 2, 3)
        return anew(life(late(story, 60_000), "crashed"), 2)

    heard = e.ResponseReceived(9, m.HeartbeatResponse(KafkaError.NONE))
    failed = e.RequestFailed(9, "cut")
    assert "0 to 3 were due" in accused(begun(heard), "S9")
    passes(begun(failed), "S9")
    story = ask(Story().start("a"), HEARTBEAT).see("a", failed)
    ask(story, HEARTBEAT, request_id=10).see("a", e.ResponseReceived(10, heard.response))
    story.assign("a").hand_out("a", 0, 1, 2, 3)
    assert "were due" in accused(anew(life(late(story, 60_000), "crashed"), 2), "S9")


@pytest.mark.parametrize(("end", "due"), [("failed", False), ("crashed", True)])
def test_s9_what_an_earlier_process_ends_late_is_not_done_by_the_next(end: str, due: bool) -> None:
    """The application of one that ended by itself goes on; both have a tenure 1."""
    story = Story().start("a").assign("a").hand_out("a", 0, handle=False)
    life(lose(story), end)
    story.start("a").assign("a").hand_out("a", 0, handle=False)
    story.see("a", o.Handled("a", "t", 0, 1, 0))
    life(late(story, 60_000), "crashed")
    checker = anew(story, 0).hand_out("b", 0, tenure=7).check("S9")
    assert ("0 to 0 were due" in " ".join(each.sentence for each in checker.violations)) == due


def test_s9_the_interval_begins_with_the_answer_to_the_last_commit() -> None:
    story = answered(late(ask(handled(), COMMIT), 50_000), 0).hand_out("a", 4).commit("a", 4)
    passes(anew(life(late(story, 50_000), "crashed"), 4), "S9")
    missing = answered(late(ask(handled(), COMMIT), 50_000), 0).commit("a", 3)
    assert "3 to 3 were due" in accused(anew(life(missing, "crashed"), 3), "S9")


def test_s9_a_record_that_its_application_does_not_mark_comes_once_more() -> None:
    story = handled().see("a", o.LeftUnmarked("a", "t", 0, 1, 3)).commit("a", 3)
    ask(story, LEAVE)
    passes(anew(story, 3), "S9")
    assert "offset 2" in accused(story.hand_out("b", 2, tenure=7), "S9")


def given_up() -> Story:
    """A commit of 2 has no answer, one of 4 is taken: a has nothing left to commit."""
    story = cut(ask(Story().start("a").assign("a").hand_out("a", 0, 1, 2, 3), COMMIT))
    return answered(ask(story, COMMIT, request_id=9), 0).commit("a", 4)


def test_s9_a_commit_that_was_given_up_and_came_late_lets_come_again_what_it_hides() -> None:
    passes(anew(ask(given_up().commit("a", 2), JOIN), 2, 3), "S9")
    passes(
        anew(ask(given_up(), JOIN).commit("a", 2), 2, 3), "S9"
    )  # after the partitions were given up
    for story in (ask(given_up().commit("a", 2), JOIN), ask(given_up(), JOIN).commit("a", 2)):
        assert "time 2" in accused(anew(story, 1), "S9")
    assert "time 2" in accused(anew(ask(given_up().commit("a", 2).commit("a", 4), JOIN), 3), "S9")


def test_s9_a_record_that_was_truncated_is_not_the_one_in_its_place() -> None:
    story = Story().start("a").assign("a").see("producer", o.Produced("t", 0, 2))
    written_ms = story.now_ms
    story.see("a", o.Handled("a", "t", 0, 1, 1, written_ms))
    story.see("faults", o.Truncated("t", 0, 1, 1))
    story.see("a", o.Handled("a", "t", 0, 1, 1, written_ms))
    story.see("a", o.Handled("a", "t", 0, 1, 1, story.now_ms))
    passes(story, "S9")
    assert "time 2" in accused(story.see("a", o.Handled("a", "t", 0, 1, 1, story.now_ms)), "S9")


def test_s9_what_is_committed_beyond_a_truncation_covers_nothing_of_what_comes_instead() -> None:
    story = Story().start("a").assign("a").hand_out("a", 0, 1).commit("a", 2)
    story.see("faults", o.Truncated("t", 0, 0, 1)).hand_out("a", 0)
    passes(anew(life(story, "crashed"), 0), "S9")
    assert "time 3" in accused(story.hand_out("b", 0, tenure=7), "S9")


TWINS = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
    'session_timeout = "6s"\ncommit_interval = "1m"\ninstance_ids = true\n'
    '[[group.member]]\nnumber = 2\ninstance_id = "g-1"\n',
    "test",
)


def twins() -> Story:
    """g-2 is another process of the instance of g-1, and is given its share at 6 s."""
    story = Story(TWINS).start("g-1").start("g-2").share("g-1", 1, **{"g-1": [0]})
    story.assign("g-1").hand_out("g-1", 0, handle=False)
    return ask(story, JOIN, "g-2").share("g-2", 1, **{"g-2": [0]}).assign("g-2", 0, 7)


def test_s7_the_older_process_of_an_instance_goes_on_until_its_lease_is_over() -> None:
    passes(twins().hand_out("g-1", 1), "S7")
    sentence = accused(late(twins(), 5_000).hand_out("g-1", 1), "S7")
    assert "it was out of the group since 8.000 s" in sentence


def test_s9_a_truncation_below_two_processes_of_one_instance_lets_both_read_what_follows() -> None:
    story = Story(TWINS).start("g-1").assign("g-1").hand_out("g-1", 0, 1).commit("g-1", 2)
    story.start("g-2").assign("g-2", 2, 7)
    story.see("faults", o.Truncated("t", 0, 0, 1))
    story.hand_out("g-1", 0).hand_out("g-2", 0, tenure=7)
    passes(story, "S9")
    assert "time 3" in accused(story.hand_out("g-1", 0), "S9")


def twins_join() -> Story:
    """g-2 joins as the instance of g-1, and g-3 beside them."""
    story = Story(TWINS).start("g-1").start("g-2").start("g-3")
    request = replace(JOIN, member_id="", group_instance_id="g-1")
    for name in ("g-1", "g-2"):
        story.see(BROKER, e.RequestArrived(1, request, name, name))
    return story


def test_s5_the_older_process_of_an_instance_is_excused_until_it_is_told() -> None:
    story = twins_join().assign("g-1").assign("g-3", 0, 7)
    passes(story.hand_out("g-3", 0, tenure=7).hand_out("g-1", 0), "S5")
    fenced = m.HeartbeatResponse(KafkaError.FENCED_INSTANCE_ID)
    story.see("g-1", e.ResponseReceived(9, fenced))
    assert "although g-3 has owned it" in accused(story.hand_out("g-1", 1), "S5")


def test_s5_the_newer_process_of_an_instance_is_not_excused() -> None:
    story = twins_join().assign("g-2").assign("g-3", 0, 7)
    assert "although g-3 has owned it" in accused(story.hand_out("g-2", 0), "S5")


def told_late() -> Story:
    """g-1 is told of its share only after g-2, a later process of its instance, has taken it."""
    story = twins_join().assign("g-2").assign("g-1", 0, 7)
    return story.see("g-1", o.HandedOut("g-1", "t", 0, 7, 0, 0))


def test_what_the_older_process_is_told_late_takes_nothing_from_the_newer() -> None:
    story = told_late().hand_out("g-2", 0).see("g-1", o.Handled("g-1", "t", 0, 7, 0, 0))
    for name in ("S5", "S7", "S9"):
        passes(story, name)
    assert "time 3 in g; budget: 2" in accused(
        story.see("g-1", o.Handled("g-1", "t", 0, 7, 0, 0)), "S9"
    )


def replaced_by(instance_id: str) -> Story:
    """Another process takes the place of g-1 in the log at 6 s, and crashes at once."""
    story = Story(TWINS).start("g-1").start("g-2")
    request = replace(JOIN, member_id="", group_instance_id="g-1")
    story.see(BROKER, e.RequestArrived(1, request, "g-1", "g-1"))
    story.share("g-1", 1, **{"g-1": [0]}).assign("g-1")
    member = e.GroupRecordMember("g-2", instance_id, "g-2", "/h", 1, 1, b"", b"")
    record = e.GroupRecord("g", "consumer", 1, "range", "g-2", 0, (member,))
    return life(story.append(record), "crashed", "g-2").stable(2, "g-2")


def test_s7_what_becomes_of_the_newer_process_is_nothing_to_the_older_one() -> None:
    passes(replaced_by("g-1").hand_out("g-1", 0), "S7")
    since = "it was out of the group since 7.000 s"
    assert since in accused(late(replaced_by("g-1"), 5_000).hand_out("g-1", 0), "S7")
    assert since in accused(replaced_by("other").hand_out("g-1", 0), "S7")


def test_s7_the_older_process_of_an_instance_stops_once_it_is_told() -> None:
    beat = m.HeartbeatRequest("g", 1, "g-1", None)
    story = ask(twins(), beat, "g-1").see(
        "g-1", e.ResponseReceived(9, m.HeartbeatResponse(KafkaError.FENCED_INSTANCE_ID))
    )
    assert "it was out of the group" in accused(story.hand_out("g-1", 1), "S7")


def test_s9_what_the_older_process_of_an_instance_hands_out_may_come_twice() -> None:
    story = twins().see("g-1", o.Handled("g-1", "t", 0, 1, 0)).hand_out("g-1", 1)
    passes(story.hand_out("g-2", 0, 1, tenure=7), "S9")
    story.see("g-2", o.Handled("g-2", "t", 0, 7, 1))
    assert "time 3 in g; budget: 2" in accused(story, "S9")


def test_s9_another_group_is_no_duplicate() -> None:
    story = handled().see("x", o.MemberLife("x", "h", "started", "")).assign("x", 0)
    passes(story.hand_out("x", 0, 1), "S9")


def test_s9_the_share_of_the_older_process_may_be_another_members() -> None:
    story = twins_join().assign("g-1").hand_out("g-1", 0)
    story.assign("g-3", 0, 7).see("g-1", o.HandedOut("g-1", "t", 0, 1, 1, 0))
    story.see("g-1", o.Handled("g-1", "t", 0, 1, 1, 0))
    passes(story.hand_out("g-3", 0, 1, tenure=7), "S9")
    story = twins_join().assign("g-2").hand_out("g-2", 0)
    story.assign("g-3", 0, 7).see("g-2", o.HandedOut("g-2", "t", 0, 1, 1, 0))
    story.see("g-2", o.Handled("g-2", "t", 0, 1, 1, 0))
    assert "offset 1" in accused(story.hand_out("g-3", 0, 1, tenure=7), "S9")


@pytest.mark.parametrize(("deleted", "verdict"), [(True, "pass"), (False, "fail")])
def test_s2_what_was_cut_off_before_its_topic_was_deleted_may_go_on(
    deleted: bool, verdict: str
) -> None:
    story = Story().start("a").assign("a").see("producer", o.Produced("t", 0, 2))
    written_ms = story.now_ms
    story.see("faults", o.Truncated("t", 0, 1, 1))
    if deleted:
        story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
        story.see("producer", o.Produced("t", 0, 2))
    for offset in (0, 1):
        story.see("a", o.HandedOut("a", "t", 0, 1, offset, written_ms))
        story.see("a", o.Handled("a", "t", 0, 1, offset, written_ms))
    assert story.commit("a", 2).check("S2").verdict == verdict


def test_s9_a_commit_of_a_topic_that_was_deleted_covers_nothing_of_the_next() -> None:
    story = Story().start("a").assign("a").hand_out("a", 0, 1).commit("a", 2)
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    story.see(BROKER, e.LogReplayed((e.OffsetRecord("g", "t", 0, 2, -1, ""),)))
    passes(anew(life(story.hand_out("a", 0), "crashed"), 0), "S9")
    assert "time 3" in accused(story.hand_out("b", 0, tenure=7), "S9")


@pytest.mark.parametrize(("deleted", "verdict"), [(True, "not judged"), (False, "fail")])
def test_s2_a_commit_that_lands_after_its_topic_was_deleted_is_of_no_log(
    deleted: bool, verdict: str
) -> None:
    story = Story().start("a").assign("a").see("producer", o.Produced("t", 0, 2))
    story.see("faults", o.Truncated("t", 0, 1, 1))
    if deleted:
        story.see("faults", o.TopicIs("t", 0))
    assert story.commit("a", 2).check("S2").verdict == verdict


def test_s9_what_an_application_left_unmarked_is_due_for_no_commit() -> None:
    """It was closing when it crashed, a long time after its last record."""
    story = life(late(handled().see("a", o.LeftUnmarked("a", "t", 0, 1, 3)), 60_000), "crashed")
    passes(anew(story, 3), "S9")
    assert "2 to 2 were due for a commit" in accused(anew(story, 2), "S9")


def test_s9_who_has_an_instance_is_who_joined_last_whoever_was_started_last() -> None:
    story = Story(TWINS).start("g-1").start("g-2")
    for name in ("g-2", "g-1"):
        request = replace(JOIN, member_id="", group_instance_id="g-1")
        story.see(BROKER, e.RequestArrived(0, request, name, f"{name}-id"))
    story.assign("g-2").hand_out("g-2", 0).assign("g-3", 0, 7)
    story.see("g-2", o.HandedOut("g-2", "t", 0, 1, 1, 0))
    story.see("g-2", o.Handled("g-2", "t", 0, 1, 1, 0))
    passes(story.hand_out("g-3", 0, 1, tenure=7), "S9")


def test_s9_nothing_is_due_of_a_process_that_was_replaced() -> None:
    story = late(twins_join().assign("g-1").hand_out("g-1", 0, 1), 120_000)
    passes(story.assign("g-3", 0, 7).hand_out("g-3", 0, 1, tenure=7), "S9")
    story = late(twins_join().assign("g-2").hand_out("g-2", 0, 1), 120_000)
    assert "were due for a commit" in accused(
        story.assign("g-3", 0, 7).hand_out("g-3", 0, 1, tenure=7), "S9"
    )
