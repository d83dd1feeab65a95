"""Keyed timers against the plainest model there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksim.core.timers import KeyedTimers
from ksim.core.trace import plain, value_of

KEYS = st.sampled_from([("session", "g", "a"), ("session", "g", "b"), ("join", "g"), ("sync", "h")])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), KEYS, st.integers(0, 20), st.integers(0, 1)),
        st.tuples(st.just("cancel"), KEYS),
        st.tuples(st.just("pass"), st.integers(0, 8)),
        st.tuples(st.just("restore")),
    ),
    max_size=60,
)


def drain(timers: KeyedTimers, now_ms: int) -> list[tuple[str, ...]]:
    found = []
    while (key := timers.pop_due(now_ms)) is not None:
        found.append(key)
    return found


@given(ACTIONS)
def test_fires_what_the_model_fires(actions: list[tuple[object, ...]]) -> None:
    timers = KeyedTimers()
    model: dict[object, tuple[int, int, int]] = {}
    now = 0
    for number, action in enumerate(actions):
        match action:
            case ("arm", key, delay, rank):
                timers.arm(key, now + delay, rank)
                model[key] = (now + delay, rank, number)
            case ("cancel", key):
                timers.cancel(key)
                model.pop(key, None)
            case ("pass", by):
                now += by
                due = sorted((at, key) for key, at in model.items() if at[0] <= now)
                assert drain(timers, now) == [key for _, key in due]
                for _, key in due:
                    del model[key]
            case _:
                timers = value_of(plain(timers))
        first = min((at[0] for at in model.values()), default=None)
        assert (timers.deadline_ms is None) == (first is None)
        assert first is None or timers.deadline_ms <= first
        assert {key: timers.armed_until(key) for key in model} == {
            key: at[0] for key, at in model.items()
        }


def test_postponing_does_not_grow_the_heap() -> None:
    timers = KeyedTimers()
    for now in range(10_000):
        timers.arm(("session", "g", "a"), now + 10_000)
    assert len(timers.heap) == 1


def test_earlier_and_earlier_is_compacted() -> None:
    timers = KeyedTimers()
    for now in range(10_000):
        timers.arm(("join", "g"), 20_000 - now)
    assert len(timers.heap) < 100
    assert drain(timers, 10_001) == [("join", "g")]
    assert timers.pop_due(20_000) is None


def test_rank_before_order_of_arming() -> None:
    timers = KeyedTimers()
    timers.arm(("join", "g"), 10, rank=1)
    timers.arm(("session", "g", "b"), 10)
    timers.arm(("session", "g", "a"), 10)
    assert timers.pop_due(9) is None
    assert drain(timers, 10) == [("session", "g", "b"), ("session", "g", "a"), ("join", "g")]
    assert timers.deadline_ms is None
