"""Which topics a member wants: those named, and those that fit its patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

INTERNAL_TOPICS: Final = ("__consumer_offsets", "__transaction_state", "__share_group_state")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def wanted_topics(
    named: Iterable[str], whitelist: str | None, blacklist: str | None, known: Iterable[str]
) -> tuple[str, ...]:
    """The named ones, and of the known ones those that the whitelist takes; sorted.

    The blacklist goes before the whitelist, and never strikes a topic that was named. Both are
    searched for (`re.search`). Kafka's internal topics are never taken by a pattern.
    """
    found = set(named)
    if whitelist is not None:
        takes = _compiled(whitelist)
        avoids = None if blacklist is None else _compiled(blacklist)
        for topic in known:
            avoided = topic in INTERNAL_TOPICS or (avoids is not None and avoids.search(topic))
            if not avoided and takes.search(topic):
                found.add(topic)
    return tuple(sorted(found))
