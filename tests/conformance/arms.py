"""The two arms of the conformance tests: simulated brokers, and the real one.

Both run the same application, with the same Consumer, and write down the same history.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import greenlet

from ksim.consumer.config import Config
from ksim.consumer.consumer import Consumer
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.events import AssignPartitions
from ksim.core.session import StepListener
from ksim.core.trace import Plain
from ksim.core.values import TopicPartition
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.gate import Gate
from ksim.sim.network import Network
from ksim.sim.world import World
from ksim.wiring import context_with
from tests.kafka_server import KafkaServer

LIMIT_S = 60.0
LIMIT_MS = 120_000
LOOK_MS = 50

History = list[tuple[str, int, tuple[tuple[int, int], ...]]]


class Log:
    """What all members of an arm saw: assignments as (member, generation, (partition, offset))."""

    def __init__(self) -> None:
        self.history: History = []
        self.owned: dict[str, tuple[int, ...]] = {}
        self.handled: list[tuple[int, int]] = []
        self.closed: list[str] = []
        self.changed = threading.Condition()

    def assigned(self, name: str, order: AssignPartitions) -> None:
        with self.changed:
            shares = tuple((item.partition, item.offset) for item in order.partitions)
            self.history.append((name, order.generation_id, shares))
            self.owned[name] = tuple(item.partition for item in order.partitions)
            self.changed.notify_all()

    def note(self, items: list[Any], item: Any) -> None:
        with self.changed:
            items.append(item)
            self.changed.notify_all()


class _Assignments:
    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms, fact
        for order in orders:
            if isinstance(order, AssignPartitions):
                self._log.assigned(self._name, order)


class Arm(Protocol):
    """What a conformance test does, on either arm."""

    log: Log

    def start(self, name: str) -> None:
        """A member of this client id."""

    def stop(self, name: str) -> None:
        """End its loop; it commits and leaves."""

    def produce(self, partition: int, count: int) -> None:
        """So many records more in this partition."""

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the arm go on until this holds."""


def application(log: Log, config: Config, consumers: dict[str, Consumer]) -> None:
    """What every member runs, in a thread or in a greenlet."""
    name = config.client_id

    def tap(snapshot: Callable[[], Plain]) -> StepListener:
        del snapshot
        return _Assignments(name, log)

    with Consumer(config, taps=[tap]) as consumer:
        consumers[name] = consumer
        for message in consumer:
            log.note(log.handled, (message.partition, message.offset))
            consumer.mark_offset(message)
    log.note(log.closed, name)


def settings(bootstrap: str, group: str, topic: str, name: str) -> Config:
    return Config(
        bootstrap_servers=(bootstrap,),
        group_id=group,
        topics=(topic,),
        client_id=name,
        auto_offset_reset="earliest",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=200,
        commit_interval_ms=200,
    )


class RealArm:
    """Threads against Apache Kafka."""

    def __init__(self, kafka: KafkaServer, group: str, topic: str, partitions: int) -> None:
        self.log = Log()
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._consumers: dict[str, Consumer] = {}
        self._threads: dict[str, threading.Thread] = {}
        self.failures: list[BaseException] = []
        kafka.create_topic(topic, partitions)

    def start(self, name: str) -> None:
        config = settings(self._kafka.bootstrap, self._group, self._topic, name)
        thread = threading.Thread(target=self._run, args=(config,))
        self._threads[name] = thread
        thread.start()

    def _run(self, config: Config) -> None:
        try:
            application(self.log, config, self._consumers)
        except BaseException as error:  # noqa: BLE001 - raised again by `until`
            self.failures.append(error)

    def stop(self, name: str) -> None:
        self._consumers[name].stop()

    def produce(self, partition: int, count: int) -> None:
        from kafka import KafkaProducer

        producer: Any = KafkaProducer(bootstrap_servers=self._kafka.bootstrap)
        for _ in range(count):
            producer.send(self._topic, value=b"x", partition=partition)
        producer.flush(LIMIT_S)
        producer.close(LIMIT_S)

    def until(self, condition: Callable[[], bool]) -> None:
        with self.log.changed:
            assert self.log.changed.wait_for(condition, LIMIT_S), self.log.history
        assert not self.failures, self.failures

    def end(self) -> None:
        for name in self._consumers:
            self.stop(name)
        for thread in self._threads.values():
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "a member does not end"


class _NoTaps:
    def listeners(self, source: str) -> Sequence[StepListener]:
        del source
        return ()


class SimArm:
    """Greenlets against the simulated brokers."""

    def __init__(self, group: str, topic: str, partitions: int) -> None:
        self.log = Log()
        self._group = group
        self._topic = topic
        self._world = World(1)
        network = Network(self._world, (1, 3), 0.0)
        config = CoordinatorConfig(initial_rebalance_delay_ms=0)
        self._cluster = SimCluster(self._world, network, 1, config, _NoTaps(), ())
        self._cluster.state.create_topic(topic, partitions)
        self._consumers: dict[str, Consumer] = {}
        self._threads: list[tuple[greenlet.greenlet, SimDriver]] = []

    def start(self, name: str) -> None:
        driver = SimDriver(self._world, self._cluster, Gate(self._world, name), name, name)
        config = settings("simulated:9092", self._group, self._topic, name)
        thread = greenlet.greenlet(lambda: application(self.log, config, self._consumers))
        thread.gr_context = context_with(lambda _: driver)
        self._threads.append((thread, driver))
        self._world.call_after(0, thread.switch)

    def stop(self, name: str) -> None:
        self._consumers[name].stop()

    def produce(self, partition: int, count: int) -> None:
        records = [(None, b"x", ())] * count
        self._cluster.append(TopicPartition(self._topic, partition), records)

    def until(self, condition: Callable[[], bool]) -> None:
        limit_ms = self._world.now_ms + LIMIT_MS
        while not condition():
            assert self._world.now_ms < limit_ms, self.log.history
            self._world.run_until((self._world.now_ms + LOOK_MS) * 1_000)

    def end(self) -> None:
        for thread, driver in self._threads:
            driver.ended = True
            if not thread.dead and thread.gr_frame is not None:
                thread.throw(greenlet.GreenletExit)
