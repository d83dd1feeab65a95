"""Who has no place to go on at, as its answers say, on hand-made steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.unplaced import Unplaced
from tests.test_checks import TP

WITHIN_MS = 10_000


class Told:
    """One member of g, whose requests and answers come a second after each other."""

    def __init__(self) -> None:
        self.unplaced = Unplaced(WITHIN_MS)
        self.now_ms = 0
        self._request_id = 0
        self.see(o.MemberLife("a", "g", "started", ""))

    def see(self, fact: object, *orders: object) -> Told:
        self.now_ms += 1_000
        self.unplaced.note("g", "a", self.now_ms, fact, orders)
        return self

    def asks(self, request: m.Request) -> int:
        """Sends it, and says which one it is."""
        self._request_id += 1
        order = e.SendRequest(self._request_id, 1, "group", request, 30_000)
        self.see(e.TimerFired(), order)
        return self._request_id

    def answers(self, request_id: int, response: m.Response) -> Told:
        return self.see(e.ResponseReceived(request_id, response))

    def committed(self, offset: int, code: int = 0) -> Told:
        asked = self.asks(m.OffsetFetchRequest("g", (TP,)))
        return self.answers(asked, committed(offset, code))

    def fetched(self, offset: int, code: int = 0, records: int = 0) -> Told:
        return self.answers(self.asks(fetch(offset)), fetched(offset, code, records))

    def ends(self, end: int, code: int = 0) -> Told:
        asked = self.asks(m.OffsetForLeaderEpochRequest((m.EpochPartition(*TP, 2, 1),)))
        return self.answers(asked, m.OffsetForLeaderEpochResponse((m.EpochEnd(*TP, code, 1, end),)))

    def is_told(self) -> bool:
        return self.unplaced.is_told("a")

    def is_excused(self) -> bool:
        return self.unplaced.excuses("g", self.now_ms)

    def chosen(self, offset: int) -> bool:
        """Whether reading from there is a choice of its own."""
        return list(self.unplaced.chosen("a", fetch(offset))) == [(TP, offset)]


def committed(offset: int, code: int = 0) -> m.OffsetFetchResponse:
    return m.OffsetFetchResponse(0, (m.CommittedOffset(*TP, offset, -1, "", code),))


def fetch(offset: int) -> m.FetchRequest:
    return m.FetchRequest(500, 1, 1_000, 1_000, (m.FetchPartition(*TP, offset),), 0)


def fetched(offset: int, code: int = 0, records: int = 0) -> m.FetchResponse:
    found = m.FetchedPartition(*TP, code, 0, 0, offset + records, records)
    return m.FetchResponse(0, (found,))


OUT_OF_RANGE = KafkaError.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("story", "is_told"),
    [
        (lambda: Told().committed(-1), True),
        (lambda: Told().committed(7), False),
        (lambda: Told().committed(-1, KafkaError.UNSTABLE_OFFSET_COMMIT), False),
        (lambda: Told().committed(7).fetched(7, OUT_OF_RANGE), True),
        (lambda: Told().committed(7).fetched(7), False),
        (lambda: Told().committed(7).fetched(7, KafkaError.NOT_LEADER_OR_FOLLOWER), False),
        (lambda: Told().committed(7).ends(6), True),
        (lambda: Told().committed(7).ends(-1), True),
        (lambda: Told().committed(7).ends(7), False),
        (lambda: Told().committed(7).ends(6, KafkaError.FENCED_LEADER_EPOCH), False),
        (lambda: Told().committed(7).fetched(7, records=3).ends(9), True),
        # What the user asks of a partition that is being read is nothing to its member.
        (lambda: Told().committed(7).committed(-1), False),
        # Soon enough it was written.
        (lambda: Told().committed(7).fetched(7, OUT_OF_RANGE).fetched(7), False),
    ],
)
def test_it_is_told_by_an_answer_about_a_position_of_its_own(
    story: Callable[[], Told], is_told: bool
) -> None:
    told = story()
    assert told.is_told() is is_told
    assert told.is_excused() is is_told


JOIN = m.JoinGroupRequest("g", 10_000, 10_000, "", None, "consumer", ())


@pytest.mark.parametrize(
    "fact", [e.Sought("t", 0, 1, 3), o.MemberLife("a", "g", "started", "")], ids=["sought", "anew"]
)
def test_it_is_over_once_it_has_a_place_or_begins_anew(fact: object) -> None:
    assert not Told().committed(-1).see(fact).is_told()


def test_who_joins_again_asks_again() -> None:
    told = Told().committed(-1)
    told.asks(JOIN)
    assert not told.is_told()
    assert told.is_excused()


@pytest.mark.parametrize("fact", [e.Sought("t", 0, 1, 3), e.RequestFailed(1, "closed")])
def test_an_answer_to_what_was_asked_before_says_nothing(fact: object) -> None:
    told = Told()
    asked = told.asks(m.OffsetFetchRequest("g", (TP,)))
    told.see(fact).answers(asked, committed(-1))
    assert not told.is_told()


def test_its_group_is_excused_for_so_long_or_until_one_of_it_reads_there() -> None:
    told = Told().committed(-1)
    since_ms = told.now_ms
    assert told.unplaced.excuses("g", since_ms + WITHIN_MS)
    assert not told.unplaced.excuses("g", since_ms + WITHIN_MS + 1)
    assert not told.unplaced.excuses("other", since_ms)
    asked = told.asks(fetch(0))
    told.unplaced.note("g", "b", since_ms, e.ResponseReceived(asked, fetched(0)), ())
    assert told.is_excused()
    assert not told.answers(asked, fetched(0)).is_excused()


def test_only_a_seek_takes_it_to_another_place() -> None:
    assert Told().committed(-1).chosen(0)
    beyond = Told().committed(7).fetched(7, OUT_OF_RANGE)
    assert beyond.chosen(0)
    assert not beyond.chosen(7)
    assert not beyond.see(e.Sought("t", 0, 1, 0)).chosen(0)
    assert not Told().committed(7).chosen(7)
    assert not Told().chosen(0)


def test_what_was_cut_off_between_two_readings_may_be_none_of_its_own() -> None:
    """It asked at 7; whether it took the three records that came, nobody else can see."""
    doubtful = Told().committed(7).fetched(7, records=3).ends(9)
    assert doubtful.is_told()
    assert not doubtful.chosen(9)
    assert Told().committed(7).fetched(7, records=3).ends(6).chosen(6)


def test_who_was_never_seen_to_ask_begins_where_it_is_assigned() -> None:
    assigned = e.AssignPartitions(1, (e.Assigned("t", 0, 1, 7),))
    assert Told().see(e.TimerFired(), assigned).ends(6).is_told()
    assert not Told().see(e.TimerFired(), assigned).ends(7).is_told()
