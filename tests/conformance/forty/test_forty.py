"""The forty checks of the classic group protocol, one body each, on three arms.

The machine in virtual time, `ksim serve` over TCP, and Apache Kafka. Kafka is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ksim.core.coordinator import CoordinatorConfig
from tests.conformance.forty import failover, joins, leaving, rebalances
from tests.conformance.forty.arms import MachineArm
from tests.conformance.forty.clusters import Clusters, RealClusters, ServedClusters
from tests.conformance.forty.registry import CHECKS, Check
from tests.conftest import REQUIRE_VARIABLE, refuse
from tests.kafka_server import RUN_DIR_VARIABLE, KafkaUnavailableError

ROOMS: Final = (joins, rebalances, leaving, failover)
NO_DELAY: Final = CoordinatorConfig(initial_rebalance_delay_ms=0)
MACHINES: Final = {
    "fast": NO_DELAY,
    "three": NO_DELAY,
    "slow-load": NO_DELAY,
    "delay": CoordinatorConfig(),
    "long-delay": CoordinatorConfig(initial_rebalance_delay_ms=20_000),
    "small-groups": CoordinatorConfig(initial_rebalance_delay_ms=0, group_max_size=2),
}


def test_there_are_forty() -> None:
    assert sorted({check.number for check in CHECKS}) == list(range(1, 41))
    assert {room.__name__ for room in ROOMS} == {check.body.__module__ for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_machine(check: Check) -> None:
    check.body(MachineArm("group", MACHINES[check.profile]))


def of_arm(arm: str) -> list[Any]:
    """Parameters of a test: those of one arm run in one process, as they run side by side."""
    found = []
    for check in CHECKS:
        marks = [pytest.mark.xdist_group(f"forty-{arm}")]
        if check.is_slow:
            marks.append(pytest.mark.slow)
        if arm in check.not_run:
            marks.append(pytest.mark.skip(reason=f"not run: {check.not_run[arm]}"))
        found.append(pytest.param(check, id=check.name, marks=marks))
    return found


def chosen(request: pytest.FixtureRequest) -> list[Check]:
    """The checks of the test that asks, as far as this run has chosen them."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    return [
        item.callspec.params["check"]
        for item in items
        if item.originalname == request.node.originalname and not item.get_closest_marker("skip")
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    clusters = ServedClusters(tmp_path_factory.mktemp("served"))
    yield clusters
    clusters.stop()


@pytest.fixture(scope="module")
def real() -> Clusters:
    return RealClusters(Path(os.environ[RUN_DIR_VARIABLE]))


@pytest.mark.parametrize("check", of_arm("serve"))
def test_served(check: Check, served: Clusters, request: pytest.FixtureRequest) -> None:
    served.result(check, chosen(request))


@pytest.mark.kafka
@pytest.mark.parametrize("check", of_arm("real"))
def test_apache_kafka(check: Check, real: Clusters, request: pytest.FixtureRequest) -> None:
    try:
        real.result(check, chosen(request))
    except KafkaUnavailableError as error:
        refuse(str(error), required=os.environ.get(REQUIRE_VARIABLE) == "1")


def test_side_by_side_reports_each(tmp_path: Path, fresh_name: Callable[[str], str]) -> None:
    """A check that fails is told to its own test alone."""
    del fresh_name
    clusters = ServedClusters(tmp_path)

    def good(arm: Any) -> None:
        assert arm.describe()["group_state"] == "Dead"

    def bad(arm: Any) -> None:
        assert arm.describe()["group_state"] == "Stable"

    checks = [Check(f"check_{at}", body, "fast", False, {}) for at, body in ((1, good), (2, bad))]
    try:
        clusters.result(checks[0], checks)
        with pytest.raises(AssertionError, match="Dead"):
            clusters.result(checks[1], checks)
    finally:
        clusters.stop()
