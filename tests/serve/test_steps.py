"""`--scenario`: its steps on a served cluster, and those that nobody but a client can do."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.clients import Member, aiokafka, librdkafka
from tests.serve.served import Served
from tests.serve.test_serve import (
    LIMIT_S,
    RECORDS,
    asked,
    control,
    produce,
    wait_for,
)

HEAD = """
name = "steps"
until = "10s"
[cluster]
brokers = 2
initial_rebalance_delay = "0ms"
[topics.t]
partitions = 6
[[group]]
id = "g"
topics = ["t"]
members = 3
"""


def step(do: str, target: str, at: str = "0ms", **rest: str) -> str:
    pairs = {"at": at, "do": do, "target": target, **rest}
    return "[[step]]\n" + "".join(f'{key} = "{text}"\n' for key, text in pairs.items())


def scenario(tmp_path: Path, *steps: str) -> tuple[str, str]:
    path = tmp_path / "steps.scenario.toml"
    path.write_text(HEAD + "".join(steps))
    return "--scenario", str(path)


def has_done(served: Served, do: str, target: str) -> None:
    wait_for(lambda: f"step: {do} {target}" in served.log_path.read_text())


def api_versions(client_id: str) -> bytes:
    head = struct.pack(">hhih", 18, 0, 7, len(client_id)) + client_id.encode()
    return struct.pack(">i", len(head)) + head


@pytest.mark.parametrize(
    ("do", "target", "valid"),
    [
        ("stop", "g-1", "crash, start, restart, pause, partition, hold, heal"),
        ("partition", "broker-1", "crash, stop, start, restart, pause"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_at_start(
    tmp_path: Path, do: str, target: str, valid: str
) -> None:
    arguments = scenario(tmp_path, step("heal", "g-1"), step(do, target))
    command = [sys.executable, "-m", "ksim.cli.main", "serve", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert f"step[1].do = '{do}' of {target}" in line
    assert line.endswith(f"valid: {valid}")


def test_links_of_one_client_are_held_cut_and_healed(tmp_path: Path) -> None:
    arguments = scenario(
        tmp_path,
        step("hold", "g-1", peer="broker-1", **{"for": "400ms"}),
        step("partition", "g-2", peer="broker-1", **{"for": "400ms"}),
        step("pause", "g-3"),
    )
    with Served(tmp_path / "log", *arguments) as served, contextlib.ExitStack() as stack:
        first, second = served.addresses
        has_done(served, "pause", "g-3")
        paused = stack.enter_context(socket.create_connection(first, timeout=LIMIT_S))
        paused.sendall(api_versions("g-3"))
        assert asked(second, api_versions("g-2"))
        assert asked(first, api_versions("other"))
        # Whether it comes during the step or after it: what was held is answered.
        assert asked(first, api_versions("g-1"))
        wait_for(lambda: asked(first, api_versions("g-2")) != b"")
        assert not select.select([paused], [], [], 0)[0]


def test_a_broker_that_crashes_comes_back_on_its_port(tmp_path: Path) -> None:
    arguments = scenario(
        tmp_path,
        step("crash", "broker-1", at="1500ms", **{"for": "500ms"}),
        step("pause", "broker-2", at="3s", **{"for": "500ms"}),
        step("move_coordinator", "g", at="4s"),
        '[[step]]\nat = "5s"\ndo = "add_partitions"\ntarget = "t"\ncount = 2\n',
    )
    with Served(tmp_path / "log", *arguments, "--control-port", "0") as served:
        members = [Member(loop, served.bootstrap) for loop in (librdkafka, aiokafka)]

        def seen() -> set[int]:
            return {number for member in members for number in member.seen}

        try:
            produce(served.bootstrap, 0, RECORDS)
            wait_for(lambda: len(seen()) == RECORDS)
            has_done(served, "crash", "broker-1")
            produce(served.bootstrap, RECORDS, RECORDS)
            wait_for(lambda: len(seen()) == 2 * RECORDS)
            has_done(served, "add_partitions", "t")
            produce(served.bootstrap, 2 * RECORDS, RECORDS, 8)
            assert all(asked(address, api_versions("x")) for address in served.addresses)
            found = control(served, "GET", "/checks")
            assert found["violations"] == []
        finally:
            for member in members:
                member.stop()


def test_a_client_that_crashed_is_evicted_and_comes_back(tmp_path: Path) -> None:
    ends = {"for": "9s"}
    arguments = scenario(tmp_path, step("crash", "g-1", at="3s", **ends))
    with Served(tmp_path / "log", *arguments, "--control-port", "0") as served:

        def owners() -> set[str]:
            return {share["client_id"] for share in control(served, "GET", "/ownership")}

        members = [
            Member(loop, served.bootstrap, client_id)
            for loop, client_id in ((librdkafka, "g-1"), (aiokafka, "g-2"))
        ]
        try:
            has_done(served, "crash", "g-1")
            wait_for(lambda: owners() == {"g-2"})
            wait_for(lambda: owners() == {"g-1", "g-2"})
        finally:
            for member in members:
                member.stop()
