"""Which overlaps of two owners the clocks do not exclude, and which they leave no doubt of.

A member hands out what another one has been given since only if that one's assignment lies between
its own assignment and its record. That is so for some ways in which two clocks can stand to each
other, and neither for earlier nor for later ones: looking at both ends does not decide it. Here
each pair is compared over all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ksim import observations as o
from ksim.after.clocks import UNKNOWN_MS, Clocks, granted_in, linked
from ksim.after.lives import Life
from ksim.after.witness import Event
from ksim.checks import Violation, seconds
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.values import TopicPartition
from ksim.instance_checks import is_fencing


@dataclass(frozen=True, slots=True)
class Given:
    """A partition was assigned at a time of the life's own clock; `before`: then or before."""

    at_ms: int
    generation_id: int
    before: bool


@dataclass(frozen=True, slots=True)
class Out:
    """A record, handed out between two times of the life's own clock, of what it was given."""

    place: TopicPartition
    offset: int
    earliest_ms: int
    latest_ms: int
    given: Given


@dataclass(frozen=True, slots=True)
class Owner:
    """What one life was given and has handed out.

    `joined` is when it came to be the process of its instance: from asking to being told.
    `granted_ms` is when it asked last what it was granted in each generation.
    """

    life: Life
    given: dict[TopicPartition, list[Given]]
    outs: list[Out]
    joined: list[tuple[int, int]]
    fenced_ms: int
    granted_ms: dict[int, int]

    def was_in_before(self, generation_id: int) -> int:
        """Until when at the least this generation was not there; by its own clock."""
        known = (at_ms for number, at_ms in self.granted_ms.items() if number < generation_id)
        return max(known, default=-UNKNOWN_MS)


def owner(life: Life, events: Sequence[Event]) -> Owner:
    """Read off the events that S5 is shown."""
    granted_ms: dict[int, int] = {}
    for known in granted_in(life).values():
        for number, at_ms in known.items():
            granted_ms[number] = max(at_ms, granted_ms.get(number, at_ms))
    found = Owner(life, defaultdict(list), [], _joined(life), _fenced_ms(life), granted_ms)
    last: dict[TopicPartition, Given] = {}
    for event in events:
        for order in event.orders:
            if isinstance(order, e.AssignPartitions):
                given = Given(event.latest_ms, order.generation_id, event.number < 0)
                for item in order.partitions:
                    tp = TopicPartition(item.topic, item.partition)
                    last[tp] = given
                    found.given[tp].append(given)
        fact = event.fact
        if isinstance(fact, o.HandedOut):
            tp = TopicPartition(fact.topic, fact.partition)
            if tp in last:
                span = event.earliest_ms, event.latest_ms
                found.outs.append(Out(tp, fact.offset, *span, last[tp]))
    return found


def _joined(life: Life) -> list[tuple[int, int]]:
    """By JoinGroups that were granted; what a recording begins with was then or before."""
    before = [(life.first_ms - UNKNOWN_MS, life.first_ms)] if life.state.member_id else []
    return before + [
        (each.sent_ms, each.ended_ms)
        for each in life.of_kind(m.JoinGroupRequest)
        if each.error_code == KafkaError.NONE and each.ended_ms is not None
    ]


def _fenced_ms(life: Life) -> int:
    """When it was told that another process has its instance id."""
    told = (
        each.ended_ms
        for each in life.exchanges
        if each.ended_ms is not None and each.response is not None and is_fencing(each.response)
    )
    return min(told, default=UNKNOWN_MS)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two lives: what is to be added to the times of the other one lies in between these.

    `linked`: numbers of generations say which of them is older.
    """

    low_ms: int
    high_ms: int
    linked: bool

    def may_overlap(self, one: Owner, out: Out, given: Given) -> bool:
        """Whether the other one can have been given it after this one, and before the record.

        A later generation comes later, whenever its members were told; what a recording begins
        with is as old as its generation.
        """
        older = self.linked and given.generation_id < out.given.generation_id
        later = given.generation_id > out.given.generation_id
        if given.before:
            was_before = out.latest_ms <= one.was_in_before(given.generation_id)
            return not older and not (self.linked and later and was_before)
        if out.given.before or later:
            return not older and given.at_ms + self.low_ms < out.latest_ms
        low_ms = max(out.given.at_ms - given.at_ms + 1, self.low_ms)
        return low_ms <= min(out.latest_ms - given.at_ms - 1, self.high_ms)

    def must_overlap(self, out: Out, given: Given) -> bool:
        """The same, whatever the clocks show."""
        since_ms = out.given.at_ms - out.given.before
        return since_ms < given.at_ms + self.low_ms and given.at_ms + self.high_ms < out.earliest_ms


# Partitions and offsets, as a violation names them.
Named = tuple[tuple[str, ...], tuple[int, ...]]


def _by_place(outs: Sequence[Out]) -> dict[Named, list[Out]]:
    found: dict[Named, list[Out]] = defaultdict(list)
    for out in outs:
        found[(str(out.place),), (out.offset,)].append(out)
    return found


class Overlaps:
    """All pairs of these lives, by `ownership`'s events of each."""

    def __init__(
        self, lives: Sequence[Life], events: Sequence[Sequence[Event]], clocks: Clocks
    ) -> None:
        self._clocks = clocks
        self._owners = [owner(*each) for each in zip(lives, events, strict=True)]
        self._linked = linked(lives)
        self._said = [_by_place(each.outs) for each in self._owners]

    def _pair(self, one: int, other: int) -> Pair:
        linked = self._linked[one] is not None and self._linked[one] == self._linked[other]
        return Pair(-self._clocks.close[other][one], self._clocks.most[one][other], linked)

    def possible(self, of: int) -> Iterator[Violation]:
        """The last record of each tenure of this life for each assignment that may come before."""
        found: dict[tuple[Given, TopicPartition, int, Given], Out] = {}
        for out in self._telling(of):
            for other, given in self._others(of, out.place):
                if self._pair(of, other).may_overlap(self._owners[of], out, given) and not (
                    self._is_excused(of, out) or self._is_of_one_instance(of, other, out, given)
                ):
                    found[out.given, out.place, other, given] = out
        for (_, _, other, given), out in found.items():
            yield self._violation(of, other, out, given)

    def is_certain(self, of: int, said: Violation) -> bool:
        """Whether what S5 says of this life is so whatever the clocks show."""
        return any(
            self._pair(of, other).must_overlap(out, given)
            for out in self._said[of].get((said.partitions, said.offsets), ())
            for other, given in self._others(of, out.place)
        )

    def _telling(self, of: int) -> Sequence[Out]:
        """The last record of each tenure tells of all, unless an older process is excused some."""
        outs = self._owners[of].outs
        if list(self._twins(of)):
            return outs
        last: dict[tuple[TopicPartition, Given], Out] = {}
        for out in outs:
            known = last.get((out.place, out.given))
            if known is None or known.latest_ms <= out.latest_ms:
                last[out.place, out.given] = out
        return list(last.values())

    def _others(self, of: int, place: TopicPartition) -> Iterator[tuple[int, Given]]:
        mine = self._owners[of].life
        for other, owner_ in enumerate(self._owners):
            life = owner_.life
            if life.process != mine.process and life.group_id == mine.group_id:
                for given in owner_.given.get(place, ()):
                    if self._replaced_ms(other, given.at_ms, given.at_ms) is None:
                        yield other, given

    def _twins(self, of: int) -> Iterator[int]:
        """Other processes of the same instance."""
        process, mine = self._owners[of].life.process, self._owners[of].life.state.config
        for other, owner_ in enumerate(self._owners):
            config = owner_.life.state.config
            same = config.group_instance_id == mine.group_instance_id is not None
            if owner_.life.process != process and same and config.group_id == mine.group_id:
                yield other

    def _replaced_ms(self, of: int, earliest_ms: int, latest_ms: int) -> int | None:
        """Until when at the latest another process had taken its place for certain by then."""
        mine_ms = max(
            (told for asked, told in self._owners[of].joined if asked <= latest_ms), default=None
        )
        if mine_ms is None:
            return None
        for twin in self._twins(of):
            pair = self._pair(of, twin)
            for asked_ms, told_ms in self._owners[twin].joined:
                if mine_ms < asked_ms + pair.low_ms and told_ms + pair.high_ms <= earliest_ms:
                    return told_ms + pair.high_ms
        return None

    def _is_excused(self, of: int, out: Out) -> bool:
        """Its coordinator has told it nothing yet of another process, and its session goes on."""
        owner_ = self._owners[of]
        replaced_ms = self._replaced_ms(of, out.earliest_ms, out.latest_ms)
        if replaced_ms is None or owner_.fenced_ms < out.latest_ms:
            return False
        return out.latest_ms <= replaced_ms + owner_.life.state.config.session_timeout_ms

    def _is_of_one_instance(self, of: int, other: int, out: Out, given: Given) -> bool:
        """What takes the place of an instance, and what was in it, are excused in the same way."""
        owner_ = self._owners[of]
        if other not in self._twins(of) or owner_.fenced_ms < out.latest_ms or given.before:
            return False
        over_ms = given.at_ms + self._pair(of, other).high_ms
        return out.latest_ms <= over_ms + owner_.life.state.config.session_timeout_ms

    def _violation(self, of: int, other: int, out: Out, given: Given) -> Violation:
        clocks, names = self._clocks, [each.life.process for each in self._owners]
        at_ms = out.latest_ms + clocks.likely(0, of)
        since_ms = given.at_ms + clocks.likely(0, other)
        span = clocks.span(of, other)
        open_by = "nobody knows how their clocks stand"
        if span is not None:
            open_by = f"their clocks are open by {span[1] - span[0]} ms"
        sentence = (
            f"{names[of]} handed out offset {out.offset} of {out.place} at {seconds(at_ms)}, and "
            f"{names[other]} was given it at {seconds(since_ms)}: {open_by}."
        )
        members = names[of], names[other]
        return Violation("S5", at_ms, members, (str(out.place),), (out.offset,), sentence)
