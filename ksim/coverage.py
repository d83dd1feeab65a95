"""M1: what has occurred at all, in one run or over a campaign.

A check that never met the situation it is for proves nothing. So each run writes down which edges
of the two state tables were taken, which error codes members were answered, and which callbacks
ran; over a campaign these add up, and what is missing can be named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator_state import LEGAL_PREDECESSORS, GroupState
from ksim.core.errors import error_name
from ksim.core.member_state import LEGAL_EDGES, REACTIONS, ClientState

Seen = dict[str, int]
COMPLETING: Final = ClientState.COMPLETING_REBALANCE
KINDS: Final = {
    m.FindCoordinatorResponse: "find",
    m.JoinGroupResponse: "join",
    m.SyncGroupResponse: "sync",
    m.HeartbeatResponse: "heartbeat",
    m.OffsetCommitResponse: "commit",
    m.OffsetFetchResponse: "offsets",
    m.FetchResponse: "fetch",
    m.ListOffsetsResponse: "list",
    m.OffsetForLeaderEpochResponse: "epoch",
    m.MetadataResponse: "metadata",
    m.LeaveGroupResponse: "leave",
}
CALLBACKS: Final = ("assigned", "revoked", "lost")
NOT_IN_SIMULATIONS: Final = (GroupState.DEAD,)
# What the member reacts to beside the table of its group requests.
OTHER_REACTIONS: Final = {
    "join": ("GROUP_MAX_SIZE_REACHED", "INCONSISTENT_GROUP_PROTOCOL", "INVALID_SESSION_TIMEOUT"),
    "commit": ("OFFSET_METADATA_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED"),
    "metadata": (
        "LEADER_NOT_AVAILABLE", "UNKNOWN_TOPIC_OR_PARTITION", "TOPIC_AUTHORIZATION_FAILED",
        "INVALID_TOPIC",
    ),
    "list": (
        "NOT_LEADER_OR_FOLLOWER", "UNKNOWN_TOPIC_OR_PARTITION", "TOPIC_AUTHORIZATION_FAILED",
    ),
    "fetch": (
        "NOT_LEADER_OR_FOLLOWER", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH",
        "UNKNOWN_TOPIC_OR_PARTITION", "TOPIC_AUTHORIZATION_FAILED", "OFFSET_OUT_OF_RANGE",
        "CORRUPT_MESSAGE", "UNSUPPORTED_COMPRESSION_TYPE",
    ),
    "epoch": ("NOT_LEADER_OR_FOLLOWER", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH"),
    "leave": ("UNKNOWN_MEMBER_ID", "NOT_COORDINATOR"),
}  # fmt: skip
# What no campaign meets, and why. docs/checks.md has this list.
NOT_MET: Final = {
    "join INVALID_SESSION_TIMEOUT": "such a scenario is refused before it runs",
    "fetch CORRUPT_MESSAGE": "logs of the simulator are not damaged; tests/consumer does it",
    "fetch UNSUPPORTED_COMPRESSION_TYPE": "records of the simulator are not compressed; likewise",
}


def _expected() -> tuple[str, ...]:
    group_edges = [
        f"group {before.value} -> {after.value}"
        for after, predecessors in LEGAL_PREDECESSORS.items()
        for before in predecessors
        if after not in NOT_IN_SIMULATIONS and before not in NOT_IN_SIMULATIONS
    ]
    member_edges = [
        f"member {before.value} -> {after.value}"
        for before, successors in LEGAL_EDGES.items()
        for after in successors
    ]
    errors = [f"{kind} {error_name(code)}" for kind, code in REACTIONS]
    errors += [f"{kind} {name}" for kind, names in OTHER_REACTIONS.items() for name in names]
    callbacks = [f"callback {kind}" for kind in CALLBACKS]
    found = (*group_edges, *member_edges, *errors, *callbacks)
    return tuple(name for name in found if name not in NOT_MET)


EXPECTED: Final = _expected()


class _MemberEdges:
    """The edges that one life of a member takes, as its requests and their answers show them.

    Where it goes from STABLE to its next JoinGroup by way of UNJOINED with nothing to lose, that
    cannot be seen, and counts as the direct edge.
    """

    def __init__(self) -> None:
        self._state = ClientState.UNJOINED
        self._awaited = -1

    def see(self, fact: Any, orders: Sequence[Any]) -> Iterator[str]:
        """The edges of one step, in their order."""
        if isinstance(fact, e.ResponseReceived) and fact.request_id == self._awaited:
            yield from self._answered(fact.response)
        for order in orders:
            if isinstance(order, e.LosePartitions) and not isinstance(fact, e.CloseRequested):
                yield from self._to(ClientState.UNJOINED)
            elif isinstance(order, e.SendRequest):
                yield from self._sent(order)

    def _answered(self, response: m.Response) -> Iterator[str]:
        after = {
            (m.JoinGroupResponse, ClientState.PREPARING_REBALANCE): COMPLETING,
            (m.SyncGroupResponse, COMPLETING): ClientState.STABLE,
        }.get((type(response), self._state))
        if after is not None:
            yield from self._to(
                ClientState.UNJOINED if getattr(response, "error_code", 0) else after
            )

    def _sent(self, order: e.SendRequest) -> Iterator[str]:
        if isinstance(order.request, m.JoinGroupRequest):
            if self._state != ClientState.STABLE:
                yield from self._to(ClientState.UNJOINED)
            yield from self._to(ClientState.PREPARING_REBALANCE)
        if isinstance(order.request, m.JoinGroupRequest | m.SyncGroupRequest):
            self._awaited = order.request_id

    def _to(self, after: ClientState) -> Iterator[str]:
        before, self._state = self._state, after
        if before != after:
            yield f"member {before.value} -> {after.value}"


class Coverage:
    """Counts what occurs; `seen` is plain data that adds up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._edges: defaultdict[str, _MemberEdges] = defaultdict(_MemberEdges)

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step of a machine, or one observation."""
        del now_ms
        match fact:
            case e.ResponseReceived():
                self._answered(fact.response)
            case e.RequestFailed():
                self.counts["request without an answer"] += 1
            case o.CallbackRan():
                self.counts[f"callback {fact.kind}"] += 1
            case o.FaultStruck():
                self.counts[f"fault {fact.name}"] += 1
            case o.MemberLife(what="started"):
                self._edges.pop(source, None)
            case _:
                pass
        self.counts.update(self._edges[source].see(fact, orders))
        for order in orders:
            if isinstance(order, e.StateChanged):
                self.counts[f"group {order.from_state} -> {order.to_state}"] += 1
            elif isinstance(order, e.LosePartitions):
                self.counts[f"lost: {order.reason}"] += 1

    def _answered(self, response: m.Response) -> None:
        kind = KINDS.get(type(response))
        if kind is None:
            return
        codes = [getattr(response, "error_code", 0)]
        for name in ("partitions", "topics"):
            codes += [item.error_code for item in getattr(response, name, ())]
        for code in sorted({code for code in codes if code}):
            self.counts[f"{kind} {error_name(code)}"] += 1

    @property
    def seen(self) -> Seen:
        return dict(sorted(self.counts.items()))


def added(many: Iterable[Seen]) -> Seen:
    """The sum over runs."""
    total: Counter[str] = Counter()
    for each in many:
        total.update(each)
    return dict(sorted(total.items()))


def missing(seen: Seen) -> tuple[str, ...]:
    """What a campaign should have met and has not."""
    return tuple(name for name in EXPECTED if not seen.get(name))
