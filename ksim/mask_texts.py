"""What may stay of a free text in a copy that is given away: the words that ksim itself writes.

The reasons of a coordinator are sentences with names in them. Each is taken apart by its template;
a text that fits none may say anything, and is masked whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ksim.core.assignors import ASSIGNORS
from ksim.core.coordinator_state import GroupState
from ksim.core.subscription import PROTOCOL_TYPE

MEMBER, INSTANCE, EITHER = "member", "instance", "either"
MASKED: Final = "masked"
BETWEEN: Final = ", "  # of several names in one place
# Of a place the kind of the names in it; "": a number.
PLACES: Final = {"member": MEMBER, "instance": INSTANCE, "either": EITHER, "number": ""}
REASONS: Final = (
    "all members joined",
    "all remaining members joined",
    "initial rebalance delay over",
    "rebalance timeout",
    "assignment stored",
    "creation was not stored",
    "more members than the group may have",
    "removed",
    "resigned",
    "append error {number} when storing the assignment",
    "new member {member}",
    "no SyncGroup in time from {member}",
    "session of {member} expired",
    "static member {instance} replaced",
    "{member} joined again",
    "{either} left",
)
# Names of protocols and their types that say nothing of who uses them.
PROTOCOLS: Final = frozenset(
    {PROTOCOL_TYPE, *ASSIGNORS, "sticky", "cooperative-sticky"}
    | {"connect", "default", "eager", "compatible", "sessioned"}
)
# States and types of groups, as they are told and asked for.
GROUP_WORDS: Final = frozenset({*map(str.lower, GroupState), "classic", "consumer"})


def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template)
    for place in PLACES:
        found = rf"(?P<{place}>-?\d+)" if not PLACES[place] else rf"(?P<{place}>.+)"
        text = text.replace(re.escape(f"{{{place}}}"), found)
    return re.compile(text, re.DOTALL)


PATTERNS: Final = tuple(map(_pattern, REASONS))


def parts_of(reason: str) -> list[tuple[str, str]]:
    """What a reason is made of: names with their kind, and words with none; none: not known."""
    match = next((found for each in PATTERNS if (found := each.fullmatch(reason))), None)
    if match is None:
        return []
    place = match.lastgroup
    if place is None or not PLACES[place]:
        return [("", reason)]
    begin, end = match.span(place)
    return [("", reason[:begin]), *_names(PLACES[place], match[place]), ("", reason[end:])]


def _names(kind: str, text: str) -> Iterator[tuple[str, str]]:
    for at, name in enumerate(text.split(BETWEEN)):
        if at:
            yield "", BETWEEN
        yield kind, name
