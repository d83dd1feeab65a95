"""What `ksim serve` refuses before it serves anything, and addresses that clients can use."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ksim.broker.settings import ServeConfig
from ksim.cli.serve import configured
from ksim.core.errors import ConfigError
from tests.serve.served import Served
from tests.serve.test_serve import LIMIT_S, produce


@pytest.mark.parametrize(
    ("setting", "least"),
    [
        ("group.max.size=0", 1),
        ("offsets.retention.minutes=0", 1),
        ("offsets.retention.check.interval.ms=0", 1),
        ("num.partitions=0", 1),
        ("log.retention.bytes=-1", 0),
    ],
)
def test_settings_have_kafkas_bounds(setting: str, least: int) -> None:
    with pytest.raises(ConfigError, match=f"-X {setting}: a number from {least} on"):
        configured(ServeConfig(), (setting,))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--topic", "a:1", "--topic", "a:2"), "topic 'a' is given more than once"),
        (("--topic", "a b:1"), "topic 'a b'"),
        (("--port", "65535", "--brokers", "2"), "the last port would be 65536"),
        (("--port", "70000"), "70000"),
        (("--control-port", "-1"), "-1"),
        (("--host", ""), "--host ''"),
    ],
)
def test_what_cannot_be_served_is_told_at_start(arguments: tuple[str, ...], told: str) -> None:
    command = [sys.executable, "-m", "ksim.cli.main", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert ended.returncode == 2, ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_ipv6_address_is_one_that_clients_can_use(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    arguments = ("--host", "::1", "--topic", "t:1", "--control-port", "0")
    with Served(tmp_path / "log", *arguments) as served:
        assert served.bootstrap.startswith("[::1]:")
        produce(served.bootstrap, 0, 3, partitions=1)
        with socket.create_connection(("::1", served.info["control"]), timeout=LIMIT_S) as sock:
            sock.sendall(b"GET /groups HTTP/1.0\r\n\r\n")
            assert b" 200 " in sock.recv(65_536)


def test_a_cluster_without_a_scenario_is_there_without_loading_their_grammar() -> None:
    code = (
        "import sys, ksim.cli.main, ksim.cli.serve; "
        "print([m for m in ('ksim.scenario', 'simpy', 'hypothesis', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
