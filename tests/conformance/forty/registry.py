"""The table of the checks: number, body, the profile of the broker, and where it is not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance.forty.arms import Arm

Body = Callable[[Arm], None]


@dataclass(frozen=True, slots=True)
class Check:
    """`profile`: how the broker is set up, of those in `clusters`; `not_run`: why an arm cannot."""

    name: str
    body: Body
    profile: str
    is_slow: bool
    not_run: dict[str, str]

    @property
    def number(self) -> int:
        return int(self.name.split("_")[1])


CHECKS: list[Check] = []


def check(
    profile: str = "fast", *, is_slow: bool = False, not_run: dict[str, str] | None = None
) -> Callable[[Body], Body]:
    """Put a body into the table; its name is `check_NUMBER_what_is_shown`."""

    def put(body: Body) -> Body:
        CHECKS.append(Check(body.__name__, body, profile, is_slow, not_run or {}))
        return body

    return put
