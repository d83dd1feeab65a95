"""Fixtures of all tests: a real broker where one can be had, and names nobody else uses."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka_server import (
    FAST,
    RUN_DIR_VARIABLE,
    KafkaServer,
    KafkaUnavailableError,
    brokers_of_one_run,
    shared_server,
)

REQUIRE_VARIABLE = "KSIM_REQUIRE_KAFKA"
SWEPT = "swept"
pytest_plugins = ["pytester"]
# How long something takes is no reason to fail: machines are shared.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
# The scenarios of the canaries are run with what is planted; others of the library's are no tests.
collect_ignore_glob = ["*.scenario.toml"]


def pytest_configure(config: pytest.Config) -> None:
    """Let all workers of this run find one directory; the broker in it ends with this process."""
    if hasattr(config, "workerinput"):
        return
    run_dir = Path(tempfile.mkdtemp(prefix="ksim-kafka-"))
    stack = ExitStack()
    stack.enter_context(brokers_of_one_run(run_dir))
    before = os.environ.get(RUN_DIR_VARIABLE)
    os.environ[RUN_DIR_VARIABLE] = str(run_dir)
    # A test that runs pytest within itself must not leave its directory to the run around it.
    stack.callback(_restore, before)
    config.add_cleanup(stack.close)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many points of each sweep were judged; what workers print is lost."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for each in reports for name, text in each.user_properties if name == SWEPT]
    if lines:
        terminalreporter.section("points of sweeps")
    for line in sorted(lines):
        terminalreporter.write_line(line)


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ[RUN_DIR_VARIABLE]
    else:
        os.environ[RUN_DIR_VARIABLE] = before


def refuse(reason: str, *, required: bool) -> None:
    """Skip the test that asks for a broker, or fail it where a broker is required."""
    message = f"no Apache Kafka here: {reason}"
    if required:
        pytest.fail(f"{message} ({REQUIRE_VARIABLE} is set)", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def kafka_of() -> Callable[[str], KafkaServer]:
    """The real cluster of a profile of `tests.kafka_server`, one of each for a run."""

    def found(profile: str) -> KafkaServer:
        try:
            return shared_server(Path(os.environ[RUN_DIR_VARIABLE]), profile)
        except KafkaUnavailableError as error:
            refuse(str(error), required=os.environ.get(REQUIRE_VARIABLE) == "1")
            raise

    return found


@pytest.fixture(scope="session")
def kafka(kafka_of: Callable[[str], KafkaServer]) -> KafkaServer:
    """The real broker that most tests share."""
    return kafka_of(FAST)


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Names for topics and groups: the broker is shared by all tests."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"
