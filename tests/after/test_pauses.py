"""Nothing is handed out of what is paused, as far as a recording says when that was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Life, Step
from ksim.core import events as e
from ksim.core.member_state import Position, Tenure
from tests.after.test_judge import TP, fills, gives, hands_out, life
from tests.after.test_judge import pattern as pattern  # a fixture


def pauses(at_ms: int) -> Step:
    return Step(at_ms, e.Paused((TP,)), ())


def resumes(at_ms: int) -> Step:
    return Step(at_ms, e.Resumed((TP,)), ())


BEGUN = [gives(10, 1, 1), fills(20, 1)]
LOST = [
    Step(55, e.TimerFired(), (e.LosePartitions(0, (TP,), "x"),)),
    Step(55, e.PartitionsLost(0), ()),
]
AGAIN = [*LOST, gives(60, 2, 2), fills(70, 2)]


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([*BEGUN, pauses(50), hands_out(100, 1, 0, 60)], "fail"),
        ([*BEGUN, pauses(50), hands_out(100, 1, 0, 50)], "pass"),  # in that very instant
        ([*BEGUN, pauses(50), hands_out(100, 1, 0, 40)], "pass"),
        ([*BEGUN, pauses(50), hands_out(100, 1, 0, 60), resumes(100)], "fail"),
        ([*BEGUN, pauses(50), resumes(70), hands_out(100, 1, 0, 80)], "pass"),
        ([*BEGUN, pauses(50), resumes(70), hands_out(100, 1, 0, 60)], "undecided"),
        ([*BEGUN, pauses(50), resumes(70), hands_out(100, 1, 0, 40)], "pass"),
        ([*BEGUN, pauses(50), resumes(70), pauses(90), hands_out(100, 1, 0, 95)], "fail"),
        # Older recordings do not say when it was: after the fetch, at the least.
        ([*BEGUN, pauses(50), hands_out(100, 1, 0)], "pass"),
        ([gives(10, 1, 1), pauses(15), fills(20, 1), hands_out(100, 1, 0)], "fail"),
        # Who gets it later gets it unpaused.
        ([*BEGUN, pauses(50), *AGAIN, hands_out(100, 2, 0, 80)], "pass"),
    ],
)
def test_nothing_is_handed_out_of_what_is_paused(
    pattern: Life, steps: list[Step], verdict: str
) -> None:
    found = judge([life("one", steps, [], pattern)])
    assert found.verdicts["S8"] == verdict, found.violations
    assert verdict == "pass" or found.verdicts["S10"] == "pass"


def test_a_ring_says_what_is_paused(pattern: Life) -> None:
    tenure = Tenure(*TP, 1, Position.READY, 1, 0, paused=True, buffered=True)
    state = replace(pattern.state, owned={TP: tenure}, announced=True, generation_id=1)
    steps = [Step(50, e.TimerFired(), ()), hands_out(100, 1, 0, 60)]
    ring = replace(life("one", steps, [], pattern), state=state)
    assert judge([ring]).verdicts["S8"] == "fail"
