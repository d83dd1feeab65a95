"""How a consumer does, as one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

from ksim.consumer.engine import Engine
from ksim.consumer.observed import Histogram, Progress
from ksim.core.values import TopicPartition


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """Where one owned partition stands. Offsets are the next one to handle; None: not known.

    `unmoved_ms`: how long nothing of it was handed out. `buffered` records wait to be.
    """

    topic: str
    partition: int
    position: int | None
    marked: int | None
    committed: int | None
    high_watermark: int | None
    lag: int | None
    unmoved_ms: int
    buffered: int


@dataclass(frozen=True, slots=True)
class Health:
    """How a consumer does; `reason` is of its last rebalance.

    `alive`: the owner runs, and looked up `loop_age_ms` ago. `ready`: it has joined and knows its
    partitions, which may be none. `heartbeat_age_ms`: since the group last confirmed it (None:
    never); `poll_age_ms`: since the user's thread last called in, 0 while it waits inside a call.
    """

    alive: bool
    loop_age_ms: int
    ready: bool
    state: str
    member_id: str
    generation_id: int
    reason: str
    heartbeat_age_ms: int | None
    poll_age_ms: int
    partitions: tuple[PartitionHealth, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """A histogram: how many took at most each bound, and in the last place longer than all."""

    bounds_ms: tuple[int, ...]
    counts: tuple[int, ...]
    sum_ms: int


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """What was counted of one partition, over all times that this consumer had it.

    `backpressure_ms`: how long it was not fetched because what was buffered was not handled yet.
    `unowned_ms`: how long it was nobody's between two times here, `returns` of them.
    """

    topic: str
    partition: int
    records: int
    bytes: int
    backpressure_ms: int
    returns: int
    unowned_ms: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """All that metrics need, of one instant."""

    group_id: str
    client_id: str
    health: Health
    partitions: tuple[PartitionCounts, ...]
    rebalances: dict[str, int]
    rebalance_times: Timing
    commits: dict[str, int]
    commit_times: Timing
    errors: dict[str, int]
    recorded_bytes: int
    recording_dropped: int


def continued(before: Statistics, now: Statistics) -> Statistics:
    """What a consumer tells that goes on where another one has ended: counters never go back."""
    return replace(
        now,
        partitions=_both(before.partitions, now.partitions),
        rebalances=_sum(before.rebalances, now.rebalances),
        rebalance_times=_longer(before.rebalance_times, now.rebalance_times),
        commits=_sum(before.commits, now.commits),
        commit_times=_longer(before.commit_times, now.commit_times),
        errors=_sum(before.errors, now.errors),
        recorded_bytes=before.recorded_bytes + now.recorded_bytes,
        recording_dropped=before.recording_dropped + now.recording_dropped,
    )


def _sum(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return dict(Counter(before) + Counter(now))


def _longer(before: Timing, now: Timing) -> Timing:
    counts = tuple(map(sum, zip(before.counts, now.counts, strict=True)))
    return Timing(now.bounds_ms, counts, before.sum_ms + now.sum_ms)


def _both(
    before: Iterable[PartitionCounts], now: Iterable[PartitionCounts]
) -> tuple[PartitionCounts, ...]:
    found = {(each.topic, each.partition): each for each in before}
    for each in now:
        place = each.topic, each.partition
        other = found.get(place, PartitionCounts(*place, 0, 0, 0, 0, 0))
        numbers = zip(astuple(other)[2:], astuple(each)[2:], strict=True)
        found[place] = PartitionCounts(*place, *map(sum, numbers))
    return tuple(found.values())


def health_of(engine: Engine) -> Health:
    """Holding the driver's lock."""
    now_ms = engine.driver.now_ms()
    partitions = tuple(_partition(engine, tp, now_ms) for tp in sorted(engine.streams))
    return replace(glance_at(engine), partitions=partitions)


def glance_at(engine: Engine) -> Health:
    """The same but for partitions; without the lock, which may be held for long."""
    now_ms = engine.driver.now_ms()
    seen, pulse = engine.observed, engine.driver.pulse()
    return Health(
        alive=pulse.alive,
        loop_age_ms=pulse.age_ms,
        ready=seen.ready and pulse.alive,
        state="CLOSED" if seen.closed else str(seen.state),
        member_id=seen.member_id,
        generation_id=seen.generation_id,
        reason=seen.reason,
        heartbeat_age_ms=None if seen.confirmed_ms < 0 else now_ms - seen.confirmed_ms,
        poll_age_ms=0 if engine.waiting else now_ms - engine.polled_ms,
        partitions=(),
    )


def statistics_of(engine: Engine, group_id: str, client_id: str) -> Statistics:
    """Holding the driver's lock."""
    seen, now_ms = engine.observed, engine.driver.now_ms()
    return Statistics(
        group_id=group_id,
        client_id=client_id,
        health=health_of(engine),
        partitions=tuple(_counts(tp, found, now_ms) for tp, found in seen.partitions.items()),
        rebalances=dict(seen.rebalances),
        rebalance_times=_timing(seen.rebalance_times),
        commits=dict(seen.commits),
        commit_times=_timing(seen.commit_times),
        errors=dict(seen.errors),
        recorded_bytes=sum(each.recorded_bytes for each in engine.recorders),
        recording_dropped=sum(each.recording_dropped for each in engine.recorders),
    )


def _timing(found: Histogram) -> Timing:
    return Timing(tuple(found.bounds_ms), tuple(found.counts), found.sum_ms)


def _counts(tp: TopicPartition, found: Progress, now_ms: int) -> PartitionCounts:
    since_ms = now_ms - found.buffered_ms if found.buffered_ms >= 0 else 0
    return PartitionCounts(
        *tp, found.records, found.bytes, found.backpressure_ms + since_ms, found.returns,
        found.unowned_ms,
    )  # fmt: skip


def _partition(engine: Engine, tp: TopicPartition, now_ms: int) -> PartitionHealth:
    progress = engine.observed.partitions[tp]
    stream = engine.streams[tp]
    # What was handed out since the last batch was drained is known here alone.
    handed_out = stream.last_out + 1 if stream.last_out >= 0 else -1
    marked = max(progress.mark, stream.mark + 1 if stream.mark >= 0 else -1)
    return PartitionHealth(
        topic=tp.topic,
        partition=tp.partition,
        position=_known(max(progress.position, handed_out)),
        marked=_known(marked),
        committed=_known(progress.committed),
        high_watermark=_known(progress.high_watermark),
        lag=engine.news.lag((stream,)).get(tp),
        unmoved_ms=now_ms - max(progress.moved_ms, stream.moved_ms),
        buffered=len(stream.queue),
    )


def _known(offset: int) -> int | None:
    return None if offset < 0 else offset
