"""Whose each partition is by Kafka's assignors, and that those of leaders say the same."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksim.assignment_rules import RULES, stray
from ksim.core.assignors import ASSIGNORS
from ksim.core.subscription import Subscription
from ksim.core.values import TopicPartition

ROOT = Path(__file__).parents[1] / "ksim"
JUDGES = ("assignment_rules", "group_checks", "seen")
DECIDES = ("ksim.core.assignors", "ksim.core.patterns")


def member(name: str, topics: str, instance: str | None = None) -> Subscription:
    return Subscription(name, instance, tuple(topics))


def owners(**shares: str) -> dict[TopicPartition, str]:
    """`t0 u1`: these partitions."""
    return {
        TopicPartition(each[0], int(each[1:])): name
        for name, share in shares.items()
        for each in share.split()
    }


AB = [member("a", "t"), member("b", "t")]
STATIC = [member("a", "t"), member("z", "t", "1"), member("b", "t", "2")]
UNLIKE = [member("a", "t"), member("b", "tu"), member("c", "tuv")]
# In UTF-16 the second one comes first.
BEYOND = [member("\uffff", "t"), member("\U00010000", "t")]


@pytest.mark.parametrize(
    ("protocol", "members", "counts", "given_out", "words"),
    [
        ("range", AB, {"t": 3}, owners(a="t0 t1", b="t2"), ""),
        ("range", AB[::-1], {"t": 3}, owners(a="t0 t1", b="t2"), ""),
        (
            "range", AB, {"t": 3}, owners(a="t0", b="t1 t2"),
            "t-1 was given to b, where range gives it to a",
        ),
        (
            "range", AB, {"t": 4}, owners(a="t0 t2", b="t1 t3"),
            "t-1 was given to b, where range gives it to a",
        ),
        ("range", AB, {"t": 1}, owners(a="t0"), ""),
        ("range", AB, {"t": 1}, owners(b="t0"), "t-0 was given to b, where range gives it to a"),
        ("range", AB, {"t": 1}, owners(), "t-0 was given to nobody, where range gives it to a"),
        ("range", STATIC, {"t": 3}, owners(z="t0", b="t1", a="t2"), ""),
        (
            "range", STATIC, {"t": 3}, owners(a="t0", z="t1", b="t2"),
            "t-0 was given to a, where range gives it to z",
        ),
        ("range", UNLIKE, {"t": 3, "u": 3}, owners(a="t0", b="t1 u0 u1", c="t2 u2"), ""),
        ("roundrobin", AB, {"t": 3}, owners(a="t0 t2", b="t1"), ""),
        (
            "roundrobin", AB, {"t": 3}, owners(a="t0 t1", b="t2"),
            "t-1 was given to a, where roundrobin gives it to b",
        ),
        (
            "roundrobin", UNLIKE, {"v": 3, "u": 2, "t": 1},
            owners(a="t0", b="u0", c="u1 v0 v1 v2"), "",
        ),
        (
            "roundrobin", UNLIKE, {"t": 1, "u": 2, "v": 3},
            owners(a="t0", b="u0 u1", c="v0 v1 v2"),
            "u-1 was given to b, where roundrobin gives it to c",
        ),
        ("range", BEYOND, {"t": 1}, owners(𐀀="t0"), ""),
        ("sticky", AB, {"t": 3}, owners(b="t0 t1 t2"), ""),
    ],
)  # fmt: skip
def test_whose_a_partition_is(
    protocol: str,
    members: list[Subscription],
    counts: dict[str, int],
    given_out: dict[TopicPartition, str],
    words: str,
) -> None:
    assert stray(protocol, members, counts, given_out) == words


NAMES = st.text(st.sampled_from("ab\uffff\U00010000\U00010400"), max_size=2)
TOPICS = ("t", "u", "\uffff", "\U00010000")


@st.composite
def groups(draw: st.DrawFn) -> list[Subscription]:
    ids = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    instances = draw(st.lists(st.none() | NAMES, min_size=len(ids), max_size=len(ids)))
    topics = st.sets(st.sampled_from(TOPICS)).map(lambda found: tuple(sorted(found)))
    return [
        Subscription(name, None if instance in instances[:at] else instance, draw(topics))
        for at, (name, instance) in enumerate(zip(ids, instances, strict=True))
    ]


COUNTS = st.dictionaries(st.sampled_from(TOPICS), st.integers(0, 9))


@given(members=groups(), counts=COUNTS, protocol=st.sampled_from(sorted(RULES)))
def test_what_leaders_share_out_is_what_the_rules_say(
    members: list[Subscription], counts: dict[str, int], protocol: str
) -> None:
    shares = ASSIGNORS[protocol](members, counts)
    given_out = {tp: name for name, share in shares.items() for tp in share}
    wanted = {topic: counts[topic] for topic in counts if any(topic in m.topics for m in members)}
    assert stray(protocol, members, wanted, given_out) == ""
    for one, other in combinations(sorted(given_out)[:6], 2):
        swapped = {**given_out, one: given_out[other], other: given_out[one]}
        assert bool(stray(protocol, members, wanted, swapped)) == (swapped != given_out)


def test_each_assignor_has_a_rule() -> None:
    assert set(RULES) == set(ASSIGNORS)


@pytest.mark.parametrize("module", JUDGES)
def test_who_judges_does_not_ask_who_decides(module: str) -> None:
    tree = ast.parse((ROOT / f"{module}.py").read_text("utf-8"))
    asked = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert asked
    assert not set(asked) & set(DECIDES)
