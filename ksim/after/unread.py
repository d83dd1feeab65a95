"""Commits of what their tenure has not read: somebody marked what was handed out in another one.

An application may do so, by the name of a partition; a driver that lets late marks count for a new
tenure does the same. A recording does not say which of both it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ksim.after.lives import Exchange, Life, Step
from ksim.checks import Violation, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.values import TopicPartition


@dataclass(slots=True)
class _Tenure:
    """How far it has read; what is marked up to `unread` was not read then, from `since` on."""

    number: int
    read: int
    since: int = 0
    unread: int = 0


Tenures = dict[TopicPartition, _Tenure]


def unread_commits(life: Life) -> Iterator[Violation]:
    """Each that was granted, and has the mark of a record that was not read by then."""
    commits: dict[int, list[Exchange]] = defaultdict(list)
    for each in life.of_kind(m.OffsetCommitRequest):
        if not each.asked:
            commits[each.sent].append(each)
    # What nobody knows the beginning of is not in it.
    tenures = {
        tp: _Tenure(each.tenure, each.position)
        for tp, each in life.state.owned.items()
        if each.position >= 0
    }
    for number, step in enumerate(life.steps):
        _follow(tenures, step)
        for each in commits.get(number, ()):
            yield from _beyond(life, tenures, each)


def _learn(tenures: Tenures, fact: Any) -> None:
    response = fact.response if isinstance(fact, e.ResponseReceived) else None
    for mark in fact.marks if isinstance(fact, e.MarksTaken) else ():
        found = tenures.get(TopicPartition(mark.topic, mark.partition))
        if found is not None and found.number == mark.tenure and found.read <= mark.offset:
            found.since, found.unread = found.read, mark.offset + 1
    for item in response.partitions if isinstance(response, m.FetchResponse) else ():
        found = tenures.get(TopicPartition(item.topic, item.partition))
        if found is not None and not item.error_code:
            found.read = max(found.read, item.next_offset)


def _follow(tenures: Tenures, step: Step) -> None:
    _learn(tenures, step.fact)
    for order in step.orders:
        if isinstance(order, e.AssignPartitions):
            _begin(tenures, order)
        elif isinstance(order, e.DropBuffered):
            found = tenures.get(TopicPartition(order.topic, order.partition))
            if found is not None:
                found.read, found.unread = max(found.read, order.offset), 0


def _begin(tenures: Tenures, order: e.AssignPartitions) -> None:
    for given in order.partitions:
        tp = TopicPartition(given.topic, given.partition)
        tenures.pop(tp, None)
        if given.offset >= 0:
            tenures[tp] = _Tenure(given.tenure, given.offset)


def _beyond(life: Life, tenures: Tenures, sent: Exchange) -> Iterator[Violation]:
    if not isinstance(sent.response, m.OffsetCommitResponse):
        return
    assert isinstance(sent.request, m.OffsetCommitRequest)
    refused = {(each.topic, each.partition) for each in sent.response.partitions if each.error_code}
    for item in sent.request.offsets:
        tp = TopicPartition(item.topic, item.partition)
        tenure = tenures.get(tp)
        if tenure is None or (item.topic, item.partition) in refused:
            continue
        if tenure.since < item.offset <= tenure.unread:
            sentence = (
                f"{life.name} committed offset {item.offset} of {tp} at {seconds(sent.sent_ms)}, "
                f"which was marked when its tenure had read up to {tenure.since}: nobody knows "
                "whether its application did so by itself."
            )
            members, offsets = (life.name,), (tenure.since, item.offset)
            yield Violation("S2", sent.sent_ms, members, (str(tp),), offsets, sentence)
