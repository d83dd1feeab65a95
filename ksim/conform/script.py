"""Random scripts: what a few members of one or two groups ask, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from ksim.core.subscription import encode_subscription

TOPIC: Final = "ksim-conform"
Offer = dict[str, Any]
Options = dict[str, Any]
RANGE: Final[Offer] = {"name": "range", "metadata": encode_subscription([TOPIC])}
ROUND_ROBIN: Final[Offer] = {"name": "roundrobin", "metadata": encode_subscription(["other"])}
UNREADABLE: Final[Offer] = {"name": "range", "metadata": b"r"}
OFFERS: Final[tuple[list[Offer], ...]] = (
    [RANGE], [RANGE], [RANGE, ROUND_ROBIN], [ROUND_ROBIN, RANGE], [ROUND_ROBIN], [UNREADABLE], [],
)  # fmt: skip
BOTH: Final = ([RANGE, ROUND_ROBIN], [ROUND_ROBIN, RANGE])
SLOTS: Final = ("a", "b", "c", "d")
KINDS: Final = {
    "join": 34, "sync": 24, "heartbeat": 13, "commit": 10, "leave": 7, "leave_batch": 3,
    "leave_instance": 2, "fetch": 4, "describe": 2, "list": 2, "wait": 3, "deadline": 4, "phase": 2,
    "delete": 2, "forget": 2, "commit_simple": 3, "disconnect": 4,
}  # fmt: skip
API_OF: Final = {
    "join": "JoinGroup", "sync": "SyncGroup", "heartbeat": "Heartbeat", "leave": "LeaveGroup",
    "leave_batch": "LeaveGroup", "leave_instance": "LeaveGroup", "commit": "OffsetCommit",
    "commit_simple": "OffsetCommit", "fetch": "OffsetFetch", "describe": "DescribeGroups",
    "list": "ListGroups", "delete": "DeleteGroups", "forget": "OffsetDelete",
}  # fmt: skip
# A broker that lacks the newest of these is asked the newest that it has.
VERSIONS: Final = {
    "JoinGroup": (2, 3, 4, 5, 6, 7, 8, 9),
    "SyncGroup": (1, 2, 3, 4, 5, 5),
    "Heartbeat": (1, 2, 3, 4),
    "LeaveGroup": (0, 1, 2, 3, 4, 5),
    "OffsetCommit": (2, 3, 4, 5, 6, 7, 8, 9),
    "OffsetFetch": (1, 2, 3, 4, 5, 6, 7, 8, 9),
    "OffsetDelete": (0,),
    "DescribeGroups": (0, 3, 5, 6),
    "ListGroups": (0, 3, 4, 5),
    "DeleteGroups": (0, 1, 2),
}
# What a step cannot say in an older version; static members join as such.
SINCE: Final = {"leave_batch": 3, "leave_instance": 3}
STATIC_JOIN_SINCE: Final = 5
METADATA_MAX: Final = 4096
METADATA: Final = ("m", "m", "m", "", None, "x" * METADATA_MAX, "x" * (METADATA_MAX + 1))
STATES: Final[tuple[list[str], ...]] = ([], [], ["Stable"], ["Empty", "PreparingRebalance"])

REBALANCE_MS: Final = (1_500, 1_500, 2_500, 2_500, 7_000)
CALM: Final = 0.25
BRISK: Final = 0.35
TWO_GROUPS: Final = 0.35
FRESH_STATIC: Final = 0.3  # how often a static member comes back without its id
ALIKE: Final = 0.75  # how often a member has the rebalance timeout of the script
AWAY: Final = 0.12  # how often a member asks in the group where it is not at home
_RIGHT_NUMBERS: Final = {
    "group": 0, "nameless": False, "generation": 0, "stranger": False, "foreign": False,
    "names": "right", "assigns": "leader", "topics": True,
}  # fmt: skip
RIGHT: Final[dict[str, Options]] = {
    "join": {
        "group": 0, "nameless": False, "foreign": False, "offer": [RANGE], "session": 6_000,
        "kind": "consumer", "fresh": False,
    },
    "sync": _RIGHT_NUMBERS,
    "heartbeat": _RIGHT_NUMBERS,
    "commit": _RIGHT_NUMBERS,
    "wait": {"ms": 3_000},
    "phase": {"group": 0},
}  # fmt: skip


class Step(NamedTuple):
    """One thing to do with drawn `options`; ids and generations are filled in when it runs."""

    kind: str
    slot: str
    options: Options

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={_short(item)}" for key, item in self.options.items())
        return f"{self.slot} {self.kind} {shown}"


class Cast(NamedTuple):
    """Who plays: members, those that are static, the group where each is at home, and the
    rebalance timeout that most of them have."""

    slots: tuple[str, ...]
    static: tuple[str, ...]
    homes: dict[str, int]
    rebalance_ms: int


def _short(item: Any) -> str:
    if isinstance(item, str) and len(item) > METADATA_MAX // 2:
        return f"{item[0]!r} * {len(item)}"
    return repr(item)


def groups_of(seed: int) -> int:
    """How many groups the script of a seed has."""
    return 2 if Random(f"groups of {seed}").random() < TWO_GROUPS else 1


def draw_script(seed: int, steps: int) -> list[Step]:
    """The script of a seed; the same in every process."""
    entropy = Random(seed)
    slots = SLOTS[: entropy.randint(1, len(SLOTS))]
    static = tuple(slot for slot in slots if entropy.random() < 0.25)
    homes = {slot: entropy.randrange(groups_of(seed)) for slot in slots}
    cast = Cast(slots, static, homes, entropy.choice(REBALANCE_MS))
    odds = entropy.random()
    script: list[Step] = []
    if odds < CALM + BRISK:
        script = _beginning(entropy, cast, calm=odds < CALM)
    kinds, weights = list(KINDS), list(KINDS.values())
    while len(script) < steps:
        kind = entropy.choices(kinds, weights)[0]
        script.append(_draw(entropy, kind, entropy.choice(slots), cast, groups_of(seed)))
    return script[:steps]


def _beginning(entropy: Random, cast: Cast, *, calm: bool) -> list[Step]:
    """A group that has formed; a calm one then lives by requests of one kind alone."""
    kind = entropy.choice(("commit", "heartbeat", "sync"))
    rounds = ["join"] * 3 + ["phase"] + ["sync"] * entropy.choice((1, 2))
    if calm:
        rounds += ["wait", kind] * 3
    everywhere = cast._replace(homes=dict.fromkeys(cast.slots, 0))

    def step(name: str, slot: str) -> Step:
        found = _draw(entropy, name, slot, everywhere, 1)
        right = {key: item for key, item in RIGHT.get(name, {}).items() if key in found.options}
        if name == "join" and not calm:
            right["offer"] = entropy.choice(BOTH)
        return found._replace(options={**found.options, **right})

    return [
        step(name, slot)
        for name in rounds
        for slot in (cast.slots[:1] if name in ("wait", "phase") else cast.slots)
    ]


def _draw(entropy: Random, kind: str, slot: str, cast: Cast, groups: int) -> Step:
    static = slot in cast.static
    options: Options = {"group": cast.homes[slot], "instance": f"i-{slot}" if static else None}
    if entropy.random() < AWAY:
        options["group"] = groups - 1 - options["group"]
    if kind in API_OF:
        least = STATIC_JOIN_SINCE if static and kind == "join" else SINCE.get(kind, 0)
        options["version"] = max(entropy.choice(VERSIONS[API_OF[kind]]), least)
        options["nameless"] = entropy.random() < 0.01
    if kind in DRAWS:
        options |= DRAWS[kind](entropy)
    if kind == "join" and entropy.random() < ALIKE:
        options["rebalance"] = cast.rebalance_ms
    if static and kind == "join":
        options["fresh"] = entropy.random() < FRESH_STATIC
    return Step(kind, slot, options)


def _join(entropy: Random) -> Options:
    wrong = entropy.random() < 0.06
    return {
        "offer": entropy.choice(OFFERS),
        "rebalance": entropy.choice(REBALANCE_MS),
        "session": entropy.choice((100, 1_800_001) if wrong else (6_000, 6_500)),
        "fresh": entropy.random() < 0.08,
        "foreign": entropy.random() < 0.02,
        "kind": "other" if entropy.random() < 0.04 else "consumer",
    }


def _as_member(entropy: Random) -> Options:
    wrong = entropy.random() < 0.08
    return {
        "generation": entropy.choice((-1, 1)) if wrong else 0,
        "stranger": entropy.random() < 0.03,
        "foreign": entropy.random() < 0.02,
    }


def _sync(entropy: Random) -> Options:
    return _as_member(entropy) | {
        "names": entropy.choice(("right", "right", "right", "none", "wrong")),
        "assigns": entropy.choice(("leader",) * 8 + ("always", "never")),
    }


def _offsets(entropy: Random) -> Options:
    return {
        "topics": entropy.random() > 0.06,
        "partition": entropy.choice((0, 0, 1)),
        "metadata": entropy.choice(METADATA),
        "retention": entropy.choice((-1, 3_600_000)),
    }


def _flag(name: str, odds: float) -> Callable[[Random], Options]:
    return lambda entropy: {name: entropy.random() < odds}


DRAWS: Final[dict[str, Callable[[Random], Options]]] = {
    "join": _join,
    "sync": _sync,
    "heartbeat": _as_member,
    "commit": lambda entropy: _as_member(entropy) | _offsets(entropy),
    "commit_simple": _offsets,
    "leave": _flag("foreign", 0.02),
    "leave_instance": _flag("own", 0.8),
    "fetch": lambda entropy: {
        "all": entropy.random() < 0.4,
        "several": entropy.random() < 0.5,
    },
    "describe": _flag("several", 0.5),
    "delete": _flag("several", 0.5),
    "list": lambda entropy: {
        "states": entropy.choice(STATES),
        "types": entropy.choice(([], ["classic"], ["consumer"])),
    },
    "forget": lambda entropy: {"partitions": entropy.choice(([0], [1], [0, 1]))},
    "wait": lambda entropy: {"ms": entropy.choice((300, 1_000, 3_000))},
}
