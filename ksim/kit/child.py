"""A process of the real arm: the application, whose consumers report to the test by a pipe.

`python -m ksim.kit.child PIPE` reads what to run from standard input.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ksim import observations as o
from ksim.consumer.config import Config
from ksim.consumer.engine import Engine
from ksim.consumer.message import Message
from ksim.consumer.port import Feedable
from ksim.core.trace import plain
from ksim.core.values import TopicPartition
from ksim.kit.arm import SINK
from ksim.real.driver import RealDriver
from ksim.wiring import context_with


@dataclass(frozen=True, slots=True)
class Job:
    """What the test wants to run; the application is found by its file and name."""

    name: str
    bootstrap: str
    module: str
    file: str
    function: str
    path: tuple[str, ...]
    arguments: bytes
    sink: bool


class Pipe:
    """Lines of JSON to the test, whole and in order, with the time of each."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def say(self, kind: str, **content: Any) -> None:
        with self._lock:
            line = json.dumps({"kind": kind, "ns": time.monotonic_ns(), **content})
            left = line.encode() + b"\n"
            while left:
                left = left[os.write(self._descriptor, left) :]

    def observe(self, source: str, fact: o.Observation) -> None:
        fields = [plain(getattr(fact, name)) for name in fact.__dataclass_fields__]
        self.say("observed", source=source, fact=type(fact).__name__, fields=fields)


class ReportingDriver(RealDriver):
    """The driver of production; the test hears what a simulated cluster would see."""

    def __init__(self, config: Config, member: str, pipe: Pipe, owners: dict[Message, str]) -> None:
        super().__init__(config)
        self._owners = owners
        self.member = member
        self._pipe = pipe
        self._told_config = config
        self._is_shut = False

    def open(self, engine: Feedable) -> None:
        assert isinstance(engine, Engine), f"{engine!r} is no engine"
        engine.session.listeners.append(self)
        config = base64.b64encode(pickle.dumps(self._told_config)).decode()
        self._pipe.say("opened", member=self.member, config=config)
        self._life("started")
        super().open(engine)

    def _life(self, what: str) -> None:
        life = o.MemberLife(self.member, self._told_config.group_id, what, "")
        self._pipe.observe(self.member, life)

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms
        told = [plain(order) for order in orders]
        self._pipe.say("stepped", source=self.member, fact=plain(fact), orders=told)

    def told(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        self._pipe.observe(self.member, o.CallbackRan(self.member, kind, tuple(partitions)))

    def handed_out(self, messages: Sequence[Message]) -> None:
        for each in messages:
            self._owners[each] = self.member
            place = self.member, each.topic, each.partition, each.tenure, each.offset
            self._pipe.observe(self.member, o.HandedOut(*place, each.timestamp_ms))

    def shut(self) -> bool:
        if not self._is_shut:
            self._is_shut = True
            self._life("closed")
        return super().shut()


class Child:
    """The whole process."""

    def __init__(self, job: Job, pipe: Pipe) -> None:
        self._job = job
        self._pipe = pipe
        self._members = 0
        self._owners: dict[Message, str] = {}

    def _driver(self, config: Config) -> ReportingDriver:
        self._members += 1
        name = self._job.name if self._members == 1 else f"{self._job.name}+{self._members}"
        servers = tuple(self._job.bootstrap.split(","))
        own = replace(config, bootstrap_servers=servers)
        return ReportingDriver(own, name, self._pipe, self._owners)

    def handled(self, message: Message | Sequence[Message]) -> None:
        """The sink."""
        for each in (message,) if isinstance(message, Message) else message:
            member = self._owners.get(each, self._job.name)
            place = member, each.topic, each.partition, each.tenure, each.offset
            self._pipe.observe(member, o.Handled(*place, each.timestamp_ms))

    def run(self) -> int:
        try:
            application = _load(self._job)
            arguments, named = pickle.loads(self._job.arguments)
            if self._job.sink:
                named[SINK] = self.handled
            context_with(self._driver).run(partial(application, *arguments, **named))
        except SystemExit as left:
            if left.code:
                return self._failed(left)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            return self._failed(error)
        return 0

    def _failed(self, error: BaseException) -> int:
        stack = "".join(traceback.format_exception(error))
        self._pipe.say("failed", error=repr(error), stack=stack)
        return 1


def _load(job: Job) -> Callable[..., object]:
    """The application, from its module, or from its file where the module cannot be found."""
    try:
        module = importlib.import_module(job.module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(job.module, job.file)
        assert spec is not None, f"{job.file} is no module"
        assert spec.loader is not None, f"{job.file} cannot be loaded"
        module = sys.modules[job.module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    found: Callable[..., object] = getattr(module, job.function)
    return found


def _leave(number: int, frame: object) -> None:
    del number, frame
    raise SystemExit(0)


def main() -> int:
    """Run the one job."""
    signal.signal(signal.SIGTERM, _leave)
    path = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = path
    job: Job = pickle.load(sys.stdin.buffer)
    return Child(job, Pipe(int(sys.argv[1]))).run()


if __name__ == "__main__":
    sys.exit(main())
