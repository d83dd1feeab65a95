"""An application of a test as a process: signals befall it, and a pipe says what it does."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from ksim import observations as o
from ksim.kit.arm import Handled
from ksim.kit.child import Job
from ksim.kit.texts import Duration, ms_of

STOP_S: Final = 40.0
RESUMES, STARTS = "resumes", "starts"
Done = Callable[[], None]


class Host(Protocol):
    """The cluster of the test, as its applications know it."""

    def heard(self, app: RealApp, line: dict[str, Any]) -> None:
        """By an application's reader."""

    def observe(self, source: str, fact: o.Observation) -> None:
        """Something happened at `source` now."""

    def later(self, after_ms: int, action: Done) -> None:
        """Call it so long after now, in the test's thread."""

    def remark(self, what: str) -> None:
        """For the report: something that the test has asked for did not come."""


class RealApp:
    """An application as a process; each start is one more of the same name."""

    def __init__(self, cluster: Host, job: Job) -> None:
        self.name = job.name
        self.handled: list[Handled] = []
        self._cluster = cluster
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.members: dict[str, str] = {}
        self.paused = False
        self.start_due = False
        self._waits = False
        self._turns = {RESUMES: 0, STARTS: 0}
        self.starts = 0
        self._ends = False

    @property
    def ended_itself(self) -> bool:
        """It has run and is over, and nobody had stopped it."""
        return self._process is not None and not self.alive and not self._ends

    @property
    def stopping(self) -> bool:
        """It was told to end, and has not done so yet."""
        return self.alive and self._ends

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def begin(self) -> None:
        """A new process; one that runs already stays as it is."""
        self.start_due = self._waits = False
        if self.alive:
            return
        self.join()
        self.starts += 1
        self._ends = False
        here, there = os.pipe()
        command = [sys.executable, "-m", "ksim.kit.child", str(there)]
        # Its path is this one's, so that it finds the same modules.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[there], env=environment
        )
        os.close(there)
        assert self._process.stdin is not None, f"{self.name} has no input"
        with self._process.stdin as told:
            told.write(json.dumps(list(self._job.path)).encode() + b"\n" + pickle.dumps(self._job))
        self._reader = threading.Thread(target=self._read, args=(here,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # a process that was killed may leave half a line
                    self._cluster.heard(self, json.loads(line))

    def join(self) -> None:
        """After its end: all that it has said is heard."""
        if self._process is not None:
            self._process.wait(STOP_S)
        if self._reader is not None:
            self._reader.join()

    def _tell(self, what: str) -> None:
        for member, group_id in list(self.members.items()):
            self._cluster.observe(member, o.MemberLife(member, group_id, what, ""))

    def _struck(self, what: str, for_: Duration | None, plan: str, undo: Done) -> bool:
        """Whether there is anybody whom it strikes; another one of its kind takes its end away."""
        for_ms = 0 if for_ is None else ms_of(for_, f"{what} of {self.name} for")
        if not self.alive:
            self._cluster.remark(f"{what} of {self.name} did nothing: it was not running")
            return False
        self._cluster.observe("faults", o.FaultStruck(what, self.name, for_ms))
        turn = self._turns[plan] = self._turns[plan] + 1
        if plan == STARTS:
            self._waits = for_ is not None
        if for_ is not None:
            self._cluster.later(for_ms, partial(self._undo, plan, turn, undo))
        return True

    def _undo(self, plan: str, turn: int, undo: Done) -> None:
        if turn == self._turns[plan]:
            undo()

    def forget_plans(self) -> None:
        """At the end of all faults: nothing is resumed or started any more but by healing."""
        if self._waits or self.start_due:
            self._cluster.remark(f"the new start of {self.name} did not come: the run had ended")
        self._turns = {plan: turn + 1 for plan, turn in self._turns.items()}
        self._waits = self.start_due = False

    def _begin_again(self) -> None:
        """Behind the end of one that was told to end."""
        if self.stopping:
            self.start_due = True
        else:
            self.begin()

    def pause(self, for_: Duration | None = None) -> None:
        if self._struck("pause", for_, RESUMES, self.resume) and not self.paused:
            self.paused = True
            self._tell("paused")
            self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._turns[RESUMES] += 1
        if self.paused and self.alive:
            self._tell("resumed")
            self._send(signal.SIGCONT)
        self.paused = False

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} was not started"
        self._process.send_signal(number)

    def crash(self, for_: Duration | None = None) -> None:
        if self._struck("crash", for_, STARTS, self.begin):
            self.kill()

    def kill(self) -> None:
        """Its end is told when it is really over: until then it may do something."""
        self._ends = True
        self._turns[RESUMES] += 1
        if self.alive:
            self._send(signal.SIGKILL)
            self.join()
            self._tell("crashed")
        self.paused = False
        self.members.clear()

    def notice_end(self) -> None:
        """A process that has ended by itself; one that has left its groups is not missed."""
        if self._process is not None and not self.alive and self.members:
            self.join()
            self._tell("crashed")
            self.members.clear()

    def restart(self) -> None:
        if self.alive:
            self.crash()
        self.begin()

    def stop(self, for_: Duration | None = None) -> None:
        if self._struck("stop", for_, STARTS, self._begin_again):
            self._ends = True
            self._send(signal.SIGTERM)
