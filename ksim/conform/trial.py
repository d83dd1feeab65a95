"""One script, step by step, on the machine and on the broker; the first divergence ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ksim.conform.arms import BROKEN, BrokerArm, Data, MachineArm
from ksim.conform.requests import BUILDERS, Standing, View
from ksim.conform.script import API_OF, Step
from ksim.conform.side import Side
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.coordinator_shard import CLEANUP, JOIN, SESSION
from ksim.core.coordinator_state import ClassicGroup, GroupState
from ksim.core.errors import KafkaError

MARGIN_MS: Final = 500  # no step is taken so near to a timer
AGREE_S: Final = 0.5  # so long the two may differ in who has answered already
LOOK_S: Final = 0.005
TIE_MS: Final = 20  # timers that are so near to each other have no order
PARKED_S: Final = 0.02  # a parked request cannot be seen: this much lead before the next one
LONGEST_WAIT_MS: Final = 10_000
PROBE: Final = "probe"
PROBE_VERSION: Final = 5
DEAD: Final = GroupState.DEAD.value
_LED: Final = (GroupState.COMPLETING_REBALANCE, GroupState.STABLE)


Choice = tuple[str, int, str, str]  # group, generation, and the leaders by their own ids


class DivergenceError(Exception):
    """The machine and the broker did not answer alike."""


@dataclass(frozen=True, slots=True)
class Target:
    """A broker, the machine that is to be like it, and the newest versions that it speaks."""

    host: str
    port: int
    config: CoordinatorConfig
    newest: Mapping[str, int]


class Asked(NamedTuple):
    name: str
    slot: str
    group_id: str


class Trial:
    """The groups of one script on both sides.

    `adopted` counts leaders that Kafka took in hash order, `unseen` looks at a group that Kafka
    does not show yet. The script ended early where nobody was told who leads (`untold`), or where
    two timers of one instant had no order (`tied`). `tidied`: it diverged, and the broker's
    clean-up may be why.
    """

    def __init__(self, target: Target, group_ids: Sequence[str], seed: int) -> None:
        self.groups = [Standing(each) for each in group_ids]
        self.machine, self.broker = Side(), Side()
        self.arm = MachineArm(target.config, seed, self.machine.answers.__setitem__)
        self._real = BrokerArm(target.host, target.port, self.broker.answers.__setitem__)
        self._newest = target.newest
        self._asked: dict[int, Asked] = {}
        self._number = 0
        self._compared: set[int] = set()
        self._parked: set[int] = set()
        self._gone: set[int] = set()
        self._shown: set[str] = set()
        self._choices: set[Choice] = set()
        self.adopted = 0
        self.unseen = 0
        self.untold = False
        self.tied = False
        self.tidied = False
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
                self.untold = self._leader_is_untold()
                if self.untold or self.tied:
                    return
        except DivergenceError:
            if self.tied:
                return
            self.tidied = await self._has_lost_a_group()
            raise
        finally:
            await self._real.close()

    async def _has_lost_a_group(self) -> bool:
        """Whether the broker does not know a group that the machine has: its periodic clean-up,
        which nobody can foresee, takes groups that are empty."""
        data = {"groups": [each.group_id for each in self.groups]}
        answer = await self._real.call("DescribeGroups", PROBE_VERSION, data, PROBE)
        return any(_is_dead(each) and self._group(each["group_id"]) for each in answer["groups"])

    def _group(self, group_id: str) -> ClassicGroup | None:
        return self.arm.machine.state.groups.get(group_id)

    # Time

    def _due_ms(self) -> int | None:
        """When the next timer of the groups really is due."""
        live = self.arm.machine.state.timers.live
        due = [item[0] for key, item in live.items() if key != CLEANUP]
        return min(due, default=None)

    async def _keep_clear_of_timers(self) -> None:
        while (due_ms := self._due_ms()) is not None:
            left_ms = due_ms - self.arm.now_ms()
            if left_ms > MARGIN_MS:
                return
            await self._pass((left_ms + MARGIN_MS) / 1_000)
            await self._settle()
            await self._compare_descriptions()

    async def _pass(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._wake()
            self._hear()
            await asyncio.sleep(LOOK_S)
        self._wake()

    async def _settle(self) -> None:
        """Wait until both have answered the same requests, then compare what they said."""
        until_s = time.monotonic() + AGREE_S
        while True:
            self._wake()
            theirs = set(self.broker.answers)
            ours = set(self.machine.answers) - (self._in_ledger() - theirs) - self._gone
            if ours == theirs:
                break
            if time.monotonic() > until_s:
                self._diverge_on_who(min(ours ^ theirs))
            await asyncio.sleep(LOOK_S)
        self._hear()

    def _hear(self) -> None:
        """Compare what both have answered by now: who leads is known before the next timer."""
        answered = self.machine.answers.keys() & self.broker.answers.keys()
        fresh = sorted(answered - self._compared - self._gone)
        self._compared.update(fresh)
        for number in fresh:
            self._learn(number)
        for number in fresh:
            self._compare(number)

    def _in_ledger(self) -> set[int]:
        """Answers that Kafka does not give: a parked SyncGroup whose member was removed."""
        return {
            number
            for number in self._parked
            if self.machine.answers.get(number, {}).get("error_code")
            == KafkaError.UNKNOWN_MEMBER_ID
        }

    def _diverge_on_who(self, number: int) -> None:
        name, slot, _ = self._asked[number]
        who = "the broker" if number in self.broker.answers else "the machine"
        said = self.broker.answers.get(number) or self.machine.answers.get(number)
        raise DivergenceError(f"{who} alone answered {name} of {slot}: {said}")

    def _wake(self) -> None:
        self.tied = self.tied or any(self._has_tie(each.group_id) for each in self.groups)
        self.arm.wake()

    def _has_tie(self, group_id: str) -> bool:
        """Whether sessions end at one instant, and which ends first decides how long the join phase
        lasts: Kafka has no order there."""
        group, live = self._group(group_id), self.arm.machine.state.timers.live
        if group is None:
            return False
        ends = {
            each: live[SESSION, group_id, each][0]
            for each in group.members
            if (SESSION, group_id, each) in live
        }
        first_ms = min(ends.values(), default=self.arm.now_ms() + 1)
        if first_ms > self.arm.now_ms():
            return False
        ending = {each for each, at_ms in ends.items() if at_ms - first_ms < TIE_MS}
        timeouts = {each: group.members[each].rebalance_timeout_ms for each in group.members}
        tied = {timeouts[each] for each in ending}
        others = [timeouts[each] for each in timeouts if each not in ending]
        return len(tied) > 1 and max(tied) > max(others, default=0)

    # Steps

    async def _take(self, step: Step) -> None:
        match step.kind:
            case "wait":
                await self._pass(step.options["ms"] / 1_000)
            case "deadline":
                due_ms = self._due_ms()
                left_ms = 0 if due_ms is None else due_ms - self.arm.now_ms()
                if 0 < left_ms <= LONGEST_WAIT_MS:
                    await self._pass((left_ms + MARGIN_MS) / 1_000)
            case "phase":
                await self._end_of_joins(self._place(step).group_id)
            case "disconnect":
                await self._disconnect(step.slot)
            case _:
                await self._request(step)

    async def _end_of_joins(self, group_id: str) -> None:
        """Let the join phase end, if there is one, however often new members prolong it."""
        until_ms = self.arm.now_ms() + LONGEST_WAIT_MS
        while (due := self.arm.machine.state.timers.live.get((JOIN, group_id))) is not None:
            if due[0] > until_ms:
                return
            await self._pass((due[0] - self.arm.now_ms() + MARGIN_MS) / 1_000)
            await self._settle()

    def _place(self, step: Step) -> Standing:
        at: int = step.options["group"]
        return self.groups[at % len(self.groups)]

    async def _disconnect(self, slot: str) -> None:
        """The member's connections close; what it still waits for is answered to nobody."""
        waiting = [
            number
            for number, asked in self._asked.items()
            if asked.slot == slot and number not in self.broker.answers
        ]
        fresh = [number for number in waiting if number not in self._gone]
        self._gone.update(fresh)
        await self._real.hang_up(fresh)

    async def _request(self, step: Step) -> None:
        name = API_OF[step.kind]
        version = min(step.options["version"], self._newest[name])
        number = self._number = self._number + 1
        here = self._place(step)
        self._asked[number] = Asked(name, step.slot, here.group_id)
        group = self._group(here.group_id)
        own = self.machine.ids.get((step.slot, here.group_id))
        leads = group is not None and group.leader is not None and group.leader == own
        build = BUILDERS[step.kind]
        ours = build(View(self.machine, step, here, self.groups, number, leads))
        theirs = build(View(self.broker, step, here, self.groups, number, leads))
        client_id = f"{step.slot}-{number}" if name == "JoinGroup" else step.slot
        self._real.ask(number, name, version, theirs, client_id)
        self.arm.ask(number, name, version, ours, client_id)
        if number not in self.machine.answers:
            if name == "SyncGroup":
                self._parked.add(number)
            await self._pass(PARKED_S)

    # Comparison

    def _compare(self, number: int) -> None:
        name, slot, group_id = self._asked[number]
        ours, theirs = self.machine.answers[number], self.broker.answers[number]
        said, heard = self._comparable(name, ours, theirs)
        if name == "JoinGroup" and said["error_code"] == heard["error_code"] == KafkaError.NONE:
            choice = group_id, said["generation_id"], ours["leader"], theirs["leader"]
            if self._is_chance(choice, heard["leader"]):
                for each in (said, heard):
                    del each["leader"], each["members"]
        if said != heard:
            raise DivergenceError(f"{name} of {slot}: the machine says {said}, the broker {heard}")

    def _is_chance(self, choice: Choice, leader: str) -> bool:
        """Whether these two leaders of a generation differ by hash order alone.

        The first answer of the generation decides, and the others may come later.
        """
        group_id = choice[0]
        if group_id in self.arm.drawn:
            self.arm.drawn.discard(group_id)
            if leader != self.machine.label(choice[2]):
                self._adopt(group_id, leader)
                self._choices.add(choice)
        return choice in self._choices

    def _learn(self, number: int) -> None:
        """What a JoinGroup tells its member: an id, a generation, a protocol."""
        name, slot, group_id = self._asked[number]
        ours, theirs = self.machine.answers[number], self.broker.answers[number]
        told = (KafkaError.NONE, KafkaError.MEMBER_ID_REQUIRED)
        if name != "JoinGroup" or ours["error_code"] not in told:
            return
        if ours["error_code"] != theirs["error_code"]:
            return
        self.machine.learn(slot, group_id, ours["member_id"])
        self.broker.learn(slot, group_id, theirs["member_id"])
        if ours["error_code"] == KafkaError.NONE:
            here = next(each for each in self.groups if each.group_id == group_id)
            here.generation = ours["generation_id"]
            here.protocol = ours["protocol_name"]

    def _adopt(self, group_id: str, leader: str) -> None:
        """Kafka took a leader in hash order: the machine goes on with the broker's choice."""
        group = self._group(group_id)
        members = () if group is None else group.members
        chosen = [each for each in members if self.machine.label(each) == leader]
        if group is None or not chosen:
            raise DivergenceError(f"the broker's leader {leader} is no member of the machine's")
        self.adopted += 1
        (group.leader,) = chosen

    def _leader_is_untold(self) -> bool:
        """All who could have heard of a leader by chance had hung up."""
        groups = [self._group(each) for each in self.arm.drawn]
        return any(group is not None and group.state in _LED for group in groups)

    def _comparable(self, name: str, ours: Data, theirs: Data) -> tuple[Any, Any]:
        """Both answers in plain form, without what only the broker can have to say."""
        if BROKEN in theirs:
            return self.machine.plain(ours), theirs
        if name == "ListGroups":
            ours, theirs = self._only_own(ours), self._only_own(theirs)
        if name in ("ListGroups", "DescribeGroups"):
            ours = self._as_far_as_shown(name, ours, theirs)
        return self.machine.plain(ours), self.broker.plain(theirs)

    def _only_own(self, answer: Data) -> Data:
        own = [each.group_id for each in self.groups]
        return answer | {"groups": [each for each in answer["groups"] if each["group_id"] in own]}

    def _as_far_as_shown(self, name: str, ours: Data, theirs: Data) -> Data:
        """Kafka shows what is committed: a group of which nothing was written may be hidden."""
        listed = {each["group_id"] for each in theirs["groups"]}
        if name == "DescribeGroups":
            listed -= {each["group_id"] for each in theirs["groups"] if _is_dead(each)}
        hidden = [
            standing.group_id
            for standing in self.groups
            if (group := self._group(standing.group_id)) is not None
            and group.group_id not in self.arm.written | self._shown | listed
        ]
        self._shown = {
            each.group_id
            for each in self.groups
            if self._group(each.group_id) and each.group_id in self._shown | listed
        }
        kept = [each for each in ours["groups"] if each["group_id"] not in hidden]
        if len(kept) == len(ours["groups"]):
            return ours
        self.unseen += 1
        if name == "DescribeGroups":
            kept += [each for each in theirs["groups"] if each["group_id"] in hidden]
        return ours | {"groups": kept}

    async def _compare_descriptions(self) -> None:
        until_s = time.monotonic() + AGREE_S
        data = {"groups": [each.group_id for each in self.groups]}
        while True:
            number = self._number = self._number + 1
            self._compared.add(number)
            self._asked[number] = Asked("DescribeGroups", PROBE, "")
            self.arm.ask(number, "DescribeGroups", PROBE_VERSION, data, PROBE)
            theirs = await self._real.call("DescribeGroups", PROBE_VERSION, data, PROBE)
            ours = self.machine.answers.pop(number)
            said, heard = self._comparable("DescribeGroups", ours, theirs)
            if said == heard:
                return
            if time.monotonic() > until_s:
                raise DivergenceError(
                    f"DescribeGroups: the machine says {said}, the broker {heard}"
                )
            await self._pass(LOOK_S)


def _is_dead(group: Data) -> bool:
    """Of an unknown group, DescribeGroups says this."""
    return group["group_state"] == DEAD and not group["members"]
