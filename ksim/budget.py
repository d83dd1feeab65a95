"""The fault budget: what each check may let pass in one run, by how much, and because of what.

A check without a fault is strict. A fault gives its groups a few rebalances (L3) and time to settle
(L4); how much follows from what it is (`NOTHING`, `FEW`) and from the configuration of the group.
What S9 lets pass follows from the tenures that ended. Nothing relaxes the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ksim import observations as o
from ksim.scenario import GroupSpec, Scenario
from ksim.scenario_spec import COORDINATOR

REQUEST_TIMEOUT_MS: Final = 30_000
MARGIN_MS: Final = 10_000
ROUNDS: Final = 4
CHANGE_TOPICS: Final = ("add_partitions", "create_topic", "delete_topic", "truncate")

# What disturbs no group, whatever it is done to.
NOTHING: Final = ("pause_partitions", "resume_partitions", "seek", "compact_offsets_log")
# What a member's life shows anyway, and counts there.
SHOWN: Final = ("start", "stop")
CUTS: Final = ("partition", "hold")
HEAL: Final = "heal"
# While nothing can be stored no round ends well, and each is tried again.
ENDLESS: Final = "refuse_offsets_log"
MOVE: Final = "move_coordinator"
# One round for who comes or goes, and one for a round that this has spoilt.
FEW: Final = 2
LASTING: Final = (*CUTS, HEAL, ENDLESS, "late", "pause", "crash", "stop")
FOR_EVER_MS: Final = 1 << 60

# A message that comes twice or late, within what a member waits for an answer, disturbs no group.
HARMLESS: Final = ("delay", "duplicate")
# What happens to these messages alone takes time, and brings no rebalance.
OF_READING: Final = ("Fetch", "ListOffsets", "OffsetForLeaderEpoch")
OF_MESSAGES: Final = (*HARMLESS, "drop", "late", "error")


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that happened, and until when its consequences may be seen in these groups.

    It goes on until `over_ms`. It brings `FEW` rebalances or, where it is `much`, those of a fault;
    none where it is only `slow`.
    """

    what: str
    at_ms: int
    until_ms: int
    groups: tuple[str, ...]
    over_ms: int = 0
    much: bool = True
    slow: bool = False

    def reaches(self, group_id: str, now_ms: int) -> bool:
        return group_id in self.groups and self.at_ms <= now_ms <= self.until_ms


@dataclass(frozen=True, slots=True)
class Share:
    """What the configuration of one group says; times in ms. `has` knows its members' names."""

    group_id: str
    members: int
    settle_ms: int
    stop_ms: int
    patience_ms: int
    has: Callable[[str], bool]
    quiet_ms: int = FOR_EVER_MS
    slow: bool = False

    @property
    def rounds(self) -> int:
        """How many rebalances a fault may bring: one for each that falls out and comes back."""
        return ROUNDS + self.members

    def rounds_of(self, cause: Cause) -> int:
        """How many this cause may bring; where members are slow, anything makes them fall out."""
        if cause.slow:
            return 0
        return self.rounds if cause.much or self.slow else FEW


@dataclass(frozen=True, slots=True)
class Budget:
    """Shares of the groups, and the causes so far; a value, so a check can keep what it saw."""

    shares: tuple[Share, ...]
    causes: tuple[Cause, ...] = ()
    cut: frozenset[str] = frozenset()

    def share(self, group_id: str) -> Share | None:
        return next((each for each in self.shares if each.group_id == group_id), None)

    def struck(self, now_ms: int, fact: o.FaultStruck) -> Budget:
        """The budget after this fault; it ends when it is undone and the group has settled."""
        name, *rest = fact.name.split()
        groups = self._concerned(fact.target)
        if name in NOTHING or (name == HEAL and not fact.for_ms and fact.target not in self.cut):
            return self
        if name in SHOWN and not _is_broker(fact.target):
            return self
        if name in HARMLESS and fact.for_ms < min((s.patience_ms for s in self.shares), default=0):
            return self
        after = self
        if name in CUTS:
            after = replace(self, cut=self.cut | {fact.target})
        elif name == HEAL:
            after = replace(self, cut=self.cut - {fact.target})
        # A step that nothing undoes goes on; so does what is only noticed with the next metadata.
        lasts = (not fact.for_ms and name in LASTING) or name in CHANGE_TOPICS
        after = after.with_cause(f"{fact.name} {fact.target}", now_ms, groups, fact.for_ms)
        last = after.causes[-1]
        over_ms = FOR_EVER_MS if lasts else last.over_ms
        slow = name in OF_MESSAGES and not set(rest).isdisjoint(OF_READING)
        last = replace(last, over_ms=over_ms, slow=slow)
        return replace(after, causes=(*after.causes[:-1], last))

    def _concerned(self, target: str) -> tuple[str, ...]:
        """A member's trouble is its group's; what happens to others is everybody's."""
        mine = tuple(s.group_id for s in self.shares if target == s.group_id or s.has(target))
        stem, _, number = target.rpartition("-")
        elsewhere = number.isdigit() and stem != "broker"  # as members of other groups are called
        return mine if mine or elsewhere else tuple(s.group_id for s in self.shares)

    def with_cause(
        self,
        what: str,
        now_ms: int,
        groups: tuple[str, ...],
        for_ms: int = 0,
        *,
        much: bool = True,
        slow: bool = False,
    ) -> Budget:
        """The budget after something else than a fault that has the same consequences."""
        longest_ms = max((s.settle_ms for s in self.shares if s.group_id in groups), default=0)
        over_ms = now_ms + for_ms
        cause = Cause(what, now_ms, over_ms + longest_ms, groups, over_ms, much, slow)
        kept = tuple(each for each in self.causes if each.until_ms >= now_ms)
        return replace(self, causes=(*kept, cause))

    def reaching(self, group_id: str, now_ms: int) -> tuple[Cause, ...]:
        """The causes whose consequences the group may still show."""
        return tuple(each for each in self.causes if each.reaches(group_id, now_ms))


def _is_broker(target: str) -> bool:
    return target == COORDINATOR or target.startswith("broker-")


def kinds_of(scenario: Scenario) -> list[GroupSpec]:
    """Each group, and each member that is not like its group."""
    return [kind for group in scenario.groups for kind in kinds_of_group(group)]


def kinds_of_group(group: GroupSpec) -> list[GroupSpec]:
    """The group, and each of its members that is not like it."""
    return [group, *(group.of(group.member(member.number)) for member in group.overrides)]


def is_slow(group: GroupSpec) -> bool:
    """Whether its application may be busy for so long that a rebalance ends without it."""
    rebalance_ms = group.rebalance_timeout_ms or group.session_timeout_ms
    callbacks = (group.on_assigned, group.on_revoked, group.on_lost)
    fails, hangs = group.handler_fails, group.handler_hangs
    busy_ms = group.heartbeat_interval_ms + sum(plan.sleep_ms for plan in callbacks if plan)
    busy_ms += group.handler_cost_ms[1]
    if fails is not None:
        busy_ms += fails.times * (group.handler_cost_ms[1] + fails.backoff_ms)
    if hangs is not None:
        busy_ms += hangs.for_ms
    return busy_ms + MARGIN_MS // 10 >= rebalance_ms


def quiet_ms(group: GroupSpec) -> int:
    """How long a group must be at rest until what happened before brings it nothing any more.

    A static member that comes back takes the place of the process before it, whose SyncGroup its
    coordinator goes on to wait for (Kafka's `expirePendingSync`): for a rebalance timeout.
    """
    rebalance_ms = group.rebalance_timeout_ms or group.session_timeout_ms
    is_static = group.instance_id is not None or group.instance_ids
    waits_ms = rebalance_ms if is_static else group.session_timeout_ms
    return group.session_timeout_ms + max(waits_ms, group.session_timeout_ms)


def settle_ms(scenario: Scenario, group: GroupSpec) -> int:
    """How long a group may take to come to rest after the last thing that disturbed it.

    A member may first wait for a lost answer, find that its session is over, wait for a
    rebalance under way to end, and then go through one itself.
    """
    rebalance_ms = group.rebalance_timeout_ms or group.session_timeout_ms
    # Topics that change are noticed with the next metadata, and shared in a rebalance after that.
    grows = any(step.do in CHANGE_TOPICS for step in scenario.steps)
    callbacks = (group.on_assigned, group.on_revoked, group.on_lost)
    return (
        2 * group.session_timeout_ms
        + 2 * rebalance_ms
        + group.handler_cost_ms[1]
        + sum(plan.sleep_ms for plan in callbacks if plan)
        + (group.metadata_max_age_ms if grows else 0)
        + 2 * scenario.cluster.initial_rebalance_delay_ms
        + REQUEST_TIMEOUT_MS
        + MARGIN_MS
    )


def stop_ms(scenario: Scenario, group: GroupSpec) -> int:
    """How long nobody may get anything in a rebalance that nothing disturbs.

    The join phase ends after the rebalance timeout at the latest, the sync phase likewise; a new
    group waits for the initial delay as long as members come. Then there is a round trip for the
    metadata of the leader, one for the sync, and two for first offsets, each with a retry.
    """
    rebalance_ms = group.rebalance_timeout_ms or group.session_timeout_ms
    trips_ms = 16 * scenario.cluster.latency_ms[1]
    delay_ms = min(rebalance_ms, 3 * scenario.cluster.initial_rebalance_delay_ms)
    return 2 * rebalance_ms + delay_ms + group.handler_cost_ms[1] + trips_ms + 1_000


def budget_of(scenario: Scenario) -> Budget:
    """The budget of a run before anything has gone wrong."""
    return Budget(
        tuple(
            Share(
                group.id,
                group.members,
                settle_ms(scenario, group),
                stop_ms(scenario, group),
                group.session_timeout_ms // 3,
                group.has,
                max(map(quiet_ms, kinds_of_group(group))),
                any(map(is_slow, kinds_of_group(group))),
            )
            for group in scenario.groups
        )
    )
