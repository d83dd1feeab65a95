"""The two arms of the consumer's tests: a simulated cluster in virtual time, and a real one.

A test body starts applications (threads here, greenlets there), produces, and waits for
conditions; it is the same on both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from contextvars import copy_context
from typing import Any, Protocol

import greenlet

from ksim.consumer.config import Config
from ksim.core import messages as m
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.coordinator_hash import group_partition
from ksim.core.events import MemberFact, OffsetRecord, SendRequest
from ksim.core.session import StepListener
from ksim.core.subscription import decode_subscription
from ksim.core.values import Payload, TopicPartition
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.gate import Gate
from ksim.sim.network import Network
from ksim.sim.world import World
from ksim.wiring import context_with
from tests.kafka_server import KafkaServer

LIMIT_S = 60.0
LIMIT_MS = 120_000
LOOK_MS = 20
NEVER = threading.Event()
Application = Callable[[], None]


class Arm(Protocol):
    """What a test body may do."""

    group: str
    topic: str

    def config(self, **options: Any) -> Config:
        """A consumer of the arm's topic and group, from the earliest record."""

    def create_topic(self, name: str, partitions: int) -> None:
        """Return when it can be used."""

    def produce(self, partition: int, count: int = 1, *, topic: str = "") -> None:
        """So many records more; the value is their number."""

    def start(self, application: Application) -> None:
        """Run it beside the test, as a process of its own would."""

    def spawn(self, function: Application) -> None:
        """By an application: one more of its threads."""

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        """By the test or by an application: wait for it."""

    def committed(self) -> dict[TopicPartition, tuple[int, str]]:
        """What the group has committed: offset and metadata."""

    def user_data(self) -> list[bytes | None]:
        """Of each member, by DescribeGroups."""

    def evict(self) -> None:
        """An administrator removes every member of the group."""

    def finish(self) -> None:
        """Wait for all applications; raise what the first of them raised."""

    def end(self) -> None:
        """Nothing of this arm runs afterwards."""


def settings(bootstrap: str, arm: Arm, options: dict[str, Any]) -> Config:
    usual: dict[str, Any] = {
        "bootstrap_servers": (bootstrap,),
        "group_id": arm.group,
        "topics": (arm.topic,),
        "auto_offset_reset": "earliest",
        "session_timeout_ms": 6_000,
        "heartbeat_interval_ms": 200,
        "commit_interval_ms": 200,
    }
    return Config(**{**usual, **options})


class RealArm:
    """Threads and Apache Kafka."""

    def __init__(self, kafka: KafkaServer, fresh_name: Callable[[str], str]) -> None:
        self.group, self.topic = fresh_name("group"), fresh_name("topic")
        self.kafka = kafka
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self.create_topic(self.topic, 2)

    def config(self, **options: Any) -> Config:
        return settings(self.kafka.bootstrap, self, options)

    def create_topic(self, name: str, partitions: int) -> None:
        self.kafka.create_topic(name, partitions)

    def produce(self, partition: int, count: int = 1, *, topic: str = "") -> None:
        from kafka import KafkaProducer

        make: Any = KafkaProducer
        producer = make(bootstrap_servers=self.kafka.bootstrap)
        for number in range(count):
            value = str(number).encode()
            producer.send(topic or self.topic, value, partition=partition)
        producer.flush(LIMIT_S)
        producer.close(LIMIT_S)

    def start(self, application: Application) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(application,)))
        self._threads[-1].start()

    spawn = start

    def _run(self, application: Application) -> None:
        try:
            application()
        except BaseException as error:  # noqa: BLE001 - raised again by `until` or `finish`
            self.failures.append(error)

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        limit_s = time.monotonic() + LIMIT_S
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < limit_s, f"never came: {what}"
            NEVER.wait(LOOK_MS / 1_000)

    def _admin(self) -> Any:
        from kafka import KafkaAdminClient

        make: Any = KafkaAdminClient
        return closing(make(bootstrap_servers=self.kafka.bootstrap))

    def committed(self) -> dict[TopicPartition, tuple[int, str]]:
        with self._admin() as admin:
            found = admin.list_group_offsets(self.group)
        return {
            TopicPartition(tp.topic, tp.partition): (kept.offset, kept.metadata)
            for tp, kept in found.get(self.group, found).items()
        }

    def user_data(self) -> list[bytes | None]:
        with self._admin() as admin:
            members = admin.describe_groups([self.group])[self.group]["members"]
        texts = [member["member_metadata"]["user_data"] for member in members]
        return [text.encode() if text else None for text in texts]

    def evict(self) -> None:
        from kafka.admin import MemberToRemove

        with self._admin() as admin:
            members = admin.describe_groups([self.group])[self.group]["members"]
            admin.remove_group_members(
                self.group, [MemberToRemove(member["member_id"]) for member in members]
            )

    def finish(self) -> None:
        for thread in list(self._threads):
            thread.join(LIMIT_S)
            assert not thread.is_alive(), "an application does not end"
        if self.failures:
            raise self.failures[0]

    def end(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT_S)


class _NoTaps:
    def listeners(self, source: str) -> Sequence[StepListener]:
        del source
        return ()


class Silent:
    """Whoever sends a request and waits for nothing."""

    deadline_ms = None

    def feed(self, fact: MemberFact, payload: Payload | None = None) -> None:
        """An answer that nobody needs."""


class SimArm:
    """Greenlets and simulated brokers."""

    group, topic = "g", "t"

    def __init__(self, seed: int = 3, brokers: int = 1) -> None:
        self.world = World(seed)
        network = Network(self.world, (1, 3), 0.0)
        settings_of_groups = CoordinatorConfig(initial_rebalance_delay_ms=0)
        self.cluster = SimCluster(self.world, network, brokers, settings_of_groups, _NoTaps(), ())
        self.failures: list[BaseException] = []
        self.drivers: list[SimDriver] = []
        self._users: list[greenlet.greenlet] = []
        self.create_topic(self.topic, 2)

    def config(self, **options: Any) -> Config:
        return settings("simulated:9092", self, options)

    def create_topic(self, name: str, partitions: int) -> None:
        self.cluster.state.create_topic(name, partitions)

    def produce(self, partition: int, count: int = 1, *, topic: str = "") -> None:
        records = [(None, str(number).encode(), ()) for number in range(count)]
        self.cluster.append(TopicPartition(topic or self.topic, partition), records)

    def _driver(self, config: Config) -> SimDriver:
        name = f"{config.client_id}-{len(self.drivers)}"
        driver = SimDriver(self.world, self.cluster, Gate(self.world, name), name, name)
        self.drivers.append(driver)
        return driver

    def start(self, application: Application) -> None:
        self._begin(application, context_with(self._driver))

    def spawn(self, function: Application) -> None:
        self._begin(function, copy_context())

    def _begin(self, function: Application, context: Any) -> None:
        def guarded() -> None:
            try:
                function()
            except Exception as error:  # noqa: BLE001 - raised again by `until` or `finish`
                self.failures.append(error)

        current = greenlet.getcurrent()
        user = greenlet.greenlet(guarded, current.parent or current)
        user.gr_context = context
        self._users.append(user)
        self.world.call_after(0, user.switch)

    def until(self, condition: Callable[[], bool], what: str = "") -> None:
        limit_ms = self.world.now_ms + LIMIT_MS
        while not condition():
            assert not self.failures, self.failures
            assert self.world.now_ms < limit_ms, f"never came: {what}"
            self.pass_ms(LOOK_MS)

    def pass_ms(self, for_ms: int) -> None:
        """By the test or by an application."""
        user = greenlet.getcurrent()
        if user.parent is None:
            self.world.run_until((self.world.now_ms + for_ms) * 1_000)
        else:
            self.world.call_after(for_ms * 1_000, user.switch)
            user.parent.switch()

    def committed(self) -> dict[TopicPartition, tuple[int, str]]:
        log = self.cluster.state.offsets_logs[group_partition(self.group)]
        return {
            TopicPartition(entry.topic, entry.partition): (entry.offset, entry.metadata)
            for entry in log
            if isinstance(entry, OffsetRecord)
        }

    def _members(self) -> dict[str, Any]:
        host = self.cluster.nodes[1].hosts[group_partition(self.group)]
        machine: Any = host.session.machine
        found: dict[str, Any] = machine.state.groups[self.group].members
        return found

    def user_data(self) -> list[bytes | None]:
        members = self._members().values()
        return [decode_subscription("", None, each.protocols[0][1]).user_data for each in members]

    def evict(self) -> None:
        members = tuple(m.MemberIdentity(member_id, None) for member_id in self._members())
        admin = self._driver(self.config(client_id="admin"))
        admin.open(Silent())
        request = m.LeaveGroupRequest(self.group, members)
        admin.send(SendRequest(0, 1, "group", request, LIMIT_MS))

    def finish(self) -> None:
        self.until(lambda: all(user.dead for user in self._users), "the end of all applications")
        if self.failures:
            raise self.failures[0]

    def end(self) -> None:
        for driver in self.drivers:
            driver.bury()
        for user in self._users:
            if not user.dead and user.gr_frame is not None:
                user.throw(greenlet.GreenletExit)
