"""Two owners at one time, for all ways in which their clocks can stand to each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life, Step, read_lives
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError, KafkaError
from ksim.core.member_state import Position, Tenure
from tests.after.recorded import ROOT, cut, one_point, recorded, shifted
from tests.after.test_judge import TP, beat, commit, fills, gives, hands_out, join, life, overlap
from tests.after.test_judge import pattern as pattern  # a fixture

FILES = Path(__file__).with_name("files")


@pytest.mark.parametrize(
    ("wait_ms", "verdict"),
    [(50, "fail"), (398, "fail"), (401, "undecided"), (1_000, "undecided"), (10**7, "undecided")],
)
def test_an_overlap_never_passes_however_wide_the_clocks_are_open(
    pattern: Life, wait_ms: int, verdict: str
) -> None:
    assert overlap(pattern, 1_400, 1_500, wait_ms) == verdict


def tenures(draw: Random, generations: list[int]) -> list[Step]:
    """One tenure in each of these generations, each record at some time after it was fetched."""
    steps: list[Step] = []
    at_ms = draw.randint(0, 6)
    for tenure, generation_id in enumerate(generations, 1):
        fetched_ms = at_ms + draw.randint(1, draw.choice([4, 60]))
        told_ms = fetched_ms + draw.randint(0, 4)
        steps += [gives(at_ms, generation_id, tenure), fills(fetched_ms, tenure)]
        steps.append(hands_out(told_ms, tenure, 0))
        at_ms = told_ms + draw.randint(1, 8)
    return steps


def two(draw: Random, pattern: Life, wait_ms: int) -> tuple[Life, Life]:
    made = list(range(1, draw.randint(3, 5)))
    draw.shuffle(made)
    mine, other = sorted(made[:2]), sorted(made[2:])
    return (
        life("one", tenures(draw, mine), [join(1, 0, wait_ms, 1, True)], pattern),
        life("two", tenures(draw, other), [join(2, 0, wait_ms, 1, False)], pattern),
    )


def test_what_is_said_of_open_clocks_holds_for_each_way_they_can_stand(pattern: Life) -> None:
    """A pass leaves no way in which they overlap, a failure none in which they do not."""
    draw, said = Random("overlaps"), set[str]()
    for _ in range(250):
        wait_ms = draw.choice([1, 2, 4, 9, 20])
        one, other = two(draw, pattern, wait_ms)
        found = judge([one, other]).verdicts["S5"]
        each = {
            judge([one, shifted(other, by)], one_clock=True).verdicts["S5"]
            for by in range(-wait_ms, wait_ms + 1)
        }
        said.add(found)
        assert found != "pass" or each == {"pass"}, (one.steps, other.steps, wait_ms)
        assert found != "fail" or each == {"fail"}, (one.steps, other.steps, wait_ms)
    assert said == {"pass", "undecided", "fail"}


OF_CLOCKS = (m.JoinGroupRequest, m.OffsetCommitRequest, m.OffsetFetchRequest)


def test_an_overlap_of_clocks_that_nothing_aligns_does_not_pass() -> None:
    """A group's night with two owners, but nothing that says when one of them lived."""
    lives = read_lives([FILES])
    assert judge(lives).verdicts["S5"] == "fail"
    told = [
        replace(
            each, exchanges=tuple(x for x in each.exchanges if not isinstance(x.request, OF_CLOCKS))
        )
        for each in lives
    ]
    found = judge(told)
    assert found.verdicts["S5"] == "undecided"
    said = [each.sentence for each in found.undecided if each.check == "S5"]
    assert any("nobody knows how their clocks stand" in sentence for sentence in said), said


def test_a_night_without_an_overlap_passes_although_its_clocks_are_open(tmp_path: Path) -> None:
    _, lives = recorded(one_point(ROOT / "scenarios" / "night.scenario.toml"), tmp_path)
    apart = [shifted(each, 977 * number) for number, each in enumerate(lives)]
    assert judge(apart).verdicts["S5"] == "pass"


def of_instance(one: Life) -> Life:
    """The same member under an instance id."""
    asked = tuple(
        replace(each, request=replace(each.request, group_instance_id="i"))
        if isinstance(each.request, m.JoinGroupRequest)
        else each
        for each in one.exchanges
    )
    config = replace(one.state.config, group_instance_id="i")
    return replace(one, exchanges=asked, state=replace(one.state, config=config))


def three(pattern: Life, steps: list[Step], told: list[Exchange], twin: Exchange) -> list[Life]:
    """An old process, a new one that asks for its place, and a third member that is given it."""
    old = of_instance(life("old", steps, [join(1, 0, 5, 1, True), *told], pattern))
    granted = twin.error_code == 0
    new = of_instance(life("new", [gives(910, 1, 1)] if granted else [], [twin], pattern))
    third = life("third", [gives(1_000, 2, 1)], [join(2, 950, 955, 2, True)], pattern)
    return [old, new, third]


def handed_out(at_ms: int = 1_500) -> list[Step]:
    return [gives(10, 1, 1), fills(at_ms - 100, 1), hands_out(at_ms, 1, 0)]


@pytest.mark.parametrize(
    ("fenced_ms", "one_clock", "verdict"),
    [
        (None, True, "not judged"),  # its coordinator has told it nothing yet
        (1_600, True, "not judged"),
        (1_300, True, "fail"),
        (None, False, "undecided"),  # nobody knows whether it was replaced then
    ],
)
def test_the_older_process_of_an_instance_is_excused_until_it_is_told(
    pattern: Life, fenced_ms: int | None, one_clock: bool, verdict: str
) -> None:
    steps, told = handed_out(), list[Exchange]()
    if fenced_ms is not None:
        answer = m.HeartbeatResponse(KafkaError.FENCED_INSTANCE_ID)
        steps.append(Step(fenced_ms, e.ResponseReceived(9, answer), ()))
        steps.sort(key=lambda step: step.at_ms)
        told = [replace(beat(1, 1, fenced_ms), response=answer, ended_ms=fenced_ms)]
    lives = three(pattern, steps, told, join(1, 900, 905, 1, True))
    assert judge(lives, one_clock=one_clock).verdicts["S5"] == verdict


def test_the_older_process_is_not_excused_for_longer_than_its_session(pattern: Life) -> None:
    session_ms = pattern.state.config.session_timeout_ms
    for at_ms, verdict in ((session_ms, "not judged"), (session_ms + 2_000, "undecided")):
        lives = three(pattern, handed_out(at_ms), [], join(1, 900, 905, 1, True))
        assert judge(lives, one_clock=True).verdicts["S5"] == verdict


TWIN = join(1, 900, 905, 1, True)
REFUSED = m.JoinGroupResponse(KafkaError.NOT_COORDINATOR, -1, "", "", "", "", ())


@pytest.mark.parametrize(
    ("twin", "verdict"),
    [
        (replace(TWIN, response=REFUSED), "fail"),
        (replace(TWIN, response=None, reason="refused"), "undecided"),  # it may have arrived
        (replace(TWIN, response=None, ended=None, ended_ms=None), "undecided"),
    ],
)
def test_who_was_not_told_that_it_has_the_place_excuses_nobody_for_certain(
    pattern: Life, twin: Exchange, verdict: str
) -> None:
    lives = three(pattern, handed_out(), [], twin)
    assert judge(lives, one_clock=True).verdicts["S5"] == verdict


def test_a_ring_of_an_instance_says_whose_process_it_is(tmp_path: Path) -> None:
    """Its JoinGroup was before, so nobody knows which of two processes came later."""
    name = "truncated-while-two-of-one-instance-go-on.scenario.toml"
    _, lives = recorded(one_point(ROOT / "scenarios" / "regressions" / name), tmp_path)
    assert judge(lives, one_clock=True).verdicts["S5"] == "pass"
    for at, each in enumerate(lives):
        if each.state.config.group_instance_id is not None:
            for begin in range(1, len(each.steps) - 1, 4):
                told = [*lives[:at], cut(each, begin), *lives[at + 1 :]]
                assert judge(told, one_clock=True).verdicts["S5"] != "fail", (each.name, begin)


def test_a_group_that_may_have_begun_again_has_no_older_generations(pattern: Life) -> None:
    """A ring of generation 5, and one who is given the same in generation 1 of a later group."""
    tenure = Tenure(*TP, 1, Position.READY, 0, 0)
    state = replace(
        pattern.state, member_id="id-1", generation_id=5, owned={TP: tenure}, deliver_until_ms=10**6
    )
    ring = life("ring", [fills(1_400, 1), hands_out(1_500, 1, 0)], [], pattern)
    new = life("new", [gives(1_450, 1, 1)], [join(2, 1_400, 1_405, 1, True)], pattern)
    assert judge([replace(ring, state=state), new]).verdicts["S5"] == "undecided"


@pytest.mark.parametrize("first_ms", [199, 201, 5_000])
def test_a_ring_does_not_say_since_when_it_owns_a_share_of_the_same_generation(
    pattern: Life, first_ms: int
) -> None:
    tenure = Tenure(*TP, 1, Position.READY, 0, 0)
    state = replace(
        pattern.state, member_id="id-2", generation_id=2, owned={TP: tenure}, deliver_until_ms=10**6
    )
    ring = life("ring", [Step(first_ms, e.TimerFired(), ())], [], pattern)
    steps = [gives(100, 2, 1), fills(150, 1), hands_out(200, 1, 0)]
    one = life("one", steps, [join(1, 90, 95, 2, True)], pattern)
    assert judge([one, replace(ring, state=state)], one_clock=True).verdicts["S5"] == "undecided"


def test_an_answer_to_a_commit_tells_that_a_newer_process_is_there(pattern: Life) -> None:
    told = m.OffsetCommitResponse((m.PartitionError(*TP, KafkaError.FENCED_INSTANCE_ID),))
    steps = [*handed_out(), Step(1_300, e.ResponseReceived(9, told), ())]
    steps.sort(key=lambda step: step.at_ms)
    refused = replace(commit(1, 1, 1_295, 1), response=told)
    lives = three(pattern, steps, [refused], TWIN)
    assert judge(lives, one_clock=True).verdicts["S5"] == "fail"


def test_a_ring_that_begins_in_a_revocation_may_still_lose_it(tmp_path: Path) -> None:
    name = "refused-while-the-application-is-away.scenario.toml"
    scenario = one_point(ROOT / "scenarios" / "regressions" / name, 7)
    _, lives = recorded(scenario, tmp_path, 7)
    begun = [
        (each, number)
        for each in lives
        for number, step in enumerate(each.steps)
        if any(isinstance(order, e.AbandonPartitions) for order in step.orders)
    ]
    assert begun
    for each, number in begun:
        assert judge([cut(each, number)], one_clock=True).verdicts["S8"] != "fail"


@pytest.mark.parametrize(("first", "last"), [(-(2**63), 0), (2, 0)])
def test_a_range_of_records_goes_up_from_0(pattern: Life, first: int, last: int) -> None:
    steps = [gives(10, 1, 1), fills(20, 1)]
    steps.append(Step(30, e.RecordsHandedOut(*TP, 1, first, last), ()))
    with pytest.raises(DamagedRecordingError, match=rf"entry 3: offsets {first} to 0 of orders-0"):
        judge([life("one", steps, [], pattern)])


@pytest.mark.parametrize("when_ms", [499, 1_301])
def test_a_record_was_handed_out_between_its_fetch_and_when_that_was_told(
    pattern: Life, when_ms: int
) -> None:
    with pytest.raises(DamagedRecordingError, match=r"entry 3: at_ms of RecordsHandedOut is \d+; "):
        overlap(pattern, 500, 1_300, 50, when_ms)


def test_nothing_is_told_of_before_it_was(pattern: Life) -> None:
    polled = Step(100, e.UserPolled(waiting=True, at_ms=101), ())
    with pytest.raises(DamagedRecordingError, match="entry 1: at_ms of UserPolled is 101; "):
        judge([life("one", [polled], [], pattern)])
