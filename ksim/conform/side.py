"""What one of the two has said, made comparable."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from ksim.conform.arms import Data

# Texts, addresses and what only an authorizer knows.
IGNORED: Final = (
    "throttle_time_ms", "error_message", "authorized_operations", "client_host",
)  # fmt: skip
# Kafka lists in hash order: lists of what has one of these go by it.
ORDERED_BY: Final = ("member_id", "group_id", "partition_index")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(slots=True)
class Side:
    """Answers by number, the label of each member id, and the id of a slot in each group."""

    answers: dict[int, Data] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)

    def plain(self, thing: Any) -> Any:
        """The answer with labels for ids, and lists in an order of their own."""
        if isinstance(thing, dict):
            return {key: self.plain(item) for key, item in thing.items() if key not in IGNORED}
        if isinstance(thing, list):
            return _ordered([self.plain(item) for item in thing])
        return self.label(thing) if isinstance(thing, str) else thing

    def label(self, text: str) -> str:
        """Ids that nobody was told yet, because their joins are parked or their clients gone,
        begin with the name of the request that they came from."""
        return self.labels.get(text) or _UUID.sub("<new>", text)

    def learn(self, slot: str, group_id: str, member_id: str) -> None:
        """This member was told its id."""
        if member_id not in self.labels:
            count = sum(1 for label in self.labels.values() if label[0] == slot)
            self.labels[member_id] = f"{slot}{count}"
        self.ids[slot, group_id] = member_id


def _ordered(items: list[Any]) -> list[Any]:
    if items and isinstance(items[0], dict):
        for key in ORDERED_BY:
            if key in items[0]:
                return sorted(items, key=lambda item: (item[key], str(item)))
    return items
