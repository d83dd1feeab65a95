"""What a scenario does at protocol events, and how often each event has happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ksim.broker.faults import EventRule

Action = Callable[[], None]


class _Trigger:
    """An action that waits for an event; what is `held` has to happen some time."""

    __slots__ = ("action", "held", "met", "rule")

    def __init__(self, rule: EventRule, action: Action, held: bool) -> None:
        self.rule = rule
        self.action = action
        self.held = held
        self.met = 0

    def meets(self, direction: str, kind: str, member: str) -> bool:
        rule = self.rule
        if (rule.direction, rule.kind) != (direction, kind) or rule.member not in (None, member):
            return False
        self.met += 1
        return rule.nth in (0, self.met)


class Triggers:
    """Counts events from the beginning of the run, and runs what waits for them."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._waiting: list[_Trigger] = []

    def when(self, rule: EventRule, action: Action, *, held: bool = False) -> None:
        """Run `action` at this event, counted from now; each time where `nth` is 0."""
        self._waiting.append(_Trigger(rule, action, held))

    def happened(self, direction: str, kind: str, member: str) -> None:
        """A request has arrived, or an answer is about to be sent."""
        self.counts[direction, kind, member] += 1
        for trigger in list(self._waiting):
            if trigger.meets(direction, kind, member):
                if trigger.rule.nth:
                    self._waiting.remove(trigger)
                trigger.action()

    def release(self) -> None:
        """Healing: nothing waits any more, and what was held back goes on."""
        waiting, self._waiting = self._waiting, []
        for trigger in waiting:
            if trigger.held:
                trigger.action()
