"""Simulated members: the real Consumer in a greenlet, with a handler that costs time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import greenlet

from ksim import observations as o
from ksim.consumer.config import Config, Strategy
from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Tap
from ksim.consumer.message import Message
from ksim.core.errors import GroupFatalError
from ksim.core.values import TopicPartition
from ksim.scenario import GroupSpec
from ksim.sim.driver import Cluster, SimDriver
from ksim.sim.gate import Gate
from ksim.sim.world import US_PER_MS, World
from ksim.wiring import context_with

BOOTSTRAP = ("simulated:9092",)


class Sink(Protocol):
    """Where observations go, and who taps the members' machines."""

    def observe(self, source: str, fact: o.Observation) -> None:
        """Something happened at `source` now."""

    def taps(self, name: str, incarnation: str, config: Config) -> Sequence[Tap]:
        """Who listens to this member."""


class _Listener:
    """Writes down what the application is told."""

    def __init__(self, member: SimMember) -> None:
        self._member = member

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._member.tell(o.CallbackRan(self._member.name, "assigned", tuple(partitions)))

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._member.tell(o.CallbackRan(self._member.name, "revoked", tuple(partitions)))

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._member.tell(o.CallbackRan(self._member.name, "lost", tuple(partitions)))


class SimMember:
    """One member of a scenario through all its lives."""

    def __init__(
        self, world: World, cluster: Cluster, sink: Sink, group: GroupSpec, name: str
    ) -> None:
        self.name = name
        self.group = group
        self.gate = Gate(world, name)
        self.driver: SimDriver | None = None
        self.consumer: Consumer | None = None
        self.life = ""
        self._world = world
        self._cluster = cluster
        self._sink = sink
        self._lives = 0
        self._greenlets: list[tuple[greenlet.greenlet, SimDriver]] = []

    @property
    def running(self) -> bool:
        return self.life in ("started", "paused", "stopping")

    def config(self) -> Config:
        """What a production consumer would be given."""
        group = self.group
        return Config(
            bootstrap_servers=BOOTSTRAP,
            client_id=self.name,
            group_id=group.id,
            topics=group.topics,
            partition_strategy=Strategy(group.assignor),
            auto_offset_reset=group.auto_offset_reset,
            session_timeout_ms=group.session_timeout_ms,
            rebalance_timeout_ms=group.rebalance_timeout_ms,
            heartbeat_interval_ms=group.heartbeat_interval_ms,
            max_poll_interval_ms=group.max_poll_interval_ms,
            commit_interval_ms=group.commit_interval_ms,
            dwell_time_ms=group.dwell_time_ms,
            metadata_max_age_ms=group.metadata_max_age_ms,
            fetch_max_wait_ms=group.fetch_max_wait_ms,
        )

    def tell(self, fact: o.Observation) -> None:
        self._sink.observe(self.name, fact)

    def _change(self, life: str, detail: str = "") -> None:
        self.life = life
        self.tell(o.MemberLife(self.name, self.group.id, life, detail))

    # What a scenario does to a member

    def start(self) -> None:
        """A new process of this name; one that runs already stays as it is."""
        if self.running:
            return
        self._lives += 1
        suffix = "" if self._lives == 1 else f".{self._lives}"
        self.gate = Gate(self._world, self.name)
        driver = SimDriver(self._world, self._cluster, self.gate, f"{self.name}{suffix}", self.name)
        self.driver = driver
        thread = greenlet.greenlet(self._main)
        thread.gr_context = context_with(lambda _: driver)
        self._greenlets.append((thread, driver))
        self._change("started", driver.name)
        self._world.call_after(0, self.gate.enter, "user", thread.switch)

    def crash(self) -> None:
        """The process is gone without a word; its greenlet stays until the run is over."""
        if not self.running or self.driver is None:
            return
        self.gate.shut()
        self.driver.ended = True
        self._change("crashed")

    def stop(self) -> None:
        """As by SIGTERM: the loop ends, the consumer closes itself."""
        if self.life == "started" and self.consumer is not None:
            self._change("stopping")
            self.gate.enter("signal", self.consumer.stop)

    def pause(self) -> None:
        """As by SIGSTOP."""
        if self.life == "started":
            self.gate.pause()
            self._change("paused")

    def resume(self) -> None:
        """As by SIGCONT."""
        if self.life == "paused":
            self._change("resumed")
            self.life = "started"
            self.gate.resume()

    def bury(self) -> None:
        """After the run: end the greenlets, whose `finally` blocks can no longer reach anything."""
        for thread, driver in self._greenlets:
            driver.ended = True
            if not thread.dead and thread.gr_frame is not None:
                thread.throw(greenlet.GreenletExit)
        self._greenlets.clear()

    # The application

    def _main(self) -> None:
        taps = self._sink.taps(self.name, self._name_of_life(), self.config())
        try:
            with Consumer(self.config(), listener=_Listener(self), taps=taps) as consumer:
                self.consumer = consumer
                handle = self._handler()
                for message in consumer:
                    handle(message)
                    consumer.mark_offset(message)
        except GroupFatalError as error:
            self._change("failed", str(error))
            return
        self._change("closed")

    def _name_of_life(self) -> str:
        assert self.driver is not None, f"{self.name} was not started"
        return self.driver.name

    def _handler(self) -> Callable[[Message], None]:
        """A record is handled when its effect happens: after the cost, in the sink."""
        low_ms, high_ms = self.group.handler_cost_ms
        draw = self._world.stream(f"handler {self.name}")
        driver = self.driver
        assert driver is not None, f"{self.name} was not started"

        def handle(message: Message) -> None:
            place = (self.name, message.topic, message.partition, message.tenure, message.offset)
            self.tell(o.HandedOut(*place))
            if high_ms:
                driver.sleep_us(draw.randint(low_ms * US_PER_MS, high_ms * US_PER_MS))
            self.tell(o.Handled(*place))

        return handle
