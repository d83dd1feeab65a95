"""A rule-based machine of the pure core: Hypothesis plays network, clock and applications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypeVar

from hypothesis import event, note, target
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ksim.core.values import TopicPartition
from ksim.strategies.bounds import check_count
from ksim.strategies.pure import GROUP, Application, PureGroup

T = TypeVar("T")
WHICH: Final = st.integers(0, 11)
WAITS_MS: Final = (100, 1, 2_000, 6_000, 500, 20_000)
# After so many rounds a group that only has to rest is taken for one that never will.
MOST_ROUNDS: Final = 3_000
WITHIN_MS: Final = 60_000
TICK_MS: Final = 20
LAST_TICK_MS: Final = 100
# "pause" of who is paused is its end; "restore" puts the copy of a snapshot in a member's place.
TROUBLES: Final = ("pause", "cut", "crash", "close", "fail over", "restore")


class GroupMachine(RuleBasedStateMachine):
    """Members, coordinator and clock, without IO; each rule is one thing that may happen next.

    Subclass it to set `members`, `partitions` or `consumer` (keys of `ksim.Config`), and to add
    rules and invariants over `self.group`; `TestMine = Mine.TestCase` is what pytest collects.
    At the end everything is healed, and the group has to come to rest with all records handled
    and committed.
    """

    members: ClassVar[int] = 3
    partitions: ClassVar[int] = 2
    consumer: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        check_count("members", self.members, 1)
        check_count("partitions", self.partitions, 1)
        self.group = PureGroup(self.partitions, self.consumer)
        self.names = [f"{GROUP}-{number}" for number in range(1, self.members + 1)]

    # Whom a rule is about: by number, so that a smaller number is a simpler example

    def of(self, found: Sequence[T], which: int) -> T:
        """One of these, whatever the number."""
        return found[which % len(found)]

    def living(self) -> list[Application]:
        """Members that are there, by name."""
        return [each for _, each in sorted(self.group.members.items()) if not each.closed]

    def _idle(self) -> list[str]:
        return [
            name
            for name in self.names
            if name not in self.group.members or self.group.members[name].closed
        ]

    def _able(self) -> list[tuple[Application, TopicPartition]]:
        return [
            (each, tp)
            for each in self.living()
            if not each.paused
            for tp in each.delivers
            if each.owned[tp].buffer
        ]

    def _giving(self) -> list[Application]:
        return [each for each in self.living() if each.revoking is not None and not each.paused]

    # Rules

    @initialize(count=WHICH)
    def begin(self, count: int) -> None:
        """So many members start at once."""
        for name in self.names[: 1 + count % self.members]:
            self.group.start(name)

    @precondition(lambda self: self.group.ready())
    @rule(which=WHICH)
    def deliver(self, which: int) -> None:
        """A message arrives."""
        note(f"  {self.group.deliver(*self.of(self.group.ready(), which))}")

    @precondition(lambda self: self.group.ready())
    @rule(rounds=st.integers(1, 8))
    def deliver_all(self, rounds: int) -> None:
        """Everything arrives that is on its way, so many times."""
        for _ in range(rounds):
            for name, channel in self.group.ready():
                if (name, channel) in self.group.ready():
                    self.group.deliver(name, channel)

    @rule(by_ms=st.sampled_from((1_000, 100, 5_000)))
    def go_on(self, by_ms: int) -> None:
        """All goes as it should for so long: messages arrive, records are handled."""
        until_ms = self.group.now_ms + by_ms
        while self.group.now_ms < until_ms:
            self._do_all()
            self.group.advance(TICK_MS)

    @rule(by_ms=st.sampled_from(WAITS_MS))
    def wait(self, by_ms: int) -> None:
        """Time goes by."""
        self.group.advance(by_ms)

    @precondition(lambda self: self._able())
    @rule(which=WHICH)
    def handle(self, which: int) -> None:
        """An application handles a record, and marks it."""
        each, tp = self.of(self._able(), which)
        note(f"  {each.name} handles {tp} at {each.handle(tp)}")

    @precondition(lambda self: self._giving())
    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        """An application has been told of a revocation."""
        each = self.of(self._giving(), which)
        note(f"  {each.name}")
        each.give_back()

    @rule(which=WHICH, count=st.integers(1, 5))
    def produce(self, which: int, count: int) -> None:
        """Records are written."""
        self.group.produce(self.of(self.group.partitions, which), count)

    @precondition(lambda self: self._idle())
    @rule(which=WHICH)
    def start(self, which: int) -> None:
        """A process starts."""
        self.group.start(self.of(self._idle(), which))

    @precondition(lambda self: self.living())
    @rule(what=st.sampled_from(TROUBLES), which=WHICH)
    def trouble(self, what: str, which: int) -> None:
        """Something befalls a member, or the coordinator."""
        each = self.of(self.living(), which)
        note(f"  {what} {each.name}")
        match what:
            case "crash":
                self.group.crash(each.name)
            case "close":
                self.group.close(each.name)
            case "pause":
                each.paused = not each.paused
            case "cut":
                self.group.cut(each.name)
            case "restore":
                each.restore()
            case _:
                self.group.fail_over()

    # What holds at any time, beside what the group asserts when it happens

    @invariant()
    def one_owner(self) -> None:
        """No two applications may hand out the records of one partition."""
        self.group.check()

    # The end

    def teardown(self) -> None:
        """Heal everything; then the group must come to rest, with all handled and committed."""
        lag = sum(self.group.end(tp) - done for tp, done in self.group.handled_up_to.items())
        target(float(lag), label="lag")
        for each in self.living():
            each.paused = False
            event(f"ends as {each.member.state.client_state}")
        if self.living():
            self._settle()

    def _settle(self) -> None:
        until_ms = self.group.now_ms + WITHIN_MS
        for _ in range(MOST_ROUNDS):
            self._do_all()
            self.group.check()
            waiting = self._waiting()
            if not waiting or self.group.now_ms > until_ms or not self.living():
                break
            self.group.advance(LAST_TICK_MS)
        assert not self.living() or not waiting, f"{WITHIN_MS} ms after healing: {waiting}"

    def _do_all(self) -> None:
        for each in self._giving():
            each.give_back()
        for name, channel in self.group.ready():
            if (name, channel) in self.group.ready():
                self.group.deliver(name, channel)
        for each, tp in self._able():
            while each.owned[tp].buffer:
                each.handle(tp)

    def _waiting(self) -> list[str]:
        owned = [tp for each in self.living() for tp in each.delivers]
        found = [f"nobody owns {tp}" for tp in self.group.partitions if tp not in owned]
        found += [
            f"{tp}: {self.group.end(tp)} records, {self.group.handled_up_to[tp]} handled, "
            f"{self.group.committed[tp]} committed"
            for tp in self.group.partitions
            if self.group.committed[tp] < self.group.end(tp)
        ]
        return found
