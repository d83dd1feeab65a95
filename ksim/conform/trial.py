"""One script, step by step, on the machine and on the broker; the first divergence ends it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim.conform.arms import BrokerArm, Data, MachineArm
from ksim.conform.script import TOPIC, Step
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.coordinator_shard import CLEANUP

MARGIN_MS: Final = 500  # no step is taken so near to a timer
AGREE_S: Final = 1.0  # so long the two may differ in who has answered already
LOOK_S: Final = 0.005
PARKED_S: Final = 0.02  # a parked request cannot be seen: this much lead before the next one
LONGEST_WAIT_MS: Final = 8_000
# Texts, addresses and what only an authorizer knows.
IGNORED: Final = (
    "throttle_time_ms", "error_message", "authorized_operations", "client_host",
)  # fmt: skip
DESCRIBE: Final = 5
UNKNOWN_MEMBER_ID: Final = 25
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DivergenceError(Exception):
    """The machine and the broker did not answer alike."""


@dataclass(slots=True)
class Side:
    """What one of the two has said: answers by number, and the label of each member id."""

    answers: dict[int, Data] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def plain(self, thing: Any) -> Any:
        """The answer with labels for ids, members in the order of their labels."""
        if isinstance(thing, dict):
            return {key: self.plain(item) for key, item in thing.items() if key not in IGNORED}
        if isinstance(thing, list):
            found = [self.plain(item) for item in thing]
            if found and isinstance(found[0], dict) and "member_id" in found[0]:
                found.sort(key=lambda item: (item["member_id"], str(item)))
            return found
        return self._label(thing) if isinstance(thing, str) else thing

    def _label(self, text: str) -> str:
        """Ids that nobody was told yet belong to joins that are parked."""
        return self.labels.get(text) or _UUID.sub("<new>", text)


class Trial:
    """One group on both sides."""

    def __init__(
        self, config: CoordinatorConfig, host: str, port: int, group_id: str, seed: int
    ) -> None:
        self.group_id = group_id
        self.machine, self.broker = Side(), Side()
        self._arm = MachineArm(config, seed, self.machine.answers.__setitem__)
        self._real = BrokerArm(host, port, self.broker.answers.__setitem__)
        self._asked: dict[int, tuple[str, str]] = {}
        self._number = 0
        self._compared: set[int] = set()
        self._parked: set[int] = set()
        self._generation = 0
        self._protocol: str | None = None
        self.adopted = 0
        self.done: list[str] = []

    async def run(self, script: Sequence[Step]) -> None:
        """Raises DivergenceError, with the steps before it in `done`."""
        try:
            for step in script:
                await self._keep_clear_of_timers()
                self.done.append(str(step))
                await self._take(step)
                await self._settle()
                await self._compare_descriptions()
        finally:
            await self._real.close()

    # Time

    def _due_ms(self) -> int | None:
        """When the next timer of the group really is due."""
        live = self._arm.machine.state.timers.live
        due = [item[0] for key, item in live.items() if key != CLEANUP]
        return min(due, default=None)

    async def _keep_clear_of_timers(self) -> None:
        while (due_ms := self._due_ms()) is not None:
            left_ms = due_ms - self._arm.now_ms()
            if left_ms > MARGIN_MS:
                return
            await self._pass((left_ms + MARGIN_MS) / 1_000)
            await self._settle()

    async def _pass(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._arm.wake()
            await asyncio.sleep(LOOK_S)
        self._arm.wake()

    async def _settle(self) -> None:
        """Wait until both have answered the same requests, then compare what they said."""
        until_s = time.monotonic() + AGREE_S
        while True:
            self._arm.wake()
            ours = set(self.machine.answers) - self._in_ledger()
            theirs = set(self.broker.answers)
            if ours == theirs:
                break
            if time.monotonic() > until_s:
                self._diverge_on_who(min(ours ^ theirs))
            await asyncio.sleep(LOOK_S)
        for number in sorted(ours - self._compared):
            self._compared.add(number)
            self._compare(number)

    def _in_ledger(self) -> set[int]:
        """Answers that only the machine gives: a parked SyncGroup whose member was removed."""
        return {
            number
            for number in self._parked
            if self.machine.answers.get(number, {}).get("error_code") == UNKNOWN_MEMBER_ID
        }

    def _diverge_on_who(self, number: int) -> None:
        name, slot = self._asked[number]
        who = "the broker" if number in self.broker.answers else "the machine"
        said = self.broker.answers.get(number) or self.machine.answers.get(number)
        raise DivergenceError(f"{who} alone answered {name} of {slot}: {said}")

    # Steps

    async def _take(self, step: Step) -> None:
        match step.kind:
            case "wait":
                await self._pass(step.options["ms"] / 1_000)
            case "deadline":
                due_ms = self._due_ms()
                left_ms = 0 if due_ms is None else due_ms - self._arm.now_ms()
                if 0 < left_ms <= LONGEST_WAIT_MS:
                    await self._pass((left_ms + MARGIN_MS) / 1_000)
            case _:
                await self._request(step)

    async def _request(self, step: Step) -> None:
        name, build = BUILDERS[step.kind]
        version = step.options.get("version", DEFAULT_VERSIONS.get(name, 0))
        number = self._number = self._number + 1
        self._asked[number] = name, step.slot
        ours = build(self, self.machine, step)
        theirs = build(self, self.broker, step)
        self._real.ask(number, name, version, theirs, step.slot)
        self._arm.ask(number, name, version, ours, step.slot)
        if number not in self.machine.answers:
            if name == "SyncGroup":
                self._parked.add(number)
            await self._pass(PARKED_S)

    # Comparison

    def _compare(self, number: int) -> None:
        name, slot = self._asked[number]
        ours, theirs = self.machine.answers[number], self.broker.answers[number]
        if name == "JoinGroup":
            self._learn(slot, ours, theirs)
        said, heard = self.machine.plain(ours), self.broker.plain(theirs)
        if name == "JoinGroup" and said["leader"] != heard["leader"]:
            self._adopt(heard["leader"])
            for each in (said, heard):
                del each["leader"], each["members"]
        if said != heard:
            raise DivergenceError(f"{name} of {slot}: the machine says {said}, the broker {heard}")

    def _learn(self, slot: str, ours: Data, theirs: Data) -> None:
        if ours["error_code"] != theirs["error_code"]:
            return
        for side, answer in ((self.machine, ours), (self.broker, theirs)):
            found = answer["member_id"]
            if answer["error_code"] in (0, 79) and found:
                if found not in side.labels:
                    count = sum(1 for label in side.labels.values() if label[0] == slot)
                    side.labels[found] = f"{slot}{count}"
                side.ids[slot] = found
        if ours["error_code"] == 0:
            self._generation = ours["generation_id"]
            self._protocol = ours["protocol_name"]

    def _adopt(self, leader: str) -> None:
        """Kafka takes a new leader in hash order: the machine goes on with the broker's choice."""
        group = self._arm.machine.state.groups.get(self.group_id)
        chosen = next((name for name, label in self.machine.labels.items() if label == leader), "")
        if group is not None and chosen in group.members:
            if group.leader != chosen:
                self.adopted += 1
            group.leader = chosen

    async def _compare_descriptions(self) -> None:
        until_s = time.monotonic() + AGREE_S
        data = {"groups": [self.group_id]}
        while True:
            number = self._number = self._number + 1
            self._compared.add(number)
            self._asked[number] = "DescribeGroups", "probe"
            self._arm.ask(number, "DescribeGroups", DESCRIBE, data, "probe")
            theirs = await self._real.call("DescribeGroups", DESCRIBE, data, "probe")
            said = self.machine.plain(self.machine.answers.pop(number))
            heard = self.broker.plain(theirs)
            if said == heard:
                return
            if time.monotonic() > until_s:
                raise DivergenceError(
                    f"DescribeGroups: the machine says {said}, the broker {heard}"
                )
            await self._pass(LOOK_S)

    # Requests

    def join(self, side: Side, step: Step) -> Data:
        o = step.options
        return {
            "group_id": self.group_id,
            "session_timeout_ms": o["session"],
            "rebalance_timeout_ms": o["rebalance"],
            "member_id": "" if o["fresh"] else side.ids.get(step.slot, ""),
            "group_instance_id": o["instance"],
            "protocol_type": o["kind"],
            "protocols": o["offer"],
        }

    def _who(self, side: Side, step: Step) -> Data:
        o = step.options
        member_id = "nobody" if o["stranger"] else side.ids.get(step.slot, "nobody")
        return {
            "group_id": self.group_id,
            "member_id": member_id,
            "group_instance_id": o["instance"],
        }

    def _generation_of(self, step: Step) -> int:
        return self._generation + int(step.options["generation"])

    def sync(self, side: Side, step: Step) -> Data:
        names = step.options["names"]
        shares = [
            {"member_id": member_id, "assignment": slot.encode()}
            for slot, member_id in sorted(side.ids.items())
        ]
        group = self._arm.machine.state.groups.get(self.group_id)
        leads = group is not None and group.leader == self.machine.ids.get(step.slot)
        return self._who(side, step) | {
            "generation_id": self._generation_of(step),
            "protocol_type": {"right": "consumer", "none": None, "wrong": "other"}[names],
            "protocol_name": None if names == "none" else self._protocol,
            "assignments": shares if leads else [],
        }

    def heartbeat(self, side: Side, step: Step) -> Data:
        return self._who(side, step) | {"generation_id": self._generation_of(step)}

    def leave(self, side: Side, step: Step) -> Data:
        member_id = side.ids.get(step.slot, "nobody")
        who = {"member_id": member_id, "group_instance_id": step.options["instance"]}
        return {"group_id": self.group_id, "member_id": member_id, "members": [who]}

    def leave_batch(self, side: Side, step: Step) -> Data:
        del step
        members = [{"member_id": each} for _, each in sorted(side.ids.items())[:2]]
        return {"group_id": self.group_id, "members": [*members, {"member_id": "nobody"}]}

    def commit(self, side: Side, step: Step) -> Data:
        return self._who(side, step) | {
            "generation_id_or_member_epoch": self._generation_of(step),
            **_offsets(self._number),
        }

    def commit_simple(self, side: Side, step: Step) -> Data:
        del side, step
        return {
            "group_id": self.group_id,
            "generation_id_or_member_epoch": -1,
            "member_id": "",
            **_offsets(self._number),
        }

    def fetch(self, side: Side, step: Step) -> Data:
        del side, step
        topics = [{"name": TOPIC, "partition_indexes": [0, 1]}]
        return {
            "group_id": self.group_id,
            "topics": topics,
            "groups": [{"group_id": self.group_id, "topics": topics}],
        }

    def describe(self, side: Side, step: Step) -> Data:
        del side, step
        return {"groups": [self.group_id]}

    def delete(self, side: Side, step: Step) -> Data:
        del side, step
        return {"groups_names": [self.group_id]}

    def forget(self, side: Side, step: Step) -> Data:
        del side, step
        return {
            "group_id": self.group_id,
            "topics": [{"name": TOPIC, "partitions": [{"partition_index": 0}]}],
        }


def _offsets(offset: int) -> Data:
    partition = {"partition_index": 0, "committed_offset": offset, "committed_metadata": "m"}
    return {"topics": [{"name": TOPIC, "partitions": [partition]}]}


DEFAULT_VERSIONS: Final = {"DescribeGroups": 6, "DeleteGroups": 2, "OffsetDelete": 0}
BUILDERS: Final[dict[str, Any]] = {
    "join": ("JoinGroup", Trial.join),
    "sync": ("SyncGroup", Trial.sync),
    "heartbeat": ("Heartbeat", Trial.heartbeat),
    "leave": ("LeaveGroup", Trial.leave),
    "leave_batch": ("LeaveGroup", Trial.leave_batch),
    "commit": ("OffsetCommit", Trial.commit),
    "commit_simple": ("OffsetCommit", Trial.commit_simple),
    "fetch": ("OffsetFetch", Trial.fetch),
    "describe": ("DescribeGroups", Trial.describe),
    "delete": ("DeleteGroups", Trial.delete),
    "forget": ("OffsetDelete", Trial.forget),
}
