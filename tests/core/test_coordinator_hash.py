"""Figures from Java."""

from __future__ import annotations

from itertools import permutations

import pytest

from ksim.core.coordinator_hash import (
    draw,
    group_partition,
    hash_map_order,
    java_string_hash,
    scala_map_order,
)


@pytest.mark.parametrize(
    ("group_id", "partition"),
    [
        ("my-group", 12),
        ("test", 48),
        ("a", 47),
        ("group-1", 49),
        ("", 0),
        ("polygenelubricants", 0),
    ],
)
def test_partition_of_a_group(group_id: str, partition: int) -> None:
    assert group_partition(group_id) == partition


def test_smallest_hash() -> None:
    assert java_string_hash("polygenelubricants") == -(2**31)


def test_hash_is_over_utf16_units() -> None:
    assert java_string_hash("\U0001f600") == 31 * 0xD83D + 0xDE00


@pytest.mark.parametrize(
    "names", list(permutations(["sticky", "range", "roundrobin", "cooperative-sticky"]))
)
def test_order_of_votes(names: tuple[str, ...]) -> None:
    assert hash_map_order(names) == ["sticky", "range", "roundrobin", "cooperative-sticky"]


def test_draws_of_splitmix64() -> None:
    assert [draw(0, count) for count in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_scala_orders_the_assignors_the_other_way_round() -> None:
    """Seen on Kafka 3.9.1 with its Scala coordinator; range and sticky share a slot of the trie."""
    expected = ["cooperative-sticky", "roundrobin", "range", "sticky"]
    for names in permutations(expected):
        assert scala_map_order(names) == expected
    assert scala_map_order(["sticky", "range"]) == ["range", "sticky"]


def test_scala_keeps_keys_of_one_hash_in_the_order_they_came() -> None:
    assert java_string_hash("Aa") == java_string_hash("BB")
    assert scala_map_order(["BB", "Aa"]) == ["BB", "Aa"]
    assert scala_map_order(["Aa", "BB"]) == ["Aa", "BB"]
