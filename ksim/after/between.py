"""What several recordings bear witness to about what lies between their members."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ksim.after.lives import Exchange, Life, Round, joins_of, round_of, syncs_of
from ksim.after.own import group_record
from ksim.after.witness import (
    LONG_BEFORE_MS,
    Event,
    Tenures,
    began,
    commit_events,
    log_events,
    node_name,
)
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.subscription import PROTOCOL_TYPE
from ksim.core.values import TopicPartition

# By these a member sees that its coordinator may have changed, or begun anew from its log.
MOVED: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
OF_GROUP: Final = (
    m.JoinGroupRequest,
    m.SyncGroupRequest,
    m.HeartbeatRequest,
    m.OffsetCommitRequest,
    m.LeaveGroupRequest,
)
# Instead of a number: whoever bears witness was no part of how the generation was made.
BEGINS_IN_IT: Final = -1
# Instead of a token or a number: a request that may have got lost, an answer that may be right.
DOUBTFUL: Final = -1
# Whoever else sets offsets of the group, as a source of facts.
OUTSIDE: Final = "outside"
# Time, whether of another life than the one that is judged, number, event.
Placed = tuple[int, int, int, Event]


def ownership(lives: Sequence[Life]) -> list[list[Event]]:
    """Who was given what, and what was handed out: by processes, as one takes nothing of itself."""
    return [list(_ownership(replace(life, name=life.process))) for life in lives]


def _ownership(life: Life) -> Iterator[Event]:
    yield began(life)
    tenures = Tenures(life)
    before = tenures.before_the_recording()
    # Where its lease is over another one may have been given all that it still has.
    if before is not None and life.state.deliver_until_ms > life.first_ms:
        yield before
    yield from _took_its_place(life)
    for number, step in enumerate(life.steps):
        fact = step.fact
        if isinstance(fact, e.ResponseReceived) and _code(fact.response) != 0:
            yield Event(step.at_ms, step.at_ms, number, life.name, fact)
        yield from tenures.of_step(number)


def _took_its_place(life: Life) -> Iterator[Event]:
    """When it came to be the process of its instance: by a JoinGroup that was granted.

    One without an answer may have arrived; and what a recording begins with was long before, or is
    new.
    """
    state, first_ms = life.state, life.first_ms
    instance_id = state.config.group_instance_id
    if instance_id is None:
        return
    if state.member_id:
        joined = m.JoinGroupRequest(
            life.group_id, 0, 0, state.member_id, instance_id, PROTOCOL_TYPE, ()
        )
        arrived = e.RequestArrived(0, joined, life.name, "")
        source = node_name(state.coordinator)
        yield Event(first_ms - LONG_BEFORE_MS, first_ms, -1, source, arrived)
    for token, each in enumerate(life.of_kind(m.JoinGroupRequest)):
        if each.error_code <= 0:
            number = token if each.error_code == 0 else DOUBTFUL
            arrived = e.RequestArrived(number, each.request, life.name, "")
            ended_ms = each.sent_ms if each.ended_ms is None else each.ended_ms
            yield Event(each.sent_ms, ended_ms, each.sent, node_name(each.node_id), arrived)


def _code(response: m.Response) -> int:
    """The first code of an answer that is not 0."""
    whole = int(getattr(response, "error_code", 0))
    inner = (int(each.error_code) for each in getattr(response, "partitions", ()))
    return whole or next((code for code in inner if code), 0)


def commits(lives: Sequence[Life]) -> list[list[Event]]:
    """What was committed, and what lets offsets go back."""
    return [list(_offsets(life)) for life in lives]


def _offsets(life: Life) -> Iterator[Event]:
    yield began(life)
    yield from log_events(life)
    for number, step in enumerate(life.steps):
        # With the second commit since it went there, a seek permits nothing any more.
        sent = tuple(each for each in step.orders if _commits(each))
        if sent:
            yield Event(step.at_ms, step.at_ms, number, life.name, None, sent)
    yield from commits_of(life)
    for number, step in enumerate(life.steps):
        sought = step.fact if isinstance(step.fact, e.Sought) else None
        orders = tuple(each for each in step.orders if isinstance(each, e.AssignPartitions))
        if sought or orders:
            yield Event(step.at_ms, step.at_ms, number, life.name, sought, orders)
        if isinstance(step.fact, e.ResponseReceived) and isinstance(
            step.fact.response, m.OffsetFetchResponse
        ):
            yield Event(step.at_ms, step.at_ms, number, life.group_id, step.fact)


def _commits(order: Any) -> bool:
    return isinstance(order, e.SendRequest) and isinstance(order.request, m.OffsetCommitRequest)


def commits_of(life: Life, *, asked: bool = True) -> Iterator[Event]:
    for token, each in enumerate(life.of_kind(m.OffsetCommitRequest)):
        if asked or not each.asked:
            yield from commit_events(life, each, token)


# Generations


@dataclass(frozen=True, slots=True)
class _Sent:
    """What the leader of a generation knew and sent."""

    members: frozenset[str]
    shares: dict[str, bytes]


def generations(lives: Sequence[Life]) -> list[list[Event]]:
    """Which generations came when, and what their members were told."""
    sent, open_ = _sent(lives), _open(lives)
    return [
        [*generations_of(life, {}), *signs_of(life), *_syncs(life, sent, open_)] for life in lives
    ]


Members = dict[tuple[str, int], tuple[str, ...]]


def _sent(lives: Sequence[Life]) -> dict[Round, list[_Sent]]:
    found: dict[Round, list[_Sent]] = defaultdict(list)
    for life in lives:
        knew = {
            round_of(joined): frozenset(each.member_id for each in joined.response.members)
            for joined in joins_of(life)
            if joined.leads and not joined.response.skip_assignment
        }
        for made, each in syncs_of(life):
            assert isinstance(each.request, m.SyncGroupRequest)
            if made in knew and each.request.assignments:
                found[made].append(_Sent(knew[made], dict(each.request.assignments)))
    return found


def _open(lives: Sequence[Life]) -> set[Round]:
    """Where a leader may have sent more than is recorded.

    A coordinator keeps what comes first: that was before the recording, or came after it where
    nothing of what is known was granted.
    """
    found: set[Round] = set()
    for life in lives:
        granted = {made for made, each in syncs_of(life) if each.error_code == KafkaError.NONE}
        for joined in joins_of(life):
            made = round_of(joined)
            begins_in_it = joined.generation_id == life.state.generation_id
            if joined.leads and (begins_in_it or made not in granted):
                found.add(made)
    return found


def generations_of(life: Life, members: Members) -> Iterator[Event]:
    """Each was there between the member's request and its answer, or long before if it returns."""
    for token, joined in enumerate(joins_of(life)):
        group_id, number = joined.group_id, joined.generation_id
        span = joined.sent_ms, joined.told_ms, BEGINS_IN_IT if joined.returns else token
        yield made_event(group_id, number, members, joined.node_id, span)


def made_event(
    group_id: str, number: int, members: Members, node_id: int, span: tuple[int, int, int]
) -> Event:
    names = members.get((group_id, number), ())
    changed = e.StateChanged(
        group_id, "PreparingRebalance", "CompletingRebalance", number, names, ""
    )
    return Event(*span, node_name(node_id), None, (changed,))


def signs_of(life: Life) -> Iterator[Event]:
    """The coordinator may have begun anew, from what its log had."""
    for each in life.exchanges:
        failed = each.reason is not None or each.error_code in MOVED or _code_of(each) in MOVED
        if failed and isinstance(each.request, OF_GROUP):
            assert each.ended_ms is not None
            span = each.sent_ms, each.ended_ms, each.sent
            yield Event(*span, node_name(each.node_id), e.LogReplayed(()))


def _code_of(exchange: Exchange) -> int:
    return 0 if exchange.response is None else _code(exchange.response)


def _syncs(life: Life, sent: dict[Round, list[_Sent]], open_: set[Round]) -> Iterator[Event]:
    """What a member was told, beside that one of its leader's requests that fits it best.

    Where none fits, and not all are recorded, it may be as it must.
    """
    for token, (made, each) in enumerate(syncs_of(life)):
        request, response = each.request, each.response
        assert isinstance(request, m.SyncGroupRequest)
        granted = isinstance(response, m.SyncGroupResponse) and response.error_code == 0
        known = [found for found in sent.get(made, ()) if request.member_id in found.members]
        if not granted or not known:
            continue
        assert isinstance(response, m.SyncGroupResponse)
        assert each.ended_ms is not None
        told = response.assignment
        fits = [found for found in known if found.shares.get(request.member_id, b"") == told]
        record = group_record(request.group_id, request.generation_id, (fits or known)[-1].shares)
        doubtful = not fits and made in open_
        span = each.ended_ms, each.ended_ms, DOUBTFUL if doubtful else each.sent
        source, number = node_name(each.node_id), -token - 1
        arrived = e.RequestArrived(number, request, life.name, "")
        yield Event(*span, source, None, (e.AppendRecords(number, (record,)),))
        yield Event(*span, source, arrived, (e.SendResponse(number, response),))


# In which order the coordinator can have done it


def as_they_come(placed: Sequence[Placed], early: bool) -> Iterator[Placed]:
    """Requests of which nobody knows whether they arrived did so where that excuses somebody."""
    for item in placed:
        fact = item[3].fact
        doubtful = isinstance(fact, e.RequestArrived) and fact.token == DOUBTFUL
        if early or not doubtful:
            yield item


def as_others_set_them(placed: Sequence[Placed], early: bool) -> Iterator[Placed]:
    """As they come; a coordinator that tells a lower offset than was committed had it set there.

    Somebody outside of these recordings did that: the group goes on from what it was told.
    """
    del early
    stored: dict[tuple[str, TopicPartition], int] = {}
    for item in placed:
        event = item[3]
        if isinstance(event.fact, e.ResponseReceived):
            yield from _set_lower(item, event.fact.response, stored)
            continue
        for order in event.orders:
            for entry in order.entries if isinstance(order, e.AppendRecords) else ():
                if isinstance(entry, e.OffsetRecord):
                    key = entry.group_id, TopicPartition(entry.topic, entry.partition)
                    stored[key] = entry.offset
        yield item


def _set_lower(
    item: Placed, response: Any, stored: dict[tuple[str, TopicPartition], int]
) -> Iterator[Placed]:
    at_ms, other, number, event = item
    for each in response.partitions:
        tp = TopicPartition(each.topic, each.partition)
        key = event.source, tp
        if each.error_code or not 0 <= each.offset < stored.get(key, 0):
            continue
        stored[key] = each.offset
        entries = (
            e.OffsetTombstone(event.source, *tp),
            e.OffsetRecord(event.source, *tp, each.offset, -1, ""),
        )
        for fact, orders in (
            (None, (e.AppendRecords(number, entries),)),
            (e.RecordsAppended(number, 0), ()),
        ):
            yield at_ms, other, number, Event(at_ms, at_ms, number, OUTSIDE, fact, orders)


def as_made(placed: Sequence[Placed], early: bool) -> Iterator[Placed]:
    """A generation is there at the latest when one is told, and not before all have asked.

    Who begins in it says nothing of how late that was, unless nobody else does.
    """
    rounds = [(made_by(item[3]), item[3].number != BEGINS_IN_IT) for item in placed]
    asked = Counter(made for made, joined in rounds if joined)
    left = asked if not early else Counter[Any]()
    for (made, joined), item in zip(rounds, placed, strict=True):
        if made is not None and not joined and left[made]:
            continue
        left[made] -= 1
        if made is None or left[made] <= 0:
            yield item


def made_by(event: Event) -> tuple[str, str, int] | None:
    changed = change_of(event)
    return None if changed is None else (event.source, changed.group_id, changed.generation_id)


class Known:
    """The last generation that is certain, and the broker that made it."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, int]] = {}

    def forget(self, source: str) -> None:
        """That broker may have begun anew."""
        self.of = {group: found for group, found in self.of.items() if found[0] != source}

    def at(self, source: str) -> dict[str, int]:
        """The last generation of each group there."""
        return {group: made[1] for group, made in self.of.items() if made[0] == source}

    def rises(self, group_id: str, source: str, generation_id: int) -> bool:
        """Whether it is the first of its kind there; then it is known from now on."""
        known = self.of.get(group_id)
        if known is not None and known[0] == source and generation_id <= known[1]:
            return False
        self.of[group_id] = source, generation_id
        return True


def risen(placed: Sequence[Placed], early: bool) -> Iterator[Placed]:
    """Each generation once; one that is lower counts where it is certain that it came later.

    A member that stood still is told late of a generation: it counts from when it asked.
    """
    known = Known()
    since: dict[str, int] = {}
    for item in as_made(placed, early):
        at_ms, other, number, event = item
        changed = change_of(event)
        if isinstance(event.fact, e.LogReplayed):
            known.forget(event.source)
            continue
        if changed is None:
            if not (early and event.number == DOUBTFUL):
                yield item
            continue
        made = known.of.get(changed.group_id)
        rises = known.rises(changed.group_id, event.source, changed.generation_id)
        if rises and (made is None or made[0] != event.source):
            # Another one took over: it may have fallen back to what its log had.
            log = known.at(event.source) | {changed.group_id: changed.generation_id - 1}
            below = e.LogReplayed(tuple(group_record(*each, {}) for each in sorted(log.items())))
            yield at_ms, other, number, Event(at_ms, at_ms, number, event.source, below)
        if rises:
            since[changed.group_id] = at_ms
        asked_ms = at_ms if early else at_ms - (event.latest_ms - event.earliest_ms)
        lower = made is not None and changed.generation_id < made[1]
        if rises or (lower and not other and asked_ms >= since[changed.group_id]):
            yield item


def change_of(event: Event) -> e.StateChanged | None:
    first = event.orders[0] if event.orders else None
    return first if isinstance(first, e.StateChanged) else None
