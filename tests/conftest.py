"""Fixtures of all tests: a real broker where one can be had, and names nobody else uses."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka_server import (
    RUN_DIR_VARIABLE,
    KafkaServer,
    KafkaUnavailableError,
    one_broker_at_most,
    shared_server,
)

REQUIRE_VARIABLE = "KSIM_REQUIRE_KAFKA"


def pytest_configure(config: pytest.Config) -> None:
    """Let all workers of this run find one directory; the broker in it ends with this process."""
    if hasattr(config, "workerinput"):
        return
    run_dir = Path(tempfile.mkdtemp(prefix="ksim-kafka-"))
    stack = ExitStack()
    stack.enter_context(one_broker_at_most(run_dir))
    before = os.environ.get(RUN_DIR_VARIABLE)
    os.environ[RUN_DIR_VARIABLE] = str(run_dir)
    # A test that runs pytest within itself must not leave its directory to the run around it.
    stack.callback(_restore, before)
    config.add_cleanup(stack.close)


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
def kafka() -> KafkaServer:
    """The one real broker of this run."""
    try:
        return shared_server(Path(os.environ[RUN_DIR_VARIABLE]))
    except KafkaUnavailableError as error:
        refuse(str(error), required=os.environ.get(REQUIRE_VARIABLE) == "1")
        raise


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Names for topics and groups: the broker is shared by all tests."""
    return lambda prefix: f"{prefix}-{uuid.uuid4().hex[:12]}"
