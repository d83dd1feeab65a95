"""L1 and L2 of a run that was given up before its end."""

from __future__ import annotations

from ksim import observations as o
from ksim.checks import Checker
from ksim.core import events as e
from ksim.liveness import rest_ms, stable_bound_ms
from tests.test_checks import SCENARIO, healthy


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
