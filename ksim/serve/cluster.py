"""The cluster behind the sockets: shared state, and the coordinators with their time and log."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from random import Random

from ksim.broker.apis import Commons
from ksim.broker.batches import BatchLog
from ksim.broker.cluster import NO_NODE, ClusterState
from ksim.broker.faults import FaultBook
from ksim.broker.links import Links
from ksim.broker.settings import ServeConfig
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator
from ksim.core.coordinator_hash import group_partition
from ksim.core.session import Session, StepListener
from ksim.core.trace import Plain
from ksim.core.values import TopicPartition
from ksim.serve.connection import Queued
from ksim.wire.records import record_stamps


def _unheard(client_id: str, tp: TopicPartition, offset: int) -> None:
    del client_id, tp, offset


def _unrecorded(source: str, snapshot: Callable[[], Plain]) -> list[StepListener]:
    del source, snapshot
    return []


class CoordinatorHost:
    """Time, log and entropy for the coordinator of one partition of the offsets topic."""

    def __init__(self, cluster: Cluster, node_id: int, partition: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.partition = partition
        self.source = f"broker-{node_id}/{partition}"
        self._tokens: dict[int, asyncio.Future[m.Response]] = {}
        self._next_token = 0
        self._timer: asyncio.TimerHandle | None = None
        machine = Coordinator(cluster.config.coordinator, cluster.entropy.getrandbits(63))
        recorders = cluster.recorders(self.source, machine.snapshot)
        self.session = Session(machine, self, [*cluster.listeners(self.source), *recorders])

    @property
    def machine(self) -> Coordinator:
        found = self.session.machine
        assert isinstance(found, Coordinator)
        return found

    def feed(self, fact: e.CoordinatorFact) -> None:
        self.session.feed(fact, self.cluster.now_ms)
        self._arm()

    def ask(
        self, request: m.Request, client_id: str, client_host: str, api_version: int
    ) -> asyncio.Future[m.Response]:
        """The answer, when the coordinator gives one."""
        token = self._next_token
        self._next_token += 1
        future: asyncio.Future[m.Response] = asyncio.get_running_loop().create_future()
        self._tokens[token] = future
        static = getattr(request, "group_instance_id", None)
        bits = self.cluster.entropy.getrandbits(128)
        fresh = f"{static or client_id}-{uuid.UUID(int=bits, version=4)}"
        self.feed(e.RequestArrived(token, request, client_id, fresh, api_version, client_host))
        return future

    def perform(self, order: e.CoordinatorOrder, now_ms: int) -> None:
        """Carry out one order of the coordinator."""
        del now_ms
        if isinstance(order, e.SendResponse):
            future = self._tokens.pop(order.token)
            if not future.done():
                future.set_result(order.response)
        elif isinstance(order, e.AppendRecords):
            asyncio.get_running_loop().call_soon(self._append, order)

    def _append(self, order: e.AppendRecords) -> None:
        if not self.machine.state.active or not self.cluster.has(self):
            return
        self.cluster.state.append_offsets(self.partition, order.entries)
        self.feed(e.RecordsAppended(order.append_id, 0))

    def load(self) -> None:
        """The log is read: from here on this is the coordinator."""
        if self.machine.state.loading and self.cluster.has(self):
            self.feed(e.LogReplayed(tuple(self.cluster.state.offsets_logs[self.partition])))

    def stand_still(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        deadline_ms = self.machine.deadline_ms
        self.stand_still()
        if deadline_ms is not None:
            wait_s = max(deadline_ms - self.cluster.now_ms, 0) / 1_000
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if not self.cluster.links.is_paused(self.node_id):
            self.feed(e.TimerFired())


class Cluster:
    """What all brokers share. All of it lives in one event loop."""

    def __init__(
        self, config: ServeConfig, listeners: Callable[[str], list[StepListener]], seed: int
    ) -> None:
        self.config = config
        self.listeners = listeners
        self.entropy = Random(seed)
        self.state: ClusterState[BatchLog] = ClusterState(
            config.brokers, lambda: BatchLog(config.log_retention_bytes)
        )
        cluster_id = str(uuid.UUID(int=self.entropy.getrandbits(128), version=4))
        self.commons = Commons(config, cluster_id, self.state, stamps=record_stamps)
        self.faults = FaultBook()
        self.links = Links()
        self.recorders: Callable[[str, Callable[[], Plain]], list[StepListener]] = _unrecorded
        self.on_fetch: Callable[[str, TopicPartition, int], None] = _unheard
        self.queued = Queued(config.queued_max_bytes)
        self._hosts: dict[tuple[int, int], CoordinatorHost] = {}
        self._news: asyncio.Future[None] | None = None
        self._origin_ms = int(time.time() * 1_000) - int(time.monotonic() * 1_000)

    @property
    def now_ms(self) -> int:
        """Milliseconds of the epoch, by a clock that never goes back."""
        return self._origin_ms + int(time.monotonic() * 1_000)

    def coordinator(self, node_id: int, group_id: str) -> CoordinatorHost:
        """This broker's host of the group's partition; it refuses where another one coordinates."""
        return self.host_of(node_id, group_partition(group_id))

    def host_of(self, node_id: int, partition: int) -> CoordinatorHost:
        found = self._hosts.get((node_id, partition))
        if found is None:
            found = self._hosts[node_id, partition] = CoordinatorHost(self, node_id, partition)
            if self.state.coordinator(partition).node_id == node_id:
                found.feed(e.LoadBegan())
                found.load()
        return found

    def hosts(self, node_id: int | None = None) -> list[CoordinatorHost]:
        """Those that exist, of one broker or of all, by partition."""
        return [host for (node, _), host in sorted(self._hosts.items()) if node_id in (None, node)]

    def move_coordinator(self, group_id: str, node_id: int | None) -> int:
        """Let another broker coordinate the group (None: the next one); returns which."""
        partition = group_partition(group_id)
        old = self.state.coordinator(partition).node_id
        new = self.state.next_node(old) if node_id is None else node_id
        if new in (old, NO_NODE):
            return old
        before = self.host_of(old, partition)
        self.state.move_coordinator(partition, new)
        before.feed(e.Resigned())
        self._take_over(new, partition)
        return new

    def _take_over(self, node_id: int, partition: int) -> None:
        after = self._hosts.get((node_id, partition))
        if after is None:
            after = self._hosts[node_id, partition] = CoordinatorHost(self, node_id, partition)
        after.feed(e.LoadBegan())
        load_s = self.config.coordinator_load_ms / 1_000
        asyncio.get_running_loop().call_later(load_s, after.load)

    def has(self, host: CoordinatorHost) -> bool:
        """False for what a broker that crashed left behind."""
        return self._hosts.get((host.node_id, host.partition)) is host

    def crash(self, node_id: int) -> None:
        """A broker is gone with all that it held; others lead and load what it led."""
        led = [
            host.partition
            for host in self.hosts(node_id)
            if self.state.coordinator(host.partition).node_id == node_id
        ]
        for host in self.hosts(node_id):
            host.stand_still()
            del self._hosts[node_id, host.partition]
        self.links.resume(node_id)
        self.state.fail(node_id)
        for partition in led:
            heir = self.state.coordinator(partition).node_id
            if heir != NO_NODE:
                self._take_over(heir, partition)
        self.tell_news()

    def resume(self, node_id: int) -> None:
        """A broker that stood still goes on; what is overdue happens now."""
        self.links.resume(node_id)
        for host in self.hosts(node_id):
            host.feed(e.TimerFired())
        self.tell_news()

    def topics_deleted(self, topics: tuple[str, ...]) -> None:
        """Every coordinator forgets their offsets."""
        for host in self.hosts():
            host.feed(e.TopicsDeleted(topics))

    def tell_news(self) -> None:
        """Something was appended, or leads elsewhere: parked fetches look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None

    async def wait_for_news(self, timeout_s: float | None) -> None:
        """Return when something was appended, or when time is over."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._news], timeout=timeout_s)
