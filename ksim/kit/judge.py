"""The checks of scenarios over applications that nobody has described: what their consumers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from ksim import observations as o
from ksim.checks import NOT_JUDGED, Checker
from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core.errors import MisuseError
from ksim.kit.errors import ApplicationError
from ksim.kit.own_checks import NotLeftBehind, OnceOnly
from ksim.kit.report import Report, Step, story_of
from ksim.kit.texts import check_among
from ksim.kit.unread import jumped, records_of, unread
from ksim.liveness import NEED_EFFECTS, Bench, seen_bound_ms
from ksim.scenario import (
    ClusterSpec,
    FaultSpec,
    GroupSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
)
from ksim.seen import L2AllSeen
from ksim.truth import EARLIEST

SLOWEST: Final = (
    "session_timeout_ms",
    "rebalance_timeout_ms",
    "max_poll_interval_ms",
    "commit_interval_ms",
    "fetch_max_wait_ms",
    "metadata_max_age_ms",
)
SAME: Final = (
    *("topics", "topics_whitelist", "topics_blacklist", "auto_offset_reset", "dwell_time_ms"),
    *("heartbeat_interval_ms", "request_timeout_ms", *SLOWEST),
)
AMPLE: Final = 4
MOST_REST_MS: Final = 6 * 3_600_000
OF_COMMITS: Final = ("S1", "S2", "S3", "S6", "S13")
OF_EFFECTS: Final = (*NEED_EFFECTS, OnceOnly.name, NotLeftBehind.name)
GROWS: Final = "add_partitions"
MAKES: Final = "create_topic"
HOW: Final = (
    "Give it a parameter `sink` and call sink(message) where the effect of a message happens, or "
    "call ksim_cluster.handled(message) there."
)


def process_of(member: str) -> str:
    """The process of this member: its second consumer is called NAME+2."""
    return member.partition("+")[0]


@dataclass(frozen=True)
class SeenGroup(GroupSpec):
    """A group as its members' configurations have it; where they differ, the slowest counts."""

    seen: Mapping[str, GroupSpec] = field(default_factory=dict[str, GroupSpec])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.seen)

    def of(self, name: str) -> GroupSpec:
        return self.seen.get(name, self)

    def has(self, name: str) -> bool:
        return name in self.seen


def group_of(config: Config, cost_ms: int) -> GroupSpec:
    """What the checks have to know of one member."""
    assignors = tuple(strategy.value for strategy in config.strategies)
    return GroupSpec(
        config.group_id,
        assignors=assignors,
        instance_id=config.group_instance_id,
        acknowledge=str(config.acknowledge),
        mode=str(config.mode),
        handler_cost_ms=(0, cost_ms),
        **{name: getattr(config, name) for name in SAME},
    )


@dataclass(frozen=True, slots=True)
class Lived:
    """A member that was there; `number` is that of its process among those of one name, from 1."""

    member: str
    config: Config
    number: int


def groups_of(lives: Sequence[Lived], cost_ms: int, slack_ms: int) -> tuple[GroupSpec, ...]:
    """All groups; the lives of a member may be of different configurations."""
    found: dict[str, dict[str, GroupSpec]] = {}
    for life in lives:
        spec = group_of(life.config, cost_ms)
        spec = replace(spec, commit_interval_ms=spec.commit_interval_ms + slack_ms)
        members = found.setdefault(life.config.group_id, {})
        known = [members[life.member]] if life.member in members else []
        members[life.member] = _slowest([*known, spec])
    return tuple(_seen(members) for members in found.values())


def _slowest(specs: Sequence[GroupSpec]) -> GroupSpec:
    """As the last of them, where none of them is slower."""
    known: dict[str, Any] = {
        name: max(getattr(each, name) or 0 for each in specs) for name in SLOWEST
    }
    known["rebalance_timeout_ms"] = known["rebalance_timeout_ms"] or None
    return replace(specs[-1], **known)


def _seen(members: Mapping[str, GroupSpec]) -> SeenGroup:
    slowest = _slowest([*members.values()][::-1])
    known = {each.name: getattr(slowest, each.name) for each in fields(slowest)}
    known["topics"] = tuple(sorted({topic for each in members.values() for topic in each.topics}))
    return SeenGroup(**{**known, "members": len(members), "seen": members})


def first_counts(scenario: Scenario) -> dict[str, int]:
    """Partitions of each topic, before any was added."""
    counts = {topic.name: topic.partitions for topic in scenario.topics}
    for step in scenario.steps:
        if step.do in (GROWS, MAKES):
            counts[step.target] -= step.count or 0
    return counts


class KitBench(Bench):
    """All checkers, but those that need effects see nothing of groups that tell none.

    `telling` are the groups of which an application tells, `left` those that nobody is in any more:
    what is there is no work of theirs.
    """

    def __init__(
        self, scenario: Scenario, telling: Sequence[str], left: Sequence[str] = ()
    ) -> None:
        super().__init__(scenario, effects=bool(telling))
        self._telling = telling
        if telling:
            counts = first_counts(scenario)
            self.checkers.append(NotLeftBehind(self.truth, counts, scenario.groups))
        told = tuple(
            group for group in scenario.groups if group.id in telling and group.id not in left
        )
        seen, self.seen = self.seen, L2AllSeen(self.truth, replace(scenario, groups=told))
        self.checkers = [self.seen if each is seen else each for each in self.checkers]

    def _looking_at(self, source: str, fact: Any, orders: Sequence[Any]) -> tuple[Checker, ...]:
        found = super()._looking_at(source, fact, orders)
        group_id = self._group_of(source, fact)
        if group_id is None or group_id in self._telling:
            return found
        return tuple(each for each in found if each.name not in OF_EFFECTS)

    def _group_of(self, source: str, fact: Any) -> str | None:
        """Whose step this is; None: it concerns all."""
        named = getattr(getattr(fact, "request", None), "group_id", None)
        member = getattr(fact, "member", source)
        groups = self.truth.groups
        return groups.get(member, groups.get(source, named))


@dataclass(slots=True)
class Case:
    """All that a test has shown so far."""

    cluster: ClusterSpec
    topics: dict[str, int] = field(default_factory=dict[str, int])
    produced: list[ProduceSpec] = field(default_factory=list[ProduceSpec])
    lives: list[Lived] = field(default_factory=list[Lived])
    steps: list[Step] = field(default_factory=list[Step])
    changes: list[StepSpec] = field(default_factory=list[StepSpec])
    faults: list[FaultSpec] = field(default_factory=list[FaultSpec])
    # The longest wait of an application, and all of them together.
    cost_ms: int = 0
    slept_ms: int = 0
    # How much later than configured a commit may come, on a machine of the real world.
    slack_ms: int = 0
    until_ms: int = 0
    exactly_once: bool = False
    # Processes whose application tells what it has handled.
    telling: set[str] = field(default_factory=set[str])
    # What a test has asked for and did not come, and what else is to be said.
    remarks: list[str] = field(default_factory=list[str])

    @property
    def groups(self) -> list[str]:
        """All that there were."""
        return sorted({life.config.group_id for life in self.lives})

    @property
    def left_groups(self) -> list[str]:
        """Those that their members have left for others, with another configuration."""
        still = {life.config.group_id for life in self._last_lives()}
        return [group for group in self.groups if group not in still]

    def _last_lives(self) -> list[Lived]:
        """The members that the processes of today have, or had at their end."""
        last = {process_of(life.member): life.number for life in self.lives}
        return [life for life in self.lives if life.number == last[process_of(life.member)]]

    def process_groups(self, process: str) -> set[str]:
        """Those in which the consumers of its last life are."""
        lives = [life for life in self._last_lives() if process_of(life.member) == process]
        return {life.config.group_id for life in lives}

    def _groups_of(self, member: str) -> set[str]:
        return {life.config.group_id for life in self.lives if life.member == member}

    @property
    def telling_groups(self) -> list[str]:
        """Those in which somebody tells: who does not is taken at its word there.

        A process that tells of one of its groups alone does not speak of the others.
        """
        groups: dict[str, set[str]] = {}
        for life in self.lives:
            if process_of(life.member) in self.telling:
                groups.setdefault(process_of(life.member), set()).add(life.config.group_id)
        told = self._groups_told()
        return sorted({each for mine in groups.values() for each in (mine & told or mine)})

    def _groups_told(self) -> set[str]:
        """Those of which some effect is known."""
        now: dict[str, str] = {}
        found: set[str] = set()
        for _, _, fact, _ in self.steps:
            if isinstance(fact, o.MemberLife):
                now[fact.member] = fact.group_id
            elif isinstance(fact, o.Handled):
                found.add(now.get(fact.member, ""))
        return found

    def silent(self, *, among: bool) -> list[str]:
        """Members that were given records and do not tell, in groups where others do or not."""
        given = {fact.member for _, _, fact, _ in self.steps if isinstance(fact, o.HandedOut)}
        told = self.telling_groups
        known = {name: bool(self._groups_of(name).intersection(told)) for name in given}
        return sorted(
            name
            for name in given
            if known[name] == among and not (among and process_of(name) in self.telling)
        )

    def scenario(self) -> Scenario:
        """What the checks measure the run by."""
        return Scenario(
            "a test",
            self.until_ms,
            self.cluster,
            tuple(TopicSpec(name, count) for name, count in sorted(self.topics.items())),
            groups_of(self.lives, self.cost_ms, self.slack_ms),
            tuple(self.produced),
            tuple(self.changes),
            tuple(self.faults),
        )

    def bench(self) -> Bench:
        """All checkers, which have seen everything so far."""
        bench = KitBench(self.scenario(), self.telling_groups, self.left_groups)
        if self.exactly_once:
            bench.checkers.append(OnceOnly(bench.truth))
        for step in self.steps:
            bench.see(*step)
        return bench

    def rest_bound_ms(self) -> int:
        """How long rest may take: a single long wait is no cost of each record that is left."""
        scenario = self.scenario()
        given = sum(isinstance(fact, o.HandedOut) for _, _, fact, _ in self.steps)
        mean_ms = -(-self.slept_ms // max(1, given))
        usual = min(self.cost_ms, AMPLE * mean_ms)
        groups = tuple(replace(each, handler_cost_ms=(0, usual)) for each in scenario.groups)
        return min(MOST_REST_MS, self.cost_ms + seen_bound_ms(replace(scenario, groups=groups)))

    def check_asked(self, ignore: Sequence[str]) -> None:
        """Before the verdict. Raises MisuseError for what cannot be judged, or ignored."""
        known = [each.name for each in Bench(self.scenario()).checkers]
        known += [OnceOnly.name, NotLeftBehind.name]
        if isinstance(ignore, str) or not isinstance(ignore, Sequence):
            raise MisuseError(f"ignore={ignore!r}: a list of names")
        for name in ignore:
            check_among(name, known, "ignore check")
        if self.exactly_once and (self.silent(among=False) or not self.telling):
            who = ", ".join(self.silent(among=False)) or "no application"
            raise MisuseError(f"exactly_once: {who} tells nothing of what it has handled. {HOW}")

    def polled(self) -> set[str]:
        """Members whose application has asked for messages since it was started last."""
        found: set[str] = set()
        for source, _, fact, _ in self.steps:
            match fact:
                case o.MemberLife(what="started"):
                    found.discard(fact.member)
                case o.HandedOut():
                    found.add(fact.member)
                case e.UserPolled(waiting=True):
                    found.add(source)
                case _:
                    pass
        return found

    def check_given(self) -> None:
        """Raises ApplicationError where records were there, and nobody has got any."""
        written = sum(records_of(self.steps).values())
        resets = {life.config.auto_offset_reset for life in self.lives}
        given = any(isinstance(fact, o.HandedOut) for _, _, fact, _ in self.steps)
        if given or not written or resets != {EARLIEST}:
            return
        wanted = sorted({topic for life in self.lives for topic in life.config.topics})
        raise ApplicationError(
            f"nobody was given any of the {written} records in "
            f"{', '.join(sorted(self.topics))}; what is read: {', '.join(wanted) or 'a pattern'}"
        )

    def unjudged(self, verdicts: Mapping[str, str]) -> list[str]:
        """How to have judged what was not."""
        found: list[str] = []
        silent = self.silent(among=False)
        if silent or not self.telling:
            who = ", ".join(silent) or "no application"
            tells = f"{who} does not tell" if silent else "no application tells"
            needing = ", ".join((*NEED_EFFECTS, NotLeftBehind.name))
            found.append(f"{needing} are not judged: {tells} what it has handled. {HOW}")
        if beside := self.silent(among=True):
            found.append(
                f"{', '.join(beside)} does not tell what it has handled, as others of its group "
                f"do, and is judged as if it had handled nothing. {HOW}"
            )
        if not self.exactly_once and any(
            isinstance(order, e.SendRequest) and order.channel == "store"
            for *_, orders in self.steps
            for order in orders
        ):
            names = [name for name in OF_COMMITS if verdicts.get(name) == NOT_JUDGED]
            found.append(
                f"{', '.join(names)} are not judged: they look at offsets that brokers keep, and "
                "here an application keeps its own. Its effects are: use exactly_once=True."
            )
        left = self.left_groups
        found += [
            f"L2 of {group} is not judged: its members have another group_id since they began anew"
            for group in left
        ]
        found += unread(self.scenario(), self.steps, left)
        return [*found, *jumped(self.steps), *self._effects_apart()]

    def _effects_apart(self) -> list[str]:
        """Where each group has its own effect of a record, X1 counts each of them as once."""
        if not self.exactly_once:
            return []
        topics: dict[str, set[str]] = {}
        for _, _, fact, _ in self.steps:
            if isinstance(fact, o.Handled):
                topics.setdefault(fact.topic, set()).update(self._groups_of(fact.member))
        return [
            f"X1 counts the effects of each group by themselves: {topic} is handled in "
            f"{len(groups)}, {', '.join(sorted(groups))}"
            for topic, groups in sorted(topics.items())
            if len(groups) > 1
        ]

    def report(
        self,
        end_ms: int,
        ignore: Sequence[str] = (),
        judged: Sequence[str] | None = None,
    ) -> Report:
        """The verdicts at the end; of these alone, if only some can be `judged`."""
        bench = self.bench()
        bench.end(end_ms)
        names = [each.name for each in bench.checkers]
        unseen = [name for name in names if judged is not None and name not in judged]
        left_out = {*ignore, *unseen}
        bench.checkers = [each for each in bench.checkers if each.name not in left_out]
        verdicts = {
            **bench.verdicts,
            **dict.fromkeys(unseen, NOT_JUDGED),
            **dict.fromkeys(ignore, "ignored"),
        }
        return Report(
            bench.verdict,
            verdicts,
            tuple(bench.violations),
            (*self.unjudged(verdicts), *self.remarks),
            story_of(self.steps),
            tuple(self.steps),
        )
