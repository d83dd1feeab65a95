"""Two members that are told to lead one generation: wrong, whichever of them was told first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.fuzz.swarm import draw_scenario
from tests.after.recorded import recorded
from tests.after.test_judge import MINE, NOTHING, beat, broken, join, life, sync
from tests.after.test_judge import pattern as pattern  # a fixture


def leads(number: int, sent_ms: int, told_ms: int, generation: int) -> Exchange:
    led = join(number, sent_ms, told_ms, generation, leads=True)
    answer, name = led.response, f"id-{number}"
    assert isinstance(answer, m.JoinGroupResponse)
    members = (m.JoinedMember(name, None, b""),)
    return replace(led, response=replace(answer, leader=name, members=members))


def verdict(
    pattern: Life, one: list[Exchange], two: list[Exchange], *, one_clock: bool = True
) -> str:
    lives = [life("one", [], one, pattern), life("two", [], two, pattern)]
    found = judge(lives, one_clock=one_clock)
    said = found.violations if found.verdicts["S12"] == "fail" else found.undecided
    assert [each.members for each in said if each.check == "S12"] == [("id-1", "id-2")] * len(said)
    return found.verdicts["S12"]


@pytest.mark.parametrize("apart_ms", [-1, 0, 1, 5, 50])
@pytest.mark.parametrize("one_clock", [True, False])
@pytest.mark.parametrize("generation", [1, 2])
def test_two_leaders_of_one_round_are_wrong_whoever_was_told_first(
    pattern: Life, generation: int, one_clock: bool, apart_ms: int
) -> None:
    """One answer to all who wait; of clocks that nothing aligns nobody knows that both waited."""
    one, two = [join(1, 0, 10, 1, True)], [join(2, 1, 10, 1, False)]
    if generation == 1:
        one, two = [], []
    one.append(leads(1, 100, 200, generation))
    two.append(leads(2, 101, 200 + apart_ms, generation))
    aligned = one_clock or generation == 2
    expected = "fail" if aligned else "undecided"
    assert verdict(pattern, one, two, one_clock=one_clock) == expected


def shares(number: int, sent_ms: int) -> Exchange:
    return sync(number, 1, sent_ms, MINE, ((f"id-{number}", MINE),))


def refused(exchange: Exchange, code: KafkaError) -> Exchange:
    return replace(exchange, response=m.SyncGroupResponse(code, None, None, NOTHING))


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        # It died, and nobody has seen what became of its coordinator then.
        ([], [leads(2, 300, 400, 1)], "undecided"),
        ([], [leads(2, 300, 400, 1), shares(2, 401)], "undecided"),
        # What was shared out is in the log: nobody makes it again.
        ([shares(1, 201)], [leads(2, 300, 400, 1)], "fail"),
        # A coordinator that begins anew may not know whom it had answered before.
        ([], [leads(2, 150, 400, 1)], "fail"),
        (
            [refused(shares(1, 201), KafkaError.UNKNOWN_MEMBER_ID)],
            [leads(2, 150, 400, 1)],
            "undecided",
        ),
        # It was seen to begin anew between both, before, and after.
        ([broken(shares(1, 201))], [leads(2, 300, 400, 1)], "pass"),
        ([shares(1, 201)], [leads(2, 300, 400, 1), broken(beat(2, 1, 500))], "fail"),
        ([], [leads(2, 150, 400, 1), broken(beat(2, 1, 500))], "fail"),
        ([], [broken(beat(2, 1, 20)), leads(2, 150, 400, 1)], "fail"),
        # Another broker had the group in between.
        ([replace(join(1, 250, 260, 2, False), node_id=2)], [leads(2, 300, 400, 1)], "pass"),
    ],
)
def test_a_coordinator_that_began_anew_makes_the_generation_again(
    pattern: Life, one: list[Exchange], two: list[Exchange], said: str
) -> None:
    assert verdict(pattern, [leads(1, 100, 200, 1), *one], two) == said


def test_a_static_leader_that_comes_back_under_another_id_leads_on(pattern: Life) -> None:
    again = leads(2, 101, 200, 1)
    assert isinstance(again.response, m.JoinGroupResponse)
    again = replace(again, response=replace(again.response, skip_assignment=True))
    assert verdict(pattern, [leads(1, 100, 200, 1)], [again]) == "pass"


def test_a_drawn_group_whose_coordinator_crashed_is_not_accused(tmp_path: Path) -> None:
    """Its first generation was never stored, and is made again nine seconds later."""
    seed = 8_801_064
    result, lives = recorded(draw_scenario(seed), tmp_path, seed)
    assert result.verdict == "pass"
    assert judge(lives, one_clock=True).verdicts["S12"] == "pass"
