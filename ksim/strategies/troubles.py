"""Strategies for what goes wrong: faults at protocol events, and steps at times or events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ksim.fuzz.kinds import ACTIONS, ERRORS, FATAL, NEW_TOPIC, STEPS
from ksim.scenario import REQUESTS, EventSpec, FaultSpec, StepSpec, TopicSpec
from ksim.scenario_spec import ALL_BROKERS, COORDINATOR, STEP_TARGETS
from ksim.strategies.bounds import Duration, among, check_count, ms_of, own_names, pick
from ksim.strategies.parts import GROUPS, TOPICS

DIRECTIONS: Final = ("request", "response")
WITH_CODES: Final = {"error": ERRORS, "fatal error": FATAL}
WITH_TIME: Final = ("delay", "late")
HELD_MS: Final = (500, 50, 4_000, 12_000)
GRID_MS: Final = 100
LASTS_MS: Final = (2_000, 8_000, 300, 20_000)
FIRST_MEMBER: Final = f"{GROUPS[0]}-1"
BROKER_STEP: Final = "broker "


def faults(
    *,
    members: Sequence[str] = (FIRST_MEMBER,),
    kinds: Sequence[str] = ACTIONS,
    requests: Sequence[str] = REQUESTS,
    max_nth: int = 6,
    max_delay: Duration = "12s",
) -> st.SearchStrategy[FaultSpec]:
    """One message that is lost, delayed, doubled, refused and so on.

    `kinds` are those of `ksim.fuzz.kinds.ACTIONS`; "error" is a refusal that a member survives,
    "fatal error" one that ends it. Refusals are drawn from the codes that fit the request.
    """
    known = own_names("members", members)
    chosen = among("kinds", kinds, ACTIONS)
    asked = among("requests", requests, REQUESTS)
    check_count("max_nth", max_nth, 1)
    most_ms = ms_of("max_delay", max_delay, 1)
    held = [ms for ms in HELD_MS if ms <= most_ms] or [most_ms]
    possible = {do: _requests(do, asked) for do in chosen}
    if not any(possible.values()):
        fit = sorted({kind for do in chosen for kind in WITH_CODES[do]}, key=REQUESTS.index)
        raise InvalidArgument(
            f"kinds={chosen}, requests={asked}: no code for any of them; valid: {', '.join(fit)}"
        )
    return _faults(known, {do: each for do, each in possible.items() if each}, max_nth, held)


def _requests(do: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    codes = WITH_CODES.get(do)
    return asked if codes is None else tuple(kind for kind in asked if kind in codes)


@st.composite
def _faults(
    draw: st.DrawFn,
    members: tuple[str, ...],
    possible: dict[str, tuple[str, ...]],
    max_nth: int,
    held_ms: list[int],
) -> FaultSpec:
    do = draw(pick(tuple(possible)))
    kind = draw(pick(possible[do]))
    codes = WITH_CODES.get(do)
    return FaultSpec(
        direction=draw(pick(DIRECTIONS)),
        kind=kind,
        member=draw(pick((None, *members))),
        nth=draw(st.integers(1, max_nth)),
        do=do.removeprefix("fatal "),
        error=None if codes is None else draw(pick(codes[kind])),
        for_ms=draw(pick(tuple(held_ms))) if do in WITH_TIME else 0,
        keep=do == "delay" and draw(pick((False, False, False, True))),
    )


# What a step has beside its time and its target.
_OPEN: Final = pick((*LASTS_MS, None))
_LASTS: Final = pick(LASTS_MS)
_COUNT: Final = st.integers(1, 3)
FIELDS: Final[dict[str, dict[str, st.SearchStrategy[Any]]]] = {
    "crash": {"for_ms": _OPEN},
    "stop": {"for_ms": _OPEN},
    "pause": {"for_ms": _OPEN},
    "restart": {"for_ms": _OPEN},
    "partition": {"for_ms": _OPEN, "peer": pick((None, COORDINATOR, "broker-1"))},
    "hold": {"for_ms": _OPEN, "peer": pick((None, COORDINATOR, "broker-1"))},
    "disconnect": {"for_ms": st.none()},
    "poll_gap": {"for_ms": pick((8_000, 2_000, 20_000, 30_000))},
    "pause_partitions": {"for_ms": _OPEN},
    "seek": {"offset": pick((0, 5, 50))},
    "refuse_offsets_log": {"for_ms": _LASTS},
    "stale_metadata": {"for_ms": _LASTS},
    "add_partitions": {"count": _COUNT},
    "create_topic": {"count": _COUNT},
    "delete_topic": {"for_ms": pick((3_000, 8_000, None))},
    "truncate": {"count": _COUNT},
    "broker crash": {"for_ms": _LASTS},
    "broker pause": {"for_ms": _LASTS},
    "broker restart": {"for_ms": _LASTS},
}


def steps(
    *,
    members: Sequence[str] = (FIRST_MEMBER,),
    groups: Sequence[str] = (),
    topics: Sequence[TopicSpec] = (TopicSpec(TOPICS[0], 1),),
    brokers: int = 1,
    kinds: Sequence[str] = STEPS,
    min_at: Duration = "500ms",
    max_at: Duration = "20s",
    events: bool = True,
) -> st.SearchStrategy[StepSpec]:
    """One thing that is done to a member, a group, a topic or a broker of these.

    `kinds` are those of `ksim.fuzz.kinds.STEPS`. Some are done at an event of the protocol rather
    than at a time, unless `events` is false. `groups` are those of the members if left out; the
    next member of one is what "start" starts.
    """
    known = own_names("members", members)
    owners = own_names("groups", groups) if groups else _groups_of(known)
    chosen = among("kinds", kinds, STEPS)
    check_count("brokers", brokers, 1)
    first_ms = ms_of("min_at", min_at)
    last_ms = ms_of("max_at", max_at)
    if not topics or not all(isinstance(each, TopicSpec) for each in topics):
        raise InvalidArgument(f"topics={topics!r}: at least one TopicSpec, and nothing else")
    if first_ms > last_ms:
        raise InvalidArgument(f"min_at={min_at!r}, max_at={max_at!r}: the first is after the last")
    targets = _targets(known, owners, tuple(topics), brokers)
    return _steps(chosen, targets, tuple(topics), known, (first_ms, last_ms), events)


def _groups_of(members: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition("-")[0] for name in members))


def _targets(
    members: tuple[str, ...], groups: tuple[str, ...], topics: tuple[TopicSpec, ...], brokers: int
) -> dict[str, tuple[str, ...]]:
    """Whom each kind of step may befall."""
    nodes = tuple(f"broker-{number}" for number in range(1, brokers + 1))
    started = [
        f"{group}-{1 + sum(name.rpartition('-')[0] == group for name in members)}"
        for group in groups
    ]
    by_kind = {
        "node": members,
        "member": members,
        "group": groups,
        "topic": tuple(topic.name for topic in topics),
        "new topic": (NEW_TOPIC,),
        "broker": (ALL_BROKERS,),
    }
    found = {do: by_kind[STEP_TARGETS.get(do, "node")] for do in STEPS}
    found["start"] = tuple(started)
    for do in STEPS:
        if do.startswith(BROKER_STEP):
            found[do] = (*nodes, COORDINATOR)
    return found


@st.composite
def _steps(
    draw: st.DrawFn,
    kinds: tuple[str, ...],
    targets: dict[str, tuple[str, ...]],
    topics: tuple[TopicSpec, ...],
    members: tuple[str, ...],
    between_ms: tuple[int, int],
    events: bool,
) -> StepSpec:
    kind = draw(pick(kinds))
    target = draw(pick(targets[kind]))
    fields = {name: draw(each) for name, each in FIELDS.get(kind, {}).items()}
    if kind == "delete_topic":
        fields["count"] = next(topic.partitions for topic in topics if topic.name == target)
    do = kind.removeprefix(BROKER_STEP)
    if events and draw(pick((False, False, True))):
        after_ms = draw(pick((0, 1, 300)))
        return StepSpec(None, do, target, on=draw(_events(members)), after_ms=after_ms, **fields)
    first_ms, last_ms = between_ms
    first = -(-first_ms // GRID_MS)
    ticks = draw(st.integers(first, max(first, last_ms // GRID_MS)))
    return StepSpec(min(ticks * GRID_MS, last_ms), do, target, **fields)


@lru_cache(maxsize=100)
def _events(members: tuple[str, ...]) -> st.SearchStrategy[EventSpec]:
    return st.builds(
        EventSpec,
        pick(DIRECTIONS),
        pick(REQUESTS),
        pick((None, *members)),
        st.integers(1, 6),
    )
