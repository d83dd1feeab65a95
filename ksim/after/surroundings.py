"""What recordings show of the cluster that a group lived on: brokers, links, topics and load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final

from ksim.after.cast import Part, begun_within
from ksim.after.lives import Exchange, Step, joins_of, round_of
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import ClusterSpec, ProduceSpec, StepSpec, TopicSpec

QUICK: Final = (m.HeartbeatRequest, m.FindCoordinatorRequest, m.OffsetFetchRequest)
MOST_DELAYS: Final = 8
HANG_MS: Final = 500
LOOKED_MS: Final = 1_000
MOST_RECORDS: Final = 200_000  # of a topic: some minutes of the load that one group can take


def nodes_of(cast: Sequence[Part]) -> list[int]:
    """All brokers that were named, the smallest id first."""
    found = {
        broker.node_id
        for part in cast
        for response in _answers(part, m.MetadataResponse)
        for broker in response.brokers
    }
    for state in (part.life.state for part in cast):
        found |= {node for node in (state.coordinator, *state.leaders.values()) if node >= 0}
    return sorted(found) or [1]


def _answers(part: Part, kind: type[m.MetadataResponse]) -> Iterator[m.MetadataResponse]:
    for step in part.life.steps:
        if isinstance(step.fact, e.ResponseReceived) and isinstance(step.fact.response, kind):
            yield step.fact.response


def cluster_of(cast: Sequence[Part]) -> ClusterSpec:
    usual = ClusterSpec()
    return ClusterSpec(
        brokers=len(nodes_of(cast)),
        initial_rebalance_delay_ms=_initial_delay_ms(cast),
        latency_ms=latency_of(cast),
        group_max_size=usual.group_max_size,
    )


def latency_of(cast: Sequence[Part]) -> tuple[int, int]:
    """Half of what quick requests took, without the slowest of them."""
    took = sorted(
        each.ended_ms - each.sent_ms
        for part in cast
        for each in part.life.exchanges
        if isinstance(each.request, QUICK) and each.response is not None
        if each.ended_ms is not None
    )
    if not took:
        return ClusterSpec().latency_ms
    low, high = took[len(took) // 20], took[len(took) * 3 // 4]
    return max(0, low // 2), max(1, (high + 1) // 2)


def _initial_delay_ms(cast: Sequence[Part]) -> int:
    """By how long the first round of an empty group waited.

    It waits once more for each such time in which somebody new has come.
    """
    rounds: dict[tuple[str, int, int, str], list[tuple[int, int]]] = defaultdict(list)
    for part in cast:
        for joined in joins_of(part.life):
            times = joined.sent_ms + part.shift_ms, joined.told_ms + part.shift_ms
            rounds[round_of(joined)].append(times)
    firsts = [sorted(times) for made, times in rounds.items() if made[1] == 1]
    if not firsts:
        within = any(begun_within(part.life) for part in cast)
        return 0 if within else ClusterSpec().initial_rebalance_delay_ms
    first = min(firsts, key=lambda each: each[0])
    wait_ms = min(told for _, told in first) - first[0][0]
    for count in range(1, MOST_DELAYS):
        delay_ms = wait_ms // count
        came = {(sent - first[0][0]) // max(delay_ms, 1) for sent, _ in first[1:]}
        if count - 1 not in came and all(at in came for at in range(count - 1)):
            return _rounded(delay_ms)
    return _rounded(wait_ms)


def _rounded(ms: int) -> int:
    """Delays are set by people, and measured with the latency on top."""
    if ms < 50:
        return 0
    for unit_ms in (1_000, 500, 100):
        near = round(ms / unit_ms) * unit_ms
        if near and abs(near - ms) <= 40:
            return near
    return ms


# Topics


@dataclass(frozen=True, slots=True)
class Sight:
    """A member was told that a topic has so many partitions; it had asked at `asked_ms`."""

    asked_ms: int
    told_ms: int
    partitions: int


def sights_of(cast: Sequence[Part]) -> dict[str, list[Sight]]:
    """By topic, in order; who asked for all topics and was not told of one saw it not there.

    A recording that begins in the middle knows what its member was told before.
    """
    found: dict[str, list[Sight]] = defaultdict(list)
    for part in cast:
        for name, count in part.life.state.counts.items():
            found[name].append(Sight(part.start_ms, part.start_ms, count))
    asked = [
        (each.ended_ms + part.shift_ms, each.sent_ms + part.shift_ms, each)
        for part in cast
        for each in part.life.of_kind(m.MetadataRequest)
        if isinstance(each.response, m.MetadataResponse) and each.ended_ms is not None
    ]
    asked.sort(key=lambda item: item[:2])
    answers = [(sent_ms, told_ms, each) for told_ms, sent_ms, each in asked]
    names = {*found, *(t.topic for *_, each in answers for t in _response(each).topics)}
    for sent_ms, told_ms, each in answers:
        assert isinstance(each.request, m.MetadataRequest)
        counts = {topic.topic: len(topic.partitions) for topic in _response(each).topics}
        for name in sorted(names if each.request.topics is None else counts):
            found[name].append(Sight(sent_ms, told_ms, counts.get(name, 0)))
    return {name: sorted(sights, key=lambda each: each.told_ms) for name, sights in found.items()}


def _response(each: Exchange) -> m.MetadataResponse:
    assert isinstance(each.response, m.MetadataResponse)
    return each.response


def topics_of(cast: Sequence[Part]) -> tuple[tuple[TopicSpec, ...], list[StepSpec]]:
    """The topics of the beginning, and what became of them."""
    topics: list[TopicSpec] = []
    steps: list[StepSpec] = []
    sights = sights_of(cast)
    for name in sorted(sights):
        count = 0
        for sight in sights[name]:
            if sight.partitions == count:
                continue
            at_ms = max(0, sight.asked_ms - 1)
            first = not any(each.target == name for each in steps) and not count
            if first and sight is sights[name][0]:
                topics.append(TopicSpec(name, sight.partitions))
            elif sight.partitions == 0:
                steps.append(StepSpec(at_ms, "delete_topic", name))
            elif count == 0:
                steps.append(StepSpec(at_ms, "create_topic", name, count=sight.partitions))
            elif sight.partitions > count:
                more = sight.partitions - count
                steps.append(StepSpec(at_ms, "add_partitions", name, count=more))
            count = sight.partitions if sight.partitions > count or not sight.partitions else count
    return tuple(topics), steps


# Load


def load_of(cast: Sequence[Part], topics: Sequence[TopicSpec]) -> tuple[ProduceSpec, ...]:
    """A steady load that fills the logs as far and as fast as the members saw them filled.

    Of a log that was long before, what comes after the first position of a member; and no more of
    any than can be run in a while.
    """
    marks: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    first: dict[tuple[str, int], int] = {}
    for part in cast:
        for step in part.life.steps:
            response = step.fact.response if isinstance(step.fact, e.ResponseReceived) else None
            if isinstance(response, m.FetchResponse):
                for item in response.partitions:
                    place = step.at_ms + part.shift_ms, item.partition, item.high_watermark
                    marks[item.topic].append(place)
            for asked in _fetched_from(step):
                key = asked.topic, asked.partition
                first[key] = min(asked.fetch_offset, first.get(key, asked.fetch_offset))
    known = {topic.name for topic in topics}
    found = (
        _produce(name, _since(name, sorted(seen), first))
        for name, seen in sorted(marks.items())
        if name in known
    )
    return tuple(_bounded(each) for each in found if each is not None)


def _fetched_from(step: Step) -> Iterator[m.FetchPartition]:
    for order in step.orders:
        if isinstance(order, e.SendRequest) and isinstance(order.request, m.FetchRequest):
            yield from order.request.partitions


def _since(
    topic: str, seen: Sequence[tuple[int, int, int]], first: Mapping[tuple[str, int], int]
) -> Sequence[tuple[int, int, int]]:
    """Ends of logs, from 0 on or, where they are long, from where the first member began."""
    if sum({partition: end for _, partition, end in seen}.values()) <= MOST_RECORDS:
        return seen
    return [
        (at_ms, partition, max(0, end - first.get((topic, partition), 0)))
        for at_ms, partition, end in seen
    ]


def _bounded(found: ProduceSpec) -> ProduceSpec:
    if found.count <= MOST_RECORDS:
        return found
    return replace(found, count=MOST_RECORDS, per_second=min(found.per_second, MOST_RECORDS))


def _produce(topic: str, seen: Sequence[tuple[int, int, int]]) -> ProduceSpec | None:
    """Steady from some time on: as fast as the logs grew while somebody looked at all of them."""
    ends: dict[int, int] = {}
    totals: list[tuple[int, int]] = []
    partitions = len({partition for _, partition, _ in seen})
    for at_ms, partition, end in seen:
        ends[partition] = max(ends.get(partition, 0), end)
        if len(ends) == partitions:
            totals.append((at_ms, sum(ends.values())))
    count = totals[-1][1]
    if count <= 0:
        return None
    last_ms = next(at_ms for at_ms, total in totals if total == count)
    growing = [each for each in totals if 0 < each[1] <= max(count * 9 // 10, totals[0][1])]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(growing) if b[0] - a[0] <= LOOKED_MS]
    took_ms, grown = sum(ms for ms, _ in steps), sum(more for _, more in steps)
    if grown <= 0:
        (first_ms, before), (until_ms, after) = totals[0], (last_ms, count)
        took_ms, grown = max(1, until_ms - first_ms), after - before
    per_second = max(1, round(grown * 1000 / max(took_ms, 1))) if grown > 0 else count
    at_ms, total = next((t for t in totals if t[1] * 3 >= count), totals[0])
    return ProduceSpec(topic, per_second, count, max(0, at_ms - total * 1000 // per_second))


# Handlers


@dataclass(frozen=True, slots=True)
class Busy:
    """The application was at work from here to there, on so many records."""

    from_ms: int
    to_ms: int
    records: int


def busy_of(part: Part) -> list[Busy]:
    found: list[Busy] = []
    since_ms, records = None, 0
    for step in part.life.steps:
        fact = step.fact
        if isinstance(fact, e.UserPolled):
            if fact.waiting and since_ms is not None:
                found.append(Busy(since_ms, fact.at_ms + part.shift_ms, records))
                since_ms, records = None, 0
            elif not fact.waiting and since_ms is None:
                since_ms = fact.at_ms + part.shift_ms
        elif isinstance(fact, e.RecordsHandedOut):
            # The last of a buffer is told just before the thread is told to have left the call.
            records += max(0, fact.last - fact.first + 1)
    return found


def handler_cost_ms(cast: Sequence[Part]) -> int:
    """What a record costs, as far as members were seen to be busy."""
    costs = [
        (busy.to_ms - busy.from_ms) / busy.records
        for part in cast
        for busy in busy_of(part)
        if busy.records
    ]
    return round(median(costs)) if costs else 0


def hangs_of(part: Part, cost_ms: int) -> Iterator[tuple[int, int]]:
    """When the application was away for much longer than its records cost, and for how long."""
    for busy in busy_of(part):
        over_ms = busy.to_ms - busy.from_ms - busy.records * cost_ms
        if over_ms > max(HANG_MS, 2 * busy.records * cost_ms):
            yield busy.from_ms, over_ms
