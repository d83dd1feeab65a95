"""One test body for both arms: the fake agrees with the real broker, generation by generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conformance.arms import Arm, RealArm, SimArm

PARTITIONS = 4


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.kafka)])
def arm(request: pytest.FixtureRequest, fresh_name: Callable[[str], str]) -> Iterator[Arm]:
    group, topic = fresh_name("group"), fresh_name("topic")
    made: SimArm | RealArm
    if request.param == "real":
        made = RealArm(request.getfixturevalue("kafka"), group, topic, PARTITIONS)
    else:
        made = SimArm(group, topic, PARTITIONS)
    yield made
    made.end()


def test_join_rebalance_commit_and_leave(arm: Arm) -> None:
    log = arm.log
    arm.start("a")
    arm.until(lambda: log.owned.get("a") == (0, 1, 2, 3))
    for partition in range(PARTITIONS):
        arm.produce(partition, 5)
    arm.until(lambda: len(log.handled) == 20)
    arm.start("b")
    arm.until(lambda: (log.owned.get("a"), log.owned.get("b")) == ((0, 1), (2, 3)))
    arm.produce(3, 2)
    arm.until(lambda: len(log.handled) == 22)
    arm.stop("a")
    arm.until(lambda: log.owned.get("b") == (0, 1, 2, 3))
    arm.stop("b")
    arm.until(lambda: log.closed == ["a", "b"])
    arm.start("c")
    arm.until(lambda: log.owned.get("c") == (0, 1, 2, 3))
    assert sorted(log.history, key=lambda item: (item[1], item[0])) == [
        ("a", 1, ((0, 0), (1, 0), (2, 0), (3, 0))),
        ("a", 2, ((0, 5), (1, 5))),
        ("b", 2, ((2, 5), (3, 5))),
        ("b", 3, ((0, 5), (1, 5), (2, 5), (3, 7))),
        ("c", 5, ((0, 5), (1, 5), (2, 5), (3, 7))),
    ]
    assert sorted(log.handled) == sorted({*log.handled}), "a record was handled twice"
