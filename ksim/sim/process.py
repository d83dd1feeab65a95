"""An application of the user's in the world: its own code in greenlets, as a process of its own.

The greenlets of a process that has crashed stay as they are until the run is over, and what they do
then reaches nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar
from functools import partial
from types import FrameType
from typing import Any, Protocol

import greenlet

from ksim import observations as o
from ksim.consumer.config import Config
from ksim.consumer.engine import Engine
from ksim.consumer.message import Message
from ksim.consumer.port import Feedable
from ksim.core.errors import MisuseError
from ksim.core.values import TopicPartition
from ksim.sim.driver import Cluster, SimDriver
from ksim.sim.gate import Gate
from ksim.sim.world import US_PER_MS, World
from ksim.wiring import context_with

Place = tuple[str, int, int, int]
# What ends when it is collected would go on then; so nothing of it ever is.
_stranded: list[greenlet.greenlet] = []
_current: ContextVar[Life | None] = ContextVar("ksim_life", default=None)


def root() -> greenlet.greenlet:
    """Where the world itself runs."""
    found = greenlet.getcurrent()
    while found.parent is not None:
        found = found.parent
    return found


class Host(Protocol):
    """Who runs processes, and wants to know what becomes of them."""

    world: World

    @property
    def cluster(self) -> Cluster:
        """The brokers."""

    def observe(self, source: str, fact: o.Observation) -> None:
        """Something happened at `source` now."""

    def opened(self, member: str, incarnation: str, config: Config, engine: Engine) -> None:
        """The application has made a Consumer, which is this member."""

    def slept(self, for_ms: int) -> None:
        """An application waits for so long."""

    def failed(self, process: str, error: BaseException) -> None:
        """The application has raised; the process is over."""


def current_life() -> Life | None:
    """The process that the caller runs in; None outside of all."""
    return _current.get()


class HostedDriver(SimDriver):
    """The driver of a Consumer that an application has made."""

    def __init__(self, life: Life, config: Config, name: str, incarnation: str) -> None:
        super().__init__(life.host.world, life.host.cluster, life.gate, incarnation, name)
        self.config = config
        self.life = life
        self.member = name
        self.last_out: dict[TopicPartition, Message] = {}
        self._engine_of: Engine | None = None

    def _tell(self, what: str, detail: str = "") -> None:
        fact = o.MemberLife(self.member, self.config.group_id, what, detail)
        self.life.host.observe(self.member, fact)

    def open(self, engine: Feedable) -> None:
        assert isinstance(engine, Engine), f"{engine!r} is no engine"
        super().open(engine)
        self._engine_of = engine
        self.life.host.opened(self.member, self.name, self.config, engine)
        self._tell("started", self.name)

    def told(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        self.life.host.observe(self.member, o.CallbackRan(self.member, kind, tuple(partitions)))

    def handed_out(self, messages: Sequence[Message]) -> None:
        for message in messages:
            place = message.topic, message.partition, message.tenure, message.offset
            self.life.places[place] = self.life.owners[message] = self.member
            self.last_out[TopicPartition(*place[:2])] = message
            fact = o.HandedOut(self.member, *place, message.timestamp_ms)
            self.life.host.observe(self.member, fact)

    def shut(self) -> bool:
        if not self.ended:
            fatal = None if self._engine_of is None else self._engine_of.fatal
            self._tell("closed") if fatal is None else self._tell("failed", str(fatal))
        return super().shut()

    def change(self, what: str, detail: str = "") -> None:
        """The process is paused, resumed, or gone; a member that has left knows nothing of it."""
        if not self.ended:
            self._tell(what, detail)
            self.ended = what == "crashed"

    def leave_unmarked(self) -> None:
        """The application is stopped in the middle: its last records may not be marked."""
        for tp, message in self.last_out.items():
            fact = o.LeftUnmarked(self.member, *tp, message.tenure, message.offset)
            self.life.host.observe(self.member, fact)


class Life:
    """One process, from its start to its end."""

    def __init__(self, host: Host, name: str, number: int) -> None:
        self.host = host
        self.name = name
        self.gate = Gate(host.world, name)
        self.drivers: list[HostedDriver] = []
        self.handlers: dict[int, Any] = {}
        # Consumers of one process may be told of the same place, each as one of its own.
        self.owners: dict[Message, str] = {}
        self.places: dict[Place, str] = {}
        self.ended = False
        self.crashed = False
        self.terminated = False
        self.ended_itself = False
        self.paused = False
        self.on_end: Callable[[], None] | None = None
        self._suffix = "" if number == 1 else f".{number}"
        self._naps: dict[greenlet.greenlet, object] = {}
        self._context: Context = context_with(self._driver, self.sleep_ms)
        self._context.run(_current.set, self)
        self._main: greenlet.greenlet | None = None
        self._greenlets: list[greenlet.greenlet] = []

    def _driver(self, config: Config) -> HostedDriver:
        count = len(self.drivers) + 1
        name = self.name if count == 1 else f"{self.name}+{count}"
        self.drivers.append(HostedDriver(self, config, name, f"{name}{self._suffix}"))
        return self.drivers[-1]

    # Running

    def begin(self, application: Callable[[], object]) -> None:
        self._main = self._greenlet(lambda: self._run(application), self._context)
        self.host.world.call_after(0, self.gate.enter, "user", self._main.switch)

    def _greenlet(self, function: Callable[[], object], context: Context) -> greenlet.greenlet:
        # An application may start another one; both wait in the world.
        made = greenlet.greenlet(function, root())
        made.gr_context = context
        self._greenlets.append(made)
        return made

    def _run(self, application: Callable[[], object]) -> None:
        error: BaseException | None = None
        try:
            application()
        except (greenlet.GreenletExit, KeyboardInterrupt):
            raise
        except SystemExit as left:
            error = left if left.code else None
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the test is told
            error = raised
        if not self.ended:
            self.ended_itself = not self.terminated
            self._end("its application ended without close()")
            if error is not None:
                self.host.failed(self.name, error)

    def _end(self, detail: str) -> None:
        self.ended = True
        self.gate.shut()
        for driver in self.drivers:
            driver.change("crashed", detail)
        if self.on_end is not None:
            self.on_end()

    def sleep_ms(self, for_ms: int) -> None:
        """By the application: let the world go on."""
        self.host.slept(for_ms)
        self.wait(for_ms)

    def wait(self, for_ms: int = 0) -> None:
        """The same, of what is no work of the application: where it has to be out of the way."""
        user = greenlet.getcurrent()
        hub = user.parent
        if self.ended or hub is None:
            raise greenlet.GreenletExit
        token = self._naps[user] = object()
        after_us = for_ms * US_PER_MS
        self.host.world.call_after(after_us, self.gate.enter, "user", self._wake, user, token)
        hub.switch()

    def _wake(self, user: greenlet.greenlet, token: object) -> None:
        if self._naps.get(user) is token:
            del self._naps[user]
            user.switch()

    def handled(self, message: Message | Sequence[Message]) -> None:
        """By the application: the effect of this message has happened, or of all of these."""
        if self.ended:
            return
        several = message if isinstance(message, Sequence) else (message,)
        if isinstance(message, str) or not all(isinstance(each, Message) for each in several):
            raise MisuseError(f"handled {message!r}: a Message, or a list of them, as they came")
        for each in several:
            self._handled(each)

    def _handled(self, message: Message) -> None:
        place = message.topic, message.partition, message.tenure, message.offset
        member = self.owners.get(message) or self.places.get(place)
        if member is None:
            raise LookupError(f"{message!r} was never handed out to {self.name}")
        self.host.observe(member, o.Handled(member, *place, message.timestamp_ms))

    # What befalls it

    def crash(self) -> None:
        if not self.ended:
            self.crashed = True
            self._end("")

    def standing(self, line_of: Callable[[FrameType | None], str]) -> str:
        """Where its main thread is, for people."""
        frame = None if self._main is None else self._main.gr_frame
        if self.ended or frame is None:
            return "has ended" if self.ended else "has not begun"
        return f"stands at {line_of(frame)}"

    def pause(self) -> None:
        if not self.ended and not self.paused:
            self.paused = True
            self.gate.pause()
            for driver in self.drivers:
                driver.change("paused")

    def resume(self) -> None:
        if not self.ended and self.paused:
            self.paused = False
            for driver in self.drivers:
                driver.change("resumed")
            self.gate.resume()

    def terminate(self) -> None:
        """SIGTERM: the application's handler, or else SystemExit where its main thread waits."""
        self.gate.enter("signal", self._terminate)

    def _terminate(self) -> None:
        main = self._main
        assert main is not None, f"{self.name} was not started"
        handler = self.handlers.get(signal.SIGTERM)
        if handler is signal.SIG_IGN or (self.terminated and not callable(handler)):
            return
        self.terminated = True
        for driver in self.drivers:
            driver.change("stopping")
        if callable(handler):
            context = self._context.copy()
            self._greenlet(partial(self._handle_signal, handler, main), context).switch()
            return
        for driver in self.drivers:
            driver.leave_unmarked()
            driver.interrupt(main)
        self._naps.pop(main, None)
        if main.gr_frame is None:
            self._end("it had not begun")
        elif not main.dead:
            main.throw(SystemExit(0))

    def _handle_signal(
        self, handler: Callable[[int, None], object], main: greenlet.greenlet
    ) -> None:
        """What a handler raises comes out of the main thread, as in Python."""
        try:
            handler(signal.SIGTERM, None)
        except greenlet.GreenletExit:
            raise
        except BaseException as error:  # noqa: BLE001 - it goes where it would go
            self._naps.pop(main, None)
            for driver in self.drivers:
                driver.leave_unmarked()
                driver.interrupt(main)
            if not main.dead:
                main.throw(error)

    def strand(self) -> None:
        """By a signal, where the application stands: it is left there, and never goes on."""
        user = greenlet.getcurrent()
        if user in self._greenlets and user.parent is not None:
            self._greenlets.remove(user)
            _stranded.append(user)
            user.parent.switch()

    def bury(self) -> None:
        """After the run: end the greenlets, whose `finally` blocks can no longer reach anything."""
        self.ended = True
        for driver in self.drivers:
            driver.bury()
        for each in list(self._greenlets):
            if not each.dead and each.gr_frame is not None:
                each.throw(greenlet.GreenletExit)
        self._greenlets.clear()


class Process:
    """An application of one name through all its lives."""

    def __init__(
        self, host: Host, name: str, application: Callable[[Life], Callable[[], object]]
    ) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.start_due = False
        self._host = host
        self._application = application

    @property
    def ended_itself(self) -> bool:
        """Its application has returned or raised, and nobody had stopped it."""
        return bool(self.lives) and self.lives[-1].ended_itself

    @property
    def alive(self) -> bool:
        return bool(self.lives) and not self.lives[-1].ended

    @property
    def stopping(self) -> bool:
        """It was told to end, and has not done so yet."""
        return self.alive and self.lives[-1].terminated

    def start(self) -> None:
        """A new process; one that runs already stays as it is."""
        self.start_due = False
        if not self.alive:
            life = Life(self._host, self.name, len(self.lives) + 1)
            self.lives.append(life)
            life.on_end = self._on_end
            life.begin(self._application(life))

    def start_again(self) -> None:
        """The same, but where one is still at its end after it was told to, behind that."""
        if self.stopping:
            self.start_due = True
        else:
            self.start()

    def _on_end(self) -> None:
        if self.start_due:
            self._host.world.call_after(0, self._start_if_due)

    def _start_if_due(self) -> None:
        if self.start_due:
            self.start()

    def crash(self) -> None:
        """As by SIGKILL."""
        if self.lives:
            self.lives[-1].crash()

    def restart(self) -> None:
        """A crash, and a new process at once."""
        self.crash()
        self.start()

    def pause(self) -> None:
        """As by SIGSTOP."""
        self.lives[-1].pause()

    def resume(self) -> None:
        """As by SIGCONT."""
        if self.lives:
            self.lives[-1].resume()

    def stop(self) -> None:
        """As by SIGTERM."""
        if self.alive:
            self.lives[-1].terminate()

    @property
    def drivers(self) -> list[HostedDriver]:
        """Of the consumers of its last life that are not closed."""
        found = self.lives[-1].drivers if self.lives else []
        return [driver for driver in found if not driver.ended]

    def bury(self) -> None:
        for life in self.lives:
            life.bury()
