"""What the tests of the examples share; they run on a real broker too, with --ksim-real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ksim.kit import App

PARTITIONS = 4
COUNT = 400


@pytest.fixture
def ksim_settings() -> dict[str, Any]:
    """As the real broker of the kit has it."""
    return {"initial_rebalance_delay": "0s"}


def at_work(apps: Sequence[App], each: int = 5) -> bool:
    """Whether all of them have handled something."""
    return all(len(app.handled) >= each for app in apps)


def all_handled(apps: Sequence[App], count: int = COUNT) -> bool:
    """Whether every record was handled by one of them."""
    return len({place for app in apps for place in app.handled}) == count
