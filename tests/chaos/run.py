"""One run: a group, a producer, three minutes of chaos, healing, and an orderly end."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.brokers import NODES, OFFSETS_TOPIC, Brokers
from tests.chaos.load import NEVER, Load
from tests.chaos.members import Life, Process
from tests.chaos.plan import Act, Action, draw

TOPIC, GROUP = "orders", "chaos"
PARTITIONS: Final = 12
ADDED: Final = 3
FEWEST, MOST = 4, 6
PER_SECOND: Final = 2_000
SETTLE_S: Final = 60.0
DRAIN_S: Final = 120.0
EXIT_S: Final = 60.0
ZOMBIE_S: Final = 12.0  # twice a session
LOOK_S: Final = 0.1
BROKER_SIGNALS: Final = {
    Act.KILL_BROKER: signal.SIGKILL,
    Act.END_BROKER: signal.SIGTERM,
    Act.STOP_BROKER: signal.SIGSTOP,
}


@dataclass(slots=True)
class Night:
    """What happened; times in unix seconds. `outages` are from a broker's fault to full health."""

    seed: int
    began_s: float = 0.0
    healed_s: float = 0.0
    drained_s: float | None = None
    acknowledged: dict[tuple[int, int], float] = field(default_factory=dict)
    unacknowledged: int = 0
    partitions: int = PARTITIONS
    outages: list[tuple[float, float]] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    planned: Counter[Act] = field(default_factory=Counter[Act])
    done: Counter[Act] = field(default_factory=Counter[Act])


class Chaos:
    """Does the actions of a seed to a cluster and a group."""

    def __init__(
        self,
        folder: Path,
        brokers: Brokers,
        seed: int,
        say: Callable[[str], None] = print,
        zombie: str | None = None,
    ) -> None:
        self.night = Night(seed)
        self._folder = folder
        self._brokers = brokers
        self._say = say
        self._zombie = zombie
        self._members: list[Process] = []
        self._load = Load(brokers.bootstrap, TOPIC, PER_SECOND)
        self._heals: list[tuple[float, Callable[[], None]]] = []
        self._outage_s: float | None = None
        self._broker_down = False

    def go(self, seconds: float) -> Night:
        """All of it; the processes have ended when it returns, or raises."""
        night = self.night
        try:
            self._brokers.create_topic(TOPIC, PARTITIONS)
            for _ in range(FEWEST):
                self._start_member()
            self._await(self._all_assigned, SETTLE_S, "the members share the topic")
            night.began_s = time.time()
            self._load.start()
            if self._zombie is not None:
                self._disturb_member(Action(0.0, Act.STOP_MEMBER, 0, ZOMBIE_S), self._members[0])
            actions = draw(night.seed, seconds)
            night.planned.update(action.act for action in actions)
            self._disturb(actions)
            self._heal_all()
            self._load.stop()
            night.acknowledged = dict(self._load.acknowledged)
            night.unacknowledged = self._load.unacknowledged
            self._drain()
            self._finish()
        finally:
            for member in self._members:
                member.end()
        night.lives = [member.life for member in self._members]
        return night

    def _all_assigned(self) -> bool:
        return all(member.assigned for member in self._members)

    def _await(self, condition: Callable[[], bool], limit_s: float, what: str) -> bool:
        until_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > until_s:
                self._note(f"never came: {what}")
                return False
            NEVER.wait(LOOK_S)
        return True

    def _note(self, text: str) -> None:
        began_s = self.night.began_s or time.time()
        line = f"{time.time() - began_s:7.1f} s  {text}"
        self.night.log.append(line)
        self._say(line)

    def _start_member(self) -> None:
        name = f"m{len(self._members) + 1}"
        plant = None if self._members else self._zombie
        self._note(f"start {name}" + (f" with {plant}" if plant else ""))
        self._members.append(
            Process(self._folder, name, self._brokers.bootstrap, GROUP, TOPIC, plant)
        )

    def _disturb(self, actions: list[Action]) -> None:
        for action in actions:
            while (left_s := self.night.began_s + action.at_s - time.time()) > 0:
                self._turn(min(left_s, LOOK_S))
            self._do(action)

    def _turn(self, wait_s: float) -> None:
        """Let time pass, end what is due, and see whether the brokers are whole again."""
        NEVER.wait(wait_s)
        for item in [item for item in self._heals if item[0] <= time.time()]:
            self._heals.remove(item)
            item[1]()
        whole = self._outage_s is not None and not self._broker_down
        if whole and self._brokers.in_sync(TOPIC, OFFSETS_TOPIC):
            assert self._outage_s is not None
            self.night.outages.append((self._outage_s, time.time()))
            self._outage_s = None
            self._note("all replicas are in sync")

    def _do(self, action: Action) -> None:
        running = [member for member in self._members if member.running]
        match action.act:
            case Act.KILL_MEMBER | Act.END_MEMBER | Act.STOP_MEMBER:
                # One that has said nothing yet may not have come to its signal handlers.
                ready = [member for member in running if member.count] or running
                self._disturb_member(action, ready[action.pick % len(ready)])
                if sum(member.running for member in self._members) < FEWEST:
                    self._start_member()
            case Act.START_MEMBER:
                if len(running) < MOST:
                    self._start_member()
                    self.night.done[action.act] += 1
            case Act.ADD_PARTITIONS:
                self._add_partitions()
            case Act.KILL_BROKER | Act.END_BROKER | Act.STOP_BROKER:
                if self._outage_s is None:
                    self._disturb_broker(action, NODES[action.pick % len(NODES)])

    def _disturb_member(self, action: Action, member: Process) -> None:
        self._note(f"{action.act} {member.life.name} {action.for_s:.1f} s")
        self.night.done[action.act] += 1
        if action.act == Act.KILL_MEMBER:
            member.kill()
        elif action.act == Act.END_MEMBER:
            member.terminate()
        else:
            member.stop()
            self._heals.append((time.time() + action.for_s, member.resume))

    def _add_partitions(self) -> None:
        from confluent_kafka import KafkaException

        try:
            self._brokers.add_partitions(TOPIC, self.night.partitions + ADDED)
        except KafkaException as error:
            self._note(f"no partitions added: {error}")  # an outage refuses it
            return
        self.night.partitions += ADDED
        self.night.done[Act.ADD_PARTITIONS] += 1
        self._note(f"{self.night.partitions} partitions")

    def _disturb_broker(self, action: Action, node_id: int) -> None:
        self._note(f"{action.act} {node_id} {action.for_s:.1f} s")
        self.night.done[action.act] += 1
        self._outage_s = time.time()
        self._broker_down = True
        self._brokers.signal(node_id, BROKER_SIGNALS[action.act])

        def heal() -> None:
            if action.act == Act.STOP_BROKER:
                self._brokers.signal(node_id, signal.SIGCONT)
            else:
                self._brokers.wait_ended(node_id)
                self._brokers.start(node_id)
            self._broker_down = False

        self._heals.append((time.time() + action.for_s, heal))

    def _heal_all(self) -> None:
        self._heals = [(0.0, heal) for _, heal in self._heals]
        until_s = time.time() + SETTLE_S
        self._turn(0)
        while self._outage_s is not None and time.time() < until_s:
            self._turn(LOOK_S)
        self.night.healed_s = time.time()
        self._note("healed")

    def _drain(self) -> None:
        """Until every acknowledged record is handled."""
        left = set(self.night.acknowledged)
        seen = dict.fromkeys(range(len(self._members)), 0)

        def none_left() -> bool:
            for at, member in enumerate(self._members):
                count = member.count
                left.difference_update(member.places(seen[at], count))
                seen[at] = count
            return not left

        if self._await(none_left, DRAIN_S, "every record is handled"):
            self.night.drained_s = time.time()
            self._note("every record is handled")

    def _finish(self) -> None:
        for member in self._members:
            if member.running:
                member.terminate()
        for member in self._members:
            member.finish(EXIT_S)
