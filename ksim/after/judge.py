"""Several recordings, put together and judged by the checks that they can decide.

Checks that need one clock alone look at each life by itself. The others look at all lives, twice
for each one: as early and as late beside the others as its clock can be. What is wrong either way
is a violation; what is wrong one way alone, mostly if it was late, is undecided. Whether two owned
something at one time is looked at for all in between as well (`overlaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ksim.after.between import (
    Placed,
    as_others_set_them,
    as_they_come,
    commits,
    generations,
    ownership,
    risen,
)
from ksim.after.clocks import Clocks, align
from ksim.after.fences import fenced, fences
from ksim.after.leaders import two_leaders
from ksim.after.lives import Life
from ksim.after.overlaps import Overlaps
from ksim.after.own import all_ends, group_record, own_events, shares_of
from ksim.after.reach import refuse_what_was_never_fetched, refuse_what_was_told_before_it_was
from ksim.after.unread import unread_commits
from ksim.after.witness import Event, node_name
from ksim.checks import (
    NOT_JUDGED,
    Checker,
    S2CommitWithinTenure,
    S4ExclusiveAtCoordinator,
    S6Fencing,
    S10Order,
    Violation,
)
from ksim.commit_checks import S3CommitOfOwner, S13OffsetsRise
from ksim.core import events as e
from ksim.generation_checks import S12Generations
from ksim.instance_checks import S5BesideInstances
from ksim.tenure_checks import S8Callbacks
from ksim.truth import Truth

UNDECIDED: Final = "undecided"
ALL_CHECKS: Final = (*(f"S{number}" for number in range(1, 14)), "L1", "L2", "L3", "L4")
# What these say of a recording it shows by itself, whatever others show.
ALONE: Final = ("S2", "S8", "S10")
OWN: Final[tuple[type[Checker], ...]] = (
    S2CommitWithinTenure,
    S3CommitOfOwner,
    S8Callbacks,
    S10Order,
)


@dataclass(slots=True)
class Judgement:
    """What came out: a verdict for each check, what is wrong, and what nobody can decide."""

    clocks: Clocks
    verdicts: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ALL_CHECKS, NOT_JUDGED))
    violations: list[Violation] = field(default_factory=list[Violation])
    undecided: list[Violation] = field(default_factory=list[Violation])

    def add(self, checker: Checker, *, undecided: Sequence[Violation] = ()) -> None:
        """What one checker says; the worst of what it said before and says now stands."""
        new = (
            UNDECIDED if undecided and checker.verdict in ("pass", NOT_JUDGED) else checker.verdict
        )
        old = self.verdicts[checker.name]
        self.verdicts[checker.name] = max(old, new, key=WORST_LAST.index)
        self.violations += checker.violations
        self.undecided += undecided

    def doubt(self, life: Life, sentence: str) -> None:
        """Nobody knows what this life did: no check passes, and what others say of it is open."""
        open_ = [each for each in self.violations if each.check not in ALONE]
        self.undecided += open_
        self.violations = [each for each in self.violations if each.check in ALONE]
        for name, verdict in self.verdicts.items():
            if verdict == "pass" or (verdict == "fail" and name not in ALONE):
                self.verdicts[name] = UNDECIDED
            if self.verdicts[name] == UNDECIDED:
                said = Violation(name, life.first_ms, (life.name,), (), (), sentence)
                self.undecided.append(said)


WORST_LAST: Final = (NOT_JUDGED, "pass", UNDECIDED, "fail", "broken")


def judge(lives: Sequence[Life], *, one_clock: bool = False) -> Judgement:
    """Judge them together; `one_clock`: they were recorded on one machine."""
    clocks = align(lives, one_clock=one_clock)
    found = Judgement(clocks)
    shares, ends = shares_of(lives), all_ends(lives)
    for life in lives:
        refuse_what_was_never_fetched(life, ends)
        refuse_what_was_told_before_it_was(life)
        doubts = list(unread_commits(life))
        events = list(own_events(life, shares, ends, doubts))
        for kind in OWN:
            checker = kind(Truth())
            for event in events:
                _show(checker, event.latest_ms, event)
            found.add(checker, undecided=[each for each in doubts if each.check == kind.name])
    exclusive = S4ExclusiveAtCoordinator(Truth())
    for made, given in sorted(shares.items()):
        order = e.AppendRecords(0, (group_record(made[0], made[1], given),))
        _show(exclusive, 0, Event(0, 0, 0, node_name(made[2]), None, (order,)))
    found.add(exclusive)
    for between in BETWEEN:
        _judge_between(found, between, lives)
    led = S12Generations(Truth())
    led.violations, open_ = two_leaders(lives, clocks)
    found.add(led, undecided=open_)
    for life in lives:
        if life.denied_by is not None:
            found.doubt(life, _denial(life, life.denied_by))
    found.violations.sort(key=lambda each: each.at_ms)
    found.undecided.sort(key=lambda each: each.at_ms)
    return found


def _denial(life: Life, by: Path) -> str:
    return (
        f"{life.name}: {life.path} and {by} are of one process and of one time, "
        "and do not tell the same of it."
    )


@dataclass(frozen=True, slots=True)
class Between:
    """A check of what lies between members: what it is shown, and in which order that can be."""

    kind: type[Checker]
    witness: Callable[[Sequence[Life]], list[list[Event]]]
    sift: Callable[[Sequence[Placed], bool], Iterator[Placed]]
    pairs: type[Overlaps] | None = None
    # Where what others did in the same millisecond may as well have come first: it is late then.
    ties: bool = False


BETWEEN: Final = (
    Between(S5BesideInstances, ownership, as_they_come, Overlaps),
    Between(S6Fencing, fences, fenced),
    Between(S12Generations, generations, risen),
    Between(S13OffsetsRise, commits, as_others_set_them, ties=True),
)


def _judge_between(found: Judgement, between: Between, lives: Sequence[Life]) -> None:
    events = between.witness(lives)
    clocks = found.clocks
    pairs = between.pairs(lives, events, clocks) if between.pairs else None
    for at in range(len(lives)):
        early, late = (
            _seen(
                between, _placed(events, at, _frame(clocks, at, shifts), early, between.ties), early
            )
            for early, shifts in ((True, clocks.earliest(at)), (False, clocks.latest(at)))
        )
        first, last = ({_what(each) for each in seen.violations} for seen in (early, late))
        said = [*early.violations, *(each for each in late.violations if _what(each) not in first)]
        sure = [each for each in early.violations if _what(each) in last]
        if pairs is not None:
            sure = [each for each in sure if pairs.is_certain(at, each)]
            known = {(each.members, each.partitions) for each in said}
            said += [
                each for each in pairs.possible(at) if (each.members, each.partitions) not in known
            ]
        certain = {_what(each) for each in sure}
        early.violations = sure
        found.add(early, undecided=[each for each in said if _what(each) not in certain])


def _what(each: Violation) -> tuple[object, ...]:
    return each.check, each.members, each.partitions, each.offsets


def _frame(clocks: Clocks, at: int, shifts: Sequence[int]) -> list[int]:
    """The same, by the clock of the first life, as far as it is known."""
    likely_ms = clocks.likely(0, at)
    return [likely_ms + shift for shift in shifts]


def _seen(between: Between, placed: list[Placed], early: bool) -> Checker:
    """What a check says of one life: nothing that it says of the others counts here."""
    checker = between.kind(Truth())
    said: list[Violation] = []
    for at_ms, other, _, event in between.sift(placed, early):
        _show(checker, at_ms, event)
        if checker.broken:
            return checker
        said += () if other else checker.violations
        checker.violations.clear()
    checker.violations = said
    return checker


def _placed(
    events: Sequence[Sequence[Event]], of: int, shifts: Sequence[int], early: bool, ties: bool
) -> list[Placed]:
    """In order of time. What is of one time speaks for the life that is judged: it was first.

    With `ties` it was last where that life is late.
    """
    found: list[Placed] = []
    last = ties and not early
    for life, own in enumerate(events):
        other = life != of
        for number, event in enumerate(own):
            at_ms = event.latest_ms if other == early else event.earliest_ms
            found.append((at_ms + shifts[life], int(other), number, event))
    found.sort(key=lambda each: (each[0], bool(each[1]) != last, each[2]))
    return found


def _show(checker: Checker, at_ms: int, event: Event) -> None:
    if checker.broken:
        return
    try:
        checker.truth.note(event.source, at_ms, event.fact, event.orders)
        checker.see(event.source, at_ms, event.fact, event.orders)
    except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
        checker.broke(at_ms, error)
