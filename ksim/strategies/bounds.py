"""What a strategy may be asked for; anything else is refused where it is called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ksim.core.errors import MisuseError
from ksim.kit.texts import check_name
from ksim.scenario_spec import MOST_MEMBERS, MOST_PARTITIONS
from ksim.texts import parse_duration

Duration = str | int
# What an example is made of, one by one: far more than Hypothesis can draw.
MOST = MOST_MEMBERS
MOST_RECORDS = MOST_PARTITIONS
T = TypeVar("T")


@lru_cache(maxsize=1_000)
def pick(values: tuple[T, ...]) -> st.SearchStrategy[T]:
    """One of these, the first of which is the simplest.

    Kept, as half of the time of a draw would go into making strategies anew.
    """
    return st.sampled_from(values)


def check_range(what: str, least: int, most: int, floor: int = 0, ceiling: int = MOST) -> None:
    """`min_WHAT` and `max_WHAT`. Raises InvalidArgument."""
    for name, found in ((f"min_{what}", least), (f"max_{what}", most)):
        check_count(name, found, floor, ceiling)
    if least > most:
        raise InvalidArgument(
            f"min_{what}={least}, max_{what}={most}: the least is above the most; "
            f"valid: {floor} <= min_{what} <= max_{what}"
        )


def check_count(name: str, found: int, floor: int = 0, ceiling: int = MOST) -> None:
    """A bound that stands alone. Raises InvalidArgument."""
    if type(found) is not int or not floor <= found <= ceiling:
        raise InvalidArgument(f"{name}={found!r}: a whole number, from {floor} to {ceiling}")


def among(name: str, found: Sequence[str], valid: Sequence[str], least: int = 1) -> tuple[str, ...]:
    """The chosen ones, in the order of `valid`: what comes first there is the simplest.

    Raises InvalidArgument.
    """
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise InvalidArgument(f"{name}={found!r}: a list of names; valid: {', '.join(valid)}")
    for each in found:
        if each not in valid:
            raise InvalidArgument(f"{name}: {each!r} is none of them; valid: {', '.join(valid)}")
    if len(found) < least:
        raise InvalidArgument(f"{name}={found!r}: at least {least} of {', '.join(valid)}")
    return tuple(each for each in valid if each in found)


def own_names(name: str, found: Sequence[str]) -> tuple[str, ...]:
    """Names that the caller makes up. Raises InvalidArgument."""
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise InvalidArgument(f"{name}={found!r}: a list of names")
    if not found or len(set(found)) < len(found) or not all(found):
        raise InvalidArgument(f"{name}={found!r}: one or more names, each once")
    for each in found:
        try:
            check_name(each, name)
        except MisuseError as error:
            raise InvalidArgument(str(error)) from error
    return tuple(found)


def ms_of(name: str, found: Duration, floor_ms: int = 0) -> int:
    """Milliseconds of "20s", or of a number of them. Raises InvalidArgument."""
    ms = parse_duration(found) if isinstance(found, str) else found
    if type(ms) is not int or ms < floor_ms:
        raise InvalidArgument(
            f'{name}={found!r}: a duration, as "1500ms", "30s", "5m" or 1500 (ms), '
            f"of {floor_ms} ms or more"
        )
    return ms
