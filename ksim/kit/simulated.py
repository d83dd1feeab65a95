"""The cluster of a test, in virtual time: brokers, producers, and applications as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any, Final, NoReturn

from ksim import observations as o
from ksim.broker.faults import FaultRule
from ksim.consumer.config import Config
from ksim.consumer.engine import Engine
from ksim.consumer.message import Message
from ksim.core.errors import MisuseError
from ksim.core.session import PayloadListener, StepListener
from ksim.core.trace import Plain
from ksim.kit.arm import SINK, Application, Arm, Handled, Record
from ksim.kit.errors import ApplicationError, BlockedError, CheckFailedError, reads_nothing
from ksim.kit.guards import guarded, users_line
from ksim.kit.judge import GROWS, MAKES, Lived, process_of
from ksim.kit.report import Report, warn_of
from ksim.kit.texts import Duration, check_among, ms_of
from ksim.kit.watchdog import Blocked, Watchdog
from ksim.scenario import ProduceSpec, StepSpec, fault_of
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.network import Network
from ksim.sim.process import Life, Process, current_life
from ksim.sim.production import Production
from ksim.sim.runner import LOOK_MS, Listener, coordinator_config
from ksim.sim.world import US_PER_MS, World
from ksim.wiring import driven_by

ENDS_MS: Final = 60_000
Recorder = Callable[[str, Config, Plain], StepListener]


class SimulatedApp:
    """An application in the world.

    What ends a pause, and what starts a process again, is planned; what befalls it since has its
    own end.
    """

    def __init__(self, cluster: SimulatedCluster, process: Process) -> None:
        self.name = process.name
        self.handled: list[Handled] = []
        self.process = process
        self._cluster = cluster
        self._resumes = Planned(cluster, self.process.resume)
        self._starts = Planned(cluster, self.process.start_again)

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def stopping(self) -> bool:
        """It was told to end, and has not done so yet."""
        return self.process.stopping

    @property
    def ended_itself(self) -> bool:
        return self.process.ended_itself

    def begin(self) -> None:
        self.process.start()

    def forget_plans(self) -> None:
        """At the end of all faults: nothing is resumed or started any more but by healing."""
        if self._starts.due or self.process.start_due:
            self._cluster.remark(f"the new start of {self.name} did not come: the run had ended")
        self._starts.forget()
        self._resumes.forget()
        self.process.start_due = False

    def _befalls(self, what: str, for_: Duration | None, do: Callable[[int | None], None]) -> None:
        for_ms = None if for_ is None else ms_of(for_, f"{what} of {self.name} for")
        caller = current_life()
        if caller is None:
            self._strike(what, for_ms, do)
            return
        # By an application's code, which a signal does not run in.
        world = self._cluster.world
        world.call_apart(world.now_us, self._strike, what, for_ms, do)
        if caller in self.process.lives:
            caller.wait()

    def _strike(self, what: str, for_ms: int | None, do: Callable[[int | None], None]) -> None:
        if what != "restart" and not self.process.alive:
            self._cluster.remark(f"{what} of {self.name} did nothing: it was not running")
            return
        if what == "stop" and self.process.stopping:
            self._cluster.remark(f"stop of {self.name} came while it was at its end")
        self._cluster.observe("faults", o.FaultStruck(what, self.name, for_ms or 0))
        do(for_ms)

    def _pause(self, for_ms: int | None) -> None:
        self.process.pause()
        self._resumes.plan(for_ms)

    def _crash(self, for_ms: int | None) -> None:
        self._resumes.forget()
        self.process.crash()
        self._starts.plan(for_ms)

    def _restart(self, _: int | None) -> None:
        self._crash(None)
        self.process.start()

    def _stop(self, for_ms: int | None) -> None:
        self.process.stop()
        self._starts.plan(for_ms)

    def _resume(self) -> None:
        self._resumes.forget()
        self.process.resume()

    def pause(self, for_: Duration | None = None) -> None:
        self._befalls("pause", for_, self._pause)

    def resume(self) -> None:
        if current_life() is None:
            self._resume()
        else:
            self._cluster.world.call_apart(self._cluster.world.now_us, self._resume)

    def crash(self, for_: Duration | None = None) -> None:
        self._befalls("crash", for_, self._crash)

    def restart(self) -> None:
        self._befalls("restart", None, self._restart)

    def stop(self, for_: Duration | None = None) -> None:
        self._befalls("stop", for_, self._stop)


class Planned:
    """One thing that is to come; what is planned anew takes the place of it."""

    def __init__(self, cluster: SimulatedCluster, action: Callable[[], None]) -> None:
        self.due = False
        self._turn = 0
        self._cluster = cluster
        self._action = action

    def forget(self) -> None:
        self._turn += 1
        self.due = False

    def plan(self, after_ms: int | None) -> None:
        """So long after now; with None never."""
        self.forget()
        if after_ms is not None:
            self.due = True
            world = self._cluster.world
            world.call_apart(world.now_us + after_ms * US_PER_MS, self._come, self._turn)

    def _come(self, turn: int) -> None:
        if turn == self._turn:
            self.due = False
            self._action()


def _refuse_outside(config: Config) -> NoReturn:
    """By a Consumer that the test itself makes: it would look for real brokers."""
    raise MisuseError(
        f"Consumer of group {config.group_id!r} in the test itself: only what start() runs is in "
        "the simulated cluster; make it in a function, and start that"
    )


def _only_the_test(what: str) -> None:
    life = current_life()
    if life is not None:
        raise MisuseError(f"{what}(): by {life.name} itself; only the test makes time go by")


class _Stopped(Exception):  # noqa: N818 - no error: it only ends the run
    """An application has failed: the run ends here."""


class SimulatedCluster(Arm[SimulatedApp]):
    """What the fixture `ksim_cluster` is. Without pytest, use it in `with`."""

    real = False

    def __init__(
        self,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(settings)
        spec = self.case.cluster
        self.seed = seed
        self.world = World(seed)
        self.watchdog = Watchdog(
            lambda: self.world.now_us, lambda error: self.failed("the simulation", error)
        )
        network = Network(self.world, spec.latency_ms, spec.loss)
        self.cluster = SimCluster(
            self.world,
            network,
            spec.brokers,
            coordinator_config(spec),
            self,
            (),
            spec.coordinator_load_ms,
        )
        self.cluster.crash_member = lambda name: self.apps[process_of(name)].crash()
        self.cluster.on_fault = self._on_fault
        self._production = Production(self.world, self.cluster, self.observe)
        self._recorder = recorder
        self._failure: ApplicationError | MisuseError | None = None
        self._numbers = count()
        self._pending: dict[int, Duration] = {}
        self._idle_rules: dict[int, str] = {}
        self._outside = ExitStack()
        self._goes = False

    def __enter__(self) -> SimulatedCluster:
        self._outside.enter_context(driven_by(_refuse_outside))
        return self

    # What a test sets up

    @property
    def now_ms(self) -> int:
        """Virtual time since the beginning."""
        return self.world.now_ms

    def make_topic(self, name: str, partitions: int) -> None:
        self.cluster.state.create_topic(name, partitions)
        if self.now_ms:
            self._changed(MAKES, name, partitions)

    def load(self, spec: ProduceSpec, record: Record) -> None:
        self._production.schedule(spec, record)

    def begin(
        self, app: Application, name: str, args: tuple[Any, ...], named: dict[str, Any], sink: bool
    ) -> SimulatedApp:
        def application(life: Life) -> Callable[[], object]:
            filled = {SINK: life.handled} if sink else {}
            return partial(app, *args, **named, **filled)

        process = Process(self, name, application)
        process.start()
        return SimulatedApp(self, process)

    def at(self, when: Duration, action: Callable[..., object], /, *args: Any) -> None:
        """Call it at this time since the beginning, if `run` goes on until then."""
        at_ms = ms_of(when, "at")
        if not callable(action):
            raise MisuseError(f"at {when!r}: {action!r} is no function; write at(when, app.pause)")
        if at_ms < self.now_ms:
            raise MisuseError(f"at {when!r}: it is {self.now_ms} ms already")
        number = next(self._numbers)
        self._pending[number] = when
        self.world.call_apart(at_ms * US_PER_MS, self._act, number, action, args)

    def _act(self, number: int, action: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._pending.pop(number, None) is not None:
            action(*args)

    def handled(self, message: Message | Sequence[Message]) -> None:
        """By an application: the effect of this message has happened, or of all of these."""
        life = current_life()
        if life is None:
            raise MisuseError(f"handled({message!r}): only an application that was started says so")
        self.case.telling.add(life.name)
        life.handled(message)

    # What goes wrong in the cluster itself

    def fault(self, **table: Any) -> None:
        """One `[[fault]]` of scenarios: `fault(on={"response": "SyncGroup"}, do="drop")`."""
        spec = fault_of(table, "fault")
        self.case.faults.append(spec)
        self._idle_rules[id(spec.rule)] = f"fault({table})"
        self.cluster.faults.add(spec.rule)

    def move_coordinator(self, group: str) -> None:
        """To the next broker."""
        check_among(group, self.case.groups, "move_coordinator of group")
        if len(self.cluster.nodes) == 1:
            raise MisuseError(
                f"move_coordinator({group!r}): there is one broker, and nowhere to move; have the "
                'fixture ksim_settings return {"brokers": 3}'
            )
        self.observe("faults", o.FaultStruck("move_coordinator", group, 0))
        self.cluster.move_coordinator(group, None)

    def add_partitions(self, topic: str, count: int = 1) -> None:
        """So many more."""
        check_among(topic, sorted(self.case.topics), "add_partitions to topic")
        if type(count) is not int or count < 1:
            raise MisuseError(f"add_partitions({topic!r}, {count!r}): a whole number, at least 1")
        self.cluster.add_partitions(topic, count)
        self.case.topics[topic] = self.cluster.state.counts[topic]
        self._changed(GROWS, topic, count)

    def _changed(self, how: str, topic: str, count: int) -> None:
        self.observe("faults", o.FaultStruck(how, topic, 0))
        self.case.changes.append(StepSpec(self.now_ms, how, topic, count=count))
        self.observe("faults", o.TopicIs(topic, self.cluster.state.counts[topic]))

    def crash_broker(self, number: int, for_: Duration | None = None) -> None:
        """Broker `number`, from 1; after so long it is back."""
        if type(number) is not int or number not in self.cluster.nodes:
            raise MisuseError(f"crash_broker({number!r}): there are {len(self.cluster.nodes)}")
        for_ms = 0 if for_ is None else ms_of(for_, f"crash of broker {number} for")
        self.observe("faults", o.FaultStruck("crash", f"broker-{number}", for_ms))
        if self.cluster.nodes[number].gate.cut:
            self.remark(f"crash_broker({number}) did nothing: it was down")
        else:
            self.cluster.crash(number, self._drivers())
        if for_ is not None:
            at_us = self.world.now_us + for_ms * US_PER_MS
            self.world.call_apart(at_us, self.cluster.restart, number)

    def _drivers(self) -> list[SimDriver]:
        return [driver for app in self.apps.values() for driver in app.process.drivers]

    def _on_fault(self, rule: FaultRule, client: SimDriver) -> None:
        self._idle_rules.pop(id(rule), None)
        name = f"{rule.action.value} {rule.direction} {rule.kind}"
        self.observe("faults", o.FaultStruck(name, client.client_id, rule.for_ms))

    # What processes and machines report

    def listeners(self, source: str) -> Sequence[StepListener]:
        return [Listener(source, self.see)]

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step of a machine."""
        self.case.steps.append((source, now_ms, fact, tuple(orders)))

    def observe(self, source: str, fact: o.Observation) -> None:
        if isinstance(fact, o.Handled):
            told = self.apps[process_of(fact.member)].handled
            told.append((fact.topic, fact.partition, fact.offset))
        self.case.steps.append((source, self.world.now_ms, fact, ()))

    def opened(self, member: str, incarnation: str, config: Config, engine: Engine) -> None:
        number = len(self.apps[process_of(member)].process.lives)
        self.case.lives.append(Lived(member, config, number))
        engine.session.listeners.append(Listener(member, self.see))
        if self._recorder is not None:
            machine: Any = engine.session.machine
            recorder = self._recorder(incarnation, config, machine.snapshot)
            engine.session.listeners.append(recorder)
            if isinstance(recorder, PayloadListener):
                engine.on_payload.append(recorder.on_payload)

    def slept(self, for_ms: int) -> None:
        self.case.cost_ms = max(self.case.cost_ms, for_ms)
        self.case.slept_ms += for_ms

    def failed(self, process: str, error: BaseException) -> None:
        if self._failure is not None:
            return
        if isinstance(error, MisuseError):
            self._failure = error
        elif isinstance(error, Blocked):
            self._failure = BlockedError(str(error))
        else:
            at = f"{self.now_ms / 1_000:.3f} s"
            self._failure = ApplicationError(f"{process} raised {error!r} at {at}")
            self._failure.__cause__ = error
        self.world.call_apart(self.world.now_us, self._stop)

    def _stop(self) -> None:
        raise _Stopped

    # The run

    def _go(self, on: Callable[[], None]) -> None:
        if self.report is not None:
            raise MisuseError("the test is over after check(): nothing can follow it")
        if self._goes:
            raise MisuseError("run() or check() by what runs already, such as an action of at()")
        if self._failure is None:
            with suppress(_Stopped), self.watchdog, guarded(), self._going():
                try:
                    on()
                except Blocked as error:
                    self.failed("the simulation", error)
                except KeyboardInterrupt:
                    self.judged = True
                    raise
        if self._failure is not None:
            self.judged = True
            raise self._failure

    @contextmanager
    def _going(self) -> Iterator[None]:
        self._goes = True
        try:
            yield
        finally:
            self._goes = False

    def run(self, for_: Duration) -> None:
        """Let so much virtual time go by. Raises ApplicationError."""
        _only_the_test("run")
        until_us = (self.now_ms + ms_of(for_, "run")) * US_PER_MS
        self._go(lambda: self.world.run_until(until_us))

    def so_far(self) -> Report:
        """The report of `check`; before it, of all that was seen."""
        return self.report or self.case.report(self.now_ms)

    def check(self, *, exactly_once: bool = False, ignore: Sequence[str] = ()) -> Report:
        """End all faults, let the group come to rest, and judge. Raises CheckFailedError.

        `exactly_once`: no effect may happen twice, whatever goes wrong. `ignore` names checks.
        """
        _only_the_test("check")
        self.judged = True
        if not self.apps:
            raise MisuseError("check(): no application was started")
        self.case.until_ms = self.now_ms
        self.case.exactly_once = exactly_once
        self.case.check_asked(ignore)
        self._forget_pending()
        self._go(self._come_to_rest)
        self._check_polls()
        self.case.check_given()
        report = self.report = self.case.report(self.now_ms, ignore)
        if report.verdict != "pass":
            raise CheckFailedError(report)
        warn_of(report)
        return report

    def _forget_pending(self) -> None:
        """All faults have ended: what was to come later does not."""
        for when in self._pending.values():
            self.remark(f"at({when!r}) did not come: the run had ended")
        self._pending.clear()
        for rule in self._idle_rules.values():
            self.remark(f"{rule} has struck nothing")
        for app in self.apps.values():
            app.forget_plans()

    def _heal(self) -> None:
        self.cluster.heal()
        for app in self.apps.values():
            app.resume()
        self._await_ends()
        self.keep_alive()
        live = tuple(name for name, app in self.apps.items() if app.alive)
        self.observe("faults", o.Healed(live))

    def _await_ends(self) -> None:
        """Who was told to end ends first: it is nobody who could do the rest."""
        limit_ms = self.now_ms + ENDS_MS
        while self.now_ms < limit_ms and any(app.stopping for app in self.apps.values()):
            self.world.run_until((self.now_ms + LOOK_MS) * US_PER_MS)
        for name, app in self.apps.items():
            if app.stopping:
                self.remark(f"{name} has not ended {ENDS_MS // 1_000} s after it was told to")

    def _come_to_rest(self) -> None:
        self._heal()
        self.world.run_until((max(self.now_ms, self._production.over_ms) + LOOK_MS) * US_PER_MS)
        bench = self.case.bench()
        bound_ms = self.now_ms + self.case.rest_bound_ms()
        seen = len(self.case.steps)
        while self.now_ms < bound_ms and not bench.at_rest(self.now_ms):
            self.world.run_until((self.now_ms + LOOK_MS) * US_PER_MS)
            for step in self.case.steps[seen:]:
                bench.see(*step)
            seen = len(self.case.steps)

    def _check_polls(self) -> None:
        """Raises ApplicationError for an application that reads nothing."""
        polled = self.case.polled()
        for name, app in self.apps.items():
            life = app.process.lives[-1]
            if not life.crashed and not polled.intersection(each.member for each in life.drivers):
                raise reads_nothing(name, bool(life.drivers), f"it {life.standing(users_line)}")

    def end(self) -> None:
        """Nothing of this test runs afterwards."""
        self._outside.close()
        with guarded(), self.watchdog:
            for app in self.apps.values():
                app.process.bury()
