"""The checks of scenarios over applications that nobody has described: what their consumers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ksim import observations as o
from ksim.checks import NOT_JUDGED, Checker, seconds
from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core.errors import MisuseError
from ksim.kit.report import Report, Step, story_of
from ksim.kit.texts import check_among
from ksim.liveness import NEED_EFFECTS, Bench, seen_bound_ms
from ksim.scenario import ClusterSpec, GroupSpec, ProduceSpec, Scenario, StepSpec, TopicSpec
from ksim.seen import L2AllSeen

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
OF_COMMITS: Final = ("S1", "S2", "S3", "S6", "S13")
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


def groups_of(configs: Mapping[str, Config], cost_ms: int, slack_ms: int) -> tuple[GroupSpec, ...]:
    """All groups; `configs` are of the members by name."""
    found: dict[str, dict[str, GroupSpec]] = {}
    for name, config in configs.items():
        spec = group_of(config, cost_ms)
        spec = replace(spec, commit_interval_ms=spec.commit_interval_ms + slack_ms)
        found.setdefault(config.group_id, {})[name] = spec
    return tuple(_seen(members) for members in found.values())


def _seen(members: Mapping[str, GroupSpec]) -> SeenGroup:
    first = next(iter(members.values()))
    known = {name: getattr(first, name) for name in first.__dataclass_fields__}
    for name in SLOWEST:
        known[name] = max(getattr(each, name) or 0 for each in members.values())
    known["rebalance_timeout_ms"] = known["rebalance_timeout_ms"] or None
    known["topics"] = tuple(sorted({topic for each in members.values() for topic in each.topics}))
    return SeenGroup(**{**known, "members": len(members), "seen": members})


class OnceOnly(Checker):
    """No effect of a record happens twice; for applications that promise it."""

    name = "X1"
    looks_at = (o.Handled,)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        del source, orders
        if not isinstance(fact, o.Handled):
            return
        self.judged += 1
        place = self.truth.place(fact.member, fact.topic, fact.partition)
        times = self.truth.handled.get(place, {}).get(fact.offset, 0)
        if times > 1:
            self.accuse(
                now_ms,
                f"{fact.member} handled offset {fact.offset} of {place[1]} at {seconds(now_ms)}, "
                f"time {times} in {place[0]}: its effect must happen once.",
                (fact.member,),
                place[1],
                (fact.offset,),
            )


class KitBench(Bench):
    """All checkers, but those that need effects see nothing of groups that tell none.

    `groups` are of the members by name, `telling` those of which an application tells.
    """

    def __init__(
        self, scenario: Scenario, groups: Mapping[str, str], telling: Sequence[str]
    ) -> None:
        super().__init__(scenario, effects=bool(telling))
        self._groups = groups
        self._telling = telling
        told = tuple(group for group in scenario.groups if group.id in telling)
        seen, self.seen = self.seen, L2AllSeen(self.truth, replace(scenario, groups=told))
        self.checkers = [self.seen if each is seen else each for each in self.checkers]

    def _looking_at(self, source: str, fact: Any, orders: Sequence[Any]) -> tuple[Checker, ...]:
        found = super()._looking_at(source, fact, orders)
        group_id = self._group_of(source, fact)
        if group_id is None or group_id in self._telling:
            return found
        return tuple(each for each in found if each.name not in (*NEED_EFFECTS, OnceOnly.name))

    def _group_of(self, source: str, fact: Any) -> str | None:
        """Whose step this is; None: it concerns all."""
        named = getattr(getattr(fact, "request", None), "group_id", None)
        member = getattr(fact, "member", source)
        return self._groups.get(member, self._groups.get(source, named))


@dataclass(slots=True)
class Case:
    """All that a test has shown so far."""

    cluster: ClusterSpec
    topics: dict[str, int] = field(default_factory=dict[str, int])
    produced: list[ProduceSpec] = field(default_factory=list[ProduceSpec])
    configs: dict[str, Config] = field(default_factory=dict[str, Config])
    steps: list[Step] = field(default_factory=list[Step])
    changes: list[StepSpec] = field(default_factory=list[StepSpec])
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
    def telling_groups(self) -> list[str]:
        """Those in which somebody tells: who does not is taken at its word there."""
        return sorted(
            {
                config.group_id
                for name, config in self.configs.items()
                if process_of(name) in self.telling
            }
        )

    def silent(self, *, among: bool) -> list[str]:
        """Members that were given records and do not tell, in groups where others do or not."""
        given = {fact.member for _, _, fact, _ in self.steps if isinstance(fact, o.HandedOut)}
        told = self.telling_groups
        return sorted(
            name
            for name in given
            if process_of(name) not in self.telling
            and (self.configs[name].group_id in told) == among
        )

    def scenario(self) -> Scenario:
        """What the checks measure the run by."""
        return Scenario(
            "a test",
            self.until_ms,
            self.cluster,
            tuple(TopicSpec(name, count) for name, count in sorted(self.topics.items())),
            groups_of(self.configs, self.cost_ms, self.slack_ms),
            tuple(self.produced),
            tuple(self.changes),
        )

    def bench(self) -> Bench:
        """All checkers, which have seen everything so far."""
        groups = {name: config.group_id for name, config in self.configs.items()}
        bench = KitBench(self.scenario(), groups, self.telling_groups)
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
        return self.cost_ms + seen_bound_ms(replace(scenario, groups=groups))

    def check_asked(self, ignore: Sequence[str]) -> None:
        """Before the verdict. Raises MisuseError for what cannot be judged, or ignored."""
        known = [*(each.name for each in Bench(self.scenario()).checkers), OnceOnly.name]
        if isinstance(ignore, str):
            raise MisuseError(f"ignore={ignore!r}: a list of names")
        for name in ignore:
            check_among(name, known, "ignore check")
        if self.exactly_once and (self.silent(among=False) or not self.telling):
            who = ", ".join(self.silent(among=False)) or "no application"
            raise MisuseError(f"exactly_once: {who} tells nothing of what it has handled. {HOW}")

    def unjudged(self, verdicts: Mapping[str, str]) -> list[str]:
        """How to have judged what was not."""
        found: list[str] = []
        silent = self.silent(among=False)
        if silent or not self.telling:
            who = ", ".join(silent) or "no application"
            tells = f"{who} does not tell" if silent else "no application tells"
            needing = ", ".join(NEED_EFFECTS)
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
        return found

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
        unjudged = tuple(self.unjudged(verdicts))
        return Report(
            bench.verdict,
            verdicts,
            tuple(bench.violations),
            (*unjudged, *self.remarks),
            story_of(self.steps),
            tuple(self.steps),
            unjudged,
        )
