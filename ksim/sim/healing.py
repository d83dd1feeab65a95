"""The end of the safety phase: everything is healed, or only a core that must be able to work.

With a core, what is outside stays as it is or gets worse, for good: its brokers die, and its
members are cut off from every broker; those that are dead or paused stay so. A core alone has to
come to rest and handle every record, as TigerBeetle's VOPR demands it of a quorum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ksim import observations as o
from ksim.broker.broker import host
from ksim.scenario import Scenario
from ksim.sim.brokers import SimCluster
from ksim.sim.members import SimMember
from ksim.sim.steps import Steps

Observe = Callable[[str, o.Observation], None]


class Healing:
    """What is healed of one run, and who must be alive from then on."""

    def __init__(
        self,
        scenario: Scenario,
        cluster: SimCluster,
        members: Mapping[str, SimMember],
        observe: Observe,
    ) -> None:
        self._scenario = scenario
        self._cluster = cluster
        self._members = members
        self._observe = observe

    def is_core(self, name: str) -> bool:
        """Whether this node must be able to work after healing."""
        return not self._scenario.core or name in self._scenario.core

    def heal(self, steps: Steps) -> None:
        """From here on nothing more goes wrong; without a core, the dead stay dead."""
        steps.end()
        cluster = self._cluster
        cluster.heal(self.is_core)
        self._kill_brokers()
        for member in self._members.values():
            if self.is_core(member.name):
                member.recover()
            else:
                if member.running:
                    self._observe("faults", o.FaultStruck("partition", member.name, 0))
                # One that starts later is cut off as well.
                for node_id in cluster.nodes:
                    cluster.network.partition(member.name, host(node_id))
        self.keep_alive(everybody=bool(self._scenario.core))
        members = self._members.items()
        live = tuple(name for name, each in members if each.running and self.is_core(name))
        apart = tuple(name for name, _ in members if not self.is_core(name))
        self._observe("faults", o.Healed(live, apart))

    def _kill_brokers(self) -> None:
        """Those outside the core, now that there is somebody to take over."""
        nodes = self._cluster.nodes
        drivers = [m.driver for m in self._members.values() if m.driver is not None and m.running]
        for node_id in [each for each in nodes if not self.is_core(host(each))]:
            if not nodes[node_id].gate.cut:
                self._observe("faults", o.FaultStruck("crash", host(node_id), 0))
                self._cluster.crash(node_id, drivers)

    def keep_alive(self, *, everybody: bool = False) -> None:
        """A group whose last member is gone, or leaves after healing, gets its first one back.

        `everybody`: each member of the core that is dead starts again.
        """
        for group in self._scenario.groups:
            of_core = [
                member
                for member in self._members.values()
                if member.group is group and self.is_core(member.name)
            ]
            if everybody:
                for member in of_core:
                    member.start()
            elif not any(member.running for member in of_core):
                of_core[0].start()
