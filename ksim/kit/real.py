"""The cluster of a test, on a real broker: applications are processes, and faults are done to them.

What the simulated cluster sees of brokers is not seen here; what members report is judged by the
same checks, and a commit counts as stored when its member has the answer.
"""

from __future__ import annotations

import base64
import heapq
import inspect
import pickle
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn

from ksim import observations as o
from ksim.consumer.config import Config
from ksim.consumer.message import Message
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import MisuseError
from ksim.core.trace import value_of
from ksim.kit.arm import Application, Arm, Record
from ksim.kit.child import Job
from ksim.kit.errors import (
    ApplicationError,
    CheckFailedError,
    OnlySimulatedError,
    reads_nothing,
)
from ksim.kit.judge import Lived, process_of
from ksim.kit.real_app import STOP_S, Done, RealApp
from ksim.kit.report import Report, Step, warn_of
from ksim.kit.texts import Duration, ms_of
from ksim.real.tools import Producing, make_topic, remove_group, remove_topics
from ksim.scenario import ProduceSpec

NS_PER_MS: Final = 1_000_000
LOOK_MS: Final = 50
REST_S: Final = 45.0
QUIET_S: Final = 3.0
# Members of a loaded machine commit late.
SLACK_MS: Final = 3_000
JUDGED: Final = ("S1", "S2", "S5", "S8", "S9", "S10", "S13", "L2", "X1", "X2")


def refuse(reason: str) -> NoReturn:
    """What is done about what a real cluster cannot do; pytest skips the test."""
    raise OnlySimulatedError(reason)


class RealCluster(Arm[RealApp]):
    """What the fixture `ksim_cluster` is with `--ksim-real`."""

    real = True
    seed = 0

    def __init__(
        self,
        bootstrap: str,
        settings: Mapping[str, Any] | None = None,
        *,
        skip: Callable[[str], NoReturn] = refuse,
    ) -> None:
        super().__init__(settings, SLACK_MS)
        self._bootstrap = bootstrap
        self._skip = skip
        self._producing: list[Producing] = []
        self._heard: list[tuple[int, int, Step]] = []
        self._sent: dict[tuple[str, int], m.OffsetCommitRequest] = {}
        self._numbers = count()
        self._lock = threading.Lock()
        # When, which of them, what, and as which `at` has it.
        self._due: list[tuple[int, int, Done, str]] = []
        self._began_ns = time.monotonic_ns()
        self._running = False
        self._failure: ApplicationError | None = None
        self._over = False

    def __enter__(self) -> RealCluster:
        return self

    # What a test sets up

    @property
    def now_ms(self) -> int:
        """Since the first `run`."""
        return (time.monotonic_ns() - self._began_ns) // NS_PER_MS if self._running else 0

    def make_topic(self, name: str, partitions: int) -> None:
        make_topic(self._bootstrap, name, partitions)

    def load(self, spec: ProduceSpec, record: Record) -> None:
        """From the first `run` on."""
        producing = Producing(
            self._bootstrap,
            spec.topic,
            self.case.topics[spec.topic],
            spec.count,
            spec.per_second,
            record,
            lambda *end: self.observe("producer", o.Produced(*end)),
        )
        self._producing.append(producing)
        self.later(0, producing.start)

    def begin(
        self, app: Application, name: str, args: tuple[Any, ...], named: dict[str, Any], sink: bool
    ) -> RealApp:
        """In a process of its own; the application must stand at the top of a module."""
        found = RealApp(self, self._job(app, name, args, named, sink))
        self.later(0, found.begin)
        return found

    def _job(
        self, app: Application, name: str, args: Any, named: dict[str, Any], sink: bool
    ) -> Job:
        place: Any = app
        function = getattr(place, "__qualname__", repr(app))
        if "<" in function or "." in function:
            raise MisuseError(
                f"start({function}): a real process needs a function at the top of a module"
            )
        try:
            arguments = pickle.dumps((args, named))
        except Exception as error:
            raise MisuseError(f"start({function}): an argument cannot be sent: {error}") from error
        path = (str(Path.cwd()), *filter(None, sys.path))
        file = inspect.getfile(place)
        return Job(name, self._bootstrap, place.__module__, file, function, path, arguments, sink)

    def at(self, when: Duration, action: Callable[..., object], /, *args: Any) -> None:
        """Call it at this time since the first `run`."""
        self._plan(ms_of(when, "at"), lambda: _drop(action(*args)), f"at({when!r})")

    def later(self, after_ms: int, action: Done) -> None:
        """Call it so long after now, in the test's thread."""
        self._plan(self.now_ms + after_ms, action)

    def _plan(self, at_ms: int, action: Done, said: str = "") -> None:
        heapq.heappush(self._due, (at_ms, next(self._numbers), action, said))

    def handled(self, message: Message) -> None:
        """Applications are other processes here: they tell by their sink."""
        self._skip(f"handled({message!r}): with --ksim-real an application tells by its `sink`")

    def fault(self, **table: Any) -> None:
        self._skip(f"fault({table}): only the simulator loses messages")

    def move_coordinator(self, group: str) -> None:
        self._skip(f"move_coordinator({group!r}): only in the simulator")

    def add_partitions(self, topic: str, count: int = 1) -> None:
        self._skip(f"add_partitions({topic!r}, {count}): only in the simulator")

    def crash_broker(self, number: int, for_: Duration | None = None) -> None:
        self._skip(f"crash_broker({number}, {for_!r}): the broker is shared by all tests")

    # What is heard

    def observe(self, source: str, fact: o.Observation) -> None:
        """Something happened at `source` now."""
        self._keep(time.monotonic_ns(), source, fact, ())

    def _keep(self, at_ns: int, source: str, fact: Any, orders: tuple[Any, ...]) -> None:
        at_ms = max(0, (at_ns - self._began_ns) // NS_PER_MS)
        with self._lock:
            number = next(self._numbers)
            self._heard.append((at_ns, number, (source, at_ms, fact, orders)))

    def heard(self, app: RealApp, line: dict[str, Any]) -> None:
        """By an application's reader."""
        at_ns = line["ns"]
        match line["kind"]:
            case "opened":
                self._opened(app, line["member"], pickle.loads(base64.b64decode(line["config"])))
            case "observed":
                made = getattr(o, line["fact"])(*map(value_of, line["fields"]))
                if isinstance(made, o.Handled):
                    app.handled.append((made.topic, made.partition, made.offset))
                self._keep(at_ns, line["source"], made, ())
            case "stepped":
                orders = tuple(map(value_of, line["orders"]))
                self._stepped(at_ns, line["source"], value_of(line["fact"]), orders)
            case _:
                said = f"{app.name} raised {line['error']}\n{line['stack']}"
                self._failure = self._failure or ApplicationError(said)

    def _opened(self, app: RealApp, member: str, config: Config) -> None:
        self.case.lives.append(Lived(member, config, app.starts))
        app.members[member] = config.group_id

    def _stepped(self, at_ns: int, source: str, fact: Any, orders: tuple[Any, ...]) -> None:
        self._keep(at_ns, source, fact, orders)
        for order in orders:
            if isinstance(order, e.SendRequest):
                if isinstance(order.request, m.OffsetCommitRequest):
                    self._sent[source, order.request_id] = order.request
            elif isinstance(order, e.Closed):
                for app in self.apps.values():
                    app.members.pop(source, None)
        if isinstance(fact, e.ResponseReceived):
            request = self._sent.pop((source, fact.request_id), None)
            if request is not None and isinstance(fact.response, m.OffsetCommitResponse):
                self._stored(at_ns, source, request, fact.response)

    def _stored(
        self,
        at_ns: int,
        member: str,
        request: m.OffsetCommitRequest,
        answer: m.OffsetCommitResponse,
    ) -> None:
        """What the member was told, as a coordinator would have done it."""
        taken = {(each.topic, each.partition) for each in answer.partitions if not each.error_code}
        entries = tuple(
            e.OffsetRecord(request.group_id, each.topic, each.partition, each.offset, -1, "")
            for each in request.offsets
            if (each.topic, each.partition) in taken
        )
        if entries:
            number = next(self._numbers)
            arrived = e.RequestArrived(number, request, member, "")
            self._keep(at_ns, "coordinator", arrived, (e.AppendRecords(number, entries),))
            self._keep(at_ns, "coordinator", e.RecordsAppended(number, 0), ())

    # The run

    def _look(self) -> None:
        """Do what is due; raise what went wrong."""
        while self._due and self._due[0][0] <= self.now_ms:
            heapq.heappop(self._due)[2]()
        for app in self.apps.values():
            app.notice_end()
            if app.start_due and not app.alive:
                app.begin()
        for each in self._producing:
            if each.failure is not None:
                raise ApplicationError(f"producing failed: {each.failure!r}") from each.failure
        if self._failure is not None:
            self.judged = True
            raise self._failure

    def _begin(self) -> None:
        if self._over:
            raise MisuseError("the test is over after check(): run() goes before it")
        if not self._running:
            self._began_ns, self._running = time.monotonic_ns(), True

    def run(self, for_: Duration) -> None:
        """Let so much real time go by. Raises ApplicationError."""
        self._begin()
        until_ms = self.now_ms + ms_of(for_, "run")
        never = threading.Event()
        while self.now_ms < until_ms:
            self._look()
            never.wait(min(LOOK_MS, max(1, until_ms - self.now_ms)) / 1_000)

    def so_far(self) -> Report:
        """The report of `check`; before it, of all that was seen."""
        if self.report is None:
            self._sort()
        return self.report or self.case.report(self.now_ms, (), JUDGED)

    def check(self, *, exactly_once: bool = False, ignore: Sequence[str] = ()) -> Report:
        """End all faults, let the group handle what is left, and judge. Raises CheckFailedError."""
        self._begin()
        self.judged = True
        if not self.apps:
            raise MisuseError("check(): no application was started")
        self.case.exactly_once = exactly_once
        self._look()
        self._sort()
        self.case.check_asked(ignore)
        self._forget_pending()
        self._heal()
        self._come_to_rest()
        self._over = True
        self._sort()
        self._check_polls()
        self._end_processes()
        self._sort()
        self.case.check_given()
        report = self.report = self.case.report(self.now_ms, ignore, JUDGED)
        if report.verdict != "pass":
            raise CheckFailedError(report)
        warn_of(report)
        return report

    def _forget_pending(self) -> None:
        """All faults have ended: what was to come later does not."""
        for _, _, _, said in sorted(self._due, key=lambda due: due[:2]):
            if said:
                self.remark(f"{said} did not come: the run had ended")
        self._due = [due for due in self._due if not due[3]]
        heapq.heapify(self._due)
        for app in self.apps.values():
            app.forget_plans()

    def _heal(self) -> None:
        for app in self.apps.values():
            app.resume()
        limit_s = time.monotonic() + STOP_S
        while time.monotonic() < limit_s and any(app.stopping for app in self.apps.values()):
            self.run(LOOK_MS)
        for name, app in self.apps.items():
            if app.stopping:
                self.remark(f"{name} has not ended {STOP_S:.0f} s after it was told to")
        self.keep_alive()
        live = tuple(name for name, app in self.apps.items() if app.alive)
        self.observe("faults", o.Healed(live))
        self.case.until_ms = self.now_ms

    def _come_to_rest(self) -> None:
        while any(each.is_alive() for each in self._producing):
            self.run(LOOK_MS)
        limit_s = time.monotonic() + REST_S
        while time.monotonic() < limit_s:
            self.run(round(QUIET_S * 1_000))
            self._sort()
            if not self.case.telling or not self.case.bench().seen.unseen(self.now_ms):
                return

    def _check_polls(self) -> None:
        """Raises ApplicationError for an application that reads nothing."""
        polled = self.case.polled()
        for name, app in self.apps.items():
            made = {each.member for each in self.case.lives if process_of(each.member) == name}
            if (app.alive or app.ended_itself) and not polled & made:
                standing = "its process has ended" if app.ended_itself else "its process runs"
                raise reads_nothing(name, bool(made), standing)

    def _sort(self) -> None:
        """Lines of several processes, in the order of their times."""
        with self._lock:
            self._heard.sort(key=lambda heard: heard[:2])
            self.case.steps[:] = [step for _, _, step in self._heard]

    def _end_processes(self) -> None:
        for app in self.apps.values():
            app.resume()
            app.kill()

    def end(self) -> None:
        """Nothing of this test is left."""
        self._over = True
        self._end_processes()
        for producing in self._producing:
            if producing.is_alive():
                producing.end()
        for group in self.case.groups:
            remove_group(self._bootstrap, group)
        if self.case.topics:
            remove_topics(self._bootstrap, sorted(self.case.topics))


def _drop(result: object) -> None:
    """What an action returns is nobody's."""
    del result
