"""The brokers of a simulated cluster: pure answers and coordinators behind gates and links."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, assert_never

from ksim.broker.broker import Broker, host
from ksim.broker.cluster import ClusterState, compacted
from ksim.broker.faults import FaultAction, FaultBook, FaultRule, error_response, kind_of
from ksim.broker.log import PartitionLog
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.coordinator_hash import group_partition
from ksim.core.coordinator_shard import NOT_ENOUGH_REPLICAS
from ksim.core.errors import KafkaError
from ksim.core.session import Session, StepListener
from ksim.core.values import Payload, TopicPartition
from ksim.sim.driver import SimDriver
from ksim.sim.gate import Gate
from ksim.sim.network import Fate, Network
from ksim.sim.triggers import Triggers
from ksim.sim.world import US_PER_MS, Handle, World

APPEND_US = 1_000
COORDINATOR_LOAD_MS = 20


Answer = tuple[SimDriver, e.SendRequest, m.Response, Payload | None]


class Tapper(Protocol):
    def listeners(self, source: str) -> Sequence[StepListener]:
        """Who listens to the machine of this name."""


class Waiting:
    """A fetch without news yet."""

    __slots__ = ("client", "done", "order", "request")

    def __init__(self, client: SimDriver, order: e.SendRequest, request: m.FetchRequest) -> None:
        self.client = client
        self.order = order
        self.request = request
        self.done = False


class CoordinatorHost:
    """Time and log for the coordinator of one partition of the offsets topic, on one broker."""

    def __init__(self, node: BrokerNode, partition: int) -> None:
        self.node = node
        self.partition = partition
        self.tokens: dict[int, tuple[SimDriver, e.SendRequest]] = {}
        self._next_token = 0
        self._appends: deque[e.AppendRecords] = deque()
        cluster = node.cluster
        seed = node.world.stream(f"coordinator {partition} {node.node_id}").getrandbits(63)
        self.source = f"{host(node.node_id)}/{partition}"
        self.session = Session(
            Coordinator(cluster.coordinator_config, seed),
            self,
            cluster.tapper.listeners(self.source),
        )
        self._timer: Handle | None = None
        self._timer_us = 0

    def load(self) -> None:
        """The log is read: from here on this is the coordinator."""
        if self.node.hosts.get(self.partition) is not self:
            return
        entries = tuple(self.node.cluster.state.offsets_logs[self.partition])
        self.feed(e.LogReplayed(entries))

    def feed(self, fact: e.CoordinatorFact) -> None:
        self.session.feed(fact, self.node.world.now_ms)
        self._arm()

    def arrive(self, client: SimDriver, order: e.SendRequest) -> None:
        token = self._next_token
        self._next_token += 1
        self.tokens[token] = (client, order)
        bits = self.node.world.stream("member ids").getrandbits(128)
        fresh = f"{client.client_id}-{uuid.UUID(int=bits, version=4)}"
        self.feed(e.RequestArrived(token, order.request, client.client_id, fresh))

    def perform(self, order: e.CoordinatorOrder, now_ms: int) -> None:
        """Carry out one order of the coordinator."""
        del now_ms
        if isinstance(order, e.SendResponse):
            client, request = self.tokens.pop(order.token)
            self.node.respond(client, request, order.response)
        elif isinstance(order, e.AppendRecords):
            gate = self.node.gate
            self._appends.append(order)
            self.node.world.call_after(APPEND_US, gate.enter, "log", self._append)

    def _append(self) -> None:
        # The log has the order of what asked for it: calls of one instant have none.
        order = self._appends.popleft()
        if self.node.hosts.get(self.partition) is not self:
            return
        if self.partition in self.node.cluster.refusing:
            self.feed(e.RecordsAppended(order.append_id, NOT_ENOUGH_REPLICAS))
            return
        self.node.cluster.state.offsets_logs[self.partition].extend(order.entries)
        self.feed(e.RecordsAppended(order.append_id, 0))

    def _arm(self) -> None:
        deadline_ms = self.session.machine.deadline_ms
        if deadline_ms is None:
            return
        due_us = deadline_ms * US_PER_MS
        if self._timer is None or due_us < self._timer_us:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_us = due_us
            self._timer = self.node.world.call_at(
                due_us, self.node.gate.enter, "timers", self._on_timer
            )

    def _on_timer(self) -> None:
        self._timer = None
        deadline_ms = self.session.machine.deadline_ms
        if self.node.hosts.get(self.partition) is not self or deadline_ms is None:
            return
        if deadline_ms <= self.node.world.now_ms:
            self.feed(e.TimerFired())
        else:
            self._arm()


class BrokerNode:
    """One broker behind its gate."""

    def __init__(self, cluster: SimCluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.world = cluster.world
        self.gate = Gate(cluster.world, host(node_id))
        self.hosts: dict[int, CoordinatorHost] = {}
        self._broker = Broker(node_id, cluster.state)
        self._told = self._broker
        self._waiting: list[Waiting] = []

    def arrive(self, client: SimDriver, order: e.SendRequest) -> None:
        """A request has crossed the link; faults strike before it is looked at."""
        kind = kind_of(order.request)
        self.cluster.triggers.happened("request", kind, client.client_id)
        rule = self.cluster.faults.decide("request", kind, client.client_id)
        if self.gate.cut:
            return  # what happens at this event has ended this broker
        if rule is None:
            self._process(client, order)
            return
        self.cluster.on_fault(rule, client)
        match rule.action:
            case FaultAction.DROP:
                return
            case FaultAction.DELAY | FaultAction.LATE:
                self._postpone(rule, "requests", self._process, client, order)
            case FaultAction.DUPLICATE:
                self._process(client, order)
                self._process(client, order)
            case FaultAction.ERROR:
                self.respond(client, order, error_response(order.request, rule.error_code))
            case FaultAction.CRASH:
                self.cluster.crash_member(client.client_id)
            case FaultAction.DISCONNECT:
                self._disconnect(client, order)
            case _:
                assert_never(rule.action)

    def _postpone(
        self, rule: FaultRule, lane: str, function: Callable[..., None], *arguments: Any
    ) -> None:
        """Call it so long after now, or after the event that holds it back."""

        def begin() -> None:
            at_us = self.world.now_us + rule.for_ms * US_PER_MS
            self.world.call_apart(at_us, self.gate.enter, lane, function, *arguments)

        if rule.until is None:
            begin()
        else:
            self.cluster.triggers.when(rule.until, begin, held=True)

    def _disconnect(self, client: SimDriver, order: e.SendRequest) -> None:
        reason = f"{host(self.node_id)} closed the connection"
        client.reset(self.node_id, reason, order.channel)

    def tell_old(self, view: ClusterState[PartitionLog] | None) -> None:
        """Answer questions about the cluster from this view of it; None: as it is."""
        self._told = self._broker if view is None else Broker(self.node_id, view)

    def _process(self, client: SimDriver, order: e.SendRequest) -> None:
        request = order.request
        if isinstance(request, m.GROUP_REQUESTS):
            self._process_group(client, order, request.group_id)
        elif isinstance(request, m.FetchRequest):
            self._fetch(client, order, request)
        elif isinstance(request, m.MetadataRequest):
            self.respond(client, order, self._told.metadata(request))
        elif isinstance(request, m.FindCoordinatorRequest):
            self.respond(client, order, self._told.find_coordinator(request))
        elif isinstance(request, m.ListOffsetsRequest):
            self.respond(client, order, self._broker.list_offsets(request))
        elif isinstance(request, m.OffsetForLeaderEpochRequest):
            self.respond(client, order, self._broker.offset_for_leader_epoch(request))
        else:
            raise AssertionError(f"no answer for {kind_of(request)}")

    def _process_group(self, client: SimDriver, order: e.SendRequest, group_id: str) -> None:
        partition = group_partition(group_id)
        if self.cluster.state.coordinator(partition).node_id != self.node_id:
            code = KafkaError.NOT_COORDINATOR
            self.respond(client, order, error_response(order.request, code))
            return
        found = self.hosts.get(partition)
        if found is None:
            found = self.hosts[partition] = CoordinatorHost(self, partition)
            found.load()
        found.arrive(client, order)

    def _fetch(self, client: SimDriver, order: e.SendRequest, request: m.FetchRequest) -> None:
        if self._broker.has_news(request) or request.max_wait_ms <= 0:
            self._answer_fetch(client, order, request)
            return
        waiting = Waiting(client, order, request)
        self._waiting.append(waiting)
        after_us = request.max_wait_ms * US_PER_MS
        self.world.call_after(after_us, self.gate.enter, "timers", self._end_wait, waiting)

    def _end_wait(self, waiting: Waiting) -> None:
        if not waiting.done:
            waiting.done = True
            self._waiting.remove(waiting)
            self._answer_fetch(waiting.client, waiting.order, waiting.request)

    def look_again(self) -> None:
        """Something was appended, or leaders moved: parked fetches may have news."""
        for waiting in list(self._waiting):
            if self._broker.has_news(waiting.request):
                self._end_wait(waiting)

    def _answer_fetch(
        self, client: SimDriver, order: e.SendRequest, request: m.FetchRequest
    ) -> None:
        response, payload = self._broker.fetch(request)
        self.respond(client, order, response, payload)

    def respond(
        self,
        client: SimDriver,
        order: e.SendRequest,
        response: m.Response,
        payload: Payload | None = None,
    ) -> None:
        """Send an answer; faults on answers strike here."""
        kind = kind_of(order.request)
        self.cluster.triggers.happened("response", kind, client.client_id)
        rule = self.cluster.faults.decide("response", kind, client.client_id)
        answer: Answer = (client, order, response, payload)
        if rule is None:
            self._carry(*answer)
            return
        self.cluster.on_fault(rule, client)
        match rule.action:
            case FaultAction.DROP:
                self._carry(*answer, fate=Fate.LOST)
            case FaultAction.DELAY:
                self._carry(*answer, delay_ms=rule.for_ms)
            case FaultAction.LATE:
                self._carry(*answer, fate=Fate.LOST)
                if rule.error_code:
                    answer = (client, order, error_response(order.request, rule.error_code), None)
                self._postpone(rule, "answers", self._carry_late, *answer)
            case FaultAction.DUPLICATE:
                self._carry(*answer)
                self._carry(*answer, fate=Fate.COPY)
            case FaultAction.ERROR:
                self._carry(client, order, error_response(order.request, rule.error_code), None)
            case FaultAction.CRASH:
                self.cluster.crash_member(client.client_id)
                self._carry(*answer)
            case FaultAction.DISCONNECT:
                self._carry(*answer, fate=Fate.LOST)
                self._disconnect(client, order)
            case _:
                assert_never(rule.action)

    def _carry(
        self,
        client: SimDriver,
        order: e.SendRequest,
        response: m.Response,
        payload: Payload | None,
        *,
        delay_ms: int = 0,
        fate: Fate = Fate.USUAL,
    ) -> None:
        self.cluster.network.carry(
            self.gate.name,
            client.gate.name,
            f"{client.name}/{order.channel}",
            client.answered,
            order.request_id,
            response,
            payload,
            delay_ms=delay_ms,
            fate=fate,
        )

    def _carry_late(
        self,
        client: SimDriver,
        order: e.SendRequest,
        response: m.Response,
        payload: Payload | None,
    ) -> None:
        # It left long ago: the link's own draw was taken then.
        client.answered(order.request_id, response, payload)

    def resign(self, partition: int) -> None:
        """This broker coordinates the partition no more; parked requests are refused."""
        found = self.hosts.pop(partition, None)
        if found is not None:
            found.feed(e.Resigned())

    def become_coordinator(self, partition: int) -> None:
        """Load the partition of the offsets topic, then answer for its groups."""
        found = self.hosts[partition] = CoordinatorHost(self, partition)
        found.feed(e.LoadBegan())
        self.world.call_after(self.cluster.load_us, self.gate.enter, "log", found.load)

    def die(self) -> None:
        self.gate.shut()
        self.hosts.clear()
        self._waiting.clear()


class SimCluster:
    """Brokers, their shared state and the links to them."""

    def __init__(
        self,
        world: World,
        network: Network,
        brokers: int,
        coordinator_config: CoordinatorConfig,
        tapper: Tapper,
        rules: tuple[FaultRule, ...],
        load_ms: int = COORDINATOR_LOAD_MS,
    ) -> None:
        self.world = world
        self.network = network
        self.state = ClusterState(brokers, PartitionLog)
        self.coordinator_config = coordinator_config
        self.tapper = tapper
        self.load_us = load_ms * US_PER_MS
        self.faults = FaultBook(rules)
        self.triggers = Triggers()
        self.refusing: set[int] = set()
        self.nodes = {at: BrokerNode(self, at) for at in range(1, brokers + 1)}
        self.crash_member: Callable[[str], None] = lambda _: None
        self.on_fault: Callable[[FaultRule, SimDriver], None] = lambda _, __: None

    def submit(self, client: SimDriver, node_id: int, order: e.SendRequest) -> None:
        """Carry a request to a broker."""
        node = self.nodes[node_id]
        if node.gate.cut:
            reason = f"{host(node_id)} refused the connection"
            self.world.call_after(0, client.reset, node_id, reason)
            return
        self.network.carry(
            client.gate.name,
            node.gate.name,
            f"{client.name}/{order.channel}",
            self._arrive,
            node_id,
            client,
            order,
        )

    def _arrive(self, node_id: int, client: SimDriver, order: e.SendRequest) -> None:
        node = self.nodes[node_id]
        node.gate.enter(f"{client.name}/{order.channel}", node.arrive, client, order)

    def any_node(self, attempt: int) -> int:
        return 1 + attempt % self.state.brokers

    def append(self, tp: TopicPartition, records: Sequence[Any]) -> int:
        """Write records as a producer would; returns the new end of the log."""
        self.state.logs[tp].append(records, self.world.now_ms, self.state.leader(tp).epoch)
        node_id = self.state.leader(tp).node_id
        if node_id in self.nodes:
            node = self.nodes[node_id]
            node.gate.enter("log", node.look_again)
        return self.state.logs[tp].end_offset

    def truncate(self, tp: TopicPartition, count: int) -> int:
        """An unclean election: another broker leads, without the last `count` records.

        Returns the new end of the log.
        """
        log = self.state.logs[tp]
        log.truncate(max(log.start_offset, log.end_offset - count))
        self.state.change_leader(tp)
        for node in self.nodes.values():
            node.gate.enter("log", node.look_again)
        return log.end_offset

    def move_coordinator(self, group_id: str, node_id: int | None) -> int:
        """The group's coordinator moves to this node (None: the next one); returns the node."""
        partition = group_partition(group_id)
        old = self.state.coordinator(partition).node_id
        new = self.state.next_node(old) if node_id is None else node_id
        if new in (old, -1):
            return old
        self.state.move_coordinator(partition, new)
        self.nodes[old].resign(partition)
        self.nodes[new].become_coordinator(partition)
        return new

    def crash(self, node_id: int, clients: Sequence[SimDriver]) -> None:
        """A broker dies: its connections break and others take over what it led."""
        dead = self.nodes[node_id]
        led = [p for p in dead.hosts if self.state.coordinator(p).node_id == node_id]
        dead.die()
        self.state.fail(node_id)
        for partition in led:
            heir = self.state.coordinator(partition).node_id
            if heir in self.nodes:
                self.nodes[heir].become_coordinator(partition)
        for client in clients:
            client.reset(node_id, f"{host(node_id)} closed the connection")
        for node in self.nodes.values():
            node.look_again()

    def add_partitions(self, topic: str, count: int) -> None:
        """A topic grows, or comes to be."""
        if topic in self.state.counts:
            self.state.add_partitions(topic, count)
        else:
            self.state.create_topic(topic, count)

    def delete_topic(self, topic: str) -> None:
        """The topic is gone, and every coordinator forgets its offsets."""
        self.state.delete_topic(topic)
        for node in self.nodes.values():
            for coordinator in list(node.hosts.values()):
                coordinator.feed(e.TopicsDeleted((topic,)))
            node.gate.enter("log", node.look_again)

    def compact(self, group_id: str) -> None:
        """The group's partition of the offsets topic is compacted."""
        log = self.state.offsets_logs[group_partition(group_id)]
        log[:] = compacted(log)

    def restart(self, node_id: int) -> None:
        """A dead broker comes back, as a follower."""
        if self.nodes[node_id].gate.cut:
            self.nodes[node_id] = BrokerNode(self, node_id)
            self.state.recover(node_id)

    def heal(self, is_core: Callable[[str], bool] = lambda _: True) -> None:
        """From here on nothing goes wrong any more between the nodes of the core."""
        self.network.heal_all(is_core)
        self.faults.clear()
        self.triggers.release()
        self.refusing.clear()
        for node_id, node in self.nodes.items():
            if not is_core(host(node_id)):
                continue
            if node.gate.cut:
                self.restart(node_id)
            node.gate.resume()
            self.nodes[node_id].tell_old(None)
