"""Simulated members: the real Consumer in a greenlet, with a handler that costs time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import greenlet

from ksim import observations as o
from ksim.consumer.config import Acknowledge, Config, ConsumerMode, Strategy
from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Tap
from ksim.core.errors import GroupFatalError
from ksim.core.values import TopicPartition
from ksim.scenario import GroupSpec
from ksim.sim.application import Application, PlannedError
from ksim.sim.driver import Cluster, SimDriver
from ksim.sim.gate import Gate
from ksim.sim.world import World
from ksim.wiring import context_with

BOOTSTRAP = ("simulated:9092",)


class Sink(Protocol):
    """Where observations go, and who taps the members' machines."""

    def observe(self, source: str, fact: o.Observation) -> None:
        """Something happened at `source` now."""

    def taps(self, name: str, incarnation: str, config: Config) -> Sequence[Tap]:
        """Who listens to this member."""


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
        self.close_wanted = False
        self.gap_ms = 0
        self._greenlets: list[tuple[greenlet.greenlet, SimDriver]] = []

    @property
    def running(self) -> bool:
        return self.life in ("started", "paused", "stopping")

    def config(self) -> Config:
        """What a production consumer would be given."""
        group = self.group.of(self.name)
        return Config(
            bootstrap_servers=BOOTSTRAP,
            client_id=self.name,
            group_id=group.id,
            topics=group.topics,
            topics_whitelist=group.topics_whitelist,
            topics_blacklist=group.topics_blacklist,
            group_instance_id=group.instance_id,
            partition_strategy=tuple(map(Strategy, group.assignors or (group.assignor,))),
            mode=ConsumerMode(group.mode),
            acknowledge=Acknowledge(group.acknowledge),
            request_timeout_ms=group.request_timeout_ms,
            auto_offset_reset=group.auto_offset_reset,
            session_timeout_ms=group.session_timeout_ms,
            rebalance_timeout_ms=group.rebalance_timeout_ms,
            heartbeat_interval_ms=group.heartbeat_interval_ms,
            max_poll_interval_ms=group.max_poll_interval_ms,
            commit_interval_ms=group.commit_interval_ms,
            dwell_time_ms=group.dwell_time_ms,
            metadata_max_age_ms=group.metadata_max_age_ms,
            fetch_max_wait_ms=group.fetch_max_wait_ms,
            flight_recorder_bytes=0,  # a run can be had again
            return_errors=True,  # nobody reads them there, and a log would be noise
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
        self.close_wanted, self.gap_ms = False, 0
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

    def recover(self) -> None:
        """It goes on with all that it owns, once it has done what it was told to meanwhile."""
        kept = self.gate.kept
        self.resume()
        if kept:
            self._world.call_after(kept, self.resume_partitions, None)
        else:
            self.resume_partitions(None)

    def bury(self) -> None:
        """After the run: end the greenlets, whose `finally` blocks can no longer reach anything."""
        for thread, driver in self._greenlets:
            driver.bury()
            if not thread.dead and thread.gr_frame is not None:
                thread.throw(greenlet.GreenletExit)
        self._greenlets.clear()

    def restart(self) -> None:
        """A crash, and a new process at once."""
        self.crash()
        self.start()

    # What a scenario asks of the application

    def close(self) -> None:
        """The application calls `close` inside its loop, before it marks the record it is at."""
        self.close_wanted = True
        if self.consumer is not None and self.consumer.waiting:
            self.stop()

    def gap(self, for_ms: int) -> None:
        """After its record the application does not call in for so long."""
        self.gap_ms = for_ms

    def pause_partitions(self, partitions: Sequence[TopicPartition] | None) -> None:
        """The application pauses these, or all that it owns."""
        self.gate.enter("user", self._pause, partitions)

    def _pause(self, partitions: Sequence[TopicPartition] | None) -> None:
        if self.consumer is not None and self.running:
            named = self.owned if partitions is None else partitions
            self.consumer.pause(named)
            self.tell(o.PartitionsPaused(self.name, tuple(named), True))

    def resume_partitions(self, partitions: Sequence[TopicPartition] | None) -> None:
        """The application resumes these, or all that it owns."""
        self.gate.enter("user", self._resume, partitions)

    def _resume(self, partitions: Sequence[TopicPartition] | None) -> None:
        if self.consumer is not None and self.running:
            named = self.owned if partitions is None else partitions
            self.consumer.resume(named)
            self.tell(o.PartitionsPaused(self.name, tuple(named), False))

    @property
    def owned(self) -> list[TopicPartition]:
        """What the application knows that it owns."""
        if self.consumer is None or not self.running:
            return []
        owned = self.consumer.subscriptions()
        return [TopicPartition(topic, number) for topic in owned for number in owned[topic]]

    def seek(self, partitions: Sequence[TopicPartition] | None, offset: int) -> None:
        """The application seeks these, or all that it owns; what it does not own stays."""
        self.gate.enter("user", self._seek, partitions, offset)

    def _seek(self, partitions: Sequence[TopicPartition] | None, offset: int) -> None:
        if self.consumer is not None and self.running:
            owned = self.owned
            for tp in owned if partitions is None else [tp for tp in partitions if tp in owned]:
                self.consumer.seek(*tp, offset)
                self.tell(o.PartitionSought(self.name, *tp, offset))

    # The application

    def _main(self) -> None:
        driver = self.driver
        assert driver is not None, f"{self.name} was not started"
        taps = self._sink.taps(self.name, driver.name, self.config())
        group = self.group.of(self.name)
        application = Application(self._world, driver, group, self.name, self.tell, self)
        try:
            consumer = Consumer(self.config(), listener=application, taps=taps)
            self.consumer = application.consumer = consumer
            self._read_and_close(application, consumer)
        except GroupFatalError as error:
            self._change("failed", str(error))
            return
        self._change("closed")

    @staticmethod
    def _read_and_close(application: Application, consumer: Consumer) -> None:
        try:
            with consumer:
                application.read(consumer)
        except PlannedError:
            consumer.close()
