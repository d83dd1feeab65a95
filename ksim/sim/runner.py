"""One run of a scenario: a safety phase, healing, a liveness phase, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ksim import observations as o
from ksim.broker.broker import host
from ksim.broker.faults import FaultRule
from ksim.checks import Violation
from ksim.consumer.config import Config
from ksim.consumer.engine import Tap
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.coordinator_hash import group_partition
from ksim.core.session import StepListener
from ksim.core.trace import Plain
from ksim.core.values import TopicPartition
from ksim.digest import TraceDigest
from ksim.liveness import Bench, seen_bound_ms
from ksim.scenario import ProduceSpec, Scenario, StepSpec
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.members import SimMember
from ksim.sim.network import Network
from ksim.sim.world import US_PER_MS, World

LOOK_MS = 500
TICK_US = 10_000
Watch = Callable[[str, int, Any, Sequence[Any]], None]
Recorder = Callable[[str, Config, Plain], StepListener]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run showed; `verdict` is pass, safety or liveness."""

    scenario: str
    seed: int
    digest: str
    verdict: str
    checks: dict[str, str]
    violations: tuple[Violation, ...]
    simulated_ms: int
    cpu_ms: int
    events: int
    messages: int
    rebalances: int
    records: int


class _Listener:
    """Passes the steps of one machine on, under its name."""

    __slots__ = ("_source", "_watch")

    def __init__(self, source: str, watch: Watch) -> None:
        self._source = source
        self._watch = watch

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        self._watch(self._source, now_ms, fact, orders)


class Run:
    """A scenario with a seed, set up and ready to go."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        watches: Sequence[Watch] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.world = World(seed)
        self.digest = TraceDigest()
        self.bench = Bench(scenario)
        self.records = 0
        self._rebalances = 0
        self._watches: list[Watch] = [self.digest.add, self.bench.see, *watches]
        self._recorder = recorder
        cluster = scenario.cluster
        self.network = Network(self.world, cluster.latency_ms, cluster.loss)
        config = CoordinatorConfig(initial_rebalance_delay_ms=cluster.initial_rebalance_delay_ms)
        self.cluster = SimCluster(
            self.world,
            self.network,
            cluster.brokers,
            config,
            self,
            tuple(fault.rule for fault in scenario.faults),
        )
        self.cluster.crash_member = self._crash_member
        self.cluster.on_fault = self._on_fault
        self.members: dict[str, SimMember] = {}
        for topic in scenario.topics:
            self.cluster.state.create_topic(topic.name, topic.partitions)

    # What machines and members report

    def listeners(self, source: str) -> Sequence[StepListener]:
        return [_Listener(source, self._see)]

    def taps(self, name: str, incarnation: str, config: Config) -> Sequence[Tap]:
        """The run itself, and the recorder if there is one."""
        found: list[Tap] = [lambda _: _Listener(name, self._see)]
        recorder = self._recorder
        if recorder is not None:
            found.append(lambda snapshot: recorder(incarnation, config, snapshot))
        return found

    def observe(self, source: str, fact: o.Observation) -> None:
        self._see(source, self.world.now_ms, fact, ())

    def _see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for order in orders:
            kind = type(order).__name__
            if kind == "StateChanged" and order.to_state == "CompletingRebalance":
                self._rebalances += 1
        for watch in self._watches:
            watch(source, now_ms, fact, orders)

    def _on_fault(self, rule: FaultRule, client: SimDriver) -> None:
        name = f"{rule.action.value} {rule.direction} {rule.kind}"
        self.observe("faults", o.FaultStruck(name, client.client_id, rule.for_ms))

    def _crash_member(self, name: str) -> None:
        self.members[name].crash()

    # The run

    def go(self) -> RunResult:
        """Run to the end and judge."""
        began_ns = time.process_time_ns()
        self._schedule()
        self.world.run_until(self.scenario.until_ms * US_PER_MS)
        self._heal()
        bound_ms = self.scenario.until_ms + seen_bound_ms(self.scenario)
        while self.world.now_ms < bound_ms:
            self.world.run_until((self.world.now_ms + LOOK_MS) * US_PER_MS)
            self._keep_alive()
            if self.bench.at_rest(self.world.now_ms):
                break
        end_ms = self.world.now_ms
        self.bench.end(end_ms)
        digest = self.digest.hexdigest()
        self._watches.clear()
        for member in self.members.values():
            member.bury()
        return self._result(digest, end_ms, (time.process_time_ns() - began_ns) // 1_000_000)

    def _result(self, digest: str, end_ms: int, cpu_ms: int) -> RunResult:
        failed = [checker for checker in self.bench.checkers if checker.violations]
        verdict = "pass"
        if failed:
            verdict = "safety" if any(not c.liveness for c in failed) else "liveness"
        return RunResult(
            self.scenario.name,
            self.seed,
            digest,
            verdict,
            self.bench.verdicts,
            tuple(self.bench.violations),
            end_ms,
            cpu_ms,
            self.world.events,
            self.network.messages,
            self._rebalances,
            self.records,
        )

    def _schedule(self) -> None:
        started_later = [step.target for step in self.scenario.steps if step.do == "start"]
        for group in self.scenario.groups:
            for number in range(1, group.members + 1):
                name = group.member(number)
                member = SimMember(self.world, self.cluster, self, group, name)
                self.members[name] = member
                at_us = (number - 1) * group.start_every_ms * US_PER_MS
                self.world.call_at(at_us, member.start)
            for name in started_later:
                if name.startswith(f"{group.id}-") and name not in self.members:
                    self.members[name] = SimMember(self.world, self.cluster, self, group, name)
        for produce in self.scenario.produce:
            self.world.call_at(produce.start_ms * US_PER_MS, self._produce, produce, 0)
        for step in self.scenario.steps:
            self.world.call_at(step.at_ms * US_PER_MS, self._do, step)

    def _produce(self, spec: ProduceSpec, done: int) -> None:
        """Write what is due; the next records come with the next tick."""
        every_us = max(TICK_US, 1_000_000 // spec.per_second)
        due = min(spec.count - done, max(1, spec.per_second * every_us // 1_000_000))
        partitions = self.cluster.state.counts[spec.topic]
        by_partition: dict[int, list[Any]] = {}
        for number in range(done, done + due):
            text = str(number).encode()
            by_partition.setdefault(number % partitions, []).append((text, text, ()))
        for partition, records in by_partition.items():
            end = self.cluster.append(TopicPartition(spec.topic, partition), records)
            self.observe("producer", o.Produced(spec.topic, partition, end))
        self.records += due
        if done + due < spec.count:
            self.world.call_after(every_us, self._produce, spec, done + due)

    # Steps

    def _do(self, step: StepSpec) -> None:
        self.observe("faults", o.FaultStruck(step.do, step.target, step.for_ms or 0))
        if step.do == "move_coordinator":
            node_id = None if step.peer is None else _node(step.peer)
            self.cluster.move_coordinator(step.target, node_id)
        elif step.do == "add_partitions":
            self.cluster.state.add_partitions(step.target, step.count or 1)
        elif step.do in ("partition", "hold", "heal"):
            self._cut(step)
        elif step.target.startswith("broker-"):
            self._do_to_broker(step.do, _node(step.target), step.for_ms)
        else:
            self._do_to_member(step.do, self.members[step.target], step.for_ms)

    def _do_to_member(self, do: str, member: SimMember, for_ms: int | None) -> None:
        actions = {
            "crash": (member.crash, member.start),
            "start": (member.start, member.stop),
            "stop": (member.stop, member.start),
            "pause": (member.pause, member.resume),
            "restart": (member.start, None),
        }
        action, undo = actions[do]
        if do == "restart":
            member.crash()
        action()
        if for_ms is not None and undo is not None:
            self.world.call_after(for_ms * US_PER_MS, undo)

    def _do_to_broker(self, do: str, node_id: int, for_ms: int | None) -> None:
        gate = self.cluster.nodes[node_id].gate
        if do == "pause":
            gate.pause()
            undo: Callable[[], None] = gate.resume
        elif do in ("crash", "stop"):
            if not gate.cut:
                self.cluster.crash(node_id, self._drivers())
            undo = lambda: self.cluster.restart(node_id)  # noqa: E731
        else:
            self.cluster.restart(node_id)
            return
        if for_ms is not None:
            self.world.call_after(for_ms * US_PER_MS, undo)

    def _drivers(self) -> list[SimDriver]:
        return [m.driver for m in self.members.values() if m.driver is not None and m.running]

    def _cut(self, step: StepSpec) -> None:
        network = self.network
        does = {
            "partition": (network.partition, network.heal),
            "hold": (network.hold, network.release),
            "heal": (network.heal, network.partition),
        }
        action, undo = does[step.do]
        for peer in self._peers(step):
            action(step.target, peer)
            if step.for_ms is not None:
                self.world.call_after(step.for_ms * US_PER_MS, undo, step.target, peer)

    def _peers(self, step: StepSpec) -> list[str]:
        """The nodes that the target is cut from; the coordinator is the one of this moment."""
        if step.peer == "coordinator":
            group_id = self.members[step.target].group.id
            partition = group_partition(group_id)
            return [host(self.cluster.state.coordinator(partition).node_id)]
        if step.peer is not None:
            return [step.peer]
        return [host(node_id) for node_id in self.cluster.nodes]

    def _heal(self) -> None:
        """From here on nothing goes wrong any more; the dead stay dead if others live."""
        self.network.heal_all()
        self.cluster.faults.clear()
        for node_id, node in self.cluster.nodes.items():
            if node.gate.cut:
                self.cluster.restart(node_id)
            node.gate.resume()
        for member in self.members.values():
            member.resume()
        self._keep_alive()
        live = tuple(name for name, member in self.members.items() if member.running)
        self.observe("faults", o.Healed(live))

    def _keep_alive(self) -> None:
        """A group whose last member is gone, or leaves after healing, gets its first one back."""
        for group in self.scenario.groups:
            of_group = [m for m in self.members.values() if m.group is group]
            if not any(m.running for m in of_group):
                of_group[0].start()


def _node(name: str) -> int:
    return int(name.removeprefix("broker-"))


def run(
    scenario: Scenario,
    seed: int,
    *,
    watches: Sequence[Watch] = (),
    recorder: Recorder | None = None,
) -> RunResult:
    """Run a scenario once. The same seed gives the same digest, in any process."""
    return Run(scenario, seed, watches=watches, recorder=recorder).go()
