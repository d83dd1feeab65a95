"""What the steps of a scenario do to the world, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ksim import observations as o
from ksim.broker.broker import host
from ksim.core.coordinator_hash import group_partition
from ksim.core.values import TopicPartition
from ksim.scenario import Scenario, StepSpec
from ksim.scenario_spec import ALL_BROKERS, COORDINATOR
from ksim.sim.brokers import SimCluster
from ksim.sim.driver import SimDriver
from ksim.sim.effects import Effects
from ksim.sim.members import SimMember
from ksim.sim.world import US_PER_MS, World

BROKER: Final = "broker-"
LINKS: Final = ("partition", "hold", "heal")
OWNED: Final = ("pause_partitions", "resume_partitions", "seek")
Action = Callable[[], None]
Observe = Callable[[str, o.Observation], None]


class Steps:
    """All steps of one run, at their times and at their events."""

    def __init__(
        self,
        world: World,
        cluster: SimCluster,
        members: Mapping[str, SimMember],
        scenario: Scenario,
        observe: Observe,
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._members = members
        self._scenario = scenario
        self._observe = observe
        self._effects = Effects(cluster, members)
        self._over = False
        self._actions: dict[str, Callable[[StepSpec], None]] = {
            "partition": self._cut,
            "hold": self._cut,
            "heal": self._cut,
            "disconnect": self._disconnect,
            "close": lambda step: self._members[step.target].close(),
            "poll_gap": lambda step: self._members[step.target].gap(step.for_ms or 0),
            "pause_partitions": self._pause,
            "resume_partitions": self._resume,
            "seek": self._seek,
            "move_coordinator": self._move,
            "refuse_offsets_log": self._refuse,
            "compact_offsets_log": lambda step: self._cluster.compact(step.target),
            "add_partitions": self._grow,
            "create_topic": self._grow,
            "delete_topic": self._delete,
            "truncate": self._truncate,
            "stale_metadata": self._tell_old,
        }

    @property
    def known(self) -> tuple[str, ...]:
        """What can be done that is not one of the lives of a member or broker."""
        return tuple(self._actions)

    def schedule(self) -> None:
        """Let each wait for its time or its event."""
        for step in self._scenario.steps:
            if step.on is None:
                self._world.call_apart((step.at_ms or 0) * US_PER_MS, self._do, step)
            else:
                self._cluster.triggers.when(step.on.rule, partial(self._at_event, step))

    def end(self) -> None:
        """Healing: no step is done any more."""
        self._over = True

    def _at_event(self, step: StepSpec) -> None:
        """At a request, before it is looked at; at an answer, once it is on its way."""
        at_once = step.on is not None and step.on.direction == "request" and not step.after_ms
        if at_once:
            self._do(step)
        else:
            at_us = self._world.now_us + step.after_ms * US_PER_MS
            self._world.call_apart(at_us, self._do, step)

    def _do(self, step: StepSpec) -> None:
        if self._over or not self._has_effect(step):
            return
        self._observe("faults", o.FaultStruck(step.do, step.target, step.for_ms or 0))
        action = self._actions.get(step.do)
        if action is not None:
            action(step)
        elif step.target == COORDINATOR or step.target.startswith(BROKER):
            self._do_to_broker(step.do, self._node(step.target), step.for_ms)
        else:
            self._do_to_member(step.do, self._members[step.target], step.for_ms)

    def _has_effect(self, step: StepSpec) -> bool:
        at_broker = step.target == COORDINATOR or step.target.startswith(BROKER)
        node_id = self._node(step.target) if at_broker else None
        links = self._links(step) if step.do in LINKS else ()
        partitions = self._partitions(step) if step.do in OWNED else None
        return self._effects.of(step, node_id, links, partitions)

    def _undo(self, after_ms: int | None, action: Action) -> None:
        if after_ms is not None:
            at_us = self._world.now_us + after_ms * US_PER_MS
            self._world.call_apart(at_us, self._unless_cored, action)

    def _unless_cored(self, action: Action) -> None:
        """What is outside of a core stays as it is once the core is healed."""
        if not (self._over and self._scenario.core):
            action()

    def _node(self, name: str, group_id: str | None = None) -> int:
        """The broker of this name; the coordinator is the one of this moment."""
        if name == COORDINATOR:
            group = self._scenario.groups[0].id if group_id is None else group_id
            return self._cluster.state.coordinator(group_partition(group)).node_id
        return int(name.removeprefix(BROKER))

    # Members

    def _do_to_member(self, do: str, member: SimMember, for_ms: int | None) -> None:
        actions: dict[str, tuple[Action, Action | None]] = {
            "crash": (member.crash, member.start),
            "start": (member.start, member.stop),
            "stop": (member.stop, member.start),
            "pause": (member.pause, member.resume),
            "restart": (member.restart, None),
        }
        action, undo = actions[do]
        action()
        if undo is not None:
            self._undo(for_ms, undo)

    def _disconnect(self, step: StepSpec) -> None:
        driver = self._members[step.target].driver
        if driver is None:
            return
        for peer in self._peers(step):
            driver.reset(self._node(peer), f"{peer} closed the connection")

    def _partitions(self, step: StepSpec) -> list[TopicPartition] | None:
        """The ones that a step names; None: all that the member owns."""
        if step.partition is None:
            return None
        topic = step.topic or self._scenario.topics[0].name
        return [TopicPartition(topic, step.partition)]

    def _pause(self, step: StepSpec) -> None:
        member, partitions = self._members[step.target], self._partitions(step)
        member.pause_partitions(partitions)
        self._undo(step.for_ms, partial(member.resume_partitions, partitions))

    def _resume(self, step: StepSpec) -> None:
        self._members[step.target].resume_partitions(self._partitions(step))

    def _seek(self, step: StepSpec) -> None:
        self._members[step.target].seek(self._partitions(step), step.offset or 0)

    # Brokers and the links to them

    def _do_to_broker(self, do: str, node_id: int, for_ms: int | None) -> None:
        if node_id not in self._cluster.nodes:
            return
        gate = self._cluster.nodes[node_id].gate
        restart = partial(self._cluster.restart, node_id)
        if do == "pause":
            gate.pause()
            self._undo(for_ms, gate.resume)
        elif do in ("crash", "stop"):
            if not gate.cut:
                self._cluster.crash(node_id, self._drivers())
            self._undo(for_ms, restart)
        else:
            if do == "restart" and not gate.cut:
                self._cluster.crash(node_id, self._drivers())
            restart()

    def _drivers(self) -> list[SimDriver]:
        return [m.driver for m in self._members.values() if m.driver is not None and m.running]

    def _cut(self, step: StepSpec) -> None:
        network = self._cluster.network
        does = {
            "partition": (network.partition, network.heal),
            "hold": (network.hold, network.release),
            "heal": (network.heal, network.partition),
        }
        action, undo = does[step.do]
        for one, other in self._links(step):
            action(one, other)
            self._undo(step.for_ms, partial(undo, one, other))

    def _links(self, step: StepSpec) -> list[tuple[str, str]]:
        """Both ends of each link that a step speaks of."""
        target = step.target
        if target == COORDINATOR:
            target = host(self._node(target))
        return [(target, peer) for peer in self._peers(step)]

    def _peers(self, step: StepSpec) -> list[str]:
        """The nodes that the target is cut from."""
        if step.peer == COORDINATOR:
            member = self._members.get(step.target)
            return [host(self._node(COORDINATOR, None if member is None else member.group.id))]
        if step.peer is not None:
            return [step.peer]
        if step.target == COORDINATOR or step.target.startswith(BROKER):
            return [*self._members]
        return [host(node_id) for node_id in self._cluster.nodes]

    def _tell_old(self, step: StepSpec) -> None:
        """Brokers answer questions about the cluster as it is now, whatever happens."""
        view = self._cluster.state.view()
        every = step.target == ALL_BROKERS
        for node_id in self._cluster.nodes if every else [self._node(step.target)]:
            self._cluster.nodes[node_id].tell_old(view)
            self._undo(step.for_ms, partial(self._tell_new, node_id))

    def _tell_new(self, node_id: int) -> None:
        self._cluster.nodes[node_id].tell_old(None)

    # Coordinator and topics

    def _move(self, step: StepSpec) -> None:
        node_id = None if step.peer in (None, COORDINATOR) else self._node(step.peer or "")
        self._cluster.move_coordinator(step.target, node_id)

    def _refuse(self, step: StepSpec) -> None:
        partition = group_partition(step.target)
        self._cluster.refusing.add(partition)
        self._undo(step.for_ms, partial(self._cluster.refusing.discard, partition))

    def _grow(self, step: StepSpec) -> None:
        """A topic grows; one that is not there comes to be."""
        self._cluster.add_partitions(step.target, step.count or 1)
        self._observe("faults", o.TopicIs(step.target, self._cluster.state.counts[step.target]))

    def _delete(self, step: StepSpec) -> None:
        if step.target in self._cluster.state.counts:
            self._cluster.delete_topic(step.target)
            self._observe("faults", o.TopicIs(step.target, 0))
            self._undo(step.for_ms, partial(self._grow, step))

    def _truncate(self, step: StepSpec) -> None:
        """The log of one partition, or of all of its topic, loses its last records."""
        for tp in self._effects.truncated(step):
            end = self._cluster.truncate(tp, step.count or 1)
            epoch = self._cluster.state.leader(tp).epoch
            self._observe("faults", o.Truncated(tp.topic, tp.partition, end, epoch))
