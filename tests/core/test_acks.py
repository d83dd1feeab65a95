"""The contiguous finished prefix, whatever the order in which records are finished."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksim.core.acks import NOTHING, HandedOut


def test_only_the_prefix_may_be_committed() -> None:
    handed = HandedOut()
    for offset in (3, 4, 7):
        handed.add(offset)
    assert handed.finish(7) == NOTHING
    assert handed.finish(4) == NOTHING
    assert len(handed) == 1
    assert handed.finish(3) == 7
    assert len(handed) == 0


def test_twice_is_once() -> None:
    handed = HandedOut()
    handed.add(0)
    handed.add(1)
    assert handed.finish(0) == 0
    assert handed.finish(0) == NOTHING
    assert len(handed) == 1


@given(st.sets(st.integers(0, 50), min_size=1), st.randoms(use_true_random=False))
def test_every_order_ends_at_the_last(offsets: set[int], random: object) -> None:
    handed = HandedOut()
    in_order = sorted(offsets)
    for offset in in_order:
        handed.add(offset)
    shuffled = list(in_order)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    finished: set[int] = set()
    committed = NOTHING
    for offset in shuffled:
        finished.add(offset)
        found = handed.finish(offset)
        committed = found if found != NOTHING else committed
        unfinished = [each for each in in_order if each not in finished]
        below = [each for each in in_order if not unfinished or each < unfinished[0]]
        assert committed == (below[-1] if below else NOTHING)


def test_a_cut_forgets_the_records_from_there_on_alone() -> None:
    acks = HandedOut()
    for offset in range(4):
        acks.add(offset)
    acks.finish(1)
    acks.cut(2)
    assert len(acks) == 1
    assert acks.finish(3) == NOTHING
    assert acks.finish(0) == 1
    acks.add(2)
    assert acks.finish(2) == 2
