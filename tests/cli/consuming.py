"""`ksim consume` as a child process that a test signals, starves and breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.commands import ROOT
from tests.real.processes import until
from tests.serve.served import Served

LIMIT_S = 60.0
NO_DELAY = ("-X", "group.initial.rebalance.delay.ms=0")
COMMAND = (sys.executable, "-m", "ksim.cli.main")


@contextmanager
def served(tmp_path: Path, topic: str = "t:1", **options: str) -> Iterator[Served]:
    """A served cluster with a control port and one topic."""
    given = ("--topic", topic, "--control-port", "0", *NO_DELAY)
    with Served(tmp_path / "serve.log", *given, **options) as found:
        yield found


def fill(bootstrap: str, count: int, size: int = 0) -> None:
    """So many records of at least `size` bytes in partition 0 of `t`."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000})
    for number in range(count):
        producer.produce("t", str(number).rjust(size).encode(), partition=0)
    assert producer.flush(LIMIT_S) == 0


def events_in(stderr: str) -> list[dict[str, Any]]:
    """Its events; what else stands there is a log."""
    found = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in found if "event" in line]


def hear_signals() -> None:
    """Whoever runs the tests may ignore some, by nohup or in the background of a shell."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Consuming:
    """One process; stderr goes to a file, stdout too unless another one is given."""

    def __init__(
        self,
        tmp_path: Path,
        bootstrap: str,
        *arguments: str,
        stdout: int | None = None,
        command: Sequence[str] = COMMAND,
        environment: dict[str, str] | None = None,
    ) -> None:
        number = len(list(tmp_path.glob("consume-*.err")))
        self.out_path = tmp_path / f"consume-{number}.out"
        self.err_path = tmp_path / f"consume-{number}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "consume", "-b", bootstrap, "-g", "g", "-t", "t", "--from", "earliest",
                 *arguments],
                cwd=ROOT,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env={**os.environ, **(environment or {})},
                preexec_fn=hear_signals,
            )  # fmt: skip

    @property
    def stderr(self) -> str:
        return self.err_path.read_text()

    def offsets(self) -> list[int]:
        """Of the whole lines on stdout."""
        whole = self.out_path.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line)["offset"] for line in whole.splitlines()]

    def events(self) -> list[dict[str, Any]]:
        return events_in(self.stderr)

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events()]

    def has_handled(self, count: int) -> None:
        until(lambda: len(self.offsets()) >= count, f"{count} messages; {self.stderr}")

    def has_told(self, kind: str) -> None:
        until(lambda: kind in self.kinds(), f"event {kind}; {self.stderr}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def code(self) -> int:
        """Its exit code; a process that hangs is ended and fails the test."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it hangs: {self.stderr}") from None

    def ends_with(self, code: int) -> None:
        found = self.code()
        assert found == code, f"{found}: {self.stderr}"

    def __enter__(self) -> Consuming:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def rest_of(tmp_path: Path, bootstrap: str) -> list[int]:
    """What the next member of the group reads until nothing comes any more."""
    with Consuming(tmp_path, bootstrap, "--idle-exit", "1s") as following:
        following.ends_with(0)
        return following.offsets()
