"""Range and round-robin as Kafka's Java assignors share partitions (protocol.md 9)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksim.core.assignors import ASSIGNORS, assign_range, assign_round_robin
from ksim.core.subscription import (
    MalformedProtocolError,
    Subscription,
    counts_digest,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
    read_assignment,
)
from ksim.core.values import TopicPartition


def member(member_id: str, *topics: str, instance: str | None = None) -> Subscription:
    return Subscription(member_id, instance, topics)


def shares(found: dict[str, list[TopicPartition]]) -> dict[str, list[str]]:
    return {name: [str(tp) for tp in parts] for name, parts in found.items()}


def test_range_gives_the_extras_to_the_first_members() -> None:
    members = [member("c", "t"), member("a", "t"), member("b", "t")]
    assert shares(assign_range(members, {"t": 7})) == {
        "a": ["t-0", "t-1", "t-2"],
        "b": ["t-3", "t-4"],
        "c": ["t-5", "t-6"],
    }


def test_range_shares_each_topic_by_itself() -> None:
    members = [member("a", "t", "u"), member("b", "t", "u")]
    assert shares(assign_range(members, {"t": 3, "u": 3})) == {
        "a": ["t-0", "t-1", "u-0", "u-1"],
        "b": ["t-2", "u-2"],
    }


def test_more_members_than_partitions_leaves_some_with_nothing() -> None:
    members = [member(name, "t") for name in "abc"]
    assert shares(assign_range(members, {"t": 2})) == {"a": ["t-0"], "b": ["t-1"], "c": []}


def test_static_members_come_first_by_their_instance_id() -> None:
    members = [member("a", "t"), member("z", "t", instance="2"), member("y", "t", instance="3")]
    assert shares(assign_range(members, {"t": 3})) == {"z": ["t-0"], "y": ["t-1"], "a": ["t-2"]}


def test_round_robin_skips_who_did_not_subscribe() -> None:
    members = [member("C0", "t0"), member("C1", "t0", "t1"), member("C2", "t0", "t1", "t2")]
    assert shares(assign_round_robin(members, {"t0": 1, "t1": 2, "t2": 3})) == {
        "C0": ["t0-0"],
        "C1": ["t1-0"],
        "C2": ["t1-1", "t2-0", "t2-1", "t2-2"],
    }


TOPICS = st.dictionaries(st.sampled_from("tuvw"), st.integers(0, 9), min_size=1)


@given(
    counts=TOPICS,
    wants=st.lists(st.sets(st.sampled_from("tuvw"), min_size=1), min_size=1, max_size=6),
    name=st.sampled_from(sorted(ASSIGNORS)),
)
def test_every_partition_has_one_owner_that_wants_it(
    counts: dict[str, int], wants: list[set[str]], name: str
) -> None:
    members = [member(f"m{at}", *sorted(topics)) for at, topics in enumerate(wants)]
    found = ASSIGNORS[name](members, counts)
    given_out = sorted(tp for parts in found.values() for tp in parts)
    wanted = {topic for topics in wants for topic in topics}
    assert given_out == sorted(
        TopicPartition(t, p) for t, count in counts.items() if t in wanted for p in range(count)
    )
    for one in members:
        assert {tp.topic for tp in found[one.member_id]} <= set(one.topics)


NAMES = st.text(min_size=1, max_size=5)


@given(topics=st.sets(NAMES, min_size=1))
def test_a_subscription_is_read_as_it_was_written(topics: set[str]) -> None:
    data = encode_subscription(topics)
    assert decode_subscription("m", None, data).topics == tuple(sorted(topics))


@given(parts=st.sets(st.tuples(NAMES, st.integers(0, 99))))
def test_an_assignment_is_read_as_it_was_written(parts: set[tuple[str, int]]) -> None:
    wanted = tuple(sorted(TopicPartition(*tp) for tp in parts))
    assert decode_assignment(encode_assignment(wanted)) == wanted


def test_no_bytes_are_no_partitions() -> None:
    assert decode_assignment(b"") == ()


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (decode_assignment, lambda raw: decode_subscription("m", None, raw)):
        with contextlib.suppress(MalformedProtocolError):
            assert read(data) is not None


def test_truncated_bytes_are_refused() -> None:
    whole = encode_assignment([TopicPartition("orders", 1)])
    for at in range(1, len(whole) - 4):
        with pytest.raises(MalformedProtocolError):
            decode_assignment(whole[:at])


def test_an_assignment_carries_what_it_was_made_from() -> None:
    basis = counts_digest({"t": 3, "u": 1})
    wanted = (TopicPartition("t", 0),)
    assert read_assignment(encode_assignment(wanted, basis)) == (wanted, basis)
    assert read_assignment(encode_assignment(wanted)) == (wanted, None)
    assert counts_digest({"u": 1, "t": 3}) == basis
    assert len({basis, counts_digest({"t": 4, "u": 1}), counts_digest({"t": 3})}) == 3
