"""`ksim consume` processes whose lines are stamped as they come."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.real.processes import consume_command

SETTINGS: Final = (
    "session.timeout.ms=6000",
    "heartbeat.interval.ms=1000",
    "commit.interval.ms=1000",
    "metadata.max.age.ms=10000",
)


ASSIGNED: Final = b'{"event":"assigned","partitions":[['


@dataclass(slots=True)
class Life:
    """What became of one process; times in unix seconds. `stops` are (SIGSTOP, SIGCONT)."""

    name: str
    started_s: float = 0.0
    killed_s: float | None = None
    asked_s: float | None = None
    ended_s: float | None = None
    exit_code: int | None = None
    stops: list[tuple[float, float]] = field(default_factory=list)
    lines: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)


class Process:
    """One member. Its lines are read by a thread, stamped, and given to `life` after its end."""

    def __init__(
        self,
        folder: Path,
        name: str,
        bootstrap: str,
        group: str,
        topic: str,
        plant: str | None = None,
    ) -> None:
        self.life = Life(name, started_s=time.time())
        self.recording = folder / f"{name}.ksim"
        command = consume_command(self.recording, bootstrap, group, topic, plant)
        for setting in (*SETTINGS, f"client.id={name}"):
            command += ["-X", setting]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._raw: list[tuple[float, bytes]] = []
        self._stopped_s: float | None = None
        self._closed_s = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._raw.append((time.time(), line))
        self._closed_s = time.time()

    @property
    def count(self) -> int:
        """How many lines came so far."""
        return len(self._raw)

    @property
    def assigned(self) -> bool:
        """Whether it was given something."""
        return any(ASSIGNED in line for _, line in self._raw)

    @property
    def running(self) -> bool:
        """Not ended, not stopped, and not asked to end."""
        life = self.life
        return (
            life.killed_s is None
            and life.asked_s is None
            and self._stopped_s is None
            and self._process.poll() is None
        )

    def places(self, first: int, end: int) -> list[tuple[int, int]]:
        """(partition, offset) of the messages among these lines."""
        lines = (line for _, line in self._raw[first:end] if line.startswith(b'{"topic"'))
        found = (json.loads(line) for line in lines)
        return [(each["partition"], each["offset"]) for each in found]

    def kill(self) -> None:
        self.life.killed_s = time.time()
        self._process.kill()

    def terminate(self) -> None:
        self.life.asked_s = time.time()
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self._stopped_s = time.time()
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._stopped_s is not None:
            self.life.stops.append((self._stopped_s, time.time()))
            self._stopped_s = None
            self._process.send_signal(signal.SIGCONT)

    def finish(self, limit_s: float) -> None:
        """Wait for the end; one that hangs is killed and has no exit code."""
        life = self.life
        hangs = False
        try:
            life.exit_code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            hangs = True
            self._process.kill()
            self._process.wait()
        self._reader.join()
        life.ended_s = None if hangs else self._closed_s
        for at_s, line in self._raw:
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if isinstance(found, dict) and ("event" in found or "offset" in found):
                life.lines.append((at_s, found))
            elif line.strip():
                life.noise.append(line.decode("utf-8", "replace").rstrip())
        self._raw.clear()

    def end(self) -> None:
        """Whatever happened: it is gone afterwards."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()
