"""`ksim consume --metrics-port`: probes and metrics of a real process, whatever happens to it."""

from __future__ import annotations

import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.consuming import Consuming, fill, served
from tests.real.processes import until

RECORDS = 40
PORT = ("--metrics-port", "0")
LIMIT_S = 30.0


def address_of(process: Consuming) -> str:
    """By the line that says it, which is a log."""

    def lines() -> list[str]:
        return [line for line in process.stderr.splitlines() if '"metrics"' in line]

    until(lambda: bool(lines()), "the address")
    found = json.loads(lines()[0])
    assert found["level"] == "INFO"
    assert "event" not in found
    return str(found["metrics"])


def status(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=LIMIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def metrics(address: str) -> dict[str, float]:
    """Name (with reason, result or kind) to value, of partition 0 and of the member."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=LIMIT_S) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            word = "".join(sample.labels.get(k, "") for k in ("reason", "result", "kind"))
            name = sample.name.removeprefix("ksim_consumer_")
            found[f"{name} {word}".strip()] = sample.value
    return found


def test_a_member_from_start_to_end(tmp_path: Path) -> None:
    interval = ("-X", "commit.interval.ms=200")
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        with Consuming(tmp_path, cluster.bootstrap, *PORT, *interval) as process:
            address = address_of(process)
            until(lambda: status(address, "/readyz") == 200, "ready")
            process.has_handled(RECORDS)
            until(lambda: metrics(address).get("committed_offset") == RECORDS, "a commit")
            found = metrics(address)
            assert found["marked_offset"] == found["highwater_offset"] == RECORDS
            assert found["lag_records"] == found["buffered_records"] == 0
            assert (found["assigned_partitions"], found["state"], found["generation"]) == (1, 3, 1)
            assert found["records_total"] == RECORDS
            assert found["bytes_total"] > RECORDS * 8
            assert found["rebalances_total start"] == 1
            assert found["rebalance_duration_seconds_count"] == 1
            assert found["commits_total ok"] == found["commit_duration_seconds_count"]
            assert 0 <= found["heartbeat_age_seconds"] < LIMIT_S
            with socket.create_connection(address.split(":")) as silent:
                process.signal(signal.SIGTERM)
                process.ends_with(0)
                assert silent.recv(1) == b"", "nobody who is silent holds up the end"


def test_a_broker_outage_is_no_reason_to_start_anew(tmp_path: Path) -> None:
    timeouts = ("-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500")
    with served(tmp_path) as cluster:
        process = Consuming(tmp_path, cluster.bootstrap, *PORT, *timeouts, "--close-timeout", "1s")
        with process:
            address = address_of(process)
            until(lambda: status(address, "/readyz") == 200, "ready")
            cluster.process.send_signal(signal.SIGTERM)
            cluster.process.wait(LIMIT_S)
            until(lambda: status(address, "/readyz") == 503, "no session, not ready")
            assert status(address, "/livez") == 200
            found = metrics(address)
            assert found["errors_total request_failed"] > 0
            assert found["rebalances_total session_timeout"] == 1
            assert found["assigned_partitions"] == 0
            process.signal(signal.SIGTERM)
            process.ends_with(0)


def test_it_is_live_but_not_ready_while_it_looks_for_a_broker(tmp_path: Path) -> None:
    with Consuming(tmp_path, "127.0.0.1:1", *PORT) as process:
        address = address_of(process)
        assert (status(address, "/livez"), status(address, "/readyz")) == (200, 503)
        process.signal(signal.SIGTERM)
        process.ends_with(0)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Consuming(tmp_path, "127.0.0.1:1", "--metrics-port", port) as process:
            process.ends_with(2)
            assert f"--metrics-port {port}: cannot listen on 127.0.0.1" in process.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
def test_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    with Consuming(tmp_path, "127.0.0.1:1", "--metrics-port", port) as process:
        process.ends_with(2)
        assert "Traceback" not in process.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "prometheus_client.py").write_text("raise ImportError('it is not there')\n")
    environment = {"PYTHONPATH": str(hiding)}
    command = (sys.executable, "-m", "ksim.cli.main")
    with Consuming(
        tmp_path, "127.0.0.1:1", *PORT, command=command, environment=environment
    ) as process:
        process.ends_with(2)
        assert "kafka-ksim[prometheus]" in process.stderr
        assert "Traceback" not in process.stderr
