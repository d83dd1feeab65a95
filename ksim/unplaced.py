"""Who was told that there is no offset to go on at, where nobody may choose one.

With `auto_offset_reset` none that is up to the owner of a group: its member says so and ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition

NOWHERE: Final = -1

# Partition to the position that a request is about; -1: none.
Asked = dict[TopicPartition, int]


@dataclass(slots=True)
class _Life:
    """What one process was told in its generation, and where it is as far as its requests show.

    `at` is where it has been for certain, and `up_to` where it may be; `told` has the offset that
    is not in the log. What was cut off may be doubtful: it ends between the two.
    """

    at: Asked = field(default_factory=Asked)
    up_to: Asked = field(default_factory=Asked)
    told: Asked = field(default_factory=Asked)
    doubtful: set[TopicPartition] = field(default_factory=set[TopicPartition])
    asked: dict[int, Asked] = field(default_factory=dict[int, Asked])

    def place(self, tp: TopicPartition, offset: int) -> None:
        """It has a position there; what it had asked before is about no position of its own."""
        self.at[tp] = self.up_to[tp] = offset
        self._forget(tp)

    def tell(self, tp: TopicPartition, offset: int, *, doubtful: bool = False) -> None:
        self._forget(tp)
        self.told[tp] = offset
        if doubtful:
            self.doubtful.add(tp)

    def _forget(self, tp: TopicPartition) -> None:
        self.told.pop(tp, None)
        self.doubtful.discard(tp)
        for asked in self.asked.values():
            asked.pop(tp, None)


class Unplaced:
    """Members of groups without a reset that were told they have no place, by an answer of theirs.

    That is: nothing is committed for a partition that they have no position of; their position is
    not in the log; or the epoch that they read last ends below it. It counts until the member joins
    again, is given a place, or its application seeks. Its group is excused as a whole from going on
    for `within_ms` from then on, unless one of it reads there: whoever is given this share has to
    end likewise, and reads nothing else either.
    """

    def __init__(self, within_ms: int = 0) -> None:
        self._within_ms = within_ms
        self._lives: dict[str, _Life] = {}
        self._since: dict[str, dict[TopicPartition, int]] = {}

    def is_told(self, member: str) -> bool:
        """Whether it may end here."""
        return member in self._lives and bool(self._lives[member].told)

    def excuses(self, group_id: str, now_ms: int) -> bool:
        """Whether this group need not go on."""
        since = self._since.get(group_id, {}).values()
        return any(now_ms <= told_ms + self._within_ms for told_ms in since)

    def chosen(self, member: str, request: m.FetchRequest) -> Iterator[tuple[TopicPartition, int]]:
        """Where it reads from though it was told that it has no place there."""
        life = self._lives.get(member)
        if life is None or not life.told:
            return
        for tp, offset in _read(request).items():
            # It may ask again where it is: what lies beyond the end may be written soon.
            if tp not in life.doubtful and life.told.get(tp, offset) != offset:
                yield tp, offset

    def note(
        self, group_id: str, member: str, now_ms: int, fact: Any, orders: Sequence[Any]
    ) -> None:
        """One step of a member without a reset."""
        since = self._since.setdefault(group_id, {})
        life = self._lives.setdefault(member, _Life())
        match fact:
            case o.MemberLife(what="started"):
                self._lives[member] = _Life()
            case e.ResponseReceived():
                _answered(life, since, now_ms, fact)
            case e.RequestFailed():
                life.asked.pop(fact.request_id, None)
            case e.Sought():
                sought = TopicPartition(fact.topic, fact.partition)
                life.place(sought, fact.offset)
                since.pop(sought, None)
            case _:
                pass
        for order in orders:
            if isinstance(order, e.SendRequest):
                self._sent(member, order)
            elif isinstance(order, e.AssignPartitions):
                _assigned(self._lives[member], order)

    def _sent(self, member: str, order: e.SendRequest) -> None:
        life = self._lives[member]
        match order.request:
            case m.JoinGroupRequest():
                self._lives[member] = _Life()
            case m.OffsetFetchRequest(partitions=tuple() as asked):
                life.asked[order.request_id] = {tp: NOWHERE for tp in asked if tp not in life.at}
            case m.FetchRequest() as request:
                life.asked[order.request_id] = _read(request)
                life.at.update(_read(request))
            case m.OffsetForLeaderEpochRequest() as request:
                read = [TopicPartition(item.topic, item.partition) for item in request.partitions]
                life.asked[order.request_id] = {tp: life.up_to.get(tp, NOWHERE) for tp in read}
            case _:
                pass


def _read(request: m.FetchRequest) -> Asked:
    return {TopicPartition(at.topic, at.partition): at.fetch_offset for at in request.partitions}


def _assigned(life: _Life, order: e.AssignPartitions) -> None:
    """Where a member begins whose committed offsets nobody saw it ask for."""
    for item in order.partitions:
        tp = TopicPartition(item.topic, item.partition)
        life.at.setdefault(tp, item.offset)
        life.up_to.setdefault(tp, item.offset)


def _answered(
    life: _Life, since: dict[TopicPartition, int], now_ms: int, fact: e.ResponseReceived
) -> None:
    asked = life.asked.pop(fact.request_id, {})
    if not asked or _is_refused(fact.response):
        return
    for found in getattr(fact.response, "partitions", ()):
        tp = TopicPartition(found.topic, found.partition)
        if tp not in asked:
            continue
        _learn(life, tp, asked[tp], found)
        if tp in life.told:
            since[tp] = now_ms
        elif isinstance(found, m.FetchedPartition) and not found.error_code:
            since.pop(tp, None)


def _learn(life: _Life, tp: TopicPartition, position: int, found: Any) -> None:
    """What an answer says of a partition that was asked about at this position."""
    match found:
        case m.CommittedOffset() if found.offset >= 0:
            life.place(tp, found.offset)
        case m.CommittedOffset():
            life.tell(tp, NOWHERE)
        case m.FetchedPartition(error_code=KafkaError.OFFSET_OUT_OF_RANGE):
            life.tell(tp, position)
        case m.FetchedPartition(error_code=KafkaError.NONE):
            life.told.pop(tp, None)
            life.up_to[tp] = found.next_offset
        case m.EpochEnd(error_code=KafkaError.NONE) if found.end_offset < position:
            life.tell(tp, NOWHERE, doubtful=found.end_offset >= life.at.get(tp, position))
        case _:
            pass


def _is_refused(response: m.Response) -> bool:
    """Whether all committed offsets are asked again: there is one refusal among them."""
    if not isinstance(response, m.OffsetFetchResponse):
        return False
    codes = [response.error_code, *(found.error_code for found in response.partitions)]
    return any(code != KafkaError.NONE for code in codes)
