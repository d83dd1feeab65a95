"""Random scripts: what a few members of one group ask, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

from ksim.core.subscription import encode_subscription

TOPIC: Final = "ksim-conform"
Offer = dict[str, Any]
RANGE: Final[Offer] = {"name": "range", "metadata": encode_subscription([TOPIC])}
ROUND_ROBIN: Final[Offer] = {"name": "roundrobin", "metadata": encode_subscription(["other"])}
UNREADABLE: Final[Offer] = {"name": "range", "metadata": b"r"}
OFFERS: Final[tuple[list[Offer], ...]] = (
    [RANGE], [RANGE], [RANGE, ROUND_ROBIN], [ROUND_ROBIN, RANGE], [ROUND_ROBIN], [UNREADABLE], [],
)  # fmt: skip
SLOTS: Final = ("a", "b", "c", "d")
KINDS: Final = {
    "join": 34, "sync": 24, "heartbeat": 14, "commit": 10, "leave": 8, "leave_batch": 3,
    "fetch": 3, "describe": 2, "wait": 3, "deadline": 4, "delete": 1, "forget": 2,
    "commit_simple": 2,
}  # fmt: skip
VERSIONS: Final = {
    "JoinGroup": (3, 4, 5, 6, 7, 8, 9),
    "SyncGroup": (3, 4, 5),
    "Heartbeat": (3, 4),
    "LeaveGroup": (2, 3, 4, 5),
    "OffsetCommit": (7, 8, 9),
    "OffsetFetch": (5, 7, 8),
}


CALM: Final = 0.3
_RIGHT_NUMBERS: Final = {"generation": 0, "stranger": False, "names": "right"}
RIGHT: Final[dict[str, dict[str, Any]]] = {
    "join": {"offer": [RANGE], "session": 6_000, "kind": "consumer", "fresh": False},
    "sync": _RIGHT_NUMBERS,
    "heartbeat": _RIGHT_NUMBERS,
    "commit": _RIGHT_NUMBERS,
    "wait": {"ms": 3_000},
}


class Step(NamedTuple):
    """One thing to do with drawn `options`; ids and generations are filled in when it runs."""

    kind: str
    slot: str
    options: dict[str, Any]

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={item!r}" for key, item in self.options.items())
        return f"{self.slot} {self.kind} {shown}"


def draw_script(seed: int, steps: int) -> list[Step]:
    """The script of a seed; the same in every process."""
    entropy = Random(seed)
    members = entropy.randint(1, len(SLOTS))
    static = [slot for slot in SLOTS[:members] if entropy.random() < 0.25]
    slots = SLOTS[:members]
    script = _calm_beginning(entropy, slots, static) if entropy.random() < CALM else []
    kinds, weights = list(KINDS), list(KINDS.values())
    while len(script) < steps:
        kind = entropy.choices(kinds, weights)[0]
        script.append(_draw(entropy, kind, entropy.choice(slots), static))
    return script[:steps]


def _calm_beginning(entropy: Random, slots: Sequence[str], static: list[str]) -> list[Step]:
    """A group that comes to rest, and then lives by its commits or by its heartbeats alone."""
    kind = entropy.choice(("commit", "heartbeat"))
    rounds = ["join"] * 3 + ["sync"] * 2 + ["wait", kind] * 3

    def step(name: str, slot: str) -> Step:
        found = _draw(entropy, name, slot, static)
        return found._replace(options={**found.options, **RIGHT.get(name, {})})

    return [
        step(name, slot) for name in rounds for slot in (slots[:1] if name == "wait" else slots)
    ]


def _draw(entropy: Random, kind: str, slot: str, static: list[str]) -> Step:
    wrong = entropy.random() < 0.08
    options: dict[str, Any] = {"instance": f"i-{slot}" if slot in static else None}
    versions = {
        "join": "JoinGroup", "sync": "SyncGroup", "heartbeat": "Heartbeat", "leave": "LeaveGroup",
        "leave_batch": "LeaveGroup", "commit": "OffsetCommit", "commit_simple": "OffsetCommit",
        "fetch": "OffsetFetch",
    }  # fmt: skip
    if kind in versions:
        options["version"] = entropy.choice(VERSIONS[versions[kind]])
    if options["instance"] is not None and kind in ("join", "commit"):
        options["version"] = max(options["version"], 7)
    if kind == "leave_batch":
        options["version"] = max(options["version"], 3)
    match kind:
        case "join":
            options["offer"] = entropy.choice(OFFERS)
            options["rebalance"] = entropy.choice((1_500, 2_500))
            options["session"] = 100 if wrong else entropy.choice((6_000, 6_500))
            options["fresh"] = entropy.random() < (0.3 if slot in static else 0.08)
            options["kind"] = "other" if entropy.random() < 0.04 else "consumer"
        case "sync" | "heartbeat" | "commit":
            options["generation"] = entropy.choice((-1, 1)) if wrong else 0
            options["stranger"] = entropy.random() < 0.03
            options["names"] = entropy.choice(("right", "right", "right", "none", "wrong"))
        case "wait":
            options["ms"] = entropy.choice((300, 1_000, 3_000))
        case _:
            pass
    return Step(kind, slot, options)
