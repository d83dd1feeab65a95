"""L1 on members that die by themselves: with a reason in their scenario, and without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.scenario import parse
from tests.test_checks import BROKER, TP, Story, accused

HEAD = 'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n'
GROUP = '[[group]]\nid = "g"\ntopics = ["t"]\nmembers = 2\n'
FULL = HEAD + "[cluster]\ngroup_max_size = 2\n" + GROUP
NONE = HEAD + GROUP + 'auto_offset_reset = "none"\n'
SHARED = (
    HEAD
    + GROUP
    + "".join(f'[[group.member]]\nnumber = {number}\ninstance_id = "i"\n' for number in (1, 2))
)
APART = HEAD + GROUP + '[[group.member]]\nnumber = 2\nassignor = "roundrobin"\n'
STATIC = HEAD + GROUP + "instance_ids = true\n"
REPEATED = STATIC + '[[fault]]\non = { request = "JoinGroup" }\ndo = "duplicate"\n'
PLANTED = (
    HEAD + GROUP + '[[fault]]\non = {{ response = "JoinGroup" }}\ndo = "error"\nerror = "{}"\n'
)


def dies(text: str, error: KafkaError) -> Story:
    story = Story(parse(text, "test")).start("g-1")
    story.see("g-1", e.TimerFired(), e.ReportError(error, "join", True))
    return story.see("g-1", o.MemberLife("g-1", "g", "failed", "x"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (FULL, KafkaError.GROUP_MAX_SIZE_REACHED),
        (SHARED, KafkaError.FENCED_INSTANCE_ID),
        (REPEATED, KafkaError.FENCED_INSTANCE_ID),
        (APART, KafkaError.INCONSISTENT_GROUP_PROTOCOL),
        (PLANTED.format("GROUP_AUTHORIZATION_FAILED"), KafkaError.GROUP_AUTHORIZATION_FAILED),
    ],
)
def test_a_death_needs_a_reason_in_its_scenario(text: str, error: KafkaError) -> None:
    assert not dies(text, error).check("L1").violations
    sentence = accused(dies(HEAD + GROUP, error), "L1")
    assert sentence.startswith("g-1 ended by itself at 3.000 s with " + error.name)


NOTHING = m.OffsetFetchResponse(0, (m.CommittedOffset(*TP, -1, -1, "", 0),))


def told_nothing(story: Story, member: str) -> Story:
    """Its coordinator says that nothing is committed."""
    asked = e.SendRequest(7, 1, "group", m.OffsetFetchRequest("g", (TP,)), 30_000)
    return story.see(member, e.TimerFired(), asked).see(member, e.ResponseReceived(7, NOTHING))


@pytest.mark.parametrize("text", [NONE, HEAD + GROUP])
@pytest.mark.parametrize("who", ["g-1", "g-2", None])
def test_without_a_reset_a_death_needs_to_be_told_that_nothing_is_committed(
    text: str, who: str | None
) -> None:
    story = Story(parse(text, "test")).start("g-1").start("g-2")
    if who is not None:
        story = told_nothing(story, who)
    fatal = e.ReportError(KafkaError.OFFSET_OUT_OF_RANGE, "t-0", True)
    story.see("g-1", e.TimerFired(), fatal).see("g-1", o.MemberLife("g-1", "g", "failed", "x"))
    if text == NONE and who == "g-1":
        assert not story.check("L1").violations
    else:
        assert "g-1 ended by itself" in accused(story, "L1")


def test_what_an_earlier_process_was_told_is_no_reason() -> None:
    story = told_nothing(Story(parse(NONE, "test")).start("g-1"), "g-1")
    fatal = e.ReportError(KafkaError.OFFSET_OUT_OF_RANGE, "t-0", True)
    story.see("g-1", e.TimerFired(), fatal).see("g-1", o.MemberLife("g-1", "g", "crashed", ""))
    story.start("g-1").see("g-1", e.TimerFired(), fatal)
    assert "OFFSET_OUT_OF_RANGE" in accused(
        story.see("g-1", o.MemberLife("g-1", "g", "failed", "x")), "L1"
    )


def test_an_instance_of_its_own_is_not_fenced_without_a_reason() -> None:
    assert "FENCED_INSTANCE_ID" in accused(dies(STATIC, KafkaError.FENCED_INSTANCE_ID), "L1")


JOINED = m.JoinGroupResponse(KafkaError.NONE, 2, "consumer", "range", "new", "new", ())
JOIN = m.JoinGroupRequest("g", 10_000, 10_000, "", "g-1", "consumer", ())


@pytest.mark.parametrize(
    ("loaded_id", "joins_as", "explained"),
    [
        ("old", None, True),
        ("new", None, False),
        ("old", "", False),
        ("old", "old", False),
        # The very join that is refused.
        ("old", "new", True),
    ],
)
def test_an_instance_is_fenced_where_its_coordinator_came_back_with_an_older_id(
    loaded_id: str, joins_as: str | None, explained: bool
) -> None:
    found = e.GroupRecordMember(loaded_id, "g-1", "g-1", "/", 10_000, 10_000, b"", b"")
    record = e.GroupRecord("g", "consumer", 1, "range", loaded_id, -1, (found,))
    story = Story(parse(STATIC, "test")).start("g-1")
    story.see("g-1", e.ResponseReceived(1, JOINED))
    story.see("broker-1/0", e.LogReplayed((record,)))
    if joins_as is not None:
        join = replace(JOIN, member_id=joins_as)
        story.see("broker-1/0", e.RequestArrived(0, join, "g-1", "x"))
    story.see("g-1", e.TimerFired(), e.ReportError(KafkaError.FENCED_INSTANCE_ID, "join", True))
    story.see("g-1", o.MemberLife("g-1", "g", "failed", "x"))
    assert bool(story.check("L1").violations) is not explained


def test_nobody_dies_of_what_every_client_survives() -> None:
    text = PLANTED.format("NOT_COORDINATOR")
    assert "NOT_COORDINATOR" in accused(dies(text, KafkaError.NOT_COORDINATOR), "L1")


REFUSED = HEAD + GROUP + '[[fault]]\non = {{ request = "{}"{} }}\ndo = "error"\nerror = "{}"\n'


@pytest.mark.parametrize(
    ("kind", "member", "error", "explained"),
    [
        ("OffsetCommit", "", "REQUEST_TIMED_OUT", False),
        ("OffsetFetch", "", "UNSTABLE_OFFSET_COMMIT", False),
        ("Metadata", "", "LEADER_NOT_AVAILABLE", False),
        ("Fetch", "", "GROUP_AUTHORIZATION_FAILED", False),
        ("OffsetFetch", "", "UNKNOWN_TOPIC_OR_PARTITION", False),
        ("OffsetCommit", "", "GROUP_AUTHORIZATION_FAILED", False),
        ("FindCoordinator", "", "UNSUPPORTED_VERSION", True),
        ("OffsetFetch", "", "TOPIC_AUTHORIZATION_FAILED", True),
        ("Heartbeat", "", "GROUP_AUTHORIZATION_FAILED", False),
        ("Heartbeat", ', member = "g-2"', "FENCED_INSTANCE_ID", False),
        ("Heartbeat", ', member = "g-1"', "FENCED_INSTANCE_ID", True),
    ],
)
def test_a_refusal_explains_a_death_where_it_ends_who_is_refused(
    kind: str, member: str, error: str, explained: bool
) -> None:
    story = dies(REFUSED.format(kind, member, error), KafkaError[error])
    assert bool(story.check("L1").violations) is not explained


def test_a_death_without_a_word_has_no_reason() -> None:
    story = (
        Story(parse(FULL, "test")).start("g-1").see("g-1", o.MemberLife("g-1", "g", "failed", ""))
    )
    assert "it says nothing" in accused(story, "L1")


@pytest.mark.parametrize(("arrivals", "explained"), [(1, False), (2, True)])
def test_an_instance_is_fenced_by_a_join_of_its_own_that_comes_late(
    arrivals: int, explained: bool
) -> None:
    """It had given that one up, and has asked again."""
    story = Story(parse(STATIC, "test")).start("g-1")
    for token in range(arrivals):
        story.see(BROKER, e.RequestArrived(token, JOIN, "g-1", f"fresh-{token}"))
    story.see("g-1", e.ResponseReceived(1, JOINED))
    story.see("g-1", e.TimerFired(), e.ReportError(KafkaError.FENCED_INSTANCE_ID, "join", True))
    story.see("g-1", o.MemberLife("g-1", "g", "failed", "x"))
    assert bool(story.check("L1").violations) != explained
