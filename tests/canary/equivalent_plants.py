"""Changes that are no errors: what they do is legal, and no check may say anything about it."""

from __future__ import annotations

from collections.abc import Callable

from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.core import membership
from ksim.core.errors import KafkaError, MisuseError
from ksim.core.member_state import REACTIONS, ClientState, Reaction
from ksim.core.turn import Turn
from ksim.scenario_spec import GroupSpec

REACT: dict[tuple[str, int], Reaction] = REACTIONS  # type: ignore[assignment]
SEEK_EVERY = 40
SEEK_BACK = 5
NEVER_MS, RARELY_MS = 600_000, 2_500


def _join_after(wait_ms: Callable[[Turn], int]) -> None:
    """Each JoinGroup of a member in the group waits so long, while its heartbeats go on."""
    honest = membership.join
    waited: set[int] = set()

    def join(turn: Turn) -> None:
        state, key = turn.state, id(turn.state)
        if state.client_state == ClientState.STABLE and key not in waited:
            waited.add(key)
            turn.arm("join_backoff", wait_ms(turn))
        honest(turn)
        if state.client_state == ClientState.PREPARING_REBALANCE:
            waited.discard(key)

    membership.join = join


def unequal_timing() -> None:
    """Members join up to a third of the rebalance timeout apart; heartbeats come unevenly."""
    _join_after(lambda turn: turn._draw(turn.state.config.rebalance_timeout_ms // 3))
    honest = Turn.arm

    def arm(self: Turn, what: str, after_ms: int) -> None:
        if what == "heartbeat":
            after_ms -= self._draw(after_ms // 2 + 1)
        honest(self, what, after_ms)

    Turn.arm = arm  # type: ignore[method-assign]


def seek_back_and_commit() -> None:
    """The application goes back a few records now and then, and so commits an older offset."""
    honest = Consumer.mark_offset
    marks: dict[int, int] = {}

    def mark_offset(self: Consumer, message: Message, metadata: str = "") -> None:
        honest(self, message, metadata)
        marks[id(self)] = count = marks.get(id(self), 0) + 1
        if count % SEEK_EVERY == 0:
            try:
                self.seek(message.topic, message.partition, max(0, message.offset - SEEK_BACK))
            except MisuseError:
                return  # it is not its own any more

    Consumer.mark_offset = mark_offset  # type: ignore[method-assign]


def _commit_every(interval_ms: int) -> None:
    """As if every group of every scenario said so: members commit so, and checks know it."""
    said = property(lambda _: interval_ms, lambda _, __: None)
    GroupSpec.commit_interval_ms = said  # type: ignore[misc,assignment]


def nothing_is_committed() -> None:
    """There are no commits but the last of a tenure: after a crash there is no committed offset."""
    _commit_every(NEVER_MS)


def commits_are_rare() -> None:
    """Commits come a fifth as often: what a crash repeats is more, and within what is allowed."""
    _commit_every(RARELY_MS)


def partitions_wait_for_an_owner() -> None:
    """Who has given its partitions back comes for new ones after half the rebalance timeout."""
    _join_after(lambda turn: turn.state.config.rebalance_timeout_ms // 2)


def refused_commits_are_repeated() -> None:
    """A commit that is refused for the moment is no reason to wait: its records come again."""
    REACT["commit", KafkaError.COORDINATOR_LOAD_IN_PROGRESS] = Reaction.FORGET_GENERATION


EQUIVALENT_PLANTS: dict[str, Callable[[], None]] = {
    "e1-unequal-timing": unequal_timing,
    "e2-seek-back": seek_back_and_commit,
    "e3-nothing-committed": nothing_is_committed,
    "e4-rare-commits": commits_are_rare,
    "e5-unowned-for-long": partitions_wait_for_an_owner,
    "e6-refused-and-repeated": refused_commits_are_repeated,
}
