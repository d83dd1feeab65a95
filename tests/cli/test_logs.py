"""Log lines: what they say, that they are whole, in order, and never in anybody's way."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ksim.cli.output import LOG_LINES, MOST_BYTES, LogHandler, Output
from ksim.consumer.observed import Kind
from ksim.real.logs import FORMATS
from tests.cli.commands import ksim
from tests.cli.consuming import Consuming, fill, served
from tests.real.processes import until
from tests.serve.test_serve import control

RECORDS = 20
SECRET = "payload-that-nobody-may-log"


def logs(process: Consuming) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in process.stderr.splitlines()]
    return [line for line in found if "level" in line]


def test_each_change_of_state_is_one_json_line_with_its_reason(tmp_path: Path) -> None:
    soon = ("-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=200")
    arguments = ("--log-format", "json", "-X", "client.id=one", *soon)
    with (
        served(tmp_path, "t:2") as cluster,
        Consuming(tmp_path, cluster.bootstrap, *arguments) as one,
    ):
        one.has_told("assigned")
        with Consuming(tmp_path, cluster.bootstrap, *soon) as two:
            two.has_told("assigned")
            until(lambda: one.kinds() == ["assigned", "revoked", "assigned"], "a rebalance")
            fault = {"on": {"request": "Heartbeat", "member": "one"}, "do": "error",
                     "error": "UNKNOWN_MEMBER_ID"}  # fmt: skip
            control(cluster, "POST", "/faults", fault)
            until(lambda: "lost" in one.kinds() and one.kinds()[-1] == "assigned", "a loss")
            two.signal(signal.SIGTERM)
            two.ends_with(0)
        one.signal(signal.SIGTERM)
        one.ends_with(0)
    lines = logs(one)
    assert not [line for line in lines if "event" in line or "offset" in line]
    assert {line["group"] for line in lines} == {"g"}
    assert {line["logger"] for line in lines} == {"ksim.consumer"}
    assigned = [line for line in lines if line["message"] == Kind.ASSIGNED]
    reasons = [line["reason"] for line in assigned]
    assert reasons[:2] == ["start", "rebalance_in_progress"]
    assert "unknown_member_id" in reasons
    assert all(line["duration_ms"] >= 0 and line["member"] for line in assigned)
    assert [line["generation"] for line in assigned] == sorted({x["generation"] for x in assigned})
    (lost,) = [line for line in lines if line["message"] == Kind.LOST]
    assert lost["level"] == "WARNING"
    assert lost["reason"] == "heartbeat refused: UNKNOWN_MEMBER_ID"
    progress = [line for line in lines if line["message"] == Kind.IN_PROGRESS]
    assert {line["level"] for line in progress} == {"INFO"}
    assert [line["message"] for line in lines[-2:]] == [Kind.LEAVING, Kind.CLOSED]


def test_logs_and_events_are_in_the_order_of_what_happened(tmp_path: Path) -> None:
    with served(tmp_path) as cluster, Consuming(tmp_path, cluster.bootstrap) as process:
        fill(cluster.bootstrap, RECORDS)
        process.has_handled(RECORDS)
        process.signal(signal.SIGTERM)
        process.ends_with(0)
    found = [
        json.loads(line)["event"] if line.startswith("{") else line.split(" ksim.consumer ")[1]
        for line in process.stderr.splitlines()
    ]
    words = [re.split(r" group=| t=", each)[0] for each in found]
    assert words == [
        Kind.COORDINATOR, Kind.JOINING, Kind.JOINING, Kind.JOINED, Kind.ASSIGNED, "assigned",
        Kind.REVOKING, "revoked", Kind.LEAVING, Kind.CLOSED,
    ]  # fmt: skip
    text = process.stderr.splitlines()[0]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO ksim\.consumer found", text)


def test_brokers_lost_and_found_and_refused_commits_are_said(tmp_path: Path) -> None:
    arguments = ("--log-format", "json", "-X", "commit.interval.ms=100")
    with served(tmp_path) as cluster, Consuming(tmp_path, cluster.bootstrap, *arguments) as process:
        process.has_told("assigned")
        fault = {
            "on": {"request": "OffsetCommit"},
            "do": "error",
            "error": "INVALID_COMMIT_OFFSET_SIZE",
        }
        control(cluster, "POST", "/faults", fault)
        control(cluster, "POST", "/faults", {"on": {"request": "Fetch"}, "do": "crash"})
        fill(cluster.bootstrap, RECORDS)

        def said(kind: Kind) -> list[dict[str, Any]]:
            return [line for line in logs(process) if line["message"] == kind]

        until(lambda: said(Kind.COMMIT_REFUSED) and said(Kind.BROKER_FOUND), "the lines")
        assert said(Kind.COMMIT_REFUSED)[0]["reason"] == "INVALID_COMMIT_OFFSET_SIZE"
        assert "closed the connection" in said(Kind.BROKER_LOST)[0]["reason"]


def test_the_line_of_the_end_is_an_object_too() -> None:
    limits = ("--log-format", "json", "-X", "bootstrap_timeout_ms=300")
    found = ksim("consume", "-b", "127.0.0.1:1", "-g", "g", "-t", "t", *limits)
    assert found.returncode == 69
    last = json.loads(found.stderr.splitlines()[-1])
    assert (last["level"], last["logger"]) == ("ERROR", "ksim")
    assert last["message"].startswith("no Kafka broker at 127.0.0.1:1 within ")


def test_an_error_of_configuration_is_an_object_too() -> None:
    found = ksim("consume", "-g", "g", "-t", "t", "-X", "grup.id=g", "--log-format", "json")
    assert found.returncode == 2
    (line,) = found.stderr.splitlines()
    assert json.loads(line)["message"].startswith("-X: grup.id = 'g': unknown configuration key")


def test_an_error_of_ours_is_an_object_with_its_traceback(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tests.cli.crashing")
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, RECORDS)
        arguments = ("--log-format", "json")
        with Consuming(tmp_path, cluster.bootstrap, *arguments, command=command) as process:
            process.ends_with(70)
    last = [json.loads(line) for line in process.stderr.splitlines()][-1]
    assert last["message"] == "planted: the owner breaks"
    assert last["exception"].startswith("Traceback (most recent call last)")


@pytest.mark.parametrize("level", ["debug", "error"])
def test_levels_and_nothing_of_what_is_consumed(tmp_path: Path, level: str) -> None:
    with (
        served(tmp_path) as cluster,
        Consuming(tmp_path, cluster.bootstrap, "--log-level", level) as process,
    ):
        fill(cluster.bootstrap, 1)
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": cluster.bootstrap})
        producer.produce("t", SECRET, key=SECRET, headers={SECRET: SECRET}, partition=0)
        producer.flush(60)
        process.has_handled(2)
        process.signal(signal.SIGTERM)
        process.ends_with(0)
        assert SECRET in process.out_path.read_text()
        assert SECRET not in process.stderr
        assert ("INFO" in process.stderr) == (level == "debug")


class Pipe:
    """An output whose stderr is a pipe."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.output = Output(os.open(os.devnull, os.O_WRONLY), self.writer)

    def fill(self) -> None:
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"\n" * 4_096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)

    def lines(self) -> list[bytes]:
        """All that was written and is not only a filling."""
        os.set_blocking(self.reader, False)
        found = b""
        try:
            while True:
                found += os.read(self.reader, 65_536)
        except BlockingIOError:
            return [line for line in found.splitlines() if line]


def test_a_log_line_waits_for_nobody_and_what_is_dropped_is_counted() -> None:
    pipe = Pipe()
    pipe.fill()
    for number in range(LOG_LINES + 5):
        pipe.output.log(b"line %d\n" % number)
    assert pipe.lines() == []
    pipe.output.log(b"last\n")
    lines = pipe.lines()
    assert lines[0] == b"ksim: 6 log lines were dropped: nobody read them"
    assert lines[1:] == [b"line %d" % n for n in range(6, LOG_LINES + 5)] + [b"last"]


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_line_that_is_too_long_for_a_pipe_is_whole_and_says_what_it_can(layout: str) -> None:
    pipe = Pipe()
    handler = LogHandler(pipe.output)
    handler.setFormatter(FORMATS[layout]())
    try:
        raise ValueError("\N{SNOWMAN}" * 3_000 + "the reason")
    except ValueError:
        said = logging.LogRecord("n", 40, "", 1, "began %s", ("x" * 9_000,), sys.exc_info())
    handler.emit(said)
    handler.emit(logging.LogRecord("n", 20, "", 1, "next", (), None))
    *first, last = pipe.lines()
    whole = b"\n".join(first).decode()
    assert len(whole.encode()) < MOST_BYTES
    assert "next" in last.decode()
    if layout == "json":
        content = json.loads(whole)
        assert content["message"].startswith("began xxx")
        whole = content["exception"]
    assert whole.endswith("the reason")


def test_what_was_dropped_is_said_in_the_layout_of_the_others() -> None:
    pipe = Pipe()
    handler = LogHandler(pipe.output)
    handler.setFormatter(FORMATS["json"]())
    pipe.output.line_of = handler.line_of
    pipe.fill()
    for number in range(LOG_LINES + 1):
        handler.emit(logging.LogRecord("n", 20, "", 1, "line %d", (number,), None))
    assert pipe.lines() == []
    handler.emit(logging.LogRecord("n", 20, "", 1, "last", (), None))
    found = [json.loads(line)["message"] for line in pipe.lines()]
    assert found[:2] == ["2 log lines were dropped: nobody read them", "line 2"]
    assert found[2:] == [f"line {number}" for number in range(3, len(found) + 1)]


def test_lines_of_many_threads_are_whole() -> None:
    pipe = Pipe()
    handler = LogHandler(pipe.output)
    handler.setFormatter(logging.Formatter("%(message)s"))
    found: list[bytes] = []
    ended = threading.Event()

    def write(name: str) -> None:
        for number in range(200):
            record = logging.LogRecord("n", 20, "", 1, f"{name}-{number}", None, None)
            handler.emit(record)
            pipe.output.event({"event": f"{name}-{number}"})

    def read() -> None:
        while not ended.is_set():
            found.extend(pipe.lines())

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    found.extend(pipe.lines())
    assert len(found) == 1_200
    plain = [line for line in found if not line.startswith(b"{")]
    assert all(re.fullmatch(rb"[abc]-\d+", line) for line in plain)
    for name in b"abc":
        own = [line for line in plain if line[0] == name]
        assert own == [b"%c-%d" % (name, number) for number in range(200)]
