"""What must come true after healing: the group comes to rest, and every record is handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from ksim import checks as c
from ksim import observations as o
from ksim.absence import Absences
from ksim.budget import budget_of, is_slow, kinds_of, settle_ms
from ksim.commit_checks import S3CommitOfOwner, S13OffsetsRise
from ksim.core import events as e
from ksim.core.values import TopicPartition
from ksim.deaths import Deaths
from ksim.duplicate_checks import S9Duplicates
from ksim.generation_checks import S12Generations
from ksim.ghosts import Ghosts
from ksim.group_checks import L3NoStorm, L4ShortStop, S11Assignment
from ksim.instance_checks import S5BesideInstances
from ksim.instances import Instances
from ksim.losses import Losses
from ksim.place_checks import S10InItsPlace
from ksim.scenario import GroupSpec, Scenario
from ksim.seen import L2AllSeen, reads
from ksim.tenure_checks import S7NoZombie, S8Callbacks
from ksim.truth import Truth
from ksim.unplaced import Unplaced

T = TypeVar("T")
STABLE = "Stable"
COVERAGE = "M1"
NEED_EFFECTS = ("S1", "S2", "S9", "L2")


def stable_bound_ms(scenario: Scenario) -> int:
    """How long after healing every group must be Stable, all live members owning their part."""
    return max((settle_ms(scenario, group) for group in kinds_of(scenario)), default=0)


def rest_ms(scenario: Scenario) -> int:
    """How long all groups must stay at rest: until a silent member would have been missed.

    An application that is busy for longer than a rebalance waits may end any rest.
    """
    kinds = kinds_of(scenario)
    if any(map(is_slow, kinds)):
        return 0
    return max((group.session_timeout_ms for group in kinds), default=0)


def _cost_ms(group: GroupSpec, trip_ms: int) -> int:
    """What a record may cost on the average, with the tries that fail, and a commit of its own."""
    cost_ms, fails = group.handler_cost_ms[1], group.handler_fails
    commit_ms = trip_ms if group.commit == "each" else 0
    if fails is None:
        return cost_ms + commit_ms
    return cost_ms + commit_ms + -(-fails.times * (cost_ms + fails.backoff_ms) // fails.every)


def seen_bound_ms(scenario: Scenario) -> int:
    """How long after healing all must be handled and committed, one member doing all the work."""
    count = sum(item.count for item in scenario.produce)
    trip_ms = 2 * scenario.cluster.latency_ms[1]
    cost_ms = max((_cost_ms(g, trip_ms) for g in kinds_of(scenario)), default=0)
    wait_ms = max((g.fetch_max_wait_ms for g in scenario.groups), default=0)
    commit_ms = max((g.commit_interval_ms + trip_ms for g in kinds_of(scenario)), default=0)
    handled_ms = stable_bound_ms(scenario) + count * (cost_ms + 1) + 2 * wait_ms
    return handled_ms + commit_ms + rest_ms(scenario)


# What may bring a group to rest or take it from there.
CHANGES: Final = (
    o.TopicIs,
    o.MemberLife,
    o.Healed,
    e.LogReplayed,
    e.StateChanged,
    e.AssignPartitions,
    e.RevokePartitions,
    e.LosePartitions,
    e.PartitionsRevoked,
)


class L1Stable(c.Checker):
    """After healing each group is Stable with all live members, within the bound, and stays so.

    It must stay at rest, with no rebalance and no loss, for `rest_ms`; the run goes on for as long.
    Excused is a group without a reset of which a member was told that it has no place (`unplaced`).
    And at no time does a member leave a ghost behind, for which its group would wait (`ghosts`),
    die by itself without a reason that its scenario gives (`deaths`), keep what it owns though its
    application does not call in (`absence`), lose it though nothing took it away (`losses`), or
    leave out its instance, so that two take it from one another (`instances`).
    """

    name = "L1"
    liveness = True
    looks_at = (
        *Ghosts.looks_at,
        *Deaths.looks_at,
        *Absences.looks_at,
        *Losses.looks_at,
        *Instances.looks_at,
        *CHANGES,
    )

    def __init__(self, truth: Truth, scenario: Scenario) -> None:
        super().__init__(truth)
        self._groups = {group.id: "Empty" for group in scenario.groups}
        self._announced: dict[str, tuple[TopicPartition, ...]] = {}
        self._specs = {group.id: group for group in scenario.groups}
        self._partitions = {topic.name: topic.partitions for topic in scenario.topics}
        self._bound_ms = stable_bound_ms(scenario)
        self._rest_ms = rest_ms(scenario)
        self._changed_ms = 0
        self._late = False
        self._ended: set[str] = set()
        self._counts: dict[str, int] = {}
        self._ghosts = Ghosts(self._poll_interval_ms)
        self._deaths = Deaths(truth, scenario)
        self._absences = Absences(truth, scenario)
        self._losses = Losses(truth, scenario)
        self._instances = Instances()

    def _poll_interval_ms(self, group_id: str, member: str) -> int:
        return self._specs[group_id].of(member).max_poll_interval_ms

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        for each in (
            self._ghosts,
            self._deaths,
            self._absences,
            self._losses,
            self._instances,
        ):
            sentence = each.see(source, now_ms, fact, orders)
            if sentence is not None:
                self.accuse(now_ms, sentence, (source,))
        changes = type(fact) in CHANGES or any(type(order) in CHANGES for order in orders)
        if changes and not self._is_excused(source, now_ms, fact, orders):
            self._changed_ms = now_ms
        if isinstance(fact, o.TopicIs):
            self._partitions[fact.topic] = fact.partitions
        if isinstance(fact, e.LogReplayed):
            self._replayed(fact)
        if isinstance(fact, o.MemberLife) and fact.what not in ("paused", "resumed", "stopping"):
            self._announced.pop(fact.member, None)
            if self.truth.healed_ms is not None and fact.group_id not in self.truth.live.values():
                self._ended.add(fact.group_id)
        for order in orders:
            self._ordered(source, order)
        if isinstance(fact, e.PartitionsRevoked):
            self._announced.pop(source, None)

    def _is_excused(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> bool:
        """Whether this is all of groups that need not come to rest."""
        named = [getattr(each, "group_id", "") for each in (fact, *orders)]
        groups = {self.truth.groups.get(source, ""), *named} - {""}
        return bool(groups) and all(self.truth.unplaced.excuses(each, now_ms) for each in groups)

    def _ordered(self, source: str, order: Any) -> None:
        match order:
            case e.StateChanged() if order.to_state != "Dead":
                self._note(order.group_id, order.to_state)
                self._counts[order.group_id] = len(order.members)
            case e.AssignPartitions():
                self._announced[source] = tuple(
                    TopicPartition(item.topic, item.partition) for item in order.partitions
                )
            case e.RevokePartitions() | e.LosePartitions():
                self._announced.pop(source, None)
            case _:
                pass

    def _replayed(self, fact: e.LogReplayed) -> None:
        for entry in fact.entries:
            if isinstance(entry, e.GroupRecord):
                self._note(entry.group_id, STABLE if entry.members else "Empty")
                self._counts[entry.group_id] = len(entry.members)

    def _note(self, group_id: str, state: str) -> None:
        if group_id in self._groups:
            self._groups[group_id] = state

    def waiting_for(self, now_ms: int) -> list[str]:
        """What is not at rest yet, one sentence's part each."""
        found: list[str] = []
        for group_id, state in self._groups.items():
            if self.truth.unplaced.excuses(group_id, now_ms):
                continue
            members = [name for name, of in self.truth.live.items() if of == group_id]
            joining = [name for name in members if not self._waits_for_topics(name, group_id)]
            idle = [name for name in joining if name not in self._announced]
            if joining and state != STABLE:
                found.append(f"{group_id} is {state}")
            if idle:
                found.append(f"{', '.join(idle)} of {group_id} own nothing yet")
            if self._counts.get(group_id, 0) > len(members):
                found.append(f"{group_id} has members that are gone")
            elif joining and not idle:
                found += self._orphans(group_id, joining)
        return found

    def _waits_for_topics(self, name: str, group_id: str) -> bool:
        """With patterns alone a member joins once there is a topic that they take."""
        spec = self._specs[group_id].of(name)
        if spec.topics or name in self._announced:
            return False
        there = [topic for topic, count in self._partitions.items() if count]
        return not any(reads(spec, topic) for topic in there)

    def _orphans(self, group_id: str, members: Sequence[str]) -> list[str]:
        """Partitions that no application of the group was given."""
        owned = {tp for name in members for tp in self._announced[name]}
        wanted = [
            TopicPartition(topic, partition)
            for topic, count in sorted(self._partitions.items())
            if any(self._reads(name, group_id, topic) for name in members)
            for partition in range(count)
        ]
        return [f"nobody in {group_id} owns {tp}" for tp in wanted if tp not in owned]

    def _reads(self, name: str, group_id: str, topic: str) -> bool:
        return reads(self._specs[group_id].of(name), topic)

    def rests(self, now_ms: int) -> bool:
        """Whether all is at rest, and has been for long enough.

        Of who is excused all must have ended since healing: they will again whenever they start.
        """
        excused = [each for each in self._groups if self.truth.unplaced.excuses(each, now_ms)]
        return self._has_rested(now_ms) and self._ended.issuperset(excused)

    def _has_rested(self, now_ms: int) -> bool:
        return not self.waiting_for(now_ms) and now_ms - self._changed_ms >= self._rest_ms

    def look(self, now_ms: int) -> None:
        """Judge once the bound is over; what comes to rest later came too late."""
        healed_ms = self.truth.healed_ms
        if healed_ms is not None and not self._late and now_ms > healed_ms + self._bound_ms:
            self._late = True
            self._judge(now_ms, self.waiting_for(now_ms))

    def end(self, now_ms: int) -> None:
        waiting = self.waiting_for(now_ms)
        had_ms = now_ms - (self.truth.healed_ms or now_ms)
        if not self._has_rested(now_ms) and not waiting and had_ms > self._bound_ms + self._rest_ms:
            waiting = [f"it has not been at rest for {c.seconds(self._rest_ms)}"]
        self._judge(now_ms, waiting)

    def _judge(self, now_ms: int, waiting: Sequence[str]) -> None:
        if self.truth.healed_ms is None or self.violations:
            return
        self.judged += 1
        if waiting:
            passed_ms = now_ms - self.truth.healed_ms
            self.accuse(
                now_ms,
                f"{c.seconds(passed_ms)} after healing (bound {c.seconds(self._bound_ms)}) "
                f"{'; '.join(waiting)}.",
                tuple(sorted(self.truth.live)),
            )


class Bench:
    """All checkers of one run, fed together.

    Without `effects` nothing tells what is handled: what needs to know it is not judged.
    """

    def __init__(self, scenario: Scenario, *, effects: bool = True) -> None:
        resets = {group.id: group.auto_offset_reset for group in scenario.groups}
        self.truth = Truth(resets, Unplaced(stable_bound_ms(scenario)))
        self._effects = effects
        budget = budget_of(scenario)
        self.stable = L1Stable(self.truth, scenario)
        self.seen = L2AllSeen(self.truth, scenario)
        self.checkers: list[c.Checker] = [
            c.S1NoLostRecord(self.truth),
            c.S2CommitWithinTenure(self.truth),
            S3CommitOfOwner(self.truth),
            c.S4ExclusiveAtCoordinator(self.truth),
            S5BesideInstances(self.truth),
            c.S6Fencing(self.truth),
            S7NoZombie(self.truth, scenario),
            S8Callbacks(self.truth),
            S9Duplicates(self.truth, scenario),
            S10InItsPlace(self.truth),
            S11Assignment(self.truth),
            S12Generations(self.truth),
            S13OffsetsRise(self.truth),
            self.stable,
            self.seen,
            L3NoStorm(self.truth, budget, scenario),
            L4ShortStop(self.truth, budget),
        ]
        if not effects:
            self.checkers = [each for each in self.checkers if each.name not in NEED_EFFECTS]
        self._wanted: dict[tuple[type, ...], tuple[c.Checker, ...]] = {}
        self._rested_ms = stable_bound_ms(scenario) + rest_ms(scenario)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step or observation, in their order to all that look at anything in it."""
        try:
            self.truth.note(source, now_ms, fact, orders)
        except Exception as error:  # noqa: BLE001 - nobody can judge by what is not known
            for checker in (each for each in self.checkers if not each.broken):
                self._broke(checker, now_ms, error)
        for checker in self._looking_at(source, fact, orders):
            try:
                checker.see(source, now_ms, fact, orders)
            except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
                self._broke(checker, now_ms, error)

    def _looking_at(self, source: str, fact: Any, orders: Sequence[Any]) -> tuple[c.Checker, ...]:
        del source
        kinds = type(fact), *map(type, orders)
        wanted = self._wanted.get(kinds)
        if wanted is None:
            wanted = self._wanted[kinds] = tuple(
                checker
                for checker in self.checkers
                if not checker.broken and not set(kinds).isdisjoint(checker.looks_at)
            )
        return wanted

    def _broke(self, checker: c.Checker, now_ms: int, error: Exception) -> None:
        """It is shown nothing more: what it says afterwards would mean nothing."""
        checker.broke(now_ms, error)
        for kinds, wanted in self._wanted.items():
            self._wanted[kinds] = tuple(each for each in wanted if each is not checker)

    def at_rest(self, now_ms: int) -> bool:
        """Whether nothing more has to happen after healing."""
        self._ask(self.stable, now_ms, self.stable.look, now_ms)
        if not self._ask(self.stable, now_ms, self.stable.rests, now_ms):
            return bool(self.stable.broken)
        behind = (self.seen.unseen, self.seen.uncommitted)
        return not self._effects or not any(
            self._ask(self.seen, now_ms, ask, now_ms) for ask in behind
        )

    def waiting_for(self, now_ms: int) -> Sequence[str]:
        """What keeps the groups from rest, in sentences."""
        return self._ask(self.stable, now_ms, self.stable.waiting_for, now_ms) or ()

    def _ask(self, checker: c.Checker, now_ms: int, ask: Callable[..., T], *what: int) -> T | None:
        """What a checker says; nothing if it is broken, or breaks."""
        if checker.broken:
            return None
        try:
            return ask(*what)
        except Exception as error:  # noqa: BLE001 - as above
            self._broke(checker, now_ms, error)
            return None

    def end(self, now_ms: int, *, given_up: bool = False) -> None:
        """The run is over. One that was given up before has not come to the end of all bounds."""
        if given_up:
            self._ask(self.stable, now_ms, self.stable.look, now_ms)
        for checker in self.checkers:
            if checker.broken or (given_up and not self._had_its_time(checker, now_ms)):
                continue
            try:
                checker.end(now_ms)
            except Exception as error:  # noqa: BLE001 - as above
                checker.broke(now_ms, error)

    def _had_its_time(self, checker: c.Checker, now_ms: int) -> bool:
        """Whether what must have come true by then must have done so by now."""
        if checker is self.stable:
            return now_ms > (self.truth.healed_ms or now_ms) + self._rested_ms
        return checker is not self.seen

    @property
    def violations(self) -> list[c.Violation]:
        """Of all checkers, in the order of time."""
        found = [v for checker in self.checkers for v in checker.violations]
        return sorted(found, key=lambda v: v.at_ms)

    @property
    def verdicts(self) -> dict[str, str]:
        """Of each check; coverage is judged over a campaign, never in one run."""
        found = {checker.name: checker.verdict for checker in self.checkers}
        unseen = () if self._effects else NEED_EFFECTS
        return found | dict.fromkeys((*unseen, COVERAGE), c.NOT_JUDGED)

    @property
    def verdict(self) -> str:
        """Of the run: broken, safety, liveness or pass, the first that any check has."""
        if any(checker.broken for checker in self.checkers):
            return "broken"
        failed = [checker for checker in self.checkers if checker.violations]
        if any(not checker.liveness for checker in failed):
            return "safety"
        return "liveness" if failed else "pass"
