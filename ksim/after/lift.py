"""Recordings to a scenario: what the network, the brokers and the handlers did becomes steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ksim.after.cast import Part, groups_of
from ksim.after.lives import Exchange
from ksim.after.surroundings import (
    cluster_of,
    handler_cost_ms,
    hangs_of,
    latency_of,
    load_of,
    nodes_of,
    topics_of,
)
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator_hash import group_partition
from ksim.core.errors import ConfigError, KafkaError, error_name
from ksim.core.member import Member
from ksim.core.trace import plain
from ksim.scenario import FaultSpec, GroupSpec, Scenario, StepSpec
from ksim.scenario_spec import ERRORS, REQUESTS

# What every group says to its members now and then.
OF_COURSE: Final = (
    ("JoinGroup", KafkaError.MEMBER_ID_REQUIRED),
    ("Heartbeat", KafkaError.REBALANCE_IN_PROGRESS),
    ("OffsetCommit", KafkaError.REBALANCE_IN_PROGRESS),
)
SLOW_MS: Final = 40
DAY_MS: Final = 86_400_000
LONGEST_MS: Final = 7 * DAY_MS
WAITS: Final = (m.JoinGroupRequest, m.SyncGroupRequest, m.FetchRequest)


@dataclass(frozen=True, slots=True)
class Draft:
    """A scenario, and the faults that may or may not be needed: each explains one thing seen."""

    scenario: Scenario
    doubtful: tuple[FaultSpec | StepSpec, ...]


def draft_of(cast: Sequence[Part], name: str) -> Draft:
    """What can be read directly; what is doubtful is left out of the scenario."""
    groups = groups_of(cast)
    until_ms = max(part.end_ms for part in cast)
    if until_ms > LONGEST_MS:
        longest = f"{LONGEST_MS // DAY_MS} days"
        raise ConfigError(f"{name}: {until_ms // DAY_MS} days are too long to be lifted: {longest}")
    topics, grown = topics_of(cast)
    cost_ms = handler_cost_ms(cast)
    groups = tuple(replace(group, handler_cost_ms=(cost_ms, cost_ms)) for group in groups)
    nodes = _renumbered(cast, groups)
    steps = [*_lives(cast, groups, until_ms), *_pauses(cast), *grown, *_moves(cast, nodes)]
    steps += _outages(cast, nodes)
    for part in cast:
        for at_ms, for_ms in hangs_of(part, cost_ms):
            steps.append(StepSpec(at_ms, "poll_gap", part.name, for_ms=for_ms))
    steps = [
        step if step.for_ms is None else replace(step, for_ms=min(step.for_ms, until_ms))
        for step in steps
        if 0 <= (step.at_ms or 0) < until_ms
    ]
    scenario = Scenario(
        name=name,
        until_ms=until_ms,
        cluster=cluster_of(cast),
        topics=topics,
        groups=groups,
        produce=load_of(cast, topics),
        steps=tuple(sorted(steps, key=lambda step: step.at_ms or 0)),
        faults=tuple(_slow(cast)),
    )
    return Draft(scenario, tuple(_doubtful(cast, nodes)))


# Lives


def _lives(cast: Sequence[Part], groups: Sequence[GroupSpec], until_ms: int) -> Iterator[StepSpec]:
    """Starts, ends in order, and crashes."""
    initial = {group.member(n) for group in groups for n in range(1, group.members + 1)}
    for part in cast:
        following = [p for p in cast if p.name == part.name and p.turn == part.turn + 1]
        if part.turn > 1 or part.name not in initial:
            yield StepSpec(part.start_ms, "start", part.name)
        closes = [s for s in part.life.steps if isinstance(s.fact, e.CloseRequested)]
        if closes:
            yield StepSpec(closes[0].at_ms + part.shift_ms, "stop", part.name)
        elif following or part.end_ms + _silence_ms(part) < until_ms:
            yield StepSpec(part.end_ms + 1, "crash", part.name)


def _silence_ms(part: Part) -> int:
    """A member that lives says something in so long."""
    config = part.life.state.config
    return 2 * max(config.heartbeat_interval_ms, config.fetch_max_wait_ms) + 1_000


def _pauses(cast: Sequence[Part]) -> Iterator[StepSpec]:
    """A process that comes late to its own timer has stood still.

    For less than the time between two heartbeats that changes nothing.
    """
    for part in cast:
        most_ms = part.life.state.config.heartbeat_interval_ms
        member = Member.restore(plain(part.life.state))
        before_ms = part.life.first_ms
        for step in part.life.steps:
            due_ms = member.deadline_ms
            if due_ms is not None and step.at_ms - max(due_ms, before_ms) > most_ms:
                at_ms = before_ms + 1 + part.shift_ms
                for_ms = step.at_ms + part.shift_ms - at_ms
                yield StepSpec(at_ms, "pause", part.name, for_ms=for_ms)
            try:
                member.step(step.fact, now_ms=step.at_ms)
            except Exception:  # noqa: BLE001 - recorded by another machine, or of no machine
                break  # from here on nothing is known
            before_ms = step.at_ms


# Brokers


def _renumbered(cast: Sequence[Part], groups: Sequence[GroupSpec]) -> dict[int, int]:
    """Brokers count from 1, and the first group's coordinator is where the simulator puts it."""
    nodes = nodes_of(cast)
    found = {node: at for at, node in enumerate(nodes, 1)}
    first = next((node for _, node, _ in _coordinators(cast, groups[0].id)), nodes[0])
    wanted = 1 + group_partition(groups[0].id) % len(nodes)
    other = next(node for node, at in found.items() if at == wanted)
    if first in found:
        found[first], found[other] = found[other], found[first]
    return found


def _coordinators(cast: Sequence[Part], group_id: str) -> list[tuple[int, int, int]]:
    """(when it was asked for, node, when it was told), in order of time."""
    found = [
        (each.sent_ms + part.shift_ms, each.response.node_id, each.ended_ms + part.shift_ms)
        for part in cast
        if part.life.group_id == group_id
        for each in part.life.of_kind(m.FindCoordinatorRequest)
        if isinstance(each.response, m.FindCoordinatorResponse) and each.ended_ms is not None
        if each.response.error_code == 0
    ]
    return sorted(found, key=lambda each: each[2])


def _moves(cast: Sequence[Part], nodes: dict[int, int]) -> Iterator[StepSpec]:
    """A coordinator that is somewhere else, though its broker has not gone."""
    gone = _gone(cast)
    for group_id in dict.fromkeys(part.life.group_id for part in cast):
        before = -1
        for asked_ms, node, _ in _coordinators(cast, group_id):
            if before not in (-1, node) and not _is_gone(gone, before, asked_ms):
                at_ms = max(0, _noticed_ms(cast, group_id, before, asked_ms) - 5)
                yield StepSpec(at_ms, "move_coordinator", group_id, f"broker-{nodes[node]}")
            before = node


def _noticed_ms(cast: Sequence[Part], group_id: str, node: int, until_ms: int) -> int:
    """When the old one was first heard to be none, or the answer that is nearest to that."""
    codes = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    found = [
        (each.ended_ms or 0) + part.shift_ms
        for part in cast
        if part.life.group_id == group_id
        for each in part.life.exchanges
        if each.node_id == node and _code(each) in codes
        if until_ms - 30_000 < (each.ended_ms or 0) + part.shift_ms <= until_ms
    ]
    return min(found, default=until_ms)


def _code(each: Exchange) -> int:
    parts = (item.error_code for item in getattr(each.response, "partitions", ()))
    return each.error_code or next((code for code in parts if code), 0)


Gone = dict[int, list[tuple[int, int]]]


def _gone(cast: Sequence[Part]) -> Gone:
    """When connections to a broker broke or were refused, up to its next answer to anyone."""
    broken: dict[int, list[int]] = defaultdict(list)
    answered: dict[int, list[int]] = defaultdict(list)
    for part in cast:
        for each in part.life.exchanges:
            if each.ended_ms is None:
                continue
            at_ms = each.ended_ms + part.shift_ms
            if each.response is not None:
                answered[each.node_id].append(at_ms)
            elif not (each.reason or "").startswith("no answer"):
                broken[each.node_id].append(at_ms)
    found: Gone = defaultdict(list)
    for node, times in broken.items():
        for at_ms in sorted(times):
            back_ms = min((a for a in answered[node] if a > at_ms), default=1 << 40)
            spans = found[node]
            if not spans or at_ms > spans[-1][1]:
                spans.append((at_ms, back_ms))
    return found


def _is_gone(gone: Gone, node: int, at_ms: int) -> bool:
    return any(first - 50 <= at_ms <= last for first, last in gone.get(node, ()))


def _outages(cast: Sequence[Part], nodes: dict[int, int]) -> Iterator[StepSpec]:
    """A broker whose connections all broke at once was down until it answered again."""
    members = {part.name for part in cast}
    for node, spans in sorted(_gone(cast).items()):
        for first_ms, back_ms in spans:
            hit = {
                part.name
                for part in cast
                for each in part.life.exchanges
                if each.node_id == node and each.reason is not None
                if 0 <= (each.ended_ms or 0) + part.shift_ms - first_ms < SLOW_MS
            }
            if node not in nodes or (len(hit) < 2 and len(members) > 1):
                continue
            lasts_ms = max(1, back_ms - first_ms - 10) if back_ms < 1 << 40 else None
            yield StepSpec(first_ms, "crash", f"broker-{nodes[node]}", for_ms=lasts_ms)


# Messages


def _numbered(cast: Sequence[Part]) -> Iterator[tuple[Part, Exchange, str, int]]:
    """Each request with its kind and its number among those of its member."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for part in cast:
        for each in part.life.exchanges:
            kind = type(each.request).__name__.removesuffix("Request")
            counts[part.name, kind] += 1
            if kind in REQUESTS:
                yield part, each, kind, counts[part.name, kind]


def _slow(cast: Sequence[Part]) -> Iterator[FaultSpec]:
    """Answers that came late, though the member did not stand still and nothing else waits so."""
    usual_ms = 2 * latency_of(cast)[1]
    pauses = [(p.target, p.at_ms or 0, (p.at_ms or 0) + (p.for_ms or 0)) for p in _pauses(cast)]
    for part, each, kind, nth in _numbered(cast):
        if each.response is None or each.ended_ms is None or isinstance(each.request, WAITS):
            continue
        over_ms = each.ended_ms - each.sent_ms - usual_ms
        sent_ms, ended_ms = each.sent_ms + part.shift_ms, each.ended_ms + part.shift_ms
        still = any(n == part.name and a < ended_ms and sent_ms < b for n, a, b in pauses)
        if over_ms > SLOW_MS and not still:
            yield FaultSpec("response", kind, part.name, nth, "delay", None, over_ms)


def _doubtful(cast: Sequence[Part], nodes: dict[int, int]) -> Iterator[FaultSpec | StepSpec]:
    """What may explain a refusal or a request without an answer.

    A refusal that comes again and again is one, and those behind it are counted so.
    """
    gone = _gone(cast)
    last: dict[tuple[str, str], int] = {}
    again: Counter[tuple[str, str]] = Counter()
    for part, each, kind, number in _numbered(cast):
        key, code, reason = (part.name, kind), _code(each), each.reason
        refused = code > 0 and (kind, code) not in OF_COURSE
        again[key] += refused and last.get(key) == code
        nth = number - again[key]
        if refused and last.get(key) != code and error_name(code) in ERRORS:
            yield FaultSpec("request", kind, part.name, nth, "error", error_name(code))
        last[key] = code
        if reason is None or _is_gone(gone, each.node_id, each.sent_ms + part.shift_ms):
            continue
        if reason.startswith("no answer"):
            yield FaultSpec("response", kind, part.name, nth, "drop", None)
            yield FaultSpec("request", kind, part.name, nth, "drop", None)
        else:
            yield FaultSpec("response", kind, part.name, nth, "disconnect", None)
    yield from _cuts(cast, nodes)
    yield from _refusing(cast)


def _refusing(cast: Sequence[Part]) -> Iterator[StepSpec]:
    """A coordinator that stays where it is and is not available cannot write its log."""
    for group_id in dict.fromkeys(part.life.group_id for part in cast):
        refused = sorted(
            (each.sent_ms + part.shift_ms, (each.ended_ms or 0) + part.shift_ms)
            for part in cast
            for each in part.life.exchanges
            if part.life.group_id == group_id
            and isinstance(each.request, m.SyncGroupRequest | m.OffsetCommitRequest)
            and _code(each) == KafkaError.COORDINATOR_NOT_AVAILABLE
        )
        if refused:
            first_ms = max(0, refused[0][0] - 1)
            for_ms = max(ended for _, ended in refused) + 1 - first_ms
            yield StepSpec(first_ms, "refuse_offsets_log", group_id, for_ms=for_ms)


def _cuts(cast: Sequence[Part], nodes: dict[int, int]) -> Iterator[StepSpec]:
    """A member that had no answer from a broker for a while was cut from it."""
    for part in cast:
        by_node: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
        for each in part.life.exchanges:
            if each.ended_ms is not None:
                lost = each.response is None and (each.reason or "").startswith("no answer")
                times = each.sent_ms + part.shift_ms, each.ended_ms + part.shift_ms
                by_node[each.node_id].append((*times, lost))
        for node, found in sorted(by_node.items()):
            if node not in nodes:
                continue
            for first_ms, last_ms in _spans(sorted(found)):
                peer = f"broker-{nodes[node]}"
                for_ms = last_ms - first_ms
                yield StepSpec(first_ms, "partition", part.name, peer, for_ms)


def _spans(found: Sequence[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    """From before the first that was lost to before the first that was not."""
    first_ms = last_ms = None
    for sent_ms, _, lost in found:
        if lost and first_ms is None:
            first_ms = sent_ms - 1
        elif not lost and first_ms is not None and last_ms is not None:
            yield max(0, first_ms), max(last_ms + 10, sent_ms - 5)
            first_ms = None
        if lost:
            last_ms = sent_ms
    if first_ms is not None and last_ms is not None:
        yield max(0, first_ms), last_ms + 10
