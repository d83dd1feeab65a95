"""What both arms of a test have: topics, loads, applications by name, and waiting."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ksim.core.errors import MisuseError
from ksim.kit.errors import ApplicationError
from ksim.kit.judge import Case
from ksim.kit.report import NotJudgedWarning, Report
from ksim.kit.texts import (
    Duration,
    Payloads,
    check_among,
    check_name,
    cluster_of,
    load_of,
    ms_of,
    record_of,
)
from ksim.scenario import ProduceSpec

Application = Callable[..., object]
Record = Callable[[int], tuple[bytes | None, bytes | None]]
Handled = tuple[str, int, int]
SINK = "sink"
UNTIL_MS = 100
# Other sources of steps.
RESERVED = r"faults|producer|run|broker-.*"


class App(Protocol):
    """One application of a test, and what may befall it.

    `handled` has topic, partition and offset of each effect that it has told so far.
    """

    name: str
    handled: list[Handled]

    @property
    def alive(self) -> bool:
        """Whether its process runs, or is paused."""

    @property
    def ended_itself(self) -> bool:
        """Its application has returned or raised, and nobody had stopped it."""

    def begin(self) -> None:
        """A new process; one that runs already stays as it is."""

    def pause(self, for_: Duration | None = None) -> None:
        """As by SIGSTOP, and after so long by SIGCONT."""

    def resume(self) -> None:
        """As by SIGCONT."""

    def crash(self, for_: Duration | None = None) -> None:
        """As by SIGKILL; after so long it is started anew."""

    def restart(self) -> None:
        """A crash, and a new process at once."""

    def stop(self, for_: Duration | None = None) -> None:
        """As by SIGTERM; after so long it is started anew.

        Without a handler of its own, SystemExit is raised where its main thread waits.
        """


AppT = TypeVar("AppT", bound=App)


def wants_sink(app: Application, name: str) -> bool:
    """Whether it has a parameter called `sink`. Raises MisuseError for what cannot be started."""
    if not callable(app):
        raise MisuseError(f"start {name!r}: {app!r} is no function")
    if inspect.iscoroutinefunction(app) or inspect.isgeneratorfunction(app):
        raise MisuseError(
            f"start {name!r}: {app!r} does nothing when it is called: a plain function that reads"
        )
    if SINK not in inspect.signature(app).parameters:
        return False
    own = inspect.signature(app, follow_wrapped=False).parameters.values()
    if not any(each.name == SINK or each.kind is each.VAR_KEYWORD for each in own):
        raise MisuseError(f"start {name!r}: what wraps it does not take the keyword `sink`")
    return True


def _check_arguments(
    app: Application, name: str, args: tuple[Any, ...], named: Mapping[str, Any]
) -> None:
    """Raises MisuseError where the application cannot be called like this."""
    try:
        signature = inspect.signature(app)
    except ValueError:
        return  # of what is built in nothing is known
    try:
        signature.bind(*args, **named)
    except TypeError as error:
        raise MisuseError(
            f"start {name!r}: {error}; its parameters: {signature}. `sink` is given by its name, "
            "so it stands behind those that are given by their place"
        ) from error


class Arm(Generic[AppT]):
    """A cluster for the applications of one test."""

    def __init__(self, settings: Mapping[str, Any] | None, slack_ms: int = 0) -> None:
        self.case = Case(cluster_of(settings or {}), slack_ms=slack_ms)
        self.apps: dict[str, AppT] = {}
        self.report: Report | None = None
        # Whether nobody has to call `check`, or has done so; what a test raises is a verdict, too.
        self.judged = False

    # What an arm does in its own way

    @property
    def now_ms(self) -> int:
        """Time since the beginning."""
        raise NotImplementedError

    def run(self, for_: Duration) -> None:
        """Let so much time go by. Raises ApplicationError."""
        raise NotImplementedError

    def make_topic(self, name: str, partitions: int) -> None:
        raise NotImplementedError

    def load(self, spec: ProduceSpec, record: Record) -> None:
        raise NotImplementedError

    def begin(
        self, app: Application, name: str, args: tuple[Any, ...], named: dict[str, Any], sink: bool
    ) -> AppT:
        """Start it; `sink` says that it wants one."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing of this test is left."""
        raise NotImplementedError

    # What is the same

    def topic(self, name: str, partitions: int = 1) -> None:
        """A new topic."""
        self._goes_on("topic")
        check_name(name, "topic")
        if name in self.case.topics or type(partitions) is not int or partitions < 1:
            raise MisuseError(f"topic({name!r}, {partitions=}): at least 1, and a new name")
        self.make_topic(name, partitions)
        self.case.topics[name] = partitions

    def produce(
        self,
        topic: str,
        count: int | None = None,
        *,
        per_second: int | None = None,
        values: Payloads | None = None,
    ) -> None:
        """From now on; round and round over the partitions; without `per_second` all at once.

        Key and value are the number, or the value is what `values` has for it.
        """
        self._goes_on("produce")
        check_among(topic, sorted(self.case.topics), "produce to topic")
        spec = load_of(topic, count, per_second, values, self.now_ms)
        self.case.produced.append(spec)
        self.load(spec, record_of(values))

    def start(self, app: Application, /, name: str, *args: Any, **named: Any) -> AppT:
        """Run `app(*args)` as a process of its own; a parameter called `sink` is filled with one.

        Every Consumer that it makes is a member of this cluster; the first is called as the
        process. An exception that leaves it ends the test.
        """
        self._goes_on(f"start {name!r}")
        check_name(name, "start", RESERVED)
        if name in self.apps:
            raise MisuseError(f"start: {name!r} is there already; use restart(), or another name")
        sink = SINK not in named and wants_sink(app, name)
        _check_arguments(app, name, args, {**named, SINK: None} if sink else named)
        found = self.apps[name] = self.begin(app, name, args, named, sink)
        if sink:
            self.case.telling.add(name)
        return found

    def _goes_on(self, what: str) -> None:
        if self.report is not None:
            raise MisuseError(f"{what}: the test is over after check()")

    def until(self, condition: Callable[[], object], within: Duration = "5m") -> None:
        """Let time go by until the condition holds. Raises ApplicationError if it never does."""
        if not callable(condition):
            raise MisuseError(f"until {condition!r}: a function that says whether it is so")
        limit_ms = self.now_ms + ms_of(within, "until, within")
        while not condition():
            if self.now_ms >= limit_ms:
                self.judged = True
                raise ApplicationError(f"until: it was not so within {within}")
            self.run(UNTIL_MS)

    def remark(self, what: str) -> None:
        """For the report: something that the test has asked for did not come."""
        self.case.remarks.append(f"{what} (at {self.now_ms / 1_000:.3f} s)")

    def keep_alive(self) -> None:
        """Where none of a group runs the first that the test has ended comes back.

        The liveness checks need somebody. One that ended by itself stays as it is: it is its work
        that is judged.
        """
        groups = [group for group in self.case.groups if group not in self.case.left_groups]
        for group in groups:
            self._keep_one([name for name in self.apps if group in self.case.process_groups(name)])
        self._keep_one(list(self.apps))
        for name, app in self.apps.items():
            if app.ended_itself:
                self.remark(f"{name} has ended by itself; nobody had stopped it")

    def _keep_one(self, names: Sequence[str]) -> None:
        apps = [self.apps[name] for name in names]
        if not any(app.alive for app in apps):
            for app in [app for app in apps if not app.ended_itself][:1]:
                app.begin()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        if self.apps and not self.judged and kind is None:
            warnings.warn(
                f"check() was not called: nothing that {', '.join(self.apps)} did is judged",
                NotJudgedWarning,
                stacklevel=2,
            )
