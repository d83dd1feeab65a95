"""One run of a scenario: a safety phase, healing, a liveness phase, and what came out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ksim import observations as o
from ksim.broker.broker import host
from ksim.broker.faults import FaultRule
from ksim.checks import Violation, seconds
from ksim.consumer.config import Config
from ksim.consumer.engine import Tap
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.session import StepListener
from ksim.core.trace import Plain
from ksim.digest import TraceDigest
from ksim.liveness import Bench, seen_bound_ms
from ksim.scenario import ClusterSpec, Scenario, ScenarioError
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.healing import Healing
from ksim.sim.members import SimMember
from ksim.sim.network import Network
from ksim.sim.production import Production
from ksim.sim.steps import Steps
from ksim.sim.world import US_PER_MS, EventsSpentError, World

LOOK_MS = 500
LAST_FACTS = 5
BUDGET = "budget"
Watch = Callable[[str, int, Any, Sequence[Any]], None]
Recorder = Callable[[str, Config, Callable[[], Plain]], StepListener]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run showed; `verdict` is pass, safety, liveness or broken."""

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


class Listener:
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
        if scenario.vary:
            raise ScenarioError(f"{scenario.name}: is a sweep: a run takes one of its points")
        self.world = World(seed, scenario.max_events)
        self.digest = TraceDigest()
        self.bench = Bench(scenario)
        self._rebalances = 0
        self._watches: list[Watch] = [self.digest.add, self.bench.see, *watches]
        self._recorder = recorder
        cluster = scenario.cluster
        self.network = Network(self.world, cluster.latency_ms, cluster.loss)
        self.cluster = SimCluster(
            self.world,
            self.network,
            cluster.brokers,
            coordinator_config(cluster),
            self,
            tuple(fault.rule for fault in scenario.faults),
            cluster.coordinator_load_ms,
        )
        self.production = Production(self.world, self.cluster, self.observe)
        self.cluster.crash_member = self._crash_member
        self.cluster.on_fault = self._on_fault
        self.members: dict[str, SimMember] = {}
        self._steps = Steps(self.world, self.cluster, self.members, scenario, self.observe)
        self._healing = Healing(scenario, self.cluster, self.members, self.observe)
        self._last: deque[tuple[str, int, str]] = deque(maxlen=LAST_FACTS)
        self._struck: set[int] = set()
        for topic in scenario.topics:
            self.cluster.state.create_topic(topic.name, topic.partitions)

    # What machines and members report

    def listeners(self, source: str) -> Sequence[StepListener]:
        return [Listener(source, self._see)]

    def taps(self, name: str, incarnation: str, config: Config) -> Sequence[Tap]:
        """The run itself, and the recorder if there is one."""
        found: list[Tap] = [lambda _: Listener(name, self._see)]
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
        self._last.append((source, now_ms, type(fact).__name__))
        for watch in self._watches:
            watch(source, now_ms, fact, orders)

    def _on_fault(self, rule: FaultRule, client: SimDriver) -> None:
        name = f"{rule.action.value} {rule.direction} {rule.kind}"
        self.observe("faults", o.FaultStruck(name, client.client_id, rule.for_ms))
        if rule.lasts_ms is not None and id(rule) not in self._struck:
            self._struck.add(id(rule))
            over_us = self.world.now_us + rule.lasts_ms * US_PER_MS
            self.world.call_apart(over_us, self.cluster.faults.lift, rule)

    def _crash_member(self, name: str) -> None:
        self.members[name].crash()

    # The run

    def go(self) -> RunResult:
        """Run to the end and judge."""
        began_ns = time.process_time_ns()
        spent: list[Violation] = []
        try:
            self.go_until_healing()
            self._healing.heal(self._steps)
            written_ms = max(self.scenario.until_ms, self.production.over_ms)
            bound_ms = written_ms + seen_bound_ms(self.scenario)
            while self.world.now_ms < bound_ms:
                self.world.run_until((self.world.now_ms + LOOK_MS) * US_PER_MS)
                self._healing.keep_alive()
                rests = self.bench.at_rest(self.world.now_ms)
                if rests and self.world.now_ms >= written_ms:
                    break
        except EventsSpentError:
            spent.append(self._spent())
        end_ms = self.world.now_ms
        self.bench.end(end_ms, given_up=bool(spent))
        digest = self.digest.hexdigest()
        self.bury()
        cpu_ms = (time.process_time_ns() - began_ns) // 1_000_000
        return self._result(digest, end_ms, cpu_ms, spent)

    def go_until_healing(self) -> None:
        """The safety phase."""
        self._schedule()
        self.world.run_until(self.scenario.until_ms * US_PER_MS)

    def bury(self) -> None:
        """The run is over: nothing that is left of it reaches anything."""
        self._watches.clear()
        for member in self.members.values():
            member.bury()

    def _spent(self) -> Violation:
        """What was going on when there had been too many events."""
        now_ms = self.world.now_ms
        waits = [
            f"{name} waits for {', '.join(f'{kind} of {_host(at)}' for kind, at in asked)}"
            for name, member in self.members.items()
            if member.running and member.driver and (asked := member.driver.unanswered)
        ]
        last = [f"{name} of {source} at {seconds(at_ms)}" for source, at_ms, name in self._last]
        sentence = (
            f"max_events = {self.scenario.max_events} are spent at {seconds(now_ms)}: "
            f"{'; '.join([*self.bench.waiting_for(now_ms), *waits]) or 'nobody waits'}; "
            f"last: {', '.join(last)}."
        )
        return Violation(BUDGET, now_ms, tuple(sorted(self.bench.truth.live)), (), (), sentence)

    def _result(
        self, digest: str, end_ms: int, cpu_ms: int, spent: Sequence[Violation]
    ) -> RunResult:
        verdict = self.bench.verdict
        if spent and verdict == "pass":
            verdict = "liveness"
        return RunResult(
            self.scenario.name,
            self.seed,
            digest,
            verdict,
            {**self.bench.verdicts, **({BUDGET: "fail"} if spent else {})},
            (*self.bench.violations, *spent),
            end_ms,
            cpu_ms,
            self.world.events,
            self.network.messages,
            self._rebalances,
            self.production.records,
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
                if name.rpartition("-")[0] == group.id and name not in self.members:
                    self.members[name] = SimMember(self.world, self.cluster, self, group, name)
        for produce in self.scenario.produce:
            self.production.schedule(produce)
        self._steps.schedule()


def _host(node_id: int) -> str:
    return host(node_id) if node_id >= 0 else "its store"


def coordinator_config(cluster: ClusterSpec) -> CoordinatorConfig:
    """As the scenario has it; what it leaves out is as by default."""
    usual = CoordinatorConfig(initial_rebalance_delay_ms=cluster.initial_rebalance_delay_ms)
    names = ("group_max_size", "offsets_retention_ms", "offsets_retention_check_interval_ms")
    given = {name: getattr(cluster, name) for name in names}
    return replace(usual, **{name: found for name, found in given.items() if found is not None})


def run(
    scenario: Scenario,
    seed: int,
    *,
    watches: Sequence[Watch] = (),
    recorder: Recorder | None = None,
) -> RunResult:
    """Run a scenario once. The same seed gives the same digest, in any process."""
    return Run(scenario, seed, watches=watches, recorder=recorder).go()
