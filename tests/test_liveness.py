"""L1 and L2 of a run that was given up before its end."""

from __future__ import annotations

from ksim import observations as o
from ksim.checks import Checker
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.liveness import rest_ms, stable_bound_ms
from ksim.scenario import dump, parse
from tests.test_checks import SCENARIO, TP, Story, healthy


def given_up(after_ms: int) -> Checker:
    """L1 of a run that ends so long after healing, with a member that owns nothing."""
    story = healthy()
    story.see("a", e.TimerFired(), e.LosePartitions(2, (), "gone"))
    healed_ms = story.bench.truth.healed_ms
    assert healed_ms is not None
    story.bench.end(healed_ms + after_ms, given_up=True)
    return story.bench.stable


def test_l1_of_a_run_that_is_given_up_is_judged_once_its_bound_is_over() -> None:
    assert given_up(1_000).verdict == "not judged"
    assert given_up(stable_bound_ms(SCENARIO)).verdict == "not judged"
    assert "own nothing yet" in given_up(stable_bound_ms(SCENARIO) + 1).violations[0].sentence


def test_l1_of_a_run_that_is_given_up_must_have_been_at_rest() -> None:
    story = healthy()
    story.see("a", e.TimerFired(), e.LosePartitions(2, (), "gone"))
    late_ms = stable_bound_ms(SCENARIO) + rest_ms(SCENARIO)
    story.now_ms += late_ms
    story.see("a", e.TimerFired(), e.AssignPartitions(2, (e.Assigned("t", 0, 9, 0),)))
    story.bench.end(story.now_ms, given_up=True)
    assert story.bench.stable.verdict == "fail"


def test_l2_of_a_run_that_is_given_up_is_not_judged() -> None:
    story = healthy().see("producer", o.Produced("t", 0, 5))
    story.bench.end(story.now_ms, given_up=True)
    assert story.bench.seen.verdict == "not judged"


def told(offset: int, *, ends: bool) -> Checker:
    """A group without a reset whose only member asks for its offset after healing."""
    text = dump(SCENARIO).replace('topics = ["t"]', 'topics = ["t"]\nauto_offset_reset = "none"')
    story = Story(parse(text, "test")).start("g-1").see("faults", o.Healed(("g-1",)))
    asked = e.SendRequest(1, 1, "group", m.OffsetFetchRequest("g", (TP,)), 30_000)
    found = m.OffsetFetchResponse(0, (m.CommittedOffset(*TP, offset, -1, "", 0),))
    story.see("g-1", e.TimerFired(), asked)
    fatal = e.ReportError(KafkaError.OFFSET_OUT_OF_RANGE, "t-0", fatal=True)
    if ends:
        story.see("g-1", e.ResponseReceived(1, found), fatal)
        story.see("g-1", o.MemberLife("g-1", "g", "failed", "no offset")).start("g-1")
    else:
        story.see("g-1", e.ResponseReceived(1, found))
    stable = story.bench.stable
    story.bench.see("g-1", story.now_ms, e.TimerFired(), ())
    later_ms = story.now_ms + rest_ms(SCENARIO)
    assert stable.rests(later_ms) is (ends and offset < 0)
    story.bench.end(later_ms)
    return stable


def test_l1_lets_a_group_without_a_reset_end_again_and_again() -> None:
    assert told(-1, ends=True).verdict == "pass"


def test_l1_does_not_take_it_for_rest_if_nobody_ends() -> None:
    assert told(-1, ends=False).verdict == "pass"


def test_l1_asks_all_of_a_group_without_a_reset_that_was_told_where_to_begin() -> None:
    assert "g-1 of g own nothing yet" in told(5, ends=False).violations[0].sentence
