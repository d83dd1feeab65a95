"""Who plays in a scenario that is lifted from recordings: groups, members and their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ksim.after.clocks import Clocks
from ksim.after.lives import Life, joins_of
from ksim.scenario import GroupSpec, MemberSpec

TOGETHER_MS: Final = 5
COPIED: Final = (
    "session_timeout_ms", "heartbeat_interval_ms", "rebalance_timeout_ms", "max_poll_interval_ms",
    "commit_interval_ms", "dwell_time_ms", "auto_offset_reset", "fetch_max_wait_ms",
    "metadata_max_age_ms", "request_timeout_ms", "acknowledge", "mode", "topics_whitelist",
    "topics_blacklist",
)  # fmt: skip
SPECIFIED: Final = tuple(field.name for field in fields(MemberSpec))


@dataclass(frozen=True, slots=True)
class Part:
    """One life of a member, in the time of the scenario; `number` is of the member in its group."""

    life: Life
    at: int
    name: str
    number: int
    turn: int
    start_ms: int
    end_ms: int
    shift_ms: int

    @property
    def label(self) -> str:
        """As the simulator names this life."""
        return self.name if self.turn == 1 else f"{self.name}.{self.turn}"


def cast_of(lives: Sequence[Life], clocks: Clocks) -> list[Part]:
    """A part for each life; the first that began is at time 0."""
    shifts = [clocks.likely(0, at) for at in range(len(lives))]
    zero_ms = min(life.first_ms + by for life, by in zip(lives, shifts, strict=True))
    times = [
        (life.first_ms + by - zero_ms, life.last_ms + by - zero_ms, by - zero_ms)
        for life, by in zip(lives, shifts, strict=True)
    ]
    found: list[Part] = []
    for group_id in dict.fromkeys(life.group_id for life in lives):
        own = [at for at, life in enumerate(lives) if life.group_id == group_id]
        own.sort(key=lambda at: times[at][0])
        members = _members(lives, own, times)
        for number, member in zip(_numbers(group_id, lives, members, times), members, strict=True):
            for turn, at in enumerate(member, 1):
                name, (start_ms, *others) = f"{group_id}-{number}", times[at]
                start_ms = 0 if turn == 1 and begun_within(lives[at]) else start_ms
                found.append(Part(lives[at], at, name, number, turn, start_ms, *others))
    return sorted(found, key=lambda part: (part.life.group_id, part.number, part.turn))


def begun_within(life: Life) -> bool:
    """Its recording begins in the middle, as those of rings do: it was in the group before."""
    return life.state.generation_id > 0


Times = Sequence[tuple[int, int, int]]


def _members(lives: Sequence[Life], own: Sequence[int], times: Times) -> list[list[int]]:
    """Lives of one client id, one after the other, are one member that was started again."""
    members: list[list[int]] = []
    for at in own:
        client_id = _client_id(lives[at])
        for member in members:
            last = member[-1]
            # A life that ended just as another one began was crashed and restarted.
            over = times[last][1] <= times[at][0] + TOGETHER_MS
            if _client_id(lives[last]) == client_id and over:
                member.append(at)
                break
        else:
            members.append([at])
    return members


def _client_id(life: Life) -> str:
    return str(life.header.get("config", {}).get("client_id") or life.name)


def _numbers(
    group_id: str, lives: Sequence[Life], members: Sequence[list[int]], times: Times
) -> list[int]:
    """Their own if they are named so already; otherwise in the order by which assignors sort."""
    named = [
        re.fullmatch(rf"{re.escape(group_id)}-([1-9]\d*)", _client_id(lives[member[0]]))
        for member in members
    ]
    own = [int(found.group(1)) for found in named if found is not None]
    count = len(members)
    if sorted(own) == list(range(1, count + 1)):
        return own
    first_ms = min(times[member[0]][0] for member in members)

    def key(at: int) -> tuple[bool, str]:
        started = times[members[at][0]][0]
        return started > first_ms + TOGETHER_MS * 200, _member_id(lives[members[at][0]])

    order = sorted(range(count), key=key)
    names = sorted(range(1, count + 1), key=str) if count < 10 else list(range(1, count + 1))
    found = [0] * count
    for number, at in zip(names, order, strict=True):
        found[at] = number
    return found


def _member_id(life: Life) -> str:
    return next((joined.response.member_id for joined in joins_of(life)), life.name)


# Groups


def groups_of(cast: Sequence[Part]) -> tuple[GroupSpec, ...]:
    """Each group as most of its members had it, and the members that were otherwise."""
    found: list[GroupSpec] = []
    for group_id in dict.fromkeys(part.life.group_id for part in cast):
        own = [part for part in cast if part.life.group_id == group_id]
        specs = {part.number: _spec(part.life) for part in reversed(own)}
        usual = max(specs.values(), key=lambda spec: sum(each == spec for each in specs.values()))
        usual = _without(usual, specs.values())
        static = {part.number: _instance_id(part.life) for part in own}
        if all(static[part.number] == part.name for part in own):
            usual = replace(usual, instance_ids=True)
            static = dict.fromkeys(static)
        others = (
            _otherwise(number, usual, specs[number], static[number]) for number in sorted(specs)
        )
        initial, every_ms = _initial(own)
        overrides = tuple(each for each in others if each is not None)
        found.append(replace(usual, members=initial, start_every_ms=every_ms, overrides=overrides))
    return tuple(found)


def _spec(life: Life) -> GroupSpec:
    config: Mapping[str, Any] = life.header.get("config", {})
    own: dict[str, Any] = {name: config[name] for name in COPIED if name in config}
    strategy = config.get("partition_strategy", "range")
    assignors = (strategy,) if isinstance(strategy, str) else tuple(map(str, strategy))
    if len(assignors) > 1:
        own["assignors"] = assignors
    elif assignors:
        own["assignor"] = assignors[0]
    return GroupSpec(life.group_id, tuple(config.get("topics", life.state.config.topics)), **own)


def _without(usual: GroupSpec, specs: Iterable[GroupSpec]) -> GroupSpec:
    """A member's table adds and changes: what one of them has not is no part of the group."""
    for each in specs:
        lacks = {
            name: value
            for name in SPECIFIED
            if hasattr(usual, name) and (value := getattr(each, name)) in (None, ())
        }
        usual = replace(usual, **lacks)
    return usual


def _instance_id(life: Life) -> str | None:
    return life.state.config.group_instance_id


def _otherwise(
    number: int, usual: GroupSpec, own: GroupSpec, instance_id: str | None
) -> MemberSpec | None:
    found: dict[str, Any] = {}
    for name in SPECIFIED:
        value = getattr(own, name, None)
        if hasattr(usual, name) and value != getattr(usual, name) and value is not None:
            found[name] = value
    if found.get("assignors") == ():
        del found["assignors"]
    if instance_id is not None:
        found["instance_id"] = instance_id
    return MemberSpec(number, **found) if found else None


def _initial(own: Sequence[Part]) -> tuple[int, int]:
    """How many start by themselves, in even steps; the others are started."""
    firsts = {part.number: part.start_ms for part in own if part.turn == 1}
    every_ms = max(0, firsts.get(2, 0) - firsts[1]) if firsts.get(2, 0) > TOGETHER_MS else 0
    best = (1, 0)
    for step_ms in dict.fromkeys((0, every_ms)):
        count = 1
        while abs(firsts.get(count + 1, -1_000_000) - count * step_ms) <= TOGETHER_MS:
            count += 1
        best = max(best, (count, step_ms if count > 1 else 0), key=lambda each: each[0])
    return best
