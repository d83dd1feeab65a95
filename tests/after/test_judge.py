"""Recordings put together: what is judged, what is undecided, and what nobody can know."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ksim.after.between import as_others_set_them
from ksim.after.judge import ALL_CHECKS, judge
from ksim.after.lives import Exchange, Life, Step
from ksim.after.witness import Event
from ksim.commit_checks import S13OffsetsRise
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError, KafkaError
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from ksim.truth import Truth
from tests.after.recorded import ROOT, SCENARIOS, one_point, recorded, shifted

GOOD = ("pass", "undecided", "not judged")
JUDGED = {"S2", "S3", "S4", "S5", "S6", "S8", "S10", "S12", "S13"}
SAMPLE = ("night", "cut-from-coordinator-only", "s13-offset-fetch-is-slow", "sync-lost")


def sampled(path: Path) -> bool:
    return path.name.removesuffix(".scenario.toml") in SAMPLE


PATHS = [
    pytest.param(path, id=path.name, marks=() if sampled(path) else pytest.mark.slow)
    for path in SCENARIOS
]


@pytest.mark.parametrize("path", PATHS)
def test_a_good_run_is_never_accused_whatever_its_clocks_show(path: Path, tmp_path: Path) -> None:
    result, lives = recorded(one_point(path), tmp_path)
    assert result.verdict == "pass"
    draw = Random(path.name)
    for by_ms in (0, 10**3, 10**6):
        shifts = [draw.randint(-by_ms, by_ms) for _ in lives]
        found = judge([shifted(life, by) for life, by in zip(lives, shifts, strict=True)])
        assert not found.violations, found.violations
        assert not found.clocks.unknown
        for one, other in permutations(range(len(lives)), 2):
            low_ms, high_ms = found.clocks.span(one, other) or (-(2 * by_ms), 2 * by_ms)
            assert low_ms <= shifts[one] - shifts[other] <= high_ms
        assert set(found.verdicts.values()) <= set(GOOD)


def test_what_a_recording_cannot_decide_is_not_judged(tmp_path: Path) -> None:
    _, lives = recorded(one_point(ROOT / "scenarios" / "night.scenario.toml"), tmp_path)
    found = judge(lives)
    assert {name for name, said in found.verdicts.items() if said == "not judged"} == (
        set(ALL_CHECKS) - JUDGED
    )
    assert {found.verdicts[name] for name in JUDGED} == {"pass"}


def planted(plant: str, scenario: str, folder: Path) -> None:
    path = ROOT / "scenarios" / f"{scenario}.scenario.toml"
    command = [sys.executable, "-m", "tests.canary", plant, "--", "run", str(path)]
    command += ["--record", str(folder)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("plant", "scenario", "failed"),
    [
        ("deliver-for-ever", "cut-from-coordinator-only", "S5"),
        ("deliver-for-ever", "night", "S5"),
        ("commit-what-was-given-up", "join-while-another-leaves", "S3"),
        ("commit-goes-back", "night", "S13"),
    ],
)
def test_a_planted_error_is_found_in_its_recordings(
    plant: str, scenario: str, failed: str, tmp_path: Path
) -> None:
    from ksim.after.lives import read_lives

    planted(plant, scenario, tmp_path)
    draw = Random(plant)
    lives = [shifted(life, draw.randint(-(10**6), 10**6)) for life in read_lives([tmp_path])]
    found = judge(lives)
    assert found.verdicts[failed] == "fail"
    assert {each.check for each in found.violations} >= {failed}


# Two members by hand: one hands out from its buffer while the other is given the partition


TP = TopicPartition("orders", 0)


def life(name: str, steps: list[Step], exchanges: list[Exchange], pattern: Life) -> Life:
    return replace(pattern, name=name, steps=tuple(steps), exchanges=tuple(exchanges))


def join(number: int, sent_ms: int, told_ms: int, generation: int, leads: bool) -> Exchange:
    request = m.JoinGroupRequest("g", 6000, 6000, f"id-{number}", None, "consumer", ())
    members = (m.JoinedMember("id-1", None, b""),) if leads else ()
    answer = m.JoinGroupResponse(
        0, generation, "consumer", "range", "id-1", f"id-{number}", members
    )
    return Exchange(number, 1, request, 0, sent_ms, False, answer, None, 0, told_ms)


def gives(at_ms: int, generation: int, tenure: int) -> Step:
    order = e.AssignPartitions(generation, (e.Assigned(*TP, tenure, 0),))
    return Step(at_ms, e.TimerFired(), (order,))


def fills(at_ms: int, tenure: int) -> Step:
    fetched = m.FetchedPartition(*TP, 0, 1, 0, 1, 1, 0)
    answer = e.ResponseReceived(0, m.FetchResponse(0, (fetched,)))
    return Step(at_ms, answer, (e.BufferRecords(0, (e.Assigned(*TP, tenure, 0),)),))


def hands_out(at_ms: int, tenure: int, last: int, when_ms: int = -1) -> Step:
    return Step(at_ms, e.RecordsHandedOut(*TP, tenure, 0, last, when_ms), ())


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Life:
    path = ROOT / "scenarios" / "slow-handler.scenario.toml"
    return recorded(one_point(path), tmp_path_factory.mktemp("pattern"))[1][0]


def overlap(pattern: Life, filled_ms: int, told_ms: int, wait_ms: int, when_ms: int = -1) -> str:
    """The old owner's hand-out against an assignment at 1,000; the clocks are open by the wait."""
    old = [gives(10, 1, 1), fills(filled_ms, 1), hands_out(told_ms, 1, 0, when_ms)]
    new = [gives(1_000, 2, 1)]
    joins_of_old = [join(1, 0, wait_ms, 1, True)]
    joins_of_new = [join(2, 0, wait_ms, 1, False)]
    lives = [life("old", old, joins_of_old, pattern), life("new", new, joins_of_new, pattern)]
    return judge(lives).verdicts["S5"]


@pytest.mark.parametrize(
    ("filled_ms", "told_ms", "wait_ms", "verdict"),
    [
        (500, 900, 50, "pass"),  # all of it before
        (1_200, 1_300, 50, "fail"),  # all of it after
        (500, 1_300, 50, "undecided"),  # handed out some time between
        (1_020, 1_300, 50, "undecided"),  # after, by less than the clocks are open
        (990, 995, 50, "undecided"),  # before, by less than the clocks are open
        (1_200, 1_300, 500, "undecided"),
    ],
)
def test_an_overlap_within_the_uncertainty_is_neither(
    pattern: Life, filled_ms: int, told_ms: int, wait_ms: int, verdict: str
) -> None:
    assert overlap(pattern, filled_ms, told_ms, wait_ms) == verdict


@pytest.mark.parametrize(
    ("when_ms", "verdict"), [(900, "pass"), (995, "undecided"), (1_300, "undecided")]
)
def test_a_member_that_slept_after_its_last_record_handed_it_out_before(
    pattern: Life, when_ms: int, verdict: str
) -> None:
    assert overlap(pattern, 500, 6_000, 50, when_ms) == verdict


# Coordinators that do what none does, each seen from outside


def sync(number: int, generation: int, sent_ms: int, told: Any, sent: Any = ()) -> Exchange:
    request = m.SyncGroupRequest("g", generation, f"id-{number}", None, None, None, sent)
    answer = m.SyncGroupResponse(0, None, None, told)
    return Exchange(100 + number, 1, request, 0, sent_ms, False, answer, None, 0, sent_ms + 5)


def commit(number: int, generation: int, sent_ms: int, offset: int) -> Exchange:
    item = m.OffsetAndMetadata(*TP, offset, -1, "")
    request = m.OffsetCommitRequest("g", generation, f"id-{number}", None, (item,))
    answer = m.OffsetCommitResponse((m.PartitionError(*TP, 0),))
    return Exchange(200 + number, 1, request, 0, sent_ms, False, answer, None, 0, sent_ms + 5)


MINE, NOTHING = encode_assignment([TP]), encode_assignment([])
BOTH = (("id-1", MINE), ("id-2", MINE))
Build = Callable[[], tuple[list[Exchange], list[Exchange]]]


def given_twice() -> tuple[list[Exchange], list[Exchange]]:
    one = [join(1, 0, 10, 1, True), sync(1, 1, 11, MINE, BOTH)]
    return one, [join(2, 1, 10, 1, False), sync(2, 1, 11, MINE)]


def old_commit_is_taken() -> tuple[list[Exchange], list[Exchange]]:
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7)]
    return one, [join(2, 1, 10, 1, False), join(2, 100, 110, 2, True)]


def generation_falls() -> tuple[list[Exchange], list[Exchange]]:
    one = [join(1, 0, 10, 1, True), join(1, 900, 910, 2, True)]
    return one, [join(2, 1, 10, 1, False), join(2, 100, 110, 3, True)]


def offset_falls() -> tuple[list[Exchange], list[Exchange]]:
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7)]
    return one, [join(2, 1, 10, 1, False), commit(2, 1, 100, 9)]


def another_share_is_told() -> tuple[list[Exchange], list[Exchange]]:
    one = [join(1, 0, 10, 1, True), sync(1, 1, 11, NOTHING, (("id-1", MINE),))]
    return one, [join(2, 1, 10, 1, False)]


@pytest.mark.parametrize(
    ("build", "failed"),
    [
        (given_twice, "S4"),
        (old_commit_is_taken, "S6"),
        (generation_falls, "S12"),
        (another_share_is_told, "S12"),
        (offset_falls, "S13"),
    ],
)
def test_a_coordinator_that_errs_is_found_from_outside(
    pattern: Life, build: Build, failed: str
) -> None:
    one, two = build()
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    found = judge(lives)
    assert found.verdicts[failed] == "fail", found.verdicts
    assert failed in {each.check for each in found.violations}


def unanswered(each: Exchange) -> Exchange:
    return replace(each, response=None, ended=None, ended_ms=None)


SENT_LATE = sync(1, 1, 21, NOTHING, (("id-1", NOTHING), ("id-2", MINE)))


@pytest.mark.parametrize(
    ("begins_in", "exchanges", "verdict"),
    [
        (-1, [join(1, 0, 10, 1, True), SENT_LATE], "fail"),
        # What the coordinator kept was sent before the recording, or after what is left of it.
        (1, [join(1, 15, 20, 1, True), SENT_LATE], "undecided"),
        (-1, [join(1, 0, 10, 1, True), unanswered(SENT_LATE)], "undecided"),
    ],
)
def test_a_leader_may_have_sent_what_is_not_recorded(
    pattern: Life, begins_in: int, exchanges: list[Exchange], verdict: str
) -> None:
    state = replace(pattern.state, member_id="id-1", generation_id=begins_in)
    joined, sent = exchanges
    led = [lists(joined, "id-1", "id-2"), sent]
    one = replace(life("one", [gives(0, 1, 1)], led, pattern), state=state)
    two = life("two", [], [join(2, 1, 20, 1, False), sync(2, 1, 30, NOTHING)], pattern)
    assert judge([one, two], one_clock=True).verdicts["S12"] == verdict


@pytest.mark.parametrize(("asked_ms", "verdict"), [(100, "pass"), (600, "fail")])
def test_who_stood_still_is_told_late_of_a_generation(
    pattern: Life, asked_ms: int, verdict: str
) -> None:
    """The answer waited for it, while the others went on to the next one."""
    one = [join(1, 0, 10, 1, True), join(1, asked_ms, 910, 2, True)]
    two = [join(2, 1, 10, 1, False), join(2, 101, 110, 2, False), join(2, 400, 500, 3, True)]
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    assert judge(lives, one_clock=True).verdicts["S12"] == verdict


def test_who_comes_back_into_its_generation_does_not_say_when_it_was_made(pattern: Life) -> None:
    """A follower may ask again, and is answered at once with the generation that is there."""
    one = [join(1, 0, 10, 1, True), join(1, 100, 110, 2, True), commit(1, 2, 500, 7)]
    two = [join(2, 1, 10, 1, False), join(2, 101, 110, 2, False), join(2, 900, 905, 2, False)]
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    found = judge(lives, one_clock=True)
    assert found.verdicts["S6"] == "pass", found.undecided


IN_REBALANCE = KafkaError.REBALANCE_IN_PROGRESS


def beat(number: int, generation: int, sent_ms: int, error_code: int = 0) -> Exchange:
    request = m.HeartbeatRequest("g", generation, f"id-{number}", None)
    answer = m.HeartbeatResponse(error_code)
    return Exchange(400, 1, request, 0, sent_ms, False, answer, None, 0, sent_ms + 5)


@pytest.mark.parametrize(
    ("beats", "verdict"),
    [
        ([], "undecided"),
        ([beat(3, 1, 600, IN_REBALANCE)], "pass"),  # its generation was there after the commit
        ([beat(3, 1, 600)], "undecided"),  # who loads its log grants all
        ([beat(3, 1, 400, IN_REBALANCE)], "undecided"),  # before the commit
        ([beat(3, 1, 600, KafkaError.ILLEGAL_GENERATION)], "undecided"),
        ([beat(3, 1, 6_000, IN_REBALANCE)], "undecided"),  # when the newcomer had been told already
    ],
)
def test_a_newcomer_asks_long_before_its_generation_is_made(
    pattern: Life, beats: list[Exchange], verdict: str
) -> None:
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7)]
    two = [join(2, 100, 5_000, 2, True)]
    three = [join(3, 1, 10, 1, False), *beats]
    lives = [
        life("one", [gives(0, 1, 1)], one, pattern),
        life("two", [], two, pattern),
        life("three", [], three, pattern),
    ]
    assert judge(lives, one_clock=True).verdicts["S6"] == verdict


def test_a_coordinator_that_fences_nothing_is_found_whatever_it_says(pattern: Life) -> None:
    """One member was told at 110; another one that asked last was told late."""
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7), beat(1, 1, 600, IN_REBALANCE)]
    two = [join(2, 100, 110, 2, True)]
    three = [join(3, 105, 5_000, 2, False)]
    lives = [
        life("one", [gives(0, 1, 1)], one, pattern),
        life("two", [], two, pattern),
        life("three", [], three, pattern),
    ]
    assert judge(lives, one_clock=True).verdicts["S6"] == "fail"


def leave(number: int, sent_ms: int, error_code: int = 0) -> Exchange:
    identity = m.MemberIdentity(f"id-{number}", None)
    request = m.LeaveGroupRequest("g", (identity,))
    answer = m.LeaveGroupResponse(error_code, ())
    return Exchange(500, 1, request, 0, sent_ms, False, answer, None, 0, sent_ms + 5)


@pytest.mark.parametrize(("error_code", "verdict"), [(0, "pass"), (25, "undecided")])
def test_a_member_that_left_was_there_until_then(
    pattern: Life, error_code: int, verdict: str
) -> None:
    """Its last commit is answered in the millisecond in which it leaves."""
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7), leave(1, 505, error_code)]
    two = [join(2, 100, 5_000, 2, True)]
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    assert judge(lives, one_clock=True).verdicts["S6"] == verdict


def lists(joined: Exchange, *members: str) -> Exchange:
    """The same answer with these members."""
    answer = joined.response
    assert isinstance(answer, m.JoinGroupResponse)
    names = tuple(m.JoinedMember(name, None, b"") for name in members)
    return replace(joined, response=replace(answer, members=names))


@pytest.mark.parametrize(
    ("members", "verdict"),
    [
        (("id-2", "id-3"), "undecided"),
        (("id-2",), "pass"),  # it was not in it, so it left before
        ((), "undecided"),  # nobody who knows was recorded
    ],
)
def test_a_member_that_asked_again_may_have_left_the_next_generation(
    pattern: Life, members: tuple[str, ...], verdict: str
) -> None:
    one = [join(1, 0, 10, 1, True), commit(1, 1, 500, 7)]
    two = [lists(join(2, 100, 700, 2, True), *members)]
    gone = replace(join(3, 290, 0, 2, False), response=None, ended=None, ended_ms=None)
    three = [join(3, 1, 10, 1, False), gone, leave(3, 600)]
    lives = [
        life("one", [gives(0, 1, 1)], one, pattern),
        life("two", [], two, pattern),
        life("three", [], three, pattern),
    ]
    assert judge(lives, one_clock=True).verdicts["S6"] == verdict


def test_a_commit_that_comes_when_the_next_generation_was_told_is_a_fault(pattern: Life) -> None:
    """Whatever heartbeats say."""
    one = [join(1, 0, 10, 1, True), commit(1, 1, 5_500, 7), beat(1, 1, 6_000, IN_REBALANCE)]
    two = [join(2, 100, 5_000, 2, True)]
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    assert judge(lives, one_clock=True).verdicts["S6"] == "fail"


@pytest.mark.parametrize(("sent", "sent_ms", "verdict"), [(1, 90, "pass"), (3, 110, "fail")])
def test_a_commit_that_was_sent_before_the_next_generation_was_asked_for_was_taken_before_it(
    pattern: Life, sent: int, sent_ms: int, verdict: str
) -> None:
    """Both are answered in one millisecond, on one connection."""
    taken = replace(commit(1, 1, sent_ms, 7), sent=sent, ended_ms=110)
    one = [join(1, 0, 10, 1, True), replace(join(1, 100, 110, 2, True), sent=2), taken]
    two = [join(2, 1, 10, 1, False), join(2, 95, 108, 2, False)]
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    assert judge(lives, one_clock=True).verdicts["S6"] == verdict


def zombie(*between: Exchange, node_id: int = 1) -> list[Exchange]:
    """Its commit of generation 1 is taken at 500, whatever came between."""
    late = replace(commit(1, 1, 500, 7), node_id=node_id)
    return [join(1, 0, 10, 1, True), *between, late]


def successor(node_id: int = 1, *, shares: bool = True) -> list[Exchange]:
    """Generation 2 was told at 110, and its share at 116."""
    led = [join(2, 100, 110, 2, True), sync(2, 2, 111, MINE, (("id-2", MINE),))]
    return [
        join(2, 1, 10, 1, False),
        *(replace(each, node_id=node_id) for each in led[: 1 + shares]),
    ]


def broken(each: Exchange) -> Exchange:
    return replace(each, response=None, reason="connection closed")


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (zombie(), successor(), "fail"),
        (zombie(broken(beat(1, 1, 450))), successor(), "fail"),  # it is stored: nobody forgets it
        (zombie(), [*successor(), broken(beat(2, 2, 450))], "fail"),
        (zombie(), successor(node_id=2), "fail"),  # nor did the one that it moved to, or from
        (zombie(node_id=2), successor(), "fail"),
        (zombie(broken(beat(1, 1, 450))), successor(shares=False), "undecided"),  # it may have
        (zombie(), successor(node_id=2, shares=False), "not judged"),
    ],
)
def test_whoever_takes_over_knows_a_generation_that_was_shared_out(
    pattern: Life, one: list[Exchange], two: list[Exchange], verdict: str
) -> None:
    lives = [life("one", [gives(0, 1, 1)], one, pattern), life("two", [], two, pattern)]
    assert judge(lives, one_clock=True).verdicts["S6"] == verdict


def test_a_coordinator_that_was_deposed_tells_no_news_out_of_its_memory(pattern: Life) -> None:
    """It still grants a JoinGroup in generation 1, when another one has shared out generation 2."""
    two = [*successor(node_id=2), replace(commit(2, 2, 600, 9), node_id=2)]
    one = [join(1, 0, 10, 1, True), join(1, 300, 305, 1, False), sync(1, 1, 306, NOTHING)]
    state = replace(pattern.state, member_id="id-1", generation_id=1, coordinator=1)
    ring = replace(life("one", [Step(290, e.TimerFired(), ())], one[1:], pattern), state=state)
    for each in (ring, life("one", [gives(0, 1, 1)], one, pattern)):
        found = judge([each, life("two", [], two, pattern)], one_clock=True)
        assert found.verdicts["S6"] == "pass", found.violations


def set_to(offset: int) -> Event:
    told = m.CommittedOffset("t", 0, offset, -1, "", 0)
    answer = e.ResponseReceived(1, m.OffsetFetchResponse(0, (told,)))
    return Event(0, 0, 0, "g", answer)


def committed(offset: int) -> list[Event]:
    marked = m.OffsetAndMetadata("t", 0, offset, -1, "")
    request = m.OffsetCommitRequest("g", 1, "a", None, (marked,))
    entries = (e.OffsetRecord("g", "t", 0, offset, -1, ""),)
    arrived = e.RequestArrived(offset, request, "a", "")
    order = e.AppendRecords(offset, entries)
    stored = e.RecordsAppended(offset, 0)
    return [
        Event(0, 0, 0, "broker-1", arrived, (order,)),
        Event(0, 0, 0, "broker-1", stored),
    ]


@pytest.mark.parametrize(
    ("told", "verdict"), [(None, "fail"), (3, "pass"), (9, "fail"), (7, "fail")]
)
def test_an_offset_that_somebody_else_has_set(told: int | None, verdict: str) -> None:
    """The coordinator says it where a member asks: lower than what was committed."""
    between = [] if told is None else [set_to(told)]
    placed = [(0, 0, 0, event) for event in (*committed(7), *between, *committed(5))]
    checker = S13OffsetsRise(Truth())
    for at_ms, _, _, event in as_others_set_them(placed, early=True):
        checker.truth.note(event.source, at_ms, event.fact, event.orders)
        checker.see(event.source, at_ms, event.fact, event.orders)
    assert checker.verdict == verdict


@pytest.mark.parametrize(
    "fact",
    [
        e.RecordsHandedOut("orders", 0, 1, 0, 10**12),
        e.MarksTaken((e.Mark("orders", 0, 1, 10**12, ""),)),
    ],
)
def test_a_number_that_is_no_offset_is_not_counted_up_to(fact: Any, tmp_path: Path) -> None:
    _, lives = recorded(one_point(ROOT / "scenarios" / "night.scenario.toml"), tmp_path)
    life = lives[0]
    beyond = replace(life, steps=(*life.steps, Step(life.last_ms, fact, ())))
    with pytest.raises(DamagedRecordingError, match=f"offset {10**12} of orders-0"):
        judge([beyond])
