"""The steps of a scenario on a served cluster, at their times after start-up.

A step can do to a client, which is named by its client id, what a cluster can: lose, hold back or
refuse its messages. What only the client itself can do is refused before anything is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import ConfigError
from ksim.serve.cluster import Cluster
from ksim.serve.server import BrokerServer

if TYPE_CHECKING:  # most clusters are served without a scenario, and should be there at once
    from ksim.scenario import Scenario, StepSpec

LOG: Final = logging.getLogger("ksim.serve")
BROKER: Final = "broker-"
CLIENT_STEPS: Final = ("crash", "start", "restart", "pause", "partition", "hold", "heal")
BROKER_STEPS: Final = ("crash", "stop", "start", "restart", "pause")

Action = Callable[[], None]


def check_steps(source: str, scenario: Scenario) -> None:
    """Raises ConfigError for a step that a served cluster cannot do."""
    if scenario.vary:
        raise ConfigError(f"{source}: vary: serve runs one scenario, and not a sweep")
    for at, fault in enumerate(scenario.faults):
        if fault.until is not None or fault.lasts_ms is not None:
            raise ConfigError(f"{source}: fault[{at}]: serve knows neither until nor lasts")
    for at, step in enumerate(scenario.steps):
        if step.on is not None:
            raise ConfigError(f"{source}: step[{at}].on: serve does steps at their times alone")
        if step.do in ("move_coordinator", "add_partitions"):
            continue
        of_broker = step.target.startswith(BROKER)
        valid = BROKER_STEPS if of_broker else CLIENT_STEPS
        if step.do not in valid:
            what = "broker" if of_broker else "client"
            raise ConfigError(
                f"{source}: step[{at}].do = {step.do!r} of {step.target}: serve cannot do that to "
                f"a {what}; valid: {', '.join(valid)}"
            )


class Steps:
    """Does them, and undoes those that have an end."""

    def __init__(
        self, cluster: Cluster, servers: Mapping[int, BrokerServer], scenario: Scenario
    ) -> None:
        self._cluster = cluster
        self._servers = servers
        self._scenario = scenario
        self._starting: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """The times of the steps count from here."""
        for step in self._scenario.steps:
            self._later(step.at_ms, partial(self._do, step))

    def _later(self, after_ms: int | None, action: Action) -> None:
        if after_ms is not None:
            asyncio.get_running_loop().call_later(after_ms / 1_000, action)

    def _do(self, step: StepSpec) -> None:
        LOG.warning("step: %s %s", step.do, step.target)
        if step.do == "move_coordinator":
            node_id = None if step.peer is None else _node(step.peer)
            self._cluster.move_coordinator(step.target, node_id)
        elif step.do == "add_partitions":
            self._cluster.state.add_partitions(step.target, step.count or 1)
        elif step.target.startswith(BROKER):
            self._broker_step(step, _node(step.target))
        elif step.do in ("partition", "hold", "heal", "pause"):
            self._link_step(step)
        else:
            self._client_step(step)
        self._cluster.tell_news()

    def _broker_step(self, step: StepSpec, node_id: int) -> None:
        def start() -> None:
            task = asyncio.create_task(self._start(node_id))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

        def crash() -> None:
            if node_id in self._cluster.state.alive:
                self._servers[node_id].crash()
                self._cluster.crash(node_id)

        def restart() -> None:
            crash()
            start()

        actions: dict[str, tuple[Action, Action | None]] = {
            "crash": (crash, start),
            "stop": (crash, start),
            "start": (start, None),
            "restart": (restart, None),
            "pause": (
                lambda: self._cluster.links.pause(node_id),
                lambda: self._cluster.resume(node_id),
            ),
        }
        action, undo = actions[step.do]
        action()
        if undo is not None:
            self._later(step.for_ms, undo)

    async def _start(self, node_id: int) -> None:
        if node_id not in self._cluster.state.alive:
            await self._servers[node_id].start(self._cluster.commons.ports[node_id])
            self._cluster.state.recover(node_id)
            self._cluster.tell_news()

    def _link_step(self, step: StepSpec) -> None:
        links = self._cluster.links
        actions = {
            "partition": (links.cut, links.heal),
            "hold": (links.hold, links.release),
            "pause": (links.hold, links.release),
            "heal": (links.heal, links.cut),
        }
        action, undo = actions[step.do]
        for node_id in self._peers(step):
            action(step.target, node_id)
            self._later(step.for_ms, partial(self._undo_link, undo, step.target, node_id))

    def _client_step(self, step: StepSpec) -> None:
        links = self._cluster.links
        if step.do in ("crash", "restart"):
            for server in self._servers.values():
                server.disconnect(step.target)
        if step.do == "crash":
            links.refuse(step.target)
            self._later(step.for_ms, lambda: links.admit(step.target))
        else:
            links.admit(step.target)

    def _undo_link(self, undo: Callable[[str, int], None], client_id: str, node_id: int) -> None:
        undo(client_id, node_id)
        self._cluster.tell_news()

    def _peers(self, step: StepSpec) -> list[int]:
        """The brokers that are meant; the coordinator is the one of this moment."""
        if step.peer is None:
            return list(self._servers)
        if step.peer != "coordinator":
            return [_node(step.peer)]
        group_id = next(
            group.id for group in self._scenario.groups if step.target.startswith(f"{group.id}-")
        )
        return [self._cluster.state.coordinator(group_partition(group_id)).node_id]


def _node(name: str) -> int:
    return int(name.removeprefix(BROKER))
