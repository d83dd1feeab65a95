"""Random facts: snapshots change nothing, every token has one answer, nobody waits for ever."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.core import messages as m
from ksim.core.coordinator import Coordinator, CoordinatorConfig
from ksim.core.coordinator_shard import CLEANUP, check_everything
from ksim.core.events import (
    AppendRecords,
    LogReplayed,
    RecordsAppended,
    RequestArrived,
    Resigned,
    SendResponse,
    StateChanged,
    TimerFired,
)
from ksim.core.values import TopicPartition

IDS = ["", "m0", "m1", "m2", "m3", "m4"]
INSTANCES = [None, None, None, "i0", "i1"]
PROTOCOLS = [
    (("range", b"a"),),
    (("range", b"b"),),
    (("range", b"a"), ("roundrobin", b"a")),
    (("roundrobin", b"a"), ("range", b"a")),
]
GROUPS = ["g", "h"]
ids, instances, groups = map(st.sampled_from, (IDS, INSTANCES, GROUPS))
generations = st.integers(-1, 3)

joins = st.builds(
    m.JoinGroupRequest,
    groups,
    st.sampled_from([6_000, 10_000]),
    st.sampled_from([2_000, 10_000, 20_000]),
    ids,
    instances,
    st.just("consumer"),
    st.sampled_from(PROTOCOLS),
)
syncs = st.builds(
    m.SyncGroupRequest,
    groups,
    generations,
    ids,
    instances,
    st.just("consumer"),
    st.sampled_from(["range", "range", "roundrobin"]),
    st.just((("m0", b"x"), ("m1", b"y"))),
)
commits = st.builds(
    m.OffsetCommitRequest,
    groups,
    generations,
    ids,
    instances,
    st.just((m.OffsetAndMetadata("t", 0, 5, -1, ""),)),
)
requests = st.one_of(
    joins,
    joins,
    joins,
    syncs,
    syncs,
    st.builds(m.HeartbeatRequest, groups, generations, ids, instances),
    st.builds(
        m.LeaveGroupRequest,
        groups,
        st.lists(st.builds(m.MemberIdentity, ids, instances), max_size=3).map(tuple),
    ),
    commits,
    st.builds(m.OffsetFetchRequest, groups, st.just((TopicPartition("t", 0),))),
    st.builds(m.OffsetDeleteRequest, groups, st.just((TopicPartition("t", 0),))),
    st.builds(m.DescribeGroupsRequest, st.tuples(groups)),
    st.builds(m.ListGroupsRequest, st.just(()), st.just(())),
    st.builds(m.DeleteGroupsRequest, st.tuples(groups)),
)
# "Smart" actions follow what the group really is, so that runs reach the later states.
actions = st.lists(
    st.one_of(
        requests,
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 500, 3_000, 7_000])),
        st.tuples(st.just("deadline")),
        st.tuples(st.just("appended"), st.sampled_from([0, 0, 0, 0, 7])),
        st.tuples(st.just("rejoin"), groups, st.integers(0, 5), st.sampled_from(PROTOCOLS)),
        st.tuples(st.just("rejoin"), groups, st.integers(0, 5), st.sampled_from(PROTOCOLS)),
        st.tuples(st.just("sync"), groups),
        st.tuples(st.just("sync"), groups),
        st.tuples(st.just("failover"), st.booleans()),
    ),
    min_size=1,
    max_size=60,
)
configs = st.builds(
    CoordinatorConfig,
    initial_rebalance_delay_ms=st.sampled_from([0, 3_000]),
    group_max_size=st.sampled_from([2, 100]),
)


class Run:
    """Turns actions into facts by looking at the machine, and keeps the books of tokens."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self.machine = Coordinator(config, 7)
        self.facts: list[tuple[int, Any]] = []
        self.orders: list[list[Any]] = []
        self.now = 0
        self.parked: dict[int, Any] = {}
        self.appends: list[AppendRecords] = []
        self.log: list[Any] = []
        self.tokens = 0

    def feed(self, fact: Any) -> None:
        orders = self.machine.step(fact, now_ms=self.now)
        self.facts.append((self.now, fact))
        self.orders.append(orders)
        if isinstance(fact, RequestArrived):
            self.parked[fact.token] = fact.request
        for order in orders:
            match order:
                case SendResponse(token=token):
                    assert token in self.parked, f"{token} is not waiting"
                    self.check_kind(self.parked.pop(token), order.response)
                case AppendRecords():
                    self.appends.append(order)
                case StateChanged():
                    assert order.from_state != order.to_state
        check_everything(self.machine._shard)

    def check_kind(self, request: Any, response: Any) -> None:
        kind = type(request).__name__.removesuffix("Request")
        assert type(response).__name__ == f"{kind}Response"

    def ask(self, request: Any) -> None:
        self.tokens += 1
        taken = [each for group in self.machine.state.groups.values() for each in group.members]
        fresh = next((name for name in IDS[1:] if name not in taken), f"m{self.tokens + 9}")
        pending = [
            each for group in self.machine.state.groups.values() for each in group.pending_joins
        ]
        if fresh in pending:
            fresh = f"m{self.tokens + 9}"
        self.feed(RequestArrived(self.tokens, request, "client", fresh))

    def appended(self, error_code: int) -> None:
        if self.appends:
            order = self.appends.pop(0)
            if not error_code:
                self.log.extend(order.entries)
            self.feed(RecordsAppended(order.append_id, error_code))

    def do(self, action: Any) -> None:
        match action:
            case ("wait", by):
                self.now += by
                self.feed(TimerFired())
            case ("deadline",):
                self.now = max(self.now, self.machine.deadline_ms or 0)
                self.feed(TimerFired())
            case ("appended", error_code):
                self.appended(error_code)
            case ("rejoin", name, which, protocols):
                self.rejoin(name, which, protocols)
            case ("sync", name):
                self.sync(name)
            case ("failover", lose):
                self.feed(Resigned())
                if not lose:
                    self.appends.clear()
                self.feed(LogReplayed(tuple(self.log)))
            case _:
                self.ask(action)

    def rejoin(self, name: str, which: int, protocols: Any) -> None:
        group = self.machine.state.groups.get(name)
        known = [*group.pending_joins, *group.members] if group else []
        if known:
            member = known[which % len(known)]
            entry = group.members.get(member) if group else None
            instance = entry.group_instance_id if entry else None
            self.ask(
                m.JoinGroupRequest(name, 6_000, 9_000, member, instance, "consumer", protocols)
            )

    def sync(self, name: str) -> None:
        group = self.machine.state.groups.get(name)
        for entry in list(group.members.values()) if group else []:
            assert group is not None
            self.ask(
                m.SyncGroupRequest(
                    name,
                    group.generation_id,
                    entry.member_id,
                    entry.group_instance_id,
                    "consumer",
                    group.protocol_name or "range",
                    ((entry.member_id, b"z"),),
                )
            )


def superseded(run: Run) -> set[int]:
    """Tokens that a repeated request of the same member replaced: never answered, by design."""
    held = {
        token
        for group in run.machine.state.groups.values()
        for member in group.members.values()
        for token in (member.join_token, member.sync_token)
    }
    stored = {getattr(each, "token", None) for each in run.machine.state.writes.values()}
    return {token for token in run.parked if token not in held | stored}


@settings(max_examples=300)
@given(configs, actions, st.data())
def test_random_facts(config: CoordinatorConfig, todo: list[Any], data: st.DataObject) -> None:
    run = Run(config)
    run.feed(LogReplayed(()))
    for action in todo:
        before = set(run.parked)
        run.do(action)
        for token in superseded(run):
            request = run.parked.pop(token)
            assert token in before
            assert isinstance(request, m.JoinGroupRequest | m.SyncGroupRequest)
    while run.appends:
        run.appended(0)
    for _ in range(200):
        if set(run.machine.state.timers.live) == {CLEANUP}:
            break
        run.do(("deadline",))
        while run.appends:
            run.appended(0)
    assert set(run.machine.state.timers.live) == {CLEANUP}
    assert run.parked == {}
    assert all(group.state == "Empty" for group in run.machine.state.groups.values())

    at = data.draw(st.integers(0, len(run.facts)))
    again = Coordinator(config, 7)
    orders = [again.step(fact, now_ms=now) for now, fact in run.facts[:at]]
    again = Coordinator.restore(again.snapshot())
    orders += [again.step(fact, now_ms=now) for now, fact in run.facts[at:]]
    assert orders == run.orders
    assert again.snapshot() == run.machine.snapshot()
