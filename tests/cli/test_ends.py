"""How `ksim consume` ends: signals, a stdout that nobody reads or that is full, brokers gone."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.consuming import COMMAND, LIMIT_S, Consuming, fill, rest_of, served
from tests.real.processes import until
from tests.serve.served import Served

RECORDS = 50
MANY = 3_000
WIDE = 1_000  # bytes of a record, where a pipe of 64 KiB is to be full
JSON_LOGS = "--log-format=json"
SIGTERM, SIGINT, SIGHUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


def groups(cluster: Served) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.info['control']}/groups") as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def objects(process: Consuming) -> list[dict[str, Any]]:
    """All that it said; each line has to be one."""
    return [json.loads(line) for line in process.stderr.splitlines()]


def states(cluster: Served) -> list[str]:
    return [group["state"] for group in groups(cluster)]


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP])
def test_the_first_signal_drains_commits_and_leaves(
    tmp_path: Path, cluster: Served, number: signal.Signals
) -> None:
    fill(cluster.bootstrap, MANY)
    interval = ("-X", "commit.interval.ms=60000")
    with Consuming(tmp_path, cluster.bootstrap, *interval) as process:
        process.has_handled(1)
        process.signal(number)
        process.ends_with(0)
        done = process.offsets()
    assert states(cluster) == ["Empty"]
    assert process.kinds() == ["assigned", "revoked"]
    assert done + rest_of(tmp_path, cluster.bootstrap) == list(range(MANY))


def test_who_wants_no_hangup_gets_none(tmp_path: Path, cluster: Served) -> None:
    nohup = ("nohup", *COMMAND)
    with Consuming(tmp_path, cluster.bootstrap, command=nohup) as process:
        process.has_told("assigned")
        process.signal(SIGHUP)
        fill(cluster.bootstrap, RECORDS)
        process.has_handled(RECORDS)
        process.signal(SIGTERM)
        process.ends_with(0)


class Stuck:
    """A process that cannot go on: nobody reads what it writes."""

    def __init__(self, tmp_path: Path, cluster: Served, *arguments: str) -> None:
        fill(cluster.bootstrap, MANY, WIDE)
        self._pipe = os.pipe()
        self.process = Consuming(tmp_path, cluster.bootstrap, *arguments, stdout=self._pipe[1])
        self.process.has_told("assigned")
        until(lambda: not select.select([], [self._pipe[1]], [], 0)[1], "a full pipe")

    def __enter__(self) -> Consuming:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.__exit__()
        for end in self._pipe:
            os.close(end)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_the_second_signal_leaves_at_once(
    tmp_path: Path, cluster: Served, number: signal.Signals
) -> None:
    with Stuck(tmp_path, cluster) as process:
        process.signal(SIGTERM)
        until(lambda: states(cluster) == ["Stable"], "a member")
        process.signal(number)
        process.ends_with(128 + number)
        assert states(cluster) == ["Empty"], "it did not leave"


@pytest.mark.parametrize("option", [(), (JSON_LOGS,)])
def test_a_reader_that_reads_no_more_does_not_hold_it_for_ever(
    tmp_path: Path, cluster: Served, option: tuple[str, ...]
) -> None:
    with Stuck(tmp_path, cluster, "--close-timeout", "500ms", *option) as process:
        process.signal(SIGTERM)
        process.ends_with(128 + SIGTERM)
        assert "not drained within 0.5 s of SIGTERM" in process.stderr
        assert not option or objects(process)
        assert states(cluster) == ["Empty"]


@pytest.mark.parametrize("second", [False, True])
def test_it_ends_although_the_broker_is_gone(tmp_path: Path, second: bool) -> None:
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        arguments = ("--close-timeout", "2s", "-X", "commit.interval.ms=60000")
        process = Consuming(tmp_path, cluster.bootstrap, *arguments)
        with process:
            process.has_handled(RECORDS)
            cluster.process.send_signal(signal.SIGTERM)
            cluster.process.wait(LIMIT_S)
            process.signal(SIGTERM)
            if second:
                process.signal(SIGTERM)
            # Two signals of one number may arrive as one.
            assert process.code() in ((0, 128 + SIGTERM) if second else (0,)), process.stderr
            assert "Traceback" not in process.stderr


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_signal_while_it_looks_for_a_broker(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(LIMIT_S)
        bootstrap = f"127.0.0.1:{mute.getsockname()[1]}"
        with Consuming(tmp_path, bootstrap) as process:
            mute.accept()[0].close()
            process.signal(number)
            process.ends_with(0)
            assert process.stderr == f"ksim: ended by {number.name} before it joined the group\n"


@pytest.mark.parametrize(
    ("number", "option"),
    [(SIGTERM, ()), (SIGINT, ()), (SIGINT, ("--log-format", "json")), (SIGTERM, (JSON_LOGS,))],
)
def test_a_signal_while_it_is_still_loading(
    tmp_path: Path, number: signal.Signals, option: tuple[str, ...]
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    marker = tmp_path / "loading"
    text = f"import pathlib, threading\npathlib.Path({str(marker)!r}).touch()\n"
    (slow / "kafka.py").write_text(text + "threading.Event().wait()\n")
    environment = {"PYTHONPATH": str(slow)}
    with Consuming(tmp_path, "127.0.0.1:1", *option, environment=environment) as process:
        until(marker.exists, "the import")
        process.signal(number)
        process.ends_with(0)
        said = f"ended by {number.name} before it joined the group"
        if option:
            assert objects(process)[-1].items() >= {"level": "WARNING", "message": said}.items()
        else:
            assert process.stderr == f"ksim: {said}\n"


def test_head_takes_what_it_wants(tmp_path: Path, cluster: Served) -> None:
    fill(cluster.bootstrap, MANY, WIDE)
    reader, writer = os.pipe()
    with Consuming(tmp_path, cluster.bootstrap, stdout=writer) as process:
        os.close(writer)
        head = subprocess.run(
            ["head", "-n", "5"], stdin=reader, capture_output=True, text=True, check=True
        )
        os.close(reader)
        process.ends_with(0)
        assert process.kinds() == ["assigned", "revoked"]
    assert [json.loads(line)["offset"] for line in head.stdout.splitlines()] == list(range(5))
    rest = rest_of(tmp_path, cluster.bootstrap)
    assert 5 <= rest[0] < MANY, "what was flushed is committed, and nothing else"
    assert rest == list(range(rest[0], MANY))
    assert states(cluster) == ["Empty"]


def test_an_idle_one_notices_that_its_reader_is_gone(tmp_path: Path, cluster: Served) -> None:
    fill(cluster.bootstrap, RECORDS)
    reader, writer = os.pipe()
    with Consuming(tmp_path, cluster.bootstrap, stdout=writer) as process:
        os.close(writer)
        with os.fdopen(reader) as lines:
            offsets = [json.loads(lines.readline())["offset"] for _ in range(RECORDS)]
        process.ends_with(0)
    assert offsets == list(range(RECORDS))
    assert rest_of(tmp_path, cluster.bootstrap) == []


def test_both_outputs_may_be_closed(tmp_path: Path, cluster: Served) -> None:
    fill(cluster.bootstrap, MANY, WIDE)
    command = f"{' '.join(COMMAND)} consume -b {cluster.bootstrap} -g g -t t --from earliest"
    text = f"({command}; echo $? >{tmp_path}/code) 2>&1 | head -n 5"
    subprocess.run(["bash", "-c", text], check=True, capture_output=True)
    until(lambda: states(cluster) == ["Empty"], "it leaves")
    until((tmp_path / "code").exists, "an exit code")
    until(lambda: (tmp_path / "code").read_text(), "an exit code")
    assert (tmp_path / "code").read_text() == "0\n"


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, cluster: Served) -> None:
    fill(cluster.bootstrap, RECORDS)
    full = os.open("/dev/full", os.O_WRONLY)
    with Consuming(tmp_path, cluster.bootstrap, stdout=full) as process:
        os.close(full)
        process.ends_with(74)
        assert "cannot write to stdout, ends: No space left on device" in process.stderr
    assert rest_of(tmp_path, cluster.bootstrap) == list(range(RECORDS))


def test_a_line_that_is_cut_off_is_not_committed(tmp_path: Path, cluster: Served) -> None:
    fill(cluster.bootstrap, RECORDS)
    limited = ("bash", "-c", 'ulimit -f 2; exec "$@"', "limited", *COMMAND)  # blocks of 1 KiB
    with Consuming(tmp_path, cluster.bootstrap, command=limited) as process:
        process.ends_with(74)
        whole = process.offsets()
        assert 0 < len(whole) < RECORDS
        assert not process.out_path.read_bytes().endswith(b"\n"), "the last line was cut off"
    assert whole + rest_of(tmp_path, cluster.bootstrap) == list(range(RECORDS))


def test_a_closed_stdout_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    closed = ("bash", "-c", 'exec "$@" >&-', "closed", *COMMAND)
    with Consuming(tmp_path, "127.0.0.1:1", command=closed) as process:
        process.ends_with(2)
        assert process.stderr.startswith("ksim: standard output is closed")


def test_idle_counts_from_the_first_assignment_on(tmp_path: Path) -> None:
    """A rebalance that takes longer than that has nothing to do with what there is to read."""
    slow = ("--topic", "t:1", "-X", "group.initial.rebalance.delay.ms=3000")
    with Served(tmp_path / "serve.log", *slow) as cluster:
        fill(cluster.bootstrap, RECORDS)
        with Consuming(tmp_path, cluster.bootstrap, "--idle-exit", "500ms") as process:
            process.ends_with(0)
            assert process.offsets() == list(range(RECORDS))
