"""How the clocks of several recordings stand to each other, by what must hold.

Every JoinGroup answer of a generation comes later than every request of it, and a follower's
SyncGroup answer later than its leader's request. An offset that a member of a later generation is
told was committed before, by the one member that committed it: this is what bounds those that lived
for one generation. What a coordinator grants to a member of one generation comes before it tells
the shares of a later one. Each of these bounds the difference of two clocks from one side; the
shortest paths through all of them bound each pair as tightly as can be known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import median_low
from typing import Final

from ksim.after.lives import Life, Round, joins_of, round_of, syncs_of
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import Phase

# Far more than any recording is long: between two clocks of which nothing is known.
UNKNOWN_MS: Final = 1 << 50
# Clocks are read in whole milliseconds, each with a fraction of its own.
GRAIN_MS: Final = 1

Matrix = list[list[int]]


@dataclass(frozen=True, slots=True)
class Bound:
    """What `first` did came before what `second` did: its clock is at most `most_ms` ahead.

    That is: to be added to the time of `first`, beyond what is to be added to that of `second`.
    """

    first: int
    second: int
    most_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Clocks:
    """`most[a][b]`: how much more, at most, is to be added to the times of b than to those of a.

    `close` is the same without the grain of the clocks. `unknown` are lives whose times contradict
    those of others, each with the sentence that says so. `near` is what is likely to be added to
    each: a coordinator answers all members of a round at once.
    """

    names: tuple[str, ...]
    most: Matrix
    close: Matrix
    unknown: dict[int, str]
    near: tuple[int, ...]

    def earliest(self, of: int) -> list[int]:
        """What to add to each clock so that `of` is as early as can be, and stays as it is."""
        return self.most[of]

    def latest(self, of: int) -> list[int]:
        """The same, so that it is as late as can be."""
        return [-row[of] for row in self.close]

    def span(self, one: int, other: int) -> tuple[int, int] | None:
        """Between what and what is to be added to `other` beside `one`; None: nobody knows."""
        low_ms, high_ms = -self.close[other][one], self.close[one][other]
        return None if high_ms - low_ms >= UNKNOWN_MS else (low_ms, high_ms)

    def likely(self, one: int, other: int) -> int:
        """What is added to `other` in sentences and scenarios; 0 where nobody knows."""
        span = self.span(one, other)
        if span is None:
            return 0
        return max(span[0], min(span[1], self.near[other] - self.near[one]))


def align(lives: Sequence[Life], *, one_clock: bool = False) -> Clocks:
    """The clocks of these lives; `one_clock`: they were recorded on one machine."""
    names = tuple(life.name for life in lives)
    bounds = list(_one_clock(len(lives)) if one_clock else _bounds(lives))
    grain_ms = 0 if one_clock else GRAIN_MS
    unknown: dict[int, str] = {}
    while _torn(most := _paths(len(lives), bounds, grain_ms)):
        culprit = _culprit(len(lives), bounds)
        unknown[culprit] = _contradiction(names, bounds, culprit)
        bounds = _without(bounds, culprit)
    close = _paths(len(lives), bounds, 0)
    near = (0,) * len(lives) if one_clock else _near(lives)
    return Clocks(names, most, most if _torn(close) else close, unknown, near)


def _near(lives: Sequence[Life]) -> tuple[int, ...]:
    """By the times at which members were told of the same rounds, from one to the next."""
    told = [{round_of(each): each.told_ms for each in joins_of(life)} for life in lives]
    found: dict[int, int] = {}
    for start in range(len(lives)):
        found.setdefault(start, 0)
        waiting = [start]
        while waiting:
            one = waiting.pop(0)
            for other in range(len(lives)):
                shared = told[one].keys() & told[other].keys()
                if shared and other not in found:
                    apart = median_low([told[one][made] - told[other][made] for made in shared])
                    found[other] = found[one] + apart
                    waiting.append(other)
    return tuple(found[at] for at in range(len(lives)))


def _one_clock(count: int) -> Iterator[Bound]:
    for first in range(count):
        for second in range(count):
            if first != second:
                yield Bound(first, second, 0, "one clock")


def _bounds(lives: Sequence[Life]) -> Iterator[Bound]:
    asking: dict[Round, list[tuple[int, int]]] = defaultdict(list)
    told: dict[Round, list[tuple[int, int]]] = defaultdict(list)
    for at, life in enumerate(lives):
        for joined in joins_of(life):
            key = round_of(joined)
            told[key].append((at, joined.told_ms))
            if not joined.returns:
                asking[key].append((at, joined.asked_ms))
    for key, asked in asking.items():
        why = f"both were in generation {key[1]} of {key[0]}"
        for first, asked_ms in asked:
            for second, told_ms in told[key]:
                if first != second:
                    yield Bound(first, second, told_ms - asked_ms, why)
    yield from _of_syncs(lives)
    yield from _of_offsets(lives)
    yield from _of_generations(lives)


def _of_syncs(lives: Sequence[Life]) -> Iterator[Bound]:
    led: dict[Round, tuple[int, int]] = {}
    told: list[tuple[Round, int, int]] = []
    for at, life in enumerate(lives):
        for made, each in syncs_of(life):
            assert isinstance(each.request, m.SyncGroupRequest)
            if each.request.assignments:
                led.setdefault(made, (at, each.sent_ms))
            elif each.error_code == 0 and each.ended_ms is not None:
                told.append((made, at, each.ended_ms))
    for made, second, told_ms in told:
        first, sent_ms = led.get(made, (second, 0))
        if first != second:
            why = f"one led generation {made[1]} of {made[0]}, the other followed"
            yield Bound(first, second, told_ms - sent_ms, why)


NEVER_MS: Final = -1
# An offset of a partition, as a group has committed it.
Place = tuple[str, str, int, int]


def _of_offsets(lives: Sequence[Life]) -> Iterator[Bound]:
    """Nobody is told of an offset before it was committed.

    Who was it is known where one life alone has sent that offset, and was granted it: somebody who
    was not recorded may have committed what a zombie asked for in vain. The first time counts, so
    its recording must begin with it; and a later generation, so that nobody else can have been
    first.
    """
    sent: dict[Place, list[tuple[int, int, int]]] = defaultdict(list)
    for at, life in enumerate(lives):
        granted = set(_granted(life))
        for place, generation_id, sent_ms in _commits_of(life):
            first = sent_ms if place in granted else NEVER_MS
            sent[place].append((at, generation_id, first))
    for second, life in enumerate(lives):
        for place, generation_id, told_ms in _offsets_told(life):
            known = sent.get(place, [])
            if len(known) != 1:
                continue
            first, of_generation, sent_ms = known[0]
            is_whole = lives[first].state.phase == Phase.NEW and sent_ms != NEVER_MS
            if first != second and is_whole and of_generation < generation_id:
                why = f"one was told offset {place[3]} of {place[1]}-{place[2]} by the other"
                yield Bound(first, second, told_ms - sent_ms, why)


def _commits_of(life: Life) -> Iterator[tuple[Place, int, int]]:
    """Each offset once: the generation and the time in which it was sent first."""
    found: dict[Place, tuple[int, int]] = {}
    for each in life.of_kind(m.OffsetCommitRequest):
        request = each.request
        assert isinstance(request, m.OffsetCommitRequest)
        for item in request.offsets:
            place = request.group_id, item.topic, item.partition, item.offset
            found.setdefault(place, (request.generation_id, each.sent_ms))
    return ((place, *sent) for place, sent in found.items())


def _granted(life: Life) -> Iterator[Place]:
    for each in life.of_kind(m.OffsetCommitRequest):
        request, response = each.request, each.response
        assert isinstance(request, m.OffsetCommitRequest)
        if isinstance(response, m.OffsetCommitResponse):
            codes = {(p.topic, p.partition): p.error_code for p in response.partitions}
            for item in request.offsets:
                if codes.get((item.topic, item.partition)) == 0:
                    yield request.group_id, item.topic, item.partition, item.offset


def _offsets_told(life: Life) -> Iterator[tuple[Place, int, int]]:
    for each in life.of_kind(m.OffsetFetchRequest):
        request, response = each.request, each.response
        assert isinstance(request, m.OffsetFetchRequest)
        if isinstance(response, m.OffsetFetchResponse) and each.ended_ms is not None:
            for item in response.partitions:
                place = request.group_id, item.topic, item.partition, item.offset
                yield place, request.generation_id, each.ended_ms


# A coordinator, and a group of its.
Seat = tuple[int, str]


def _of_generations(lives: Sequence[Life]) -> Iterator[Bound]:
    """One that is still of a generation is so before the shares of a later one are told.

    They are stored by then, so that nobody falls back behind them; of one coordinator, as another
    one may not have heard of its end. Numbers of generations say nothing where a group may have
    begun again: lives count that others link by rounds in which they both were, and none where one
    of them has seen numbers fall.
    """
    of_one = linked(lives)
    granted = [granted_in(life) for life in lives]
    shared = [_shared_out(life) for life in lives]
    for first, second in permutations(range(len(lives)), 2):
        if of_one[first] is None or of_one[first] != of_one[second]:
            continue
        most = [
            told_ms - sent_ms
            for seat, told in shared[second].items()
            for generation_id, told_ms in told.items()
            if (sent_ms := _last_below(granted[first].get(seat, {}), generation_id)) is not None
        ]
        if most:
            why = "one was in a generation, the other was given its share of a later one"
            yield Bound(first, second, min(most), why)


def linked(lives: Sequence[Life]) -> list[int | None]:
    """Lives of one number were in one group between its beginnings, as far as rounds link them."""
    found: list[int] = list(range(len(lives)))
    of_round: dict[Round, int] = {}
    fallen: set[int] = set()
    for at, life in enumerate(lives):
        numbers = [joined.generation_id for joined in joins_of(life)]
        if numbers != sorted(numbers):
            fallen.add(at)
        for joined in joins_of(life):
            other = found[of_round.setdefault(round_of(joined), at)]
            found = [found[at] if each == other else each for each in found]
    spoilt = {found[at] for at in fallen}
    return [None if each in spoilt else each for each in found]


def granted_in(life: Life) -> dict[Seat, dict[int, int]]:
    """When each coordinator was asked last what it granted to a member of that generation.

    A coordinator that is loading its log grants every heartbeat, and tells each SyncGroup of a
    rebalance, whatever they carry (Kafka `GroupCoordinator.handleHeartbeat`): these say nothing.
    Nor do commits: whether those were granted in their generation is what is judged by the clocks.
    """
    found: dict[Seat, dict[int, int]] = defaultdict(dict)
    for each in life.exchanges:
        match each.request, each.response:
            case m.HeartbeatRequest() as request, m.HeartbeatResponse() as response:
                inside = response.error_code == KafkaError.REBALANCE_IN_PROGRESS
            case m.SyncGroupRequest() as request, m.SyncGroupResponse() as response:
                inside = response.error_code == KafkaError.NONE
            case _:
                continue
        if inside:
            seen = found[each.node_id, request.group_id]
            before_ms = seen.get(request.generation_id, each.sent_ms)
            seen[request.generation_id] = max(before_ms, each.sent_ms)
    return found


def _shared_out(life: Life) -> dict[Seat, dict[int, int]]:
    """When it was told its share of each generation first."""
    found: dict[Seat, dict[int, int]] = defaultdict(dict)
    for (group_id, generation_id, node_id, _), each in syncs_of(life):
        if each.error_code == 0 and each.ended_ms is not None:
            found[node_id, group_id].setdefault(generation_id, each.ended_ms)
    return found


def _last_below(granted: dict[int, int], generation_id: int) -> int | None:
    return max((at for number, at in granted.items() if 0 <= number < generation_id), default=None)


def _paths(count: int, bounds: Sequence[Bound], grain_ms: int) -> Matrix:
    """The tightest bounds between all pairs; below 0 on the diagonal they contradict each other."""
    found = [[0 if a == b else UNKNOWN_MS for b in range(count)] for a in range(count)]
    for bound in bounds:
        row = found[bound.second]
        row[bound.first] = min(row[bound.first], bound.most_ms + grain_ms)
    for by in range(count):
        through = found[by]
        for row in found:
            head_ms = row[by]
            if head_ms < UNKNOWN_MS // 2:
                for at, rest_ms in enumerate(through):
                    if rest_ms < UNKNOWN_MS // 2 and head_ms + rest_ms < row[at]:
                        row[at] = head_ms + rest_ms
    return found


def _torn(matrix: Matrix) -> int:
    """How many stand in a contradiction."""
    return sum(row[at] < 0 for at, row in enumerate(matrix))


def _without(bounds: Sequence[Bound], at: int) -> list[Bound]:
    return [bound for bound in bounds if at not in (bound.first, bound.second)]


def _culprit(count: int, bounds: Sequence[Bound]) -> int:
    """The one without whom the fewest others are in contradiction."""
    pair = list(_tightest(bounds))
    known = sorted({at for bound in pair for at in (bound.first, bound.second)})
    return min(known, key=lambda at: _torn(_paths(count, _without(pair, at), GRAIN_MS)))


def _contradiction(names: Sequence[str], bounds: Sequence[Bound], culprit: int) -> str:
    """The two bounds that leave least room between the culprit and another one."""
    there = {b.first: b for b in _tightest(bounds) if b.second == culprit}
    back = {b.second: b for b in _tightest(bounds) if b.first == culprit}
    pairs = [(there[at], back[at]) for at in there if at in back]
    if not pairs:
        return f"the clock of {names[culprit]} contradicts the others"
    one, other = min(pairs, key=lambda pair: pair[0].most_ms + pair[1].most_ms)
    return (
        f"the clock of {names[culprit]} has jumped, or that of {names[one.first]}: "
        f"{one.why}, so it is at least {-one.most_ms} ms behind, and "
        f"{other.why}, so it is at most {other.most_ms} ms behind"
    )


def _tightest(bounds: Sequence[Bound]) -> list[Bound]:
    found: dict[tuple[int, int], Bound] = {}
    for bound in bounds:
        key = bound.first, bound.second
        if key not in found or bound.most_ms < found[key].most_ms:
            found[key] = bound
    return list(found.values())
