"""`ksim conform` finds nothing on `ksim serve`: wire, log and waiting add no difference."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ksim.conform import run
from ksim.core.errors import NoBrokerError
from tests.serve.served import Served
from tests.serve.test_serve import NO_DELAY

SCRIPTS = "10"


@pytest.mark.parametrize("settings", [NO_DELAY, ("-X", "group.max.size=2")])
def test_no_script_tells_serve_from_the_machine(tmp_path: Path, settings: tuple[str, ...]) -> None:
    with Served(tmp_path / "log", *settings) as served:
        command = [sys.executable, "-m", "ksim.cli.main", "conform", "-b", served.bootstrap]
        found = subprocess.run(
            [*command, "--seeds", SCRIPTS], capture_output=True, text=True, check=False
        )
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{SCRIPTS} scripts of" in found.stdout


def test_a_broker_that_coordinates_some_groups_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "TRIES_S", 1.0)
    with Served(tmp_path / "log", "--brokers", "2") as served:
        host, port = served.addresses[0]
        with pytest.raises(NoBrokerError, match="within 1 s; a broker is needed that coordinates"):
            asyncio.run(run.conform(host, port, range(1), 1))
