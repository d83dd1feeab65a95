"""Each canary is one small mutation of the machine, a check or the recording.

They are here so that anyone can see that the checks have teeth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ksim.checks import S5ExclusiveInApplication
from ksim.consumer.engine import Engine
from ksim.core import coordinator_rebalance, member, positions
from ksim.core.turn import Turn
from ksim.core.values import TopicPartition

FOR_EVER_MS = 1 << 60
LATER_MS = 1


def commit_delivered() -> None:
    """Commits the last record that was handed out instead of the last one handled."""
    honest = Engine.next_message

    def next_message(self: Engine) -> Any:
        message = honest(self)
        if message is not None:
            tp = TopicPartition(message.topic, message.partition)
            self.mark(tp, message.tenure, message.offset, "")
        return message

    Engine.next_message = next_message  # type: ignore[method-assign]


def deliver_for_ever() -> None:
    """A member that never stops delivering, its session over or not."""
    honest = Turn.extend_lease
    Turn.extend_lease = lambda self, _: honest(self, FOR_EVER_MS)  # type: ignore[method-assign]
    member.ON_TIMER["session"] = lambda _: None  # type: ignore[index]


def join_never_completes() -> None:
    """A coordinator that waits for joins and never ends the phase."""
    coordinator_rebalance.complete_join = lambda *_: None


def another_decision() -> None:
    """Today's machine lets the broker wait a millisecond longer for records."""
    honest = positions.FetchRequest

    def request(max_wait_ms: int, *rest: Any) -> Any:
        return honest(max_wait_ms + LATER_MS, *rest)

    positions.FetchRequest = request  # type: ignore[assignment,misc]


def blind_check() -> None:
    """S5 looks at nothing; the run must then say `not judged`, and not pass."""
    S5ExclusiveInApplication.see = lambda *_: None  # type: ignore[assignment,method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "commit-delivered": commit_delivered,
    "deliver-for-ever": deliver_for_ever,
    "join-never-completes": join_never_completes,
    "another-decision": another_decision,
    "blind-check": blind_check,
}
