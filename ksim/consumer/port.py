"""What a consumer needs of the world it runs in. `sim` and `real` each offer one Driver."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ksim.core.events import MemberFact, SendRequest
from ksim.core.values import Payload


class Feedable(Protocol):
    """The consumer's engine, as a driver sees it: only the owner calls these."""

    @property
    def deadline_ms(self) -> int | None:
        """When the owner must feed TimerFired, by `Driver.now_ms`; None: no timer."""

    def feed(self, fact: MemberFact, payload: Payload | None = None) -> None:
        """Step the member; `payload` are the records of a FetchResponse."""


class Driver(Protocol):
    """Time, waiting and bytes. No decision is made behind this port."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Guards what the owner and the user's threads share."""

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

    def wait(self, until_ms: int | None) -> None:
        """By the user's thread, holding `lock`: release it until notified or until this time."""

    def notify(self) -> None:
        """By the owner, holding `lock`: wake whoever waits."""

    def shut(self) -> None:
        """After Closed: end the owner and close connections; no fact is fed afterwards."""
