"""The checks of scenarios over applications that nobody has described: what their consumers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ksim import observations as o
from ksim.checks import NOT_JUDGED, Checker, seconds
from ksim.consumer.config import Config
from ksim.kit.report import Report, Step, story_of
from ksim.liveness import NEED_EFFECTS, Bench
from ksim.scenario import ClusterSpec, GroupSpec, ProduceSpec, Scenario, StepSpec, TopicSpec

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
HOW: Final = (
    "Give it a parameter `sink` and call sink(message) where the effect of a message happens, or "
    "call ksim_cluster.handled(message) there."
)


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


@dataclass(slots=True)
class Case:
    """All that a test has shown so far."""

    cluster: ClusterSpec
    topics: dict[str, int] = field(default_factory=dict[str, int])
    produced: list[ProduceSpec] = field(default_factory=list[ProduceSpec])
    configs: dict[str, Config] = field(default_factory=dict[str, Config])
    steps: list[Step] = field(default_factory=list[Step])
    changes: list[StepSpec] = field(default_factory=list[StepSpec])
    cost_ms: int = 0
    # How much later than configured a commit may come, on a machine of the real world.
    slack_ms: int = 0
    until_ms: int = 0
    exactly_once: bool = False
    # Members whose application tells what it has handled.
    telling: set[str] = field(default_factory=set[str])

    @property
    def silent(self) -> list[str]:
        """Members that were given records and do not tell what becomes of them."""
        given = {fact.member for _, _, fact, _ in self.steps if isinstance(fact, o.HandedOut)}
        return sorted(given - self.telling)

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
        bench = Bench(self.scenario(), effects=bool(self.telling) and not self.silent)
        if self.exactly_once:
            bench.checkers.append(OnceOnly(bench.truth))
        for step in self.steps:
            bench.see(*step)
        return bench

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
        notes: list[str] = []
        silent = self.silent
        if silent or not self.telling:
            who = ", ".join(silent) or "no application"
            tells = f"{who} does not tell" if silent else "no application tells"
            needing = ", ".join(NEED_EFFECTS)
            notes.append(f"{needing} are not judged: {tells} what it has handled. {HOW}")
        return Report(
            bench.verdict,
            {
                **bench.verdicts,
                **dict.fromkeys(unseen, NOT_JUDGED),
                **dict.fromkeys(ignore, "ignored"),
            },
            tuple(bench.violations),
            tuple(notes),
            story_of(self.steps),
            tuple(self.steps),
        )
