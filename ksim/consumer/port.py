"""What a consumer needs of the world it runs in. `sim` and `real` each offer one Driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ksim.consumer.message import Message
from ksim.consumer.observed import Change
from ksim.core.events import MemberFact, SendRequest
from ksim.core.values import Payload, TopicPartition


class Feedable(Protocol):
    """The consumer's engine, as a driver sees it: only the owner calls these."""

    @property
    def deadline_ms(self) -> int | None:
        """When the owner must feed TimerFired, by `Driver.now_ms`; None: no timer."""

    def feed(self, fact: MemberFact, payload: Payload | None = None) -> None:
        """Step the member; `payload` are the records of a FetchResponse."""


class Pulse(NamedTuple):
    """Whether the owner runs, and how long ago it last began a turn of its loop."""

    alive: bool
    age_ms: int


def is_over(thread: object) -> bool:
    """Whether a thread of the user's, as `Driver.current` gives it, has ended; so may greenlets."""
    is_alive = getattr(thread, "is_alive", None)
    return getattr(thread, "dead", False) if is_alive is None else not is_alive()


class Driver(Protocol):
    """Time, waiting and bytes. No decision is made behind this port."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Guards what the owner and the user's threads share."""

    def unlocked(self) -> AbstractContextManager[object]:
        """By a user's thread that holds `lock` once: without it for a while."""

    def pulse(self) -> Pulse:
        """From any thread, without the lock."""

    def tell(self, change: Change) -> None:
        """By the owner: the member's state has changed; whoever operates it may want to know."""

    def told(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        """Holding `lock`: the application is told of these now: assigned, revoked or lost."""

    def handed_out(self, messages: Sequence[Message]) -> None:
        """Holding `lock`: the application gets these now."""

    def entropy(self) -> int:
        """A seed for one member, 0 up to 2**63."""

    def now_ms(self) -> int:
        """Monotonic milliseconds that count suspend."""

    def open(self, engine: Feedable) -> None:
        """Start the owner, which feeds `engine` until `shut`. Raises NoBrokerError."""

    def post(self, fact: MemberFact) -> None:
        """From any thread: the owner will feed this fact, in order."""

    def send(self, order: SendRequest) -> None:
        """By the owner: send; exactly one ResponseReceived or RequestFailed is fed later."""

    def current(self) -> object:
        """The user's thread that runs now, or its greenlet; equal for the same one."""

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        """What ends a thread of the user's from outside, and is no failure of what it runs."""

    def spawn(self, function: Callable[[], None]) -> None:
        """Run a function beside the caller, as one more of the user's threads."""

    def call(self, function: Callable[[], MemberFact]) -> None:
        """Run a function on the store's thread, after those before it; its result is posted."""

    def wait(self, until_ms: int | None) -> None:
        """By a user's thread, holding `lock`: release it until notified or until this time."""

    def notify(self) -> None:
        """Holding `lock`: wake whoever waits."""

    def shut(self) -> bool:
        """After Closed: end the owner and close connections; no fact is fed afterwards.

        False where the store's thread does not come back from its call.
        """
