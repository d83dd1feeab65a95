"""The small world of most tests of the consumer, and one body on two arms."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.consumer.arms import Arm, RealArm, SimArm
from tests.consumer.worlds import TinyWorld


@pytest.fixture
def tiny() -> Iterator[TinyWorld]:
    """One broker, one topic of two partitions."""
    found = TinyWorld()
    yield found
    found.end()


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.kafka)])
def arm(request: pytest.FixtureRequest, fresh_name: Callable[[str], str]) -> Iterator[Arm]:
    made: SimArm | RealArm
    if request.param == "real":
        made = RealArm(request.getfixturevalue("kafka"), fresh_name)
    else:
        made = SimArm()
    yield made
    made.end()
