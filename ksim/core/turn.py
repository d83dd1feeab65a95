"""One step of the member as its rooms see it: the state, the time, the orders so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ksim.core.errors import KafkaError
from ksim.core.events import (
    ANY_NODE,
    Assigned,
    Closed,
    CommitFinished,
    LosePartitions,
    MemberOrder,
    Notify,
    ReportError,
    SendRequest,
    SetDeliverUntil,
)
from ksim.core.member_state import (
    LEGAL_EDGES,
    ClientState,
    MemberState,
    Pending,
    Phase,
    Release,
    Tenure,
)
from ksim.core.messages import Request
from ksim.core.values import TopicPartition

JITTER_PERCENT: Final = 20
PATIENCE_SHARE: Final = 3
# What a new connection may need; less would end no wait well where rebalances are very short.
LEAST_PATIENCE_MS: Final = 1_000
STORE: Final = "store"
OF_ONE_EPOCH: Final = ("sync", "heartbeat", "commit", "offsets")
MIX_MASK: Final = (1 << 64) - 1


def headers_of(tenures: Iterable[Tenure]) -> tuple[Assigned, ...]:
    """Where each of these tenures stands, to compare with when the answer comes."""
    return tuple(Assigned(t.topic, t.partition, t.tenure, t.position) for t in tenures)


class Turn:
    """What every room of the member may do; each changes state in one way."""

    __slots__ = ("now_ms", "orders", "state")

    def __init__(self, state: MemberState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.orders: list[MemberOrder] = []

    def send(
        self,
        kind: str,
        node_id: int,
        request: Request,
        *,
        channel: str = "group",
        key: str = "",
        timeout_ms: int = 0,
        partitions: tuple[Assigned, ...] = (),
        tickets: tuple[int, ...] = (),
    ) -> None:
        """Order a request and remember what its answer will be about; one per key at a time."""
        state = self.state
        key = key or kind
        assert key not in state.busy, f"{key} is already under way"
        assert node_id != -1 or channel in ("meta", STORE), f"{kind} to an unknown node"
        request_id = state.next_request_id
        state.next_request_id += 1
        state.pending[request_id] = Pending(
            key, kind, state.epoch, state.generation_id, self.now_ms, partitions, tickets
        )
        state.busy[key] = request_id
        timeout_ms = timeout_ms or state.config.request_timeout_ms
        self.orders.append(SendRequest(request_id, node_id, channel, request, timeout_ms))

    @property
    def offsets_at(self) -> tuple[int, str] | None:
        """Node and channel of whoever keeps the offsets; None while it is not known."""
        if self.state.config.own_offset_store:
            return ANY_NODE, STORE
        return None if self.state.coordinator == -1 else (self.state.coordinator, "group")

    def offsets_unanswered(self) -> None:
        """No answer about offsets: where the coordinator keeps them, it may have moved."""
        if not self.state.config.own_offset_store:
            self.forget_coordinator()
            self.back_off("find_backoff")

    def send_to_any(self, kind: str, request: Request) -> None:
        """Order a request to whichever broker can be reached."""
        self.send(kind, ANY_NODE, request, channel="meta", timeout_ms=self.patience_ms)

    @property
    def patience_ms(self) -> int:
        """How long to wait for an answer that membership hangs on, and still ask once more.

        A rebalance ends without a leader that waits for metadata, or a member whose heartbeat is
        lost, after the rebalance timeout, its session over or not.
        """
        config = self.state.config
        rebalance_ms = max(LEAST_PATIENCE_MS, config.rebalance_timeout_ms // PATIENCE_SHARE)
        session_ms = config.session_timeout_ms // PATIENCE_SHARE
        return min(config.request_timeout_ms, session_ms, rebalance_ms)

    def arm(self, timer: str, after_ms: int) -> None:
        """Set a timer; one that ran already is moved."""
        self.state.timers[timer] = self.now_ms + after_ms

    def disarm(self, *timers: str) -> None:
        for timer in timers:
            self.state.timers.pop(timer, None)

    def back_off(self, what: str) -> None:
        """Hold `what` back for a time that doubles, with jitter from the seed."""
        state = self.state
        attempt = state.attempts.get(what, 0)
        state.attempts[what] = attempt + 1
        full_ms = min(
            state.config.retry_backoff_ms << min(attempt, 20), state.config.retry_backoff_max_ms
        )
        spread_ms = full_ms * JITTER_PERCENT // 100
        self.arm(what, full_ms - spread_ms + self._draw(2 * spread_ms + 1))

    def want_metadata(self) -> None:
        """Ask again where leaders are, not faster than the backoff allows."""
        state = self.state
        if not state.metadata_due and "metadata" not in state.busy:
            state.metadata_due = True
            if not self.held("metadata_backoff"):
                self.back_off("metadata_backoff")

    def succeed(self, what: str) -> None:
        """The next failure of `what` starts with the shortest wait again."""
        self.state.attempts.pop(what, None)
        self.state.timers.pop(what, None)

    def held(self, what: str) -> bool:
        return what in self.state.timers

    def _draw(self, below: int) -> int:
        """The next number of the seeded counter, below `below`. Source: splitmix64 (Steele)."""
        state = self.state
        state.seed = (state.seed + 0x9E3779B97F4A7C15) & MIX_MASK
        mixed = state.seed
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MIX_MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MIX_MASK
        return (mixed ^ (mixed >> 31)) % max(below, 1)

    def move(self, to_state: ClientState) -> None:
        """The only place where the client state changes."""
        state = self.state
        if to_state == ClientState.UNJOINED and state.client_state == to_state:
            return
        assert to_state in LEGAL_EDGES[ClientState(state.client_state)], (
            f"{state.client_state} to {to_state}"
        )
        state.client_state = to_state

    def extend_lease(self, confirmed_ms: int) -> None:
        """A request sent at `confirmed_ms` was confirmed: how long hand-outs are safe from then on.

        A rebalance that began right afterwards may end without this member after its rebalance
        timeout (the group takes the longest of all members), its session over or not.
        """
        state = self.state
        until_ms = confirmed_ms + self._lease_ms
        if until_ms > state.deliver_until_ms:
            state.deliver_until_ms = until_ms
            self.orders.append(SetDeliverUntil(until_ms))

    @property
    def is_confirmed(self) -> bool:
        """Whether nobody can have taken the place of this member since it was last spoken to.

        One that slept meanwhile asks by a heartbeat before it says that it owns anything.
        """
        state = self.state
        return self.now_ms < max(state.deliver_until_ms, state.synced_ms + self._lease_ms)

    @property
    def _lease_ms(self) -> int:
        config = self.state.config
        return min(config.session_timeout_ms, config.rebalance_timeout_ms)

    def forget_coordinator(self) -> None:
        self.state.coordinator = -1

    def forget_generation(self, reason: str, *, identity: bool = False) -> None:
        """The group goes on without this member: what it owned is lost, and it joins anew."""
        state = self.state
        self.lose(reason)
        self.begin_epoch()
        state.generation_id = -1
        state.protocol_name = ""
        state.is_leader = False
        state.assigning = state.sync_due = False
        state.peers = ()
        state.rejoin_needed = True
        if identity:
            state.member_id = ""
        self.disarm("session", "heartbeat")
        self.succeed("heartbeat_backoff")
        state.heartbeat_due = False
        self.move(ClientState.UNJOINED)

    def begin_epoch(self) -> None:
        """Another generation or identity: requests of the one before hold nothing back."""
        self.state.epoch += 1
        for kind in OF_ONE_EPOCH:
            self.state.busy.pop(kind, None)

    def lose(self, reason: str) -> None:
        """Take what is owned from the user at once; nothing of it is committed any more."""
        state = self.state
        self.disarm("dwell", "release_limit", "commit")
        self.succeed("commit_backoff")
        told = state.announced
        partitions = tuple(sorted(state.owned))
        self.drop_owned()
        if not told:
            return
        state.next_revocation_id += 1
        state.release = Release.LOSING
        self.orders.append(LosePartitions(state.next_revocation_id, partitions, reason))
        state.rebalancing = state.rebalancing or state.phase == Phase.RUNNING
        self.rebalance_ends("rebalance_error")

    def drop_owned(self) -> None:
        """Forget every tenure; the numbers are never used again."""
        state = self.state
        stored = not any(tenure.uncommitted for tenure in state.owned.values())
        refusal = state.refusal
        state.owned.clear()
        state.announced = False
        state.commit_due = False
        state.fetch_due = False
        state.release = Release.NONE if state.release != Release.LOSING else state.release
        in_group = state.generation_id >= 0 and stored
        self.finish_tickets(refusal if in_group else KafkaError.UNKNOWN_MEMBER_ID)

    def finish_tickets(self, error_code: int, tickets: tuple[int, ...] | None = None) -> None:
        """Answer commit requests; without `tickets`, all that still wait."""
        state = self.state
        if tickets is None:
            tickets, state.tickets = state.tickets, ()
        self.orders.extend(CommitFinished(ticket, error_code) for ticket in tickets)

    def report(
        self,
        error_code: int,
        context: str,
        *,
        fatal: bool = False,
        about: TopicPartition | None = None,
        offset: int = -1,
        detail: str = "",
    ) -> None:
        """Tell the application of a refusal; a fatal one is raised where it reads."""
        topic, partition = about or ("", -1)
        self.orders.append(
            ReportError(error_code, context, fatal, topic, partition, offset, detail)
        )

    def fail(self, error_code: int, context: str) -> None:
        """The group refuses this member in a way that only its owner can mend: it ends."""
        self.report(error_code, context, fatal=True)
        self.lose(context)
        self.finish()

    def rebalance_begins(self) -> None:
        """Once for each attempt, whatever it begins with."""
        state = self.state
        if not state.rebalancing and state.phase == Phase.RUNNING:
            state.rebalancing = True
            self._notify("rebalance_start", tuple(sorted(state.owned)))

    def rebalance_ends(self, kind: str) -> None:
        """The attempt under way has come to this; nothing is said where there is none."""
        state = self.state
        if state.rebalancing:
            state.rebalancing = False
            self._notify(kind, tuple(state.owned) if state.announced else ())

    def _notify(self, kind: str, partitions: tuple[TopicPartition, ...]) -> None:
        self.orders.append(Notify(kind, self.state.generation_id, partitions))

    def finish(self) -> None:
        """Closed: the last order of this member."""
        state = self.state
        if state.phase == Phase.CLOSED:
            return
        pending = [item.tickets for item in state.pending.values() if item.tickets]
        for tickets in pending:
            self.finish_tickets(25, tickets)
        state.pending.clear()
        state.busy.clear()
        self.drop_owned()
        state.timers.clear()
        state.phase = Phase.CLOSED
        self.orders.append(Closed())
