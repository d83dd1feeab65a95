"""Logs have holes, of compaction and of transactions: what a fetch lacked nobody can hand out.

Each fetch says from where to where it has read, and how many records that were; where payloads are
kept, also which was the first and which the last. So it is known how much of it was never there,
and that excuses no more than so much of this fetch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ksim.after.lives import Life, Step
from ksim.after.steps import Fetched
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition


@dataclass(slots=True)
class _Read:
    """What was read from `begin` to `end`: no record lies before `first`, or after `last`.

    Of the offsets between these so many are `missing`; at those that are `there` a record was.
    `known`: somebody has recorded it.
    """

    begin: int
    first: int
    last: int
    end: int
    missing: int
    there: tuple[int, ...] = ()
    known: bool = True

    def lets_pass(self, begin: int, end: int) -> int:
        """Up to where this part of it can be holes, each of which is passed once."""
        until = min([end, *(offset for offset in self.there if begin <= offset)])
        within = max(0, min(until, self.last + 1) - max(begin, self.first))
        if within > self.missing:
            return max(begin, self.first)
        self.missing -= within
        return until


def _gone(begin: int, end: int, *, known: bool = True) -> _Read:
    """Nothing of it need be there."""
    return _Read(begin, end, end - 1, end, 0, known=known)


def _read(begin: int, found: m.FetchedPartition, kept: Fetched | None) -> _Read:
    end, count = found.next_offset, found.record_count
    if kept is None or kept.count != count or not begin <= kept.first <= kept.last < end:
        return _Read(begin, begin, end - 1, end, end - begin - count)
    missing = kept.last - kept.first + 1 - count
    return _Read(begin, kept.first, kept.last, end, missing, (kept.first, kept.last))


class Holes:
    """What each tenure has fetched, while the steps are read."""

    def __init__(self, life: Life) -> None:
        self._asked = {
            request_id: {(each.topic, each.partition): each.offset for each in pending.partitions}
            for request_id, pending in life.state.pending.items()
            if pending.kind == "fetch"
        }
        for each in life.of_kind(m.FetchRequest):
            assert isinstance(each.request, m.FetchRequest)
            asked = {(p.topic, p.partition): p.fetch_offset for p in each.request.partitions}
            self._asked[each.request_id] = asked
        # What lies before its position was read before the recording, with holes or without.
        self._reads = {
            tp: [_gone(0, tenure.position, known=False)] for tp, tenure in life.state.owned.items()
        }
        self._strayed: dict[TopicPartition, int] = {}

    def see(self, step: Step) -> None:
        """What this step reads, and which tenures begin with it."""
        fact = step.fact
        if isinstance(fact, e.ResponseReceived):
            match fact.response:
                case m.FetchResponse() as response:
                    self._fetched(self._asked.get(fact.request_id, {}), response, step)
                case m.OffsetForLeaderEpochResponse() as response:
                    for end in response.partitions:
                        if not end.error_code and end.end_offset < 0:
                            self._strayed[TopicPartition(end.topic, end.partition)] = 0
                case m.ListOffsetsResponse() as response:
                    self._listed(response)
                case _:
                    pass
        for order in step.orders:
            for item in order.partitions if isinstance(order, e.AssignPartitions) else ():
                tp = TopicPartition(item.topic, item.partition)
                self._reads[tp] = []
                self._strayed.pop(tp, None)

    def _fetched(
        self, asked: dict[tuple[str, int], int], response: m.FetchResponse, step: Step
    ) -> None:
        kept = {(each.topic, each.partition): each for each in step.fetched}
        for found in response.partitions:
            place = found.topic, found.partition
            begin = asked.get(place)
            tp = TopicPartition(*place)
            if begin is None:
                continue
            if found.error_code == KafkaError.OFFSET_OUT_OF_RANGE:
                self._strayed[tp] = begin
            elif not found.error_code and found.next_offset > begin:
                self._reads.setdefault(tp, []).append(_read(begin, found, kept.get(place)))

    def _listed(self, response: m.ListOffsetsResponse) -> None:
        """Who stands where no log is goes on as its policy says: what lies between is gone."""
        for found in response.partitions:
            tp = TopicPartition(found.topic, found.partition)
            begin = None if found.error_code else self._strayed.pop(tp, None)
            if begin is not None and begin < found.offset:
                self._reads.setdefault(tp, []).append(_gone(begin, found.offset))

    def lets_pass(self, tp: TopicPartition, due: int, first: int) -> tuple[int, bool]:
        """Up to where what is due can be holes, and whether that is known, not merely possible."""
        at, known = due, True
        reads = self._reads.get(tp, [])
        for begin, end, read in _latest(reads, due, first):
            if begin != at:
                break
            at = read.lets_pass(begin, end)
            known = known and read.known
            if at < end:
                break
        # Whoever goes back has to fetch again what lies there.
        self._reads[tp] = [read for read in reads if read.end > first]
        return at, known


def _latest(reads: list[_Read], begin: int, end: int) -> Iterator[tuple[int, int, _Read]]:
    """The parts between these two, each with what has read it last."""
    at = begin
    while at < end:
        over = [number for number, read in enumerate(reads) if read.begin <= at < read.end]
        if not over:
            return
        newer = [read.begin for read in reads[over[-1] :] if read.begin > at]
        until = min([end, reads[over[-1]].end, *newer])
        yield at, until, reads[over[-1]]
        at = until
