"""What the life of a member bears witness to, as the facts that the checks look at.

A recording has the member's side alone. What the coordinator must have done is written as the
facts of a coordinator: a commit that was accepted was arrived and stored, between its request and
its answer. What the application must have done likewise: records are told when a buffer is empty,
with the time of the last one (which older files lack), so they were handed out some time since it
was filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.after.lives import Exchange, Life, Step
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

TopicTenure = tuple[TopicPartition, int]
# What was buffered before a recording begins may have been given out at any time before.
LONG_BEFORE_MS: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Event:
    """Something between two times by the clock of one life; `number` is the step it belongs to."""

    earliest_ms: int
    latest_ms: int
    number: int
    source: str
    fact: Any
    orders: tuple[Any, ...] = ()


def commit_events(life: Life, exchange: Exchange, token: int) -> Iterator[Event]:
    """A commit, as far as it was accepted: it was taken between request and answer."""
    request, response = exchange.request, exchange.response
    assert isinstance(request, m.OffsetCommitRequest)
    if not isinstance(response, m.OffsetCommitResponse) or exchange.ended_ms is None:
        return
    granted = {(p.topic, p.partition) for p in response.partitions if p.error_code == 0}
    entries = tuple(
        e.OffsetRecord(
            request.group_id, each.topic, each.partition, each.offset, each.leader_epoch, ""
        )
        for each in request.offsets
        if (each.topic, each.partition) in granted
    )
    if not entries:
        return
    if exchange.asked:
        # What the user sets past the marks may go anywhere: an explicit reset.
        request = m.OffsetCommitRequest(request.group_id, -1, "", None, request.offsets)
    arrived = e.RequestArrived(token, request, life.name, "")
    span = exchange.sent_ms, exchange.ended_ms, exchange.sent
    source = node_name(exchange.node_id)
    yield Event(*span, source, arrived, (e.AppendRecords(token, entries),))
    yield Event(*span, source, e.RecordsAppended(token, 0))


def node_name(node_id: int) -> str:
    """The coordinator there, as a source of facts."""
    return f"broker-{node_id}"


def began(life: Life) -> Event:
    fact = o.MemberLife(life.name, life.group_id, "started", "")
    return Event(life.first_ms, life.first_ms, -1, life.name, fact)


@dataclass(slots=True)
class Tenures:
    """The tenures of one life while its steps are read: what was handed out, and since when."""

    life: Life
    known: set[TopicTenure] = field(default_factory=set[TopicTenure])
    filled_ms: dict[TopicPartition, int] = field(default_factory=dict[TopicPartition, int])
    polled_ms: int = -LONG_BEFORE_MS

    def before_the_recording(self) -> Event | None:
        """The tenures that it had when the recording begins, each from its first record on.

        A snapshot does not say how much of what is buffered its application was given: that shows
        where it is told of for the first time.
        """
        first_ms, state = self.life.first_ms, self.life.state
        given, marked, assigned = _firsts(self.life)
        had = {(tp, each.tenure): each.position for tp, each in state.owned.items()}
        begin = had | marked | given
        older = (had.keys() | given.keys()) - assigned
        partitions = tuple(
            e.Assigned(*tp, tenure, begin[tp, tenure])
            for tp, tenure in sorted(older)
            if begin[tp, tenure] >= 0
        )
        if not partitions:
            return None
        order = e.AssignPartitions(state.generation_id, partitions)
        return Event(first_ms, first_ms, -1, self.life.name, None, (order,))

    def of_step(self, number: int) -> Iterator[Event]:
        """The last record of what this step tells of, and what it assigns, in this order."""
        step, name = self.life.steps[number], self.life.name
        fact = step.fact
        if isinstance(fact, e.UserPolled):
            self.polled_ms = fact.at_ms
        elif isinstance(fact, e.RecordsHandedOut):
            tp = TopicPartition(fact.topic, fact.partition)
            filled_ms = self.filled_ms.get(tp, self.life.first_ms - LONG_BEFORE_MS)
            since_ms = max(filled_ms, self.polled_ms)
            seen = o.HandedOut(name, *tp, fact.tenure, fact.last)
            by_ms = step.at_ms if fact.at_ms < 0 else min(fact.at_ms, step.at_ms)
            yield Event(min(since_ms, by_ms), by_ms, number, name, seen)
        for order in step.orders:
            if isinstance(order, e.BufferRecords):
                for item in order.partitions:
                    self.filled_ms[TopicPartition(item.topic, item.partition)] = step.at_ms
            elif isinstance(order, e.AssignPartitions):
                yield Event(step.at_ms, step.at_ms, number, name, None, (order,))


Offsets = dict[TopicTenure, int]


def _firsts(life: Life) -> tuple[Offsets, Offsets, set[TopicTenure]]:
    """The first records that are told of as given and as marked, and what the steps assign."""
    given: Offsets = {}
    marked: Offsets = {}
    assigned: set[TopicTenure] = set()
    for step in life.steps:
        if isinstance(step.fact, e.RecordsHandedOut):
            told = step.fact
            given.setdefault((TopicPartition(told.topic, told.partition), told.tenure), told.first)
        elif isinstance(step.fact, e.MarksTaken):
            for mark in step.fact.marks:
                key = TopicPartition(mark.topic, mark.partition), mark.tenure
                marked.setdefault(key, mark.offset)
        for order in step.orders:
            if isinstance(order, e.AssignPartitions):
                assigned |= {_key(item) for item in order.partitions}
    return given, marked, assigned


def _key(item: e.Assigned) -> TopicTenure:
    return TopicPartition(item.topic, item.partition), item.tenure


# What a recording says of the logs


def log_events(life: Life) -> Iterator[Event]:
    """Logs that a member has seen to be shorter, or gone, than it knew, and offsets that are.

    Where it was sought or reset to before the recording begins is not known: anywhere.
    """
    for tp, each in sorted(life.state.owned.items()):
        sought = e.Sought(*tp, each.tenure, 0)
        yield Event(life.first_ms, life.first_ms, -1, life.name, sought)
    epochs: dict[TopicPartition, int] = dict(life.state.epochs)
    for number, step in enumerate(life.steps):
        span = step.at_ms, step.at_ms, number
        for seen in _shorter(step, epochs):
            yield Event(*span, life.name, seen)
        void = _void(life.group_id, step.fact)
        if void:
            yield Event(*span, life.name, None, (e.AppendRecords(-number, void),))
            yield Event(*span, life.name, e.RecordsAppended(-number, 0))


def _shorter(step: Step, epochs: dict[TopicPartition, int]) -> Iterator[o.Truncated | o.TopicIs]:
    """`epochs` are those of the leaders, as the member was told.

    What is of an earlier one was read before the cut, and may be committed after it was seen.
    """
    response = step.fact.response if isinstance(step.fact, e.ResponseReceived) else None
    for order in step.orders:
        if isinstance(order, e.DropBuffered) and not order.sought:
            tp = TopicPartition(order.topic, order.partition)
            is_cut = isinstance(response, m.OffsetForLeaderEpochResponse)
            # Otherwise it is where the member begins.
            yield o.Truncated(*tp, order.offset, epochs.get(tp, 0) if is_cut else 0)
    if isinstance(response, m.FetchResponse):
        for item in response.partitions:
            if item.error_code == KafkaError.OFFSET_OUT_OF_RANGE:
                tp = TopicPartition(item.topic, item.partition)
                yield o.Truncated(*tp, 0, epochs.get(tp, 0))
    elif isinstance(response, m.MetadataResponse):
        for topic in response.topics:
            if topic.error_code == KafkaError.UNKNOWN_TOPIC_OR_PARTITION:
                yield o.TopicIs(topic.topic, 0)
            for each in topic.partitions:
                tp = TopicPartition(topic.topic, each.partition)
                epochs[tp] = each.leader_epoch


def _void(group_id: str, fact: Any) -> tuple[e.LogEntry, ...]:
    """Where the group has no offset any more, it begins anew."""
    response = fact.response if isinstance(fact, e.ResponseReceived) else None
    if not isinstance(response, m.OffsetFetchResponse):
        return ()
    return tuple(
        e.OffsetTombstone(group_id, each.topic, each.partition)
        for each in response.partitions
        if each.error_code == 0 and each.offset < 0
    )


def ends_of(life: Life) -> Iterator[tuple[TopicPartition, int]]:
    """How far the logs went at the least, by what the member was told."""
    for step in life.steps:
        response = step.fact.response if isinstance(step.fact, e.ResponseReceived) else None
        if isinstance(response, m.FetchResponse):
            for item in response.partitions:
                end = max(item.high_watermark, item.next_offset)
                yield TopicPartition(item.topic, item.partition), end
        elif isinstance(response, m.ListOffsetsResponse):
            for listed in response.partitions:
                yield TopicPartition(listed.topic, listed.partition), listed.offset
