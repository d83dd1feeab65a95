"""What a scenario consists of: frozen values, each field with its key and what it means."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ksim.broker.faults import EventRule, FaultAction, FaultRule
from ksim.core.errors import KafkaError
from ksim.scenario_keys import (
    Choice,
    Count,
    Duration,
    Durations,
    Flag,
    Fraction,
    Inner,
    Inners,
    Named,
    Schema,
    Text,
    Texts,
    key,
    pairs,
)
from ksim.scenario_table import Table

REQUESTS: Final = (
    "Metadata",
    "FindCoordinator",
    "JoinGroup",
    "SyncGroup",
    "Heartbeat",
    "LeaveGroup",
    "OffsetCommit",
    "OffsetFetch",
    "ListOffsets",
    "Fetch",
    "OffsetForLeaderEpoch",
)
ERRORS: Final = tuple(name for name, code in KafkaError.__members__.items() if code)
ASSIGNORS: Final = ("range", "roundrobin")
MOST_BROKERS: Final = 1_000
MOST_MEMBERS: Final = 1_000
MOST_PARTITIONS: Final = 100_000
LAST_OFFSET: Final = (1 << 63) - 1  # of Kafka's logs
RESETS: Final = ("earliest", "latest", "none")
# What a step is done to: `node` is a member, a broker, or "coordinator".
STEP_TARGETS: Final = {
    "crash": "node",
    "start": "node",
    "stop": "node",
    "pause": "node",
    "restart": "node",
    "partition": "node",
    "hold": "node",
    "heal": "node",
    "disconnect": "member",
    "close": "member",
    "poll_gap": "member",
    "pause_partitions": "member",
    "resume_partitions": "member",
    "seek": "member",
    "move_coordinator": "group",
    "refuse_offsets_log": "group",
    "compact_offsets_log": "group",
    "add_partitions": "topic",
    "create_topic": "new topic",
    "delete_topic": "topic",
    "truncate": "topic",
    "stale_metadata": "broker",
}
STEPS: Final = tuple(STEP_TARGETS)
ALL_BROKERS: Final = "brokers"
COORDINATOR: Final = "coordinator"
DEFAULT_MAX_EVENTS: Final = 2_000_000
# It rises when a file that is read today would be read as something else.
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The brokers and the links to them; times in ms, ranges inclusive."""

    brokers: int = key(
        Count(most=MOST_BROKERS), "How many brokers there are; they are named broker-1, ...", 1
    )
    initial_rebalance_delay_ms: int = key(
        Duration(),
        "How long the coordinator lets the first rebalance of an empty group wait.",
        3_000,
    )
    latency_ms: tuple[int, int] = key(Durations(), "Of each message, drawn anew each time.", (1, 5))
    loss: float = key(Fraction(), "The share of messages that are lost, until healing.", 0.0)
    coordinator_load_ms: int = key(
        Duration(), "How long a broker that takes over a group reads its log, and refuses.", 20
    )
    group_max_size: int | None = key(Count(), "How many members a group may have.", None)
    offsets_retention_ms: int | None = key(
        Duration(), "How long offsets of an empty group are kept.", None
    )
    offsets_retention_check_interval_ms: int | None = key(
        Duration(), "How often the coordinator looks for such offsets.", None
    )


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that is there from the beginning."""

    name: str
    partitions: int = key(Count(most=MOST_PARTITIONS), "How many partitions it has.")


@dataclass(frozen=True, slots=True)
class CallbackSpec:
    """What the application does when it is told of partitions, in this order."""

    sleep_ms: int = key(Duration(), "Take so long.", 0)
    commit: bool = key(Flag(), "Commit what is marked, and wait for the answer.", False)
    seek_back: int = key(
        Count(0), "Seek each of the partitions to so many before its committed offset.", 0
    )
    close: bool = key(Flag(), "Call `close` from inside the callback.", False)
    raises: bool = key(
        Flag(), "Raise; the application catches it and reads on.", False, name="raise"
    )


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler that fails and is tried again."""

    every: int = key(Count(), "Each so-manieth record of the member fails.")
    times: int = key(Count(), "How often it fails before it succeeds.", 1)
    backoff_ms: int = key(Duration(), "How long the application waits before each try.", 100)


@dataclass(frozen=True, slots=True)
class HandlerHang:
    """A handler that hangs once."""

    nth: int = key(Count(), "At which record of the member.")
    for_ms: int = key(Duration(), "How long.")


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """What one member has otherwise than its group; what is left out is as in the group."""

    number: int = key(
        Count(most=MOST_MEMBERS), "Of the member: 2 for GROUP-2; it may be one that a step starts."
    )
    topics: tuple[str, ...] | None = key(Texts(), "What it subscribes to.", None)
    topics_whitelist: str | None = key(Text(), "A pattern of topics, beside `topics`.", None)
    topics_blacklist: str | None = key(Text(), "A pattern that takes out of the whitelist.", None)
    assignor: str | None = key(Choice(ASSIGNORS), "The only assignor that it offers.", None)
    assignors: tuple[str, ...] | None = key(
        Texts(ASSIGNORS), "All that it offers, the preferred one first.", None
    )
    instance_id: str | None = key(Text(), "Its static id; two members may share one.", None)
    session_timeout_ms: int | None = key(Duration(), "Its session timeout.", None)
    rebalance_timeout_ms: int | None = key(Duration(), "Its rebalance timeout.", None)
    heartbeat_interval_ms: int | None = key(Duration(), "Between its heartbeats.", None)
    max_poll_interval_ms: int | None = key(Duration(), "How long it may not call in.", None)
    commit_interval_ms: int | None = key(Duration(), "Between its commits.", None)
    dwell_time_ms: int | None = key(Duration(), "How long a revocation waits for it.", None)
    request_timeout_ms: int | None = key(Duration(), "How long it waits for an answer.", None)
    metadata_max_age_ms: int | None = key(Duration(), "How old its metadata may be.", None)
    handler_cost_ms: tuple[int, int] | None = key(Durations(), "What a record costs it.", None)
    handler_fails: HandlerFailure | None = key(Inner(HandlerFailure), "As in the group.", None)
    handler_hangs: HandlerHang | None = key(Inner(HandlerHang), "As in the group.", None)
    on_assigned: CallbackSpec | None = key(Inner(CallbackSpec), "As in the group.", None)
    on_revoked: CallbackSpec | None = key(Inner(CallbackSpec), "As in the group.", None)
    on_lost: CallbackSpec | None = key(Inner(CallbackSpec), "As in the group.", None)


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group of members that behave alike; they are named `ID-1`, `ID-2` and so on."""

    id: str = key(Text(), "The group's id, and the beginning of its members' names.")
    topics: tuple[str, ...] = key(Texts(), "What its members subscribe to.", ())
    members: int = key(Count(most=MOST_MEMBERS), "How many start by themselves.", 1)
    assignor: str = key(Choice(ASSIGNORS), "How partitions are shared.", "range")
    session_timeout_ms: int = key(
        Duration(), "After so long without a sign the coordinator gives a member up.", 30_000
    )
    heartbeat_interval_ms: int = key(Duration(), "Between heartbeats.", 3_000)
    rebalance_timeout_ms: int | None = key(
        Duration(), "How long a rebalance waits for a member; the session timeout unless set.", None
    )
    max_poll_interval_ms: int = key(
        Duration(), "A member whose application does not call in for so long leaves.", 300_000
    )
    commit_interval_ms: int = key(Duration(), "Between commits of what is marked.", 1_000)
    dwell_time_ms: int | None = key(
        Duration(), "How long a revocation waits for work in flight.", None
    )
    auto_offset_reset: str = key(
        Choice(RESETS), "Where a partition without a committed offset begins.", "earliest"
    )
    fetch_max_wait_ms: int = key(Duration(), "How long a broker may hold an empty fetch.", 500)
    handler_cost_ms: tuple[int, int] = key(Durations(), "What each record costs.", (0, 0))
    start_every_ms: int = key(Duration(), "Between the starts of the members.", 0)
    metadata_max_age_ms: int = key(Duration(), "How old metadata may be.", 300_000)
    topics_whitelist: str | None = key(Text(), "A pattern of topics, beside `topics`.", None)
    topics_blacklist: str | None = key(Text(), "A pattern that takes out of the whitelist.", None)
    assignors: tuple[str, ...] = key(
        Texts(ASSIGNORS), "All that members offer, the preferred one first; above `assignor`.", ()
    )
    instance_ids: bool = key(
        Flag(), "Members are static, each with its name as its instance id.", False
    )
    instance_id: str | None = key(Text(), "The instance id; for a member's table.", None)
    request_timeout_ms: int = key(Duration(), "How long a member waits for an answer.", 30_000)
    acknowledge: str = key(
        Choice(("mark", "each")), "Whether records are marked, or acknowledged one by one.", "mark"
    )
    workers: int | None = key(
        Count(most=MOST_MEMBERS),
        'Handlers beside each other (`consumer.run`); needs acknowledge = "each".',
        None,
    )
    mode: str = key(
        Choice(("multiplex", "partitions")), "One stream, or one for each partition.", "multiplex"
    )
    commit: str = key(
        Choice(("interval", "each")), "At intervals, or also after each record.", "interval"
    )
    poll_timeout_ms: int | None = key(
        Duration(), "The application asks for messages for so long at a time.", None
    )
    handler_fails: HandlerFailure | None = key(
        Inner(HandlerFailure), "Handlers that fail and are tried again.", None
    )
    handler_hangs: HandlerHang | None = key(Inner(HandlerHang), "A handler that hangs once.", None)
    on_assigned: CallbackSpec | None = key(
        Inner(CallbackSpec), "What the application does when partitions are assigned.", None
    )
    on_revoked: CallbackSpec | None = key(
        Inner(CallbackSpec), "What the application does when partitions are revoked.", None
    )
    on_lost: CallbackSpec | None = key(
        Inner(CallbackSpec), "What the application does when partitions are lost.", None
    )
    overrides: tuple[MemberSpec, ...] = key(
        Inners(MemberSpec), "Members that are not like the others.", (), name="member"
    )

    def member(self, number: int) -> str:
        return f"{self.id}-{number}"

    @property
    def names(self) -> tuple[str, ...]:
        """Of all members that it may have."""
        numbers = {*range(1, self.members + 1), *(each.number for each in self.overrides)}
        return tuple(self.member(number) for number in sorted(numbers))

    def has(self, name: str) -> bool:
        """Whether one of its members is called so."""
        stem, _, number = name.rpartition("-")
        return stem == self.id and number.isdigit()

    def of(self, name: str) -> GroupSpec:
        """The group as this member has it."""
        own: dict[str, Any] = {}
        if self.instance_ids:
            own["instance_id"] = name
        for item in self.overrides:
            if self.member(item.number) == name:
                given = {f.name: getattr(item, f.name) for f in fields(item) if f.name != "number"}
                own.update({field: found for field, found in given.items() if found is not None})
                if item.assignor is not None and item.assignors is None:
                    own["assignors"] = ()
        return replace(self, **own) if own else self


@dataclass(frozen=True, slots=True)
class ProduceSpec:
    """Records with keys, round and round over the partitions."""

    topic: str = key(Text(), "Where to; while the topic is not there, records are dropped.")
    per_second: int = key(Count(), "How many a second.")
    count: int = key(Count(), "How many in all.")
    start_ms: int = key(Duration(), "When the first one comes.", 0)


@dataclass(frozen=True, slots=True)
class EventSpec:
    """A protocol event: the `nth` request at the broker, or answer that it sends; 0: each one."""

    direction: str
    kind: str
    member: str | None = key(Text(), "Whose request; any member's if left out.", None)
    nth: int = key(Count(0), "Which one, from 1; 0 for every one.", 1)

    @classmethod
    def read_from(cls, table: Table) -> EventSpec:
        direction = "response" if "response" in table.data else "request"
        kind = table.choice(direction, REQUESTS)
        found = pairs(table, cls)
        table.finish()
        return cls(direction, kind, **found)

    def write_own(self) -> list[str]:
        return [f'{self.direction} = "{self.kind}"']

    @classmethod
    def own_schema(cls) -> Schema:
        kinds = list(REQUESTS)
        properties: Schema = {
            "request": {"description": "When it arrives, before it is looked at.", "enum": kinds},
            "response": {"description": "When it is sent.", "enum": kinds},
        }
        either = [{"required": ["request"]}, {"required": ["response"]}]
        return {"properties": properties, "oneOf": either}

    @property
    def rule(self) -> EventRule:
        return EventRule(self.direction, self.kind, self.member, self.nth)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """Something that is done at a time or at an event; `for_ms` undoes it again."""

    at_ms: int | None = key(Duration(), "When; or `on`.", absent=None)
    do: str = key(Choice(STEPS), "What.")
    target: str = key(Text(), "To whom or what.")
    peer: str | None = key(
        Text(), 'The other side: "coordinator" or a broker; all if left out.', None
    )
    for_ms: int | None = key(Duration(), "After so long it is undone.", None)
    count: int | None = key(Count(most=MOST_PARTITIONS), "Of partitions or records.", None)
    on: EventSpec | None = key(Inner(EventSpec), "At which event; or `at`.", None)
    after_ms: int = key(Duration(), "So long behind the event.", 0)
    partition: int | None = key(Count(0), "Of the target, or of `topic`; all if left out.", None)
    topic: str | None = key(Text(), "Of which topic.", None)
    offset: int | None = key(Count(0, LAST_OFFSET), "Where to.", None)

    @classmethod
    def read_from(cls, table: Table) -> StepSpec:
        spec = cls(**pairs(table, cls))
        table.finish()
        if (spec.at_ms is None) == (spec.on is None):
            table.refuse_whole("needs either at = TIME or on = { request = KIND }")
        return spec

    @classmethod
    def own_schema(cls) -> Schema:
        return {"oneOf": [{"required": ["at"]}, {"required": ["on"]}]}


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """Something that goes wrong at a protocol event."""

    direction: str
    kind: str
    member: str | None
    nth: int
    do: str = key(Choice(tuple(FaultAction)), "What becomes of the message.")
    error: str | None = key(
        Choice(ERRORS), 'The code for do = "error", or of an answer that is late.', None
    )
    for_ms: int = key(Duration(), "How long it is delayed or late.", 0)
    keep: bool = key(Flag(), "From the nth on, all of them.", False)
    lasts_ms: int | None = key(
        Duration(), "With `keep`: it is over so long after it struck first.", None
    )
    until: EventSpec | None = key(
        Inner(EventSpec), 'For do = "late": it is held until this event, and `for` longer.', None
    )

    @classmethod
    def read_from(cls, table: Table) -> FaultSpec:
        on = EventSpec.read_from(table.table("on"))
        spec = cls(on.direction, on.kind, on.member, on.nth, **pairs(table, cls))
        table.finish()
        if spec.do == "error" and spec.error is None:
            table.refuse("do", spec.do, 'do = "error" needs error = NAME')
        late_answer = spec.do == "late" and spec.direction == "response"
        if spec.error is not None and spec.do != "error" and not late_answer:
            table.refuse("error", spec.error, "only an error, or an answer that is late, has one")
        if spec.until is not None and spec.do != "late":
            table.refuse("do", spec.do, 'only do = "late" is held until an event')
        return spec

    @property
    def on(self) -> EventSpec:
        return EventSpec(self.direction, self.kind, self.member, self.nth)

    def write_own(self) -> list[str]:
        return [f"on = {Inner(EventSpec).write(self.on)}"]

    @classmethod
    def own_schema(cls) -> Schema:
        on: Schema = {"description": "At which event.", **Inner(EventSpec).schema()}
        return {"properties": {"on": on}, "required": ["on"]}

    @property
    def rule(self) -> FaultRule:
        """What a broker does about it."""
        return FaultRule(
            self.direction,
            self.kind,
            self.member,
            self.nth,
            FaultAction(self.do),
            0 if self.error is None else int(KafkaError[self.error]),
            self.for_ms,
            self.keep,
            None if self.until is None else self.until.rule,
            self.lasts_ms,
        )


@dataclass(frozen=True, slots=True)
class VarySpec:
    """A field that is varied: over `values`, or as `text` says: "each", or a range.

    `path` goes from table to table: "fault.0.on.nth". Values are as TOML has them.
    """

    path: str
    values: tuple[Any, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run's cluster, groups, load and faults; `until_ms` ends its safety phase.

    With `vary` it is a sweep: a run takes one of its points.
    """

    name: str = key(Text(), "What it shows, in a few words.")
    until_ms: int = key(Duration(), "The end of the safety phase; then everything is healed.")
    cluster: ClusterSpec = key(Inner(ClusterSpec), "The brokers and links.", ClusterSpec())
    topics: tuple[TopicSpec, ...] = key(Named(TopicSpec), "Topics by name.", ())
    groups: tuple[GroupSpec, ...] = key(Inners(GroupSpec), "The groups.", (), name="group")
    produce: tuple[ProduceSpec, ...] = key(Inners(ProduceSpec), "The load.", ())
    steps: tuple[StepSpec, ...] = key(Inners(StepSpec), "What is done.", (), name="step")
    faults: tuple[FaultSpec, ...] = key(Inners(FaultSpec), "What goes wrong.", (), name="fault")
    core: tuple[str, ...] = key(
        Texts(), "The brokers and members that are healed; all if left out. See below.", ()
    )
    max_events: int = key(
        Count(), "More events than this, and the run is given up.", DEFAULT_MAX_EVENTS
    )
    version: int = key(Count(), "Of the grammar that the file needs.", VERSION)
    vary: tuple[VarySpec, ...] = ()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How IPython and Hypothesis print it: as a file, which can be pasted and run."""
        del cycle
        from ksim.scenario import dump  # only who prints needs the writer

        text = dump(self).replace("\\", "\\\\").replace("'''", "\\'\\'\\'")
        printer.text(f"parse('''\n{text}''', {self.name!r})")
