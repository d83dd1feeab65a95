"""Strategies for what a scenario has before anything goes wrong: clusters, topics, groups, load.

What is drawn first is the simplest: Hypothesis shrinks towards the first of each table here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ksim.fuzz.kinds import WAYS
from ksim.scenario import (
    CallbackSpec,
    ClusterSpec,
    GroupSpec,
    HandlerFailure,
    HandlerHang,
    MemberSpec,
    ProduceSpec,
    TopicSpec,
)
from ksim.strategies.bounds import (
    MOST_RECORDS,
    Duration,
    among,
    check_count,
    check_range,
    ms_of,
    own_names,
    pick,
)

TOPICS: Final = ("orders", "payments", "views")
GROUPS: Final = ("g", "h", "i")
# Two processes of one instance are a mistake of whoever starts them: only where asked for.
USUAL_WAYS: Final = tuple(way for way in WAYS if way != "one instance twice")
MOST_WAYS: Final = 2
SESSIONS_MS: Final = (6_000, 10_000)
REBALANCES_MS: Final = (None, 3_000, 15_000)
LATENCIES_MS: Final = ((1, 5), (1, 1), (1, 20), (5, 100), (1, 400))
DELAYS_MS: Final = (0, 100, 3_000)
# What a group may have otherwise than by default, whatever else it does.
SETTINGS: Final[dict[str, tuple[Any, ...]]] = {
    "assignor": ("range", "roundrobin"),
    "max_poll_interval_ms": (300_000, 15_000),
    "commit_interval_ms": (1_000, 200, 50, 5_000),
    "dwell_time_ms": (None, 200),
    "handler_cost_ms": ((0, 0), (1, 5), (5, 50), (10, 500)),
    "fetch_max_wait_ms": (500, 5_000, 100),
    "start_every_ms": (0, 500, 5_000),
    "metadata_max_age_ms": (300_000, 5_000),
}


def topics(
    *,
    names: Sequence[str] = TOPICS[:1],
    min_topics: int = 1,
    min_partitions: int = 1,
    max_partitions: int = 4,
) -> st.SearchStrategy[tuple[TopicSpec, ...]]:
    """The first `min_topics` or more of these names, each with its number of partitions.

    Raises InvalidArgument, as all strategies here do, for bounds that nothing can fulfil.
    """
    found = own_names("names", names)
    check_range("partitions", min_partitions, max_partitions, 1)
    check_range("topics", min_topics, len(found), 1)
    counts = st.integers(min_partitions, max_partitions)
    each = st.lists(counts, min_size=min_topics, max_size=len(found))
    # By name, as a file has them.
    return each.map(lambda many: tuple(map(TopicSpec, sorted(found[: len(many)]), many)))


def _is_latency(found: object) -> bool:
    match found:
        case [int(low), int(high)]:
            return 0 <= low <= high
        case _:
            return False


def clusters(
    *,
    min_brokers: int = 1,
    max_brokers: int = 3,
    max_loss: float = 0.0,
    latencies_ms: Sequence[tuple[int, int]] = LATENCIES_MS,
    full_groups: bool = False,
) -> st.SearchStrategy[ClusterSpec]:
    """Brokers, links and the coordinator's delay; with `full_groups` also too small groups.

    `max_loss` is the share of messages that may be lost, 0.02 at most: above that a group hardly
    forms, and nothing is learnt.
    """
    check_range("brokers", min_brokers, max_brokers, 1)
    if not isinstance(max_loss, (int, float)) or not 0 <= max_loss <= MOST_LOSS:
        raise InvalidArgument(f"max_loss={max_loss!r}: a share from 0 to {MOST_LOSS}")
    if (
        not isinstance(latencies_ms, Sequence)
        or not latencies_ms
        or not all(map(_is_latency, latencies_ms))
    ):
        raise InvalidArgument(f"latencies_ms={latencies_ms!r}: pairs of ms, the lower one first")
    losses = sorted({0.0, max_loss / 4, max_loss})
    return st.builds(
        ClusterSpec,
        brokers=st.integers(min_brokers, max_brokers),
        initial_rebalance_delay_ms=st.sampled_from(DELAYS_MS),
        latency_ms=st.sampled_from([tuple(pair) for pair in latencies_ms]),
        loss=st.sampled_from(losses),
        group_max_size=st.sampled_from((None, None, None, 4, 2)) if full_groups else st.none(),
    )


MOST_LOSS: Final = 0.02


def subscriptions(
    *, topics: Sequence[str] = TOPICS[:1], patterns: bool = True
) -> st.SearchStrategy[dict[str, Any]]:
    """What is read, as the keywords that Config, GroupSpec and MemberSpec share.

    `topics`, or with `patterns` also `topics_whitelist` and `topics_blacklist`; every one takes
    some of these topics: `GroupSpec("g", **drawn)`.
    """
    return _subscriptions(own_names("topics", topics), patterns=patterns)


@lru_cache(maxsize=100)
def _subscriptions(known: tuple[str, ...], *, patterns: bool) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(st.sampled_from(known), min_size=1, unique=True)
    named = some.map(lambda each: {"topics": tuple(name for name in known if name in each)})
    if not patterns:
        return named
    found: list[st.SearchStrategy[dict[str, Any]]] = [named, st.just(_by_pattern("."))]
    if len(known) > 1:
        found.append(st.sampled_from(known).map(lambda name: _by_pattern(".", f"^{name}$")))
    found.append(st.sampled_from(known).map(lambda name: _by_pattern(f"^{name[0]}")))
    return st.one_of(found)


def _by_pattern(whitelist: str, blacklist: str | None = None) -> dict[str, Any]:
    without = {} if blacklist is None else {"topics_blacklist": blacklist}
    return {"topics": (), "topics_whitelist": whitelist, **without}


def members(*, group: GroupSpec) -> st.SearchStrategy[MemberSpec]:
    """One of the group's members that differs from it, for its `overrides`."""
    if not isinstance(group, GroupSpec):
        raise InvalidArgument(f"group={group!r}: a GroupSpec, as groups() draws it")
    slowest_ms = group.heartbeat_interval_ms
    sessions = [ms for ms in SESSIONS_MS if ms >= 3 * slowest_ms]
    return st.builds(
        MemberSpec,
        st.integers(1, group.members),
        session_timeout_ms=st.sampled_from((None, *sessions)),
        max_poll_interval_ms=st.sampled_from((None, 15_000)),
        commit_interval_ms=st.sampled_from((None, 100, 3_000)),
        handler_cost_ms=st.sampled_from((None, (10, 300))),
        metadata_max_age_ms=st.sampled_from((None, 2_000)),
    )


def groups(
    *,
    id: str = GROUPS[0],  # noqa: A002 - as GroupSpec has it
    topics: Sequence[str] = TOPICS[:1],
    min_members: int = 1,
    max_members: int = 3,
    ways: Sequence[str] = USUAL_WAYS,
    max_ways: int = MOST_WAYS,
) -> st.SearchStrategy[GroupSpec]:
    """A group of members that read some of these topics, in up to `max_ways` unusual ways.

    Ways are those of `ksim.fuzz.kinds.WAYS`: "workers", "patterns", "callbacks" and so on.
    """
    own_names("id", (id,))
    known = own_names("topics", topics)
    check_range("members", min_members, max_members, 1)
    check_count("max_ways", max_ways)
    chosen = among("ways", ways, WAYS, least=0)
    return _groups(id, known, min_members, max_members, chosen, max_ways)


@lru_cache(maxsize=100)
@st.composite
def _groups(
    draw: st.DrawFn,
    name: str,
    known: tuple[str, ...],
    least: int,
    most: int,
    ways: tuple[str, ...],
    max_ways: int,
) -> GroupSpec:
    session_ms = draw(pick(SESSIONS_MS))
    rebalance_ms = draw(pick(REBALANCES_MS))
    slowest_ms = min(session_ms, rebalance_ms or session_ms) // 3
    found: dict[str, Any] = {
        "members": draw(st.integers(least, most)),
        "session_timeout_ms": session_ms,
        "rebalance_timeout_ms": rebalance_ms,
        "heartbeat_interval_ms": draw(pick((slowest_ms, min(1_000, slowest_ms)))),
        **draw(_subscriptions(known, patterns=False)),
        **draw(_settings()),
    }
    for way in draw(_some(ways, max_ways)):
        found |= _way(draw, way, GroupSpec(name, **found), known)
    return GroupSpec(name, **found)


@lru_cache(maxsize=1)
def _settings() -> st.SearchStrategy[dict[str, Any]]:
    optional = {name: pick(values) for name, values in SETTINGS.items()}
    return st.fixed_dictionaries({}, optional=optional)


@lru_cache(maxsize=100)
def _some(ways: tuple[str, ...], most: int) -> st.SearchStrategy[list[str]]:
    """Some ways that go together, in the order of the table."""
    if not ways or not most:
        return st.just([])

    def together(chosen: list[str]) -> list[str]:
        alone = "partitions" in chosen
        kept = [way for way in chosen if not (alone and way in ("each", "workers"))]
        return sorted(dict.fromkeys(kept), key=WAYS.index)

    # Not `unique`: what is drawn of a list would hang on what was drawn before it.
    return st.lists(pick(ways), max_size=most).map(together)


# What a way of `WAYS` is in the terms of a group; those that need to know more follow below.
PLAIN_WAYS: Final[dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "static": st.just({"instance_ids": True}),
    "each": st.just({"acknowledge": "each"}),
    "workers": st.integers(2, 4).map(lambda count: {"acknowledge": "each", "workers": count}),
    "partitions": st.just({"mode": "partitions"}),
    "commit each": st.just({"commit": "each"}),
    "two assignors": st.just({"assignors": ("range", "roundrobin")}),
    "slow handler": st.just({"handler_cost_ms": (500, 3_000)}),
    "failing handler": st.just({"handler_fails": HandlerFailure(every=7, times=2)}),
    "hanging handler": st.builds(
        lambda nth, ms: {"handler_hangs": HandlerHang(nth, ms)},
        st.integers(1, 30),
        pick((3_000, 20_000)),
    ),
    "short requests": pick((10_000, 3_000, 1_000)).map(lambda ms: {"request_timeout_ms": ms}),
    "short polls": pick((2_000, 100)).map(lambda ms: {"poll_timeout_ms": ms}),
    "latest": st.just({"auto_offset_reset": "latest"}),
}
DRAWN_WAYS: Final = ("patterns", "callbacks", "unlike members", "one instance twice")


def _way(draw: st.DrawFn, way: str, group: GroupSpec, known: tuple[str, ...]) -> dict[str, Any]:
    match way:
        case "patterns":
            return draw(_subscriptions(known, patterns=True))
        case "callbacks":
            kinds = ("on_assigned", "on_revoked", "on_lost")
            return {kind: draw(_callbacks(kind)) for kind in draw(_some_of(kinds))}
        case "unlike members":
            return {"overrides": (draw(members(group=group)),)}
        case "one instance twice":
            numbers = (1, 2) if group.members > 1 else ()
            twins = (MemberSpec(number, instance_id=f"{group.id}-both") for number in numbers)
            return {"overrides": tuple(twins)}
        case _:
            return draw(PLAIN_WAYS[way])


@lru_cache(maxsize=10)
def _some_of(kinds: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(pick(kinds), min_size=1, max_size=2, unique=True)


@lru_cache(maxsize=10)
def _callbacks(kind: str) -> st.SearchStrategy[CallbackSpec]:
    back = pick((0, 3)) if kind == "on_assigned" else st.just(0)
    return st.builds(
        CallbackSpec,
        pick((0, 200, 2_000)),
        commit=st.booleans(),
        seek_back=back,
        raises=st.booleans(),
    )


def loads(
    *,
    topic: str = TOPICS[0],
    min_records: int = 1,
    max_records: int = 40,
    within: Duration = "20s",
) -> st.SearchStrategy[ProduceSpec]:
    """So many records into a topic, all within this time: over all of it, or faster."""
    own_names("topic", (topic,))
    check_range("records", min_records, max_records, 1, MOST_RECORDS)
    seconds = max(1, ms_of("within", within, 1_000) // 1_000)

    def spread(count: int, rate: int) -> ProduceSpec:
        return ProduceSpec(topic, max(rate, -(-count // seconds)), count)

    return st.builds(spread, st.integers(min_records, max_records), pick((1, 10, 100)))
