"""One small world for tests of the consumer: brokers, time, and applications in greenlets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import greenlet

from ksim.consumer.config import Config
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.session import StepListener
from ksim.core.values import TopicPartition
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.gate import Gate
from ksim.sim.network import Network
from ksim.sim.world import World
from ksim.wiring import context_with


class TinyWorld:
    """Brokers without initial delay, the topic `t`, and virtual time."""

    def __init__(self, partitions: int = 2, brokers: int = 1) -> None:
        self.world = World(5)
        network = Network(self.world, (1, 2), 0.0)
        config = CoordinatorConfig(initial_rebalance_delay_ms=0)
        self.cluster = SimCluster(self.world, network, brokers, config, self, ())
        self.cluster.state.create_topic("t", partitions)
        self.failures: list[BaseException] = []
        self._started: list[tuple[greenlet.greenlet, SimDriver]] = []

    def listeners(self, source: str) -> Sequence[StepListener]:
        del source
        return ()

    def config(self, **options: Any) -> Config:
        usual: dict[str, Any] = {
            "bootstrap_servers": ("simulated:9092",),
            "group_id": "g",
            "topics": ("t",),
            "auto_offset_reset": "earliest",
            "session_timeout_ms": 6_000,
            "heartbeat_interval_ms": 500,
            "commit_interval_ms": 500,
            "return_errors": True,
            "return_notifications": True,
        }
        return Config(**{**usual, **options})

    def produce(self, partition: int, count: int) -> None:
        records = [(None, b"x", ())] * count
        self.cluster.append(TopicPartition("t", partition), records)

    def start(self, application: Callable[[SimDriver], None], name: str = "m") -> SimDriver:
        """Run it from now on, in a greenlet whose consumers get this driver."""
        driver = SimDriver(self.world, self.cluster, Gate(self.world, name), name, name)

        def guarded() -> None:
            try:
                application(driver)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.failures.append(error)

        thread = greenlet.greenlet(guarded)
        thread.gr_context = context_with(lambda _: driver)
        self._started.append((thread, driver))
        self.world.call_after(0, thread.switch)
        return driver

    def run(self, for_ms: int) -> None:
        self.world.run_until(self.world.now_us + for_ms * 1_000)

    def play(self, application: Callable[[SimDriver], None], for_ms: int) -> None:
        """Run one application for so long; nothing that runs may have failed by then."""
        self.start(application)
        self.run(for_ms)
        assert not self.failures, self.failures

    def end(self) -> None:
        for thread, driver in self._started:
            driver.ended = True
            if not thread.dead and thread.gr_frame is not None:
                thread.throw(greenlet.GreenletExit)
