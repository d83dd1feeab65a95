"""L2 and what counts for it, and where a group has to begin, on hand-made steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.patterns import wanted_topics
from ksim.scenario import parse
from ksim.seen import INTERNAL, reads
from ksim.truth import Truth
from tests.test_checks import TP, Story, accused

HEAD = 'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\n'
PATTERN = parse(HEAD + 'topics_whitelist = "t"\n', "test")
OWN = parse(
    HEAD.replace("[topics.t]", "[topics.u]\npartitions = 1\n[topics.t]")
    + 'topics = ["u"]\n[[group.member]]\nnumber = 2\ntopics = ["t"]\n',
    "test",
)
LATEST = parse(HEAD + 'topics = ["t"]\nauto_offset_reset = "latest"\n', "test")


def told(story: Story, member: str, offset: int) -> Story:
    """The coordinator says what is committed; -1: nothing."""
    found = m.CommittedOffset("t", 0, offset, -1, "", 0)
    return story.known(member).see(
        member, e.ResponseReceived(1, m.OffsetFetchResponse(0, (found,)))
    )


def healed(story: Story, end: int) -> Story:
    return story.see("producer", o.Produced("t", 0, end)).see("faults", o.Healed(("g-1",)))


@pytest.mark.parametrize("scenario", [PATTERN, OWN])
def test_what_is_wanted_by_a_pattern_or_by_one_member_counts(scenario: object) -> None:
    story = healed(Story(scenario).start("g-1").start("g-2"), 1)  # type: ignore[arg-type]
    assert "offset 0 of t-0 (end 1) is unhandled in g" in accused(story, "L2")


@given(
    named=st.sets(st.sampled_from(("t", "pay", INTERNAL[0]))),
    whitelist=st.none() | st.sampled_from(("t", "^pay", "a|_", "")),
    blacklist=st.none() | st.sampled_from(("t", "pay$", "")),
    topic=st.sampled_from(("t", "tt", "pay", "payments", *INTERNAL)),
)
def test_what_a_pattern_takes_is_judged_as_members_decide(
    named: set[str], whitelist: str | None, blacklist: str | None, topic: str
) -> None:
    spec = replace(
        OWN.groups[0],
        topics=tuple(sorted(named)),
        topics_whitelist=whitelist,
        topics_blacklist=blacklist,
    )
    assert reads(spec, topic) is (topic in wanted_topics(named, whitelist, blacklist, (topic,)))


def test_what_only_a_dead_member_wanted_does_not_count() -> None:
    story = Story(OWN).start("g-1").start("g-2").see("g-2", o.MemberLife("g-2", "g", "crashed", ""))
    assert healed(story, 1).check("L2").verdict == "pass"


def handled() -> Story:
    return healed(Story().assign("a").hand_out("a", 0, 1), 2)


def test_what_is_handled_to_the_end_must_be_committed() -> None:
    assert "t-0 is handled to its end 2, 1 committed in g" in accused(
        handled().commit("a", 1), "L2"
    )
    assert handled().commit("a", 2).check("L2").verdict == "pass"


def commit_of(offset: int) -> e.SendRequest:
    marked = m.OffsetAndMetadata("t", 0, offset, -1, "")
    request = m.OffsetCommitRequest("g", 1, "a", None, (marked,))
    return e.SendRequest(7, 1, "group", request, 30_000)


def sent(story: Story) -> Story:
    return story.see("a", e.TimerFired(), commit_of(2))


@pytest.mark.parametrize("given_up", [True, False])
def test_what_a_late_commit_has_set_back_is_known_after_a_fail_over(given_up: bool) -> None:
    truth = Truth()
    truth.note("a", 1, e.TimerFired(), (commit_of(2),))
    if given_up:
        truth.note("a", 2, e.RequestFailed(7, "no answer"), ())
    records = [e.OffsetRecord("g", "t", 0, offset, -1, "") for offset in (4, 2)]
    for now_ms, record in enumerate(records, 3):
        arrived = e.RequestArrived(0, commit_of(record.offset).request, "a", "x")
        truth.note("broker-1/0", now_ms, arrived, (e.AppendRecords(now_ms, (record,)),))
        truth.note("broker-1/0", now_ms, e.RecordsAppended(now_ms, 0), ())
    truth.note("broker-1/0", 9, e.LogReplayed(tuple(records)), ())
    assert truth.set_back == ({("g", TP): 4} if given_up else {})
    assert truth.committed == {("g", TP): 2}


@pytest.mark.parametrize("error_code", [0, 12])
def test_a_commit_that_was_refused_excuses_its_partition(error_code: int) -> None:
    answer = m.OffsetCommitResponse((m.PartitionError("t", 0, error_code),))
    story = sent(handled()).see("a", e.ResponseReceived(7, answer))
    assert story.check("L2").verdict == ("pass" if error_code else "fail")


def test_a_commit_without_an_answer_excuses_its_partition() -> None:
    story = sent(handled()).see("a", e.RequestFailed(7, "timed out"))
    assert story.check("L2").verdict == "pass"


def test_what_is_handled_after_a_refusal_is_committed_all_the_same() -> None:
    story = sent(handled()).see("a", e.RequestFailed(7, "timed out"))
    story = healed(story.hand_out("a", 2), 3)
    assert "t-0 is handled to its end 3, 0 committed" in accused(story, "L2")


# What an application jumps over


def jumped(to: int = 3) -> Story:
    story = Story().see("producer", o.Produced("t", 0, 5)).assign("a").hand_out("a", 0)
    return story.see("a", e.Sought("t", 0, 1, to))


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        (lambda: jumped().hand_out("a", 3).commit("a", 4), "pass"),
        # A successor begins at what is committed, whatever the one before had jumped over.
        (lambda: jumped().assign("b", tenure=7).hand_out("b", 4, tenure=7).commit("b", 5), "fail"),
        (
            lambda: (
                jumped()
                .hand_out("a", 3)
                .commit("a", 4)
                .assign("b", 4, tenure=7)
                .hand_out("b", 4, tenure=7)
                .commit("b", 5)
            ),
            "pass",
        ),
        # Its position was beyond the end, and its member has begun anew.
        (lambda: began_anew(jumped(99)).hand_out("a", 4).commit("a", 5), "fail"),
        (lambda: began_anew(jumped(99)).hand_out("a", 0, 1, 2, 3, 4).commit("a", 5), "pass"),
    ],
)
def test_what_is_jumped_over_is_not_wanted_by_this_tenure(
    story: Callable[[], Story], verdict: str
) -> None:
    assert story().check("S1").verdict == verdict


def began_anew(story: Story) -> Story:
    fetched = m.FetchedPartition("t", 0, 1, 5, 0, 99, 0, -1, 5)
    story.see("a", e.ResponseReceived(2, m.FetchResponse(0, (fetched,))))
    listed = m.ListOffsetsResponse((m.ListedOffset("t", 0, 0, 0),))
    return story.see("a", e.ResponseReceived(3, listed))


# Where a group begins


@pytest.mark.parametrize("name", ["S1", "L2"])
@pytest.mark.parametrize(("offset", "verdict"), [(0, "pass"), (2, "fail")])
def test_earliest_begins_at_the_start_of_the_log(name: str, offset: int, verdict: str) -> None:
    story = told(Story(), "a", -1).assign("a", offset).hand_out("a", *range(offset, 4))
    assert healed(story, 4).commit("a", 4).check(name).verdict == verdict


@pytest.mark.parametrize("name", ["S1", "L2"])
@pytest.mark.parametrize(("committed", "verdict"), [(2, "pass"), (1, "fail")])
def test_a_group_begins_at_the_committed_offset(name: str, committed: int, verdict: str) -> None:
    story = told(Story(LATEST), "a", committed).assign("a", 2).hand_out("a", 2, 3)
    assert healed(story, 4).commit("a", 4).check(name).verdict == verdict


@pytest.mark.parametrize("name", ["S1", "L2"])
def test_latest_gives_up_what_lies_before_when_nothing_is_committed(name: str) -> None:
    story = Story(LATEST).see("producer", o.Produced("t", 0, 3))
    story = told(story, "a", -1).assign("a", 1).hand_out("a", 1)
    story = told(story, "a", -1).assign("a", 3, tenure=2).hand_out("a", 3, tenure=2)
    assert healed(story, 4).commit("a", 4).check(name).verdict == "pass"


@pytest.mark.parametrize(
    ("sought", "first", "verdict"), [(None, 2, "pass"), (None, 3, "fail"), (3, 3, "pass")]
)
def test_positions_of_a_topic_that_was_deleted_go_on(
    sought: int | None, first: int, verdict: str
) -> None:
    """Or where the application wants to go on in the new one."""
    story = Story().see("producer", o.Produced("t", 0, 2)).assign("a").hand_out("a", 0, 1)
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    story.see("producer", o.Produced("t", 0, 4))
    if sought is not None:
        story.see("a", e.Sought("t", 0, 1, sought))
    story.hand_out("a", *range(first, 4)).commit("a", 4)
    assert healed(story, 4).check("L2").verdict == verdict


@pytest.mark.parametrize(
    ("deleted", "written_ms", "gone"),
    [(True, 10, True), (False, 10, False), (True, 35, True), (False, 35, True)],
)
def test_a_record_of_the_old_topic_is_not_what_the_new_one_cuts_off(
    deleted: bool, written_ms: int, gone: bool
) -> None:
    """Who cannot know of the deletion goes on with what it has."""
    truth = Truth()
    truth.note("producer", 10, o.Produced("t", 0, 2), ())
    truth.note("faults", 20, o.TopicIs("t", 0), ())
    truth.note("faults", 30, o.TopicIs("t", 1), ())
    truth.note("producer", 40, o.Produced("t", 0, 2), ())
    truth.note("faults", 50, o.Truncated("t", 0, 1, 1), ())
    fact = o.Handled("a", "t", 0, 1, 1, written_ms)
    assert truth.is_gone(fact, deleted=deleted) is gone


@pytest.mark.parametrize("sent", ["before", "unknowing", "knowing"])
def test_a_commit_that_was_under_way_when_its_topic_was_deleted_is_of_that_one(sent: str) -> None:
    """So is one of who has not noticed yet."""
    order = commit_of(2)
    request = order.request
    story = Story().see("producer", o.Produced("t", 0, 2)).assign("a").hand_out("a", 0, 1)
    if sent == "before":
        story.see("a", e.TimerFired(), order)
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    if sent == "unknowing":
        story.see("a", e.TimerFired(), order)
    story.see("producer", o.Produced("t", 0, 1)).hand_out("a", 0)
    if sent == "knowing":
        story.see("a", e.TimerFired(), order)
    entry = e.OffsetRecord("g", "t", 0, 2, -1, "", 0, -1)
    append = e.AppendRecords(1, (entry,))
    story.see("broker-1/0", e.RequestArrived(0, request, "a", "x"), append)
    assert story.check("S1").verdict == ("fail" if sent == "knowing" else "not judged")


def test_a_topic_that_is_no_longer_than_the_old_one_may_stay_unread() -> None:
    story = Story().see("producer", o.Produced("t", 0, 2)).assign("a").hand_out("a", 0, 1)
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    assert healed(story, 2).check("L2").verdict == "pass"
    assert TP in story.bench.truth.ends


@pytest.mark.parametrize(("reads", "verdict"), [(4, "pass"), (2, "fail")])
def test_a_position_of_before_a_truncation_goes_on_in_the_topic_that_was_made_anew(
    reads: int, verdict: str
) -> None:
    """Four records were fetched before the log was cut to one, and then deleted."""
    story = Story().see("producer", o.Produced("t", 0, reads)).assign("a")
    story.see("faults", o.Truncated("t", 0, 1, 1))
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    story.see("producer", o.Produced("t", 0, 5)).hand_out("a", 4)
    assert healed(story, 5).commit("a", 5).check("L2").verdict == verdict


def began_at_the_end() -> Story:
    """Another process has handled offset 2, and what it would have committed is unknown."""
    story = Story(LATEST).see("producer", o.Produced("t", 0, 3))
    story = told(story, "a", -1).assign("a", 2).hand_out("a", 2)
    return told(story, "b", -1).assign("b", 3, tenure=7)


def test_who_begins_anew_at_the_end_has_nothing_to_commit() -> None:
    assert healed(began_at_the_end(), 3).check("L2").verdict == "pass"
    story = healed(began_at_the_end().hand_out("b", 3, tenure=7), 4)
    assert "t-0 is handled to its end 4, 0 committed" in accused(story, "L2")


def lost_its_place(error_code: int) -> Story:
    """Offset 3 is not in the log any more, and the end is at 2 by the time it is asked for."""
    story = told(Story(LATEST).see("producer", o.Produced("t", 0, 3)), "a", -1).assign("a", 3)
    story.see("faults", o.Truncated("t", 0, 0, 1)).see("producer", o.Produced("t", 0, 2))
    fetched = m.FetchedPartition("t", 0, error_code, 2, 0, 3, 0, -1, 2)
    story.see("a", e.ResponseReceived(2, m.FetchResponse(0, (fetched,))))
    listed = m.ListOffsetsResponse((m.ListedOffset("t", 0, 0, 2),))
    return story.see("a", e.ResponseReceived(3, listed)).hand_out("a", 2)


def test_latest_gives_up_what_came_before_it_was_told_that_its_place_is_gone() -> None:
    assert healed(lost_its_place(1), 3).commit("a", 3).check("L2").verdict == "pass"
    story = healed(lost_its_place(0), 3).commit("a", 3)
    assert "offset 0 of t-0 (end 3) is unhandled" in accused(story, "L2")


@pytest.mark.parametrize(("anew", "verdict"), [(False, "pass"), (True, "fail")])
def test_a_commit_of_a_topic_that_was_deleted_is_where_its_successor_begins(
    anew: bool, verdict: str
) -> None:
    """Offsets are kept by names alone: what the new topic has before that is skipped."""
    story = Story().see("producer", o.Produced("t", 0, 2)).assign("a").hand_out("a", 0, 1)
    story.commit("a", 2).see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    story.see("producer", o.Produced("t", 0, 4)).hand_out("a", 0)
    if anew:
        story.commit("a", 2)
    story = told(story, "b", 2).assign("b", 2, tenure=7).hand_out("b", 2, 3, tenure=7)
    assert healed(story, 4).commit("b", 4).check("L2").verdict == verdict


@pytest.mark.parametrize(
    ("knows", "verdict"),
    [
        ("nothing", "pass"),
        ("a record of the new one", "fail"),
        ("it is assigned anew", "fail"),
        ("its place is gone", "fail"),
    ],
)
def test_who_cannot_know_of_the_deletion_commits_what_it_has_of_the_old_one(
    knows: str, verdict: str
) -> None:
    story = Story().see("producer", o.Produced("t", 0, 3)).assign("a").hand_out("a", 0, 1)
    story.see("faults", o.TopicIs("t", 0)).see("faults", o.TopicIs("t", 1))
    story.see("producer", o.Produced("t", 0, 4))
    if knows == "a record of the new one":
        story.hand_out("a", 0)
    elif knows == "it is assigned anew":
        story = told(story, "a", -1).assign("a", 0)
    elif knows == "its place is gone":
        fetched = m.FetchedPartition("t", 0, 1, 4, 0, 3, 0, -1, 2)
        story.see("a", e.ResponseReceived(2, m.FetchResponse(0, (fetched,))))
        listed = m.ListOffsetsResponse((m.ListedOffset("t", 0, 0, 0),))
        story.see("a", e.ResponseReceived(3, listed)).hand_out("a", 0)
    story.commit("a", 2)
    story = told(story, "b", 2).assign("b", 2, tenure=7).hand_out("b", 2, 3, tenure=7)
    assert healed(story, 4).commit("b", 4).check("L2").verdict == verdict


# Without a reset


NONE = parse(HEAD + 'topics = ["t"]\nauto_offset_reset = "none"\n', "test")


@pytest.mark.parametrize(
    ("offset", "waits_ms", "verdict"),
    [(-1, 0, "pass"), (-1, 1_000_000, "fail"), (0, 0, "fail")],
)
def test_who_is_told_that_it_has_no_place_need_not_read_on(
    offset: int, waits_ms: int, verdict: str
) -> None:
    """For as long as it may take to end, and to be told again."""
    story = healed(Story(NONE).start("g-1"), 1)
    asked = e.SendRequest(1, 1, "group", m.OffsetFetchRequest("g", (TP,)), 30_000)
    told(story.see("g-1", e.TimerFired(), asked), "g-1", offset)
    story.now_ms += waits_ms
    assert story.check("L2").verdict == verdict


def test_with_a_reset_the_same_has_to_be_read() -> None:
    story = healed(Story(LATEST).start("g-1"), 1)
    asked = e.SendRequest(1, 1, "group", m.OffsetFetchRequest("g", (TP,)), 30_000)
    told(story.see("g-1", e.TimerFired(), asked), "g-1", -1)
    assert story.check("L2").verdict == "fail"
