"""Clocks of several recordings are aligned by what must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.after.clocks import align
from ksim.after.lives import Exchange, Life, syncs_of
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError, KafkaError
from tests.after.recorded import ROOT, moved, one_point, recorded, shifted
from tests.after.test_judge import IN_REBALANCE, TP, beat, commit, join, life


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> list[Life]:
    path = ROOT / "scenarios" / "night.scenario.toml"
    return recorded(one_point(path), tmp_path_factory.mktemp("night"))[1]


@settings(max_examples=25)
@given(shifts=st.lists(st.integers(-(10**7), 10**7), min_size=4, max_size=4))
def test_the_true_shift_lies_within_what_is_known(night: list[Life], shifts: list[int]) -> None:
    clocks = align([shifted(life, by) for life, by in zip(night, shifts, strict=True)])
    assert not clocks.unknown
    for one in range(4):
        for other in range(4):
            span = clocks.span(one, other)
            assert span is not None
            true_ms = shifts[one] - shifts[other]
            assert span[0] <= true_ms <= span[1]


def test_members_that_join_last_in_turn_are_aligned_to_milliseconds(night: list[Life]) -> None:
    clocks = align(night)
    first, last = clocks.names.index("g-1"), clocks.names.index("g-3")
    span = clocks.span(first, last)
    assert span is not None
    assert span[1] - span[0] <= 20


def test_one_clock_leaves_nothing_open(night: list[Life]) -> None:
    clocks = align(night, one_clock=True)
    assert {clocks.span(a, b) for a in range(4) for b in range(4)} == {(0, 0)}


def test_a_clock_that_has_jumped_is_named(night: list[Life]) -> None:
    at = next(n for n, life in enumerate(night) if life.name == "g-3")
    jumped = [*night]
    jumped[at] = moved(night[at], lambda at_ms: at_ms if at_ms < 100_000 else at_ms + 5_000)
    clocks = align(jumped)
    assert list(clocks.unknown) == [at]
    assert "the clock of g-3 has jumped" in clocks.unknown[at]
    assert clocks.span(0, at) is None
    others = [n for n in range(4) if n != at]
    assert all(clocks.span(a, b) is not None for a in others for b in others)


def test_what_is_no_recording_of_a_member_is_refused(tmp_path: Path) -> None:
    from ksim.after.lives import files_of, life_of
    from ksim.recording import Recording

    coordinator = Recording({"vantage": "coordinator"}, None, (), True, 0)
    with pytest.raises(DamagedRecordingError, match="only recordings of members"):
        life_of("c", tmp_path, coordinator)
    with pytest.raises(DamagedRecordingError, match="holds no recording"):
        files_of([tmp_path])


def told_of(offset: int, at_ms: int, generation_id: int) -> Exchange:
    request = m.OffsetFetchRequest("g", (TP,), "id-2", generation_id)
    answer = m.OffsetFetchResponse(0, (m.CommittedOffset(*TP, offset, -1, "", 0),))
    return Exchange(300, 1, request, 0, at_ms - 5, False, answer, None, 0, at_ms)


@pytest.mark.parametrize(
    ("offset", "generation_id", "most_ms"),
    [
        (7, 2, 100),  # sent at 500 by the one clock, told at 600 by the other
        (8, 2, 2_000),  # nobody that is known has committed it
        (7, 1, 2_000),  # of one generation both may have committed it
    ],
)
def test_an_offset_was_committed_before_anybody_is_told_of_it(
    night: list[Life], offset: int, generation_id: int, most_ms: int
) -> None:
    one = [join(1, 0, 2_000, 1, True), commit(1, 1, 500, 7), commit(1, 1, 900, 7)]
    two = [join(2, 0, 2_000, 1, False), told_of(offset, 600, generation_id)]
    clocks = align([life("one", [], one, night[0]), life("two", [], two, night[0])])
    assert clocks.span(1, 0) == (-2_000, most_ms)


def test_an_offset_that_two_have_committed_says_nothing(night: list[Life]) -> None:
    one = [join(1, 0, 2_000, 1, True), commit(1, 1, 500, 7)]
    two = [join(2, 0, 2_000, 1, False), told_of(7, 600, 2), commit(2, 2, 700, 7)]
    clocks = align([life("one", [], one, night[0]), life("two", [], two, night[0])])
    assert clocks.span(1, 0) == (-2_000, 2_000)


def test_what_a_zombie_asked_for_in_vain_says_nothing(night: list[Life]) -> None:
    """Somebody of whom there is no recording may have committed that offset."""
    refused = m.OffsetCommitResponse((m.PartitionError(*TP, 22),))
    late = replace(commit(1, 1, 9_000, 7), response=refused)
    one = [join(1, 0, 20_000, 1, True), late]
    two = [join(2, 0, 20_000, 1, False), told_of(7, 600, 2)]
    clocks = align([life("one", [], one, night[0]), life("two", [], two, night[0])])
    assert clocks.span(1, 0) == (-20_000, 20_000)


def of_two(night: list[Life], one: list[Exchange], two: list[Exchange]) -> tuple[int, int] | None:
    clocks = align([life("one", [], one, night[0]), life("two", [], two, night[0])])
    return clocks.span(1, 0)


def sync(number: int, generation_id: int, sent_ms: int, node_id: int = 1) -> Exchange:
    request = m.SyncGroupRequest("g", generation_id, f"id-{number}", None, None, None, ())
    answer = m.SyncGroupResponse(0, None, None, b"")
    return Exchange(300, node_id, request, 0, sent_ms, False, answer, None, 0, sent_ms + 5)


def test_who_is_granted_something_in_a_generation_is_before_the_shares_of_the_next(
    night: list[Life],
) -> None:
    one = [join(1, 0, 20_000, 1, True), beat(1, 1, 26_000, IN_REBALANCE)]
    two = [join(2, 0, 20_000, 1, False), join(2, 24_990, 24_995, 2, True), sync(2, 2, 25_000)]
    # The beat came before 25,005: the clock of the first one is fast by 995 ms at the least.
    assert of_two(night, one, two) == (-20_000, -995)
    # Who loads its log grants every heartbeat; a commit is what is judged.
    blind = [beat(1, 1, 26_000, code) for code in (KafkaError.NONE, KafkaError.ILLEGAL_GENERATION)]
    for each in (*blind, commit(1, 1, 26_000, 7)):
        assert of_two(night, [one[0], each], two) == (-20_000, 20_000)
    elsewhere = [*two[:2], sync(2, 2, 25_000, node_id=2)]
    assert of_two(night, one, elsewhere) == (-20_000, 20_000)


def test_generations_say_nothing_where_a_group_may_have_begun_again(night: list[Life]) -> None:
    one = [join(1, 0, 20_000, 1, True), beat(1, 1, 26_000, IN_REBALANCE)]
    two = [join(2, 0, 20_000, 1, False), join(2, 24_990, 24_995, 2, True), sync(2, 2, 25_000)]
    assert of_two(night, [*one, join(1, 40_000, 40_005, 0, True)], two) == (-20_000, 20_000)
    apart = [join(2, 24_990, 24_995, 2, True), sync(2, 2, 25_000)]
    assert of_two(night, one, apart) is None


def test_a_static_member_that_missed_a_round_is_answered_at_once(night: list[Life]) -> None:
    """It is kept in the generation, and asks long after the others were told of it."""
    again = join(2, 900, 905, 2, False)
    request = again.request
    assert isinstance(request, m.JoinGroupRequest)
    static = replace(again, request=replace(request, group_instance_id="two"))
    one = [join(1, 0, 600, 1, True), join(1, 100, 110, 2, True)]
    two = [join(2, 0, 600, 1, False), static]
    clocks = align([life("one", [], one, night[0]), life("two", [], two, night[0])])
    assert not clocks.unknown
    span = clocks.span(0, 1)
    assert span is not None
    assert span[0] <= 0 <= span[1]


@pytest.mark.parametrize(
    ("member_id", "generation_id", "told"),
    [
        ("", -1, 0),  # all is recorded
        ("id-2", 2, 2),  # its recording begins in the second generation
        ("id-2", -1, 2),  # or when it had given that up
    ],
)
def test_who_is_put_back_into_an_earlier_generation_is_answered_at_once(
    night: list[Life], member_id: str, generation_id: int, told: int
) -> None:
    """Its coordinator has begun anew, from a log that had not heard of the second one."""
    one = [join(1, 0, 10, 1, True), join(1, 1_000, 1_010, 2, True)]
    two = [
        join(2, 0, 10, 1, False),
        join(2, 1_000, 1_010, 2, False),
        join(2, 5_000, 5_005, 1, False),
    ]
    state = replace(night[0].state, member_id=member_id, generation_id=generation_id)
    late = replace(life("two", [], two[told:], night[0]), state=state)
    clocks = align([life("one", [], one, night[0]), late])
    assert not clocks.unknown
    span = clocks.span(0, 1)
    assert span is None or span[0] <= 0 <= span[1]


def test_a_share_is_of_what_was_told_last_before_it_was_asked_for(night: list[Life]) -> None:
    """A generation that nobody stored is made again, here by another leader."""
    again = join(2, 500, 510, 1, False)
    assert isinstance(again.response, m.JoinGroupResponse)
    again = replace(again, response=replace(again.response, leader="id-2"))
    syncs = [sync(2, 1, 11), sync(2, 1, 511)]
    found = syncs_of(life("two", [], [join(2, 0, 10, 1, False), again, *syncs], night[0]))
    assert [(made[3], each.sent_ms) for made, each in found] == [("id-1", 11), ("id-2", 511)]
