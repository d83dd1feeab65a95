"""What must come true after healing: the group comes to rest, and every record is handled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksim import checks as c
from ksim import observations as o
from ksim.core import events as e
from ksim.core.values import TopicPartition
from ksim.scenario import Scenario

REQUEST_TIMEOUT_MS = 30_000
MARGIN_MS = 10_000
STABLE = "Stable"


def stable_bound_ms(scenario: Scenario) -> int:
    """How long after healing every group must be Stable, all live members owning their part.

    A member may first wait for a lost answer, find that its session is over, wait for a
    rebalance under way to end, and then go through one itself.
    """
    longest = max(
        (
            2 * g.session_timeout_ms
            + 2 * (g.rebalance_timeout_ms or g.session_timeout_ms)
            + g.handler_cost_ms[1]
            for g in scenario.groups
        ),
        default=0,
    )
    delay_ms = scenario.cluster.initial_rebalance_delay_ms
    # New partitions are noticed with the next metadata, and shared in a rebalance after that.
    grows = any(step.do == "add_partitions" for step in scenario.steps)
    age_ms = max((g.metadata_max_age_ms for g in scenario.groups), default=0) if grows else 0
    return longest + age_ms + 2 * delay_ms + REQUEST_TIMEOUT_MS + MARGIN_MS


def seen_bound_ms(scenario: Scenario) -> int:
    """How long after that every record must be handled, one member doing all the work."""
    count = sum(item.count for item in scenario.produce)
    cost_ms = max((g.handler_cost_ms[1] for g in scenario.groups), default=0)
    wait_ms = max((g.fetch_max_wait_ms for g in scenario.groups), default=0)
    return stable_bound_ms(scenario) + count * (cost_ms + 1) + 2 * wait_ms


class L1Stable(c.Checker):
    """After healing each group is Stable with all live members, within the bound."""

    name = "L1"
    liveness = True

    def __init__(self, truth: c.Truth, scenario: Scenario) -> None:
        super().__init__(truth)
        self._groups = {group.id: "Empty" for group in scenario.groups}
        self._announced: dict[str, tuple[TopicPartition, ...]] = {}
        self._topics = {group.id: group.topics for group in scenario.groups}
        self._partitions = {topic.name: topic.partitions for topic in scenario.topics}
        for step in scenario.steps:
            if step.do == "add_partitions":
                self._partitions[step.target] += step.count or 1
        self._bound_ms = stable_bound_ms(scenario)
        self._late = False
        self._counts: dict[str, int] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del now_ms
        if isinstance(fact, e.LogReplayed):
            for entry in fact.entries:
                if isinstance(entry, e.GroupRecord):
                    self._note(entry.group_id, STABLE if entry.members else "Empty")
                    self._counts[entry.group_id] = len(entry.members)
        if isinstance(fact, o.MemberLife) and fact.what not in ("paused", "resumed", "stopping"):
            self._announced.pop(fact.member, None)
        for order in orders:
            if isinstance(order, e.StateChanged) and order.to_state != "Dead":
                self._note(order.group_id, order.to_state)
                self._counts[order.group_id] = len(order.members)
            elif isinstance(order, e.AssignPartitions):
                self._announced[source] = tuple(
                    TopicPartition(item.topic, item.partition) for item in order.partitions
                )
            elif isinstance(order, e.RevokePartitions | e.LosePartitions):
                self._announced.pop(source, None)
        if isinstance(fact, e.PartitionsRevoked):
            self._announced.pop(source, None)

    def _note(self, group_id: str, state: str) -> None:
        if group_id in self._groups:
            self._groups[group_id] = state

    def waiting_for(self) -> list[str]:
        """What is not at rest yet, one sentence's part each."""
        found: list[str] = []
        for group_id, state in self._groups.items():
            members = [name for name, of in self.truth.live.items() if of == group_id]
            idle = [name for name in members if name not in self._announced]
            if members and state != STABLE:
                found.append(f"{group_id} is {state}")
            if idle:
                found.append(f"{', '.join(idle)} of {group_id} own nothing yet")
            if self._counts.get(group_id, 0) > len(members):
                found.append(f"{group_id} has members that are gone")
            elif members and not idle:
                found += self._orphans(group_id, members)
        return found

    def _orphans(self, group_id: str, members: Sequence[str]) -> list[str]:
        """Partitions that no application of the group was given."""
        owned = {tp for name in members for tp in self._announced[name]}
        wanted = [
            TopicPartition(topic, partition)
            for topic in self._topics[group_id]
            for partition in range(self._partitions[topic])
        ]
        return [f"nobody in {group_id} owns {tp}" for tp in wanted if tp not in owned]

    def look(self, now_ms: int) -> None:
        """Judge once the bound is over; what comes to rest later came too late."""
        healed_ms = self.truth.healed_ms
        if healed_ms is not None and not self._late and now_ms > healed_ms + self._bound_ms:
            self._late = True
            self.end(now_ms)

    def end(self, now_ms: int) -> None:
        if self.truth.healed_ms is None or self.violations:
            return
        self.judged += 1
        waiting = self.waiting_for()
        if waiting:
            passed_ms = now_ms - self.truth.healed_ms
            self.accuse(
                now_ms,
                f"{c.seconds(passed_ms)} after healing (bound {c.seconds(self._bound_ms)}) "
                f"{'; '.join(waiting)}.",
                tuple(sorted(self.truth.live)),
            )


class L2AllSeen(c.Checker):
    """After healing no record stays unhandled."""

    name = "L2"
    liveness = True

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source, now_ms, fact
        for order in orders:
            if isinstance(order, e.AssignPartitions):
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    known = self.truth.firsts.get(tp, item.offset)
                    self.truth.firsts[tp] = min(known, item.offset)

    def unseen(self) -> dict[TopicPartition, int]:
        """Partition to the first record that nobody has handled."""
        behind: dict[TopicPartition, int] = {}
        for tp, end in sorted(self.truth.ends.items()):
            at = self.truth.handled_up_to(tp)
            if at < end:
                behind[tp] = at
        return behind

    def end(self, now_ms: int) -> None:
        if self.truth.healed_ms is None or not self.truth.ends:
            return
        self.judged += 1
        for tp, at in self.unseen().items():
            end = self.truth.ends[tp]
            self.accuse(
                now_ms,
                f"offset {at} of {tp} (end {end}) is unhandled at {c.seconds(now_ms)}, "
                f"{c.seconds(now_ms - self.truth.healed_ms)} after healing.",
                (),
                tp,
                (at,),
            )


class Bench:
    """All checkers of one run, fed together."""

    def __init__(self, scenario: Scenario) -> None:
        self.truth = c.Truth()
        self.stable = L1Stable(self.truth, scenario)
        self.seen = L2AllSeen(self.truth)
        self.checkers: list[c.Checker] = [
            c.S1NoLostRecord(self.truth),
            c.S2CommitWithinTenure(self.truth),
            c.S4ExclusiveAtCoordinator(self.truth),
            c.S5ExclusiveInApplication(self.truth),
            c.S6Fencing(self.truth),
            c.S10Order(self.truth),
            c.S12Generations(self.truth),
            self.stable,
            self.seen,
        ]

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step or observation, to all of them in their order."""
        self.truth.note(now_ms, fact)
        for checker in self.checkers:
            checker.see(source, now_ms, fact, orders)

    def at_rest(self, now_ms: int) -> bool:
        """Whether nothing more has to happen after healing."""
        self.stable.look(now_ms)
        return not self.stable.waiting_for() and not self.seen.unseen()

    def end(self, now_ms: int) -> None:
        for checker in self.checkers:
            checker.end(now_ms)

    @property
    def violations(self) -> list[c.Violation]:
        """Of all checkers, in the order of time."""
        found = [v for checker in self.checkers for v in checker.violations]
        return sorted(found, key=lambda v: v.at_ms)

    @property
    def verdicts(self) -> dict[str, str]:
        return {checker.name: checker.verdict for checker in self.checkers}
