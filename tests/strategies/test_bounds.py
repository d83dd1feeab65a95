"""What nothing can fulfil is refused where it is asked for, with the value and what is valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.errors import InvalidArgument

from ksim import strategies as ks


@pytest.mark.parametrize(
    ("strategy", "bounds", "says"),
    [
        ("scenarios", {"min_members": 3, "max_members": 2}, "min_members=3, max_members=2"),
        ("scenarios", {"min_members": 0}, "min_members=0: a whole number, from 1 to 1000"),
        ("scenarios", {"max_partitions": 0}, "max_partitions=0: a whole number, from 1 to 1000"),
        ("scenarios", {"max_steps": -1}, "max_steps=-1: a whole number, from 0 to 1000"),
        ("scenarios", {"max_members": 10**8}, "max_members=100000000: a whole number, from 1"),
        ("scenarios", {"max_records": 10**8}, "max_records=100000000: a whole number, from 1"),
        ("scenarios", {"max_faults": 1.5}, "max_faults=1.5: a whole number"),
        ("scenarios", {"max_faults": True}, "max_faults=True: a whole number"),
        ("scenarios", {"max_duration": "1 hour"}, "max_duration='1 hour': a duration"),
        ("scenarios", {"max_duration": "999ms"}, "of 1000 ms or more"),
        ("scenarios", {"fault_kinds": ["drip"]}, "'drip' is none of them; valid: drop, delay"),
        ("scenarios", {"fault_kinds": "drop"}, "fault_kinds='drop': a list of names"),
        ("scenarios", {"step_kinds": []}, "step_kinds=[]: at least 1 of crash, stop"),
        ("scenarios", {"ways": ["upside down"]}, "'upside down' is none of them; valid: static"),
        ("clusters", {"min_brokers": 2, "max_brokers": 1}, "the least is above the most"),
        ("clusters", {"max_loss": 0.5}, "max_loss=0.5: a share from 0 to 0.02"),
        ("clusters", {"latencies_ms": [(5, 1)]}, "pairs of ms, the lower one first"),
        ("topics", {"names": []}, "names=[]: one or more names, each once"),
        ("topics", {"min_topics": 2}, "min_topics=2, max_topics=1"),
        ("groups", {"id": "a b\n"}, "id 'a b\\n': up to 200 letters"),
        ("topics", {"names": ["a/b"]}, "names 'a/b': up to 200 letters"),
        ("groups", {"topics": (1,)}, "topics 1: up to 200 letters"),
        ("groups", {"id": ""}, "id=('',): one or more names"),
        ("groups", {"topics": ("a", "a")}, "topics=('a', 'a'): one or more names, each once"),
        ("subscriptions", {"topics": "orders"}, "topics='orders': a list of names"),
        ("loads", {"min_records": 9, "max_records": 8}, "min_records=9, max_records=8"),
        ("loads", {"within": -5}, "within=-5: a duration"),
        ("faults", {"kinds": ["error"], "requests": ["Produce"]}, "valid: Metadata, Find"),
        ("faults", {"kinds": ["fatal error"], "requests": ["Fetch"]}, "valid: FindCoordinator, J"),
        ("faults", {"max_nth": 0}, "max_nth=0: a whole number, from 1 to 1000"),
        ("steps", {"min_at": "9s", "max_at": "8s"}, "min_at='9s', max_at='8s': the first is"),
        ("steps", {"topics": ()}, "topics=(): at least one TopicSpec"),
        ("steps", {"topics": ["t"]}, "topics=['t']: at least one TopicSpec"),
        ("clusters", {"max_loss": "x"}, "max_loss='x': a share from 0"),
        ("clusters", {"latencies_ms": 5}, "latencies_ms=5: pairs of ms"),
        ("topics", {"names": 3}, "names=3: a list of names"),
        ("topics", {"names": {"a", "b"}}, "a list of names"),
        ("steps", {"brokers": 0}, "brokers=0: a whole number, from 1 to 1000"),
    ],
)
def test_impossible_bounds_are_refused_at_the_call(
    strategy: str, bounds: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        getattr(ks, strategy)(**bounds)
    assert says in str(raised.value)


@pytest.mark.parametrize("bound", ["members", "partitions"])
@pytest.mark.parametrize("count", [0, 10**6])
def test_a_machine_needs_members_and_partitions(bound: str, count: int) -> None:
    wrong = type("Wrong", (ks.GroupMachine,), {bound: count})
    with pytest.raises(InvalidArgument, match=f"{bound}={count}: a whole number, from 1 to 1000"):
        wrong()


def test_bounds_have_names() -> None:
    with pytest.raises(TypeError, match="positional"):
        ks.scenarios(3)  # type: ignore[misc]


def test_an_unknown_name_is_no_strategy() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'scenarioz'"):
        _ = ks.scenarioz


def test_every_name_that_is_told_can_be_had() -> None:
    assert [name for name in ks.__all__ if getattr(ks, name) is None] == []
