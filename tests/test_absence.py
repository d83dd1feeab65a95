"""L1 on applications that do not call in, S8 on what they pause, S10 on where they seek to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.scenario import Scenario, parse
from tests.test_checks import TP, Story, accused

TEXT = 'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
SHORT = parse(TEXT + 'max_poll_interval = "10s"\n', "test")
WORKERS = parse(TEXT + 'max_poll_interval = "10s"\nacknowledge = "each"\nworkers = 2\n', "test")
APART = parse(TEXT + 'max_poll_interval = "10s"\nmode = "partitions"\n', "test")


def pause(paused: bool) -> o.PartitionsPaused:
    return o.PartitionsPaused("g-1", (TP,), paused)


def busy(
    for_ms: int,
    scenario: Scenario = SHORT,
    meanwhile: Callable[[Story], object] = lambda _: None,
    before: int = 0,
) -> Story:
    """With so many records in other hands before."""
    story = Story(scenario).start("g-1").assign("g-1")
    story.hand_out("g-1", *range(1, 1 + before), 0, handle=False)
    story.now_ms += for_ms - 2_000
    meanwhile(story)
    story.now_ms += 1_000
    return story.see("g-1", o.Handled("g-1", "t", 0, 1, 0))


def test_who_does_not_call_in_must_give_up_what_it_owns() -> None:
    assert accused(busy(12_000), "L1").startswith(
        "g-1 still owned its partitions at 15.000 s, though its application had not called in for "
        "12.000 s (max.poll.interval.ms 10.000 s)"
    )


def test_who_has_no_idle_worker_does_not_call_in_either() -> None:
    assert accused(busy(12_000, WORKERS, before=1), "L1").startswith("g-1 still owned")


@pytest.mark.parametrize(
    "story",
    [
        lambda: busy(11_000),
        lambda: busy(11_000, WORKERS, before=1),
        # One has ended, and its worker is idle since.
        lambda: busy(
            12_000, WORKERS, lambda s: s.see("g-1", o.Handled("g-1", "t", 0, 1, 1)), before=1
        ),
        lambda: busy(12_000, WORKERS),
        lambda: busy(12_000, APART),
        lambda: busy(
            12_000,
            meanwhile=lambda s: s.see("g-1", e.TimerFired(), e.LosePartitions(1, (TP,), "max")),
        ),
        lambda: busy(
            12_000,
            meanwhile=lambda s: s.see("g-1", e.TimerFired(), e.RevokePartitions(1, (TP,))),
        ),
        lambda: busy(12_000, meanwhile=lambda s: s.see("g-1", pause(True))),
        lambda: busy(
            12_000, meanwhile=lambda s: s.see("g-1", o.MemberLife("g-1", "g", "paused", ""))
        ),
    ],
)
def test_absences_that_are_none(story: Callable[[], Story]) -> None:
    assert not story().check("L1").violations


@pytest.mark.parametrize(("for_ms", "fails"), [(12_000, True), (8_000, False)])
def test_who_stays_away_between_records_does_not_call_in_either(for_ms: int, fails: bool) -> None:
    story = Story(SHORT).start("g-1").assign("g-1").see("g-1", o.Away("g-1", for_ms))
    story.now_ms += for_ms - 1_000
    assert bool(story.see("g-1", o.Away("g-1", 0)).check("L1").violations) == fails


# S8 and S10


def owner() -> Story:
    return Story(SHORT).start("g-1").assign("g-1")


def test_s8_nothing_is_handed_out_of_what_is_paused() -> None:
    story = owner().see("g-1", pause(True)).hand_out("g-1", 0)
    assert accused(story, "S8") == (
        "g-1 handed out offset 0 of t-0 at 4.000 s, which its application had paused at 3.000 s."
    )


def test_s8_what_is_resumed_or_assigned_anew_is_handed_out() -> None:
    story = owner().see("g-1", pause(True)).see("g-1", pause(False)).hand_out("g-1", 0)
    assert story.check("S8").verdict == "pass"
    story = owner().see("g-1", pause(True)).tell("g-1", "revoked", TP)
    assert story.assign("g-1", tenure=2).hand_out("g-1", 0, tenure=2).check("S8").verdict == "pass"


REVOKE, LOSE = e.RevokePartitions(1, (TP,)), e.LosePartitions(1, (TP,), "refused")


@pytest.mark.parametrize(
    ("orders", "told", "verdict"),
    [
        ((REVOKE,), "revoked", "pass"),
        ((LOSE,), "lost", "pass"),
        ((REVOKE,), "lost", "fail"),
        ((LOSE,), "revoked", "fail"),
        ((REVOKE, LOSE), "lost", "pass"),
        ((REVOKE, LOSE), "revoked", "pass"),
        ((REVOKE, e.AbandonPartitions(1)), "lost", "pass"),
        # At a close the application is told by its consumer alone.
        ((), "revoked", "pass"),
    ],
)
def test_s8_an_end_is_told_as_what_it_is(
    orders: tuple[e.MemberOrder, ...], told: str, verdict: str
) -> None:
    story = owner().see("g-1", e.TimerFired(), *orders).tell("g-1", told, TP)
    assert story.check("S8").verdict == verdict


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (("lost", "assigned", "revoked"), "pass"),
        (("revoked", "assigned", "revoked"), "fail"),
        (("lost", "assigned", "lost"), "fail"),
    ],
)
def test_s8_who_is_told_late_is_told_the_end_of_each_assignment(
    told: tuple[str, ...], verdict: str
) -> None:
    again = e.AssignPartitions(2, (e.Assigned(*TP, 2, 0),))
    story = owner().see("g-1", e.TimerFired(), LOSE, again, REVOKE)
    for kind in told:
        story.tell("g-1", kind, TP)
    assert story.check("S8").verdict == verdict


@pytest.mark.parametrize(("next_offset", "verdict"), [(0, "pass"), (2, "fail")])
def test_s10_the_next_record_is_the_one_that_was_sought(next_offset: int, verdict: str) -> None:
    story = owner().hand_out("g-1", 0, 1).see("g-1", o.PartitionSought("g-1", "t", 0, 0))
    assert story.hand_out("g-1", next_offset).check("S10").verdict == verdict
