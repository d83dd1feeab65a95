"""What a night of chaos shows: losses, duplicates, owners, stalls, ends. Pure: facts in, words out.

A duplicate is excused where the tenure before it ended by a kill or a stop, or while brokers were
away, and the record lies beyond what that tenure had committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from tests.chaos.members import SETTINGS, Life
from tests.chaos.plan import Act
from tests.chaos.run import Night

VALUES: Final = dict(setting.split("=") for setting in SETTINGS)
SESSION_S: Final = int(VALUES["session.timeout.ms"]) / 1_000
HEARTBEAT_S: Final = int(VALUES["heartbeat.interval.ms"]) / 1_000
STALL_S: Final = 2 * SESSION_S + HEARTBEAT_S  # the rebalance timeout is the session timeout
LAG_S: Final = 60.0
TERM_S: Final = 45.0  # `close` is bounded by 30 s
HANDED_OUT: Final = 1

Place = tuple[int, int]
# (generation, partition) -> end of what was committed; one for each assignment, in order
Commits = list[dict[int, int]]


@dataclass(slots=True)
class Tenure:
    """One partition under one assignment of one member."""

    member: str
    partition: int
    began_s: float
    ended_s: float = float("inf")
    end: str = "open"
    committed: int = 0
    handled: list[tuple[int, float]] = field(default_factory=list)


@dataclass(slots=True)
class Verdict:
    """The figures, and one sentence for each thing that must not be."""

    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def say(self, name: str, figure: Any, fault: str | None = None) -> None:
        self.figures[name] = figure
        if fault is not None:
            self.faults.append(fault)


def tenures_of(life: Life, commits: Commits) -> list[Tenure]:
    """Who owned what by the member's own events, with what it handled and had committed."""
    found: list[Tenure] = []
    owned: dict[int, Tenure] = {}
    assignment = -1
    for at_s, line in life.lines:
        event = line.get("event")
        if event == "assigned":
            assignment += 1
            done = commits[assignment] if assignment < len(commits) else {}
            for _, partition in line["partitions"]:
                owned[partition] = Tenure(life.name, partition, line["t"])
                owned[partition].committed = done.get(partition, 0)
                found.append(owned[partition])
        elif event in ("revoked", "lost"):
            for tenure in owned.values():
                _end(tenure, line["t"], event, life)
            owned = {}
        elif "offset" in line and line["partition"] in owned:
            owned[line["partition"]].handled.append((line["offset"], at_s))
    for tenure in owned.values():
        if life.killed_s is not None:
            _end(tenure, life.killed_s, "killed", life)
    return found


def _end(tenure: Tenure, at_s: float, how: str, life: Life) -> None:
    """A stop that ended in a loss ended the ownership when it began."""
    stops = [(a, b) for a, b in life.stops if tenure.began_s <= a <= at_s]
    if how == "lost" and stops and at_s - stops[-1][1] < SESSION_S:
        tenure.ended_s, tenure.end = stops[-1][0], "stopped"
    elif how == "killed" and stops and stops[-1][1] >= at_s:
        tenure.ended_s, tenure.end = min(at_s, stops[-1][0]), "killed"
    else:
        tenure.ended_s, tenure.end = at_s, how


def unowned(life: Life) -> list[str]:
    """Messages of partitions that the member did not own; one may come after a stop."""
    found: list[str] = []
    owned: set[int] = set()
    for _, line in life.lines:
        if line.get("event") == "assigned":
            owned = {partition for _, partition in line["partitions"]}
        elif line.get("event") in ("revoked", "lost"):
            owned = set()
        elif "offset" in line and line["partition"] not in owned:
            found.append(f"{life.name} wrote {line['partition']}@{line['offset']} unowned")
    return found


def late_after_stops(life: Life) -> list[str]:
    """After SIGCONT of a stop longer than the session: `lost` first, at most one record before."""
    found = []
    for stopped_s, resumed_s in life.stops:
        if resumed_s - stopped_s < SESSION_S + HEARTBEAT_S:
            continue
        after = [line for at_s, line in life.lines if at_s > resumed_s]
        at = next((i for i, line in enumerate(after) if line.get("event") == "lost"), None)
        owns = _owns_at(life, stopped_s)
        written = sum("offset" in line for line in (after if at is None else after[:at]))
        if owns and written > HANDED_OUT:
            found.append(f"{life.name} wrote {written} records after SIGCONT before `lost`")
    return found


def _owns_at(life: Life, at_s: float) -> bool:
    events = [line for when_s, line in life.lines if "event" in line and when_s <= at_s]
    sets = [line for line in events if line["event"] in ("assigned", "revoked", "lost")]
    return bool(sets) and sets[-1]["event"] == "assigned" and bool(sets[-1]["partitions"])


def overlaps(tenures: Iterable[Tenure]) -> list[tuple[float, str]]:
    """(ms, sentence) of each time that two members owned one partition."""
    by_partition: dict[int, list[Tenure]] = defaultdict(list)
    for tenure in tenures:
        by_partition[tenure.partition].append(tenure)
    found = []
    for partition, theirs in sorted(by_partition.items()):
        theirs.sort(key=lambda tenure: tenure.began_s)
        for at, first in enumerate(theirs):
            for second in theirs[at + 1 :]:
                ms = (min(first.ended_s, second.ended_s) - second.began_s) * 1_000
                if ms > 0 and first.member != second.member:
                    text = f"{partition} owned by {first.member} and {second.member}: {ms:.0f} ms"
                    found.append((ms, text))
    return found


def duplicates(
    tenures: Iterable[Tenure], outages: Iterable[tuple[float, float]]
) -> tuple[int, list[str]]:
    """How many records were handled again, and a sentence for each that nothing excuses."""
    away = [(a - SESSION_S, b + SESSION_S) for a, b in outages]
    times: dict[Place, list[tuple[float, Tenure]]] = defaultdict(list)
    for tenure in tenures:
        for offset, at_s in tenure.handled:
            # A stopped member had taken its last record before the stop, whenever it says so.
            had_s = min(at_s, tenure.ended_s) if tenure.end == "stopped" else at_s
            times[tenure.partition, offset].append((had_s, tenure))
    again, found = 0, []
    for (partition, offset), handled in sorted(times.items()):
        handled.sort(key=lambda item: item[0])
        again += len(handled) - 1
        for _, tenure in handled[:-1]:
            crashed = tenure.end in ("killed", "stopped")
            cut_off = any(a <= tenure.ended_s <= b for a, b in away)
            if offset < tenure.committed:
                found.append(f"{partition}@{offset} again though {tenure.member} committed it")
            elif not crashed and not cut_off:
                found.append(f"{partition}@{offset} again after {tenure.member}: {tenure.end}")
    return again, found


@dataclass(frozen=True, slots=True)
class Stalls:
    """Longest times without a record of a partition that has some.

    `alone_s`: outside outages of brokers, and without a member that fails meanwhile: each failure
    may take a session, a rebalance and a heartbeat of its own. `outside_s`: outside outages alone.
    """

    alone_s: float
    outside_s: float
    all_s: float


def stalls(
    tenures: Iterable[Tenure],
    acknowledged: Mapping[Place, float],
    outages: Iterable[tuple[float, float]],
    failures: Iterable[float] = (),
) -> Stalls:
    """`failures`: when a member was killed or stopped."""
    first: dict[Place, float] = {}
    for tenure in tenures:
        for offset, at_s in tenure.handled:
            place = tenure.partition, offset
            first[place] = min(at_s, first.get(place, at_s))
    gaps, failed = list(outages), sorted(failures)
    longest = outside = alone = 0.0
    by_partition: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for (partition, offset), at_s in first.items():
        by_partition[partition].append((offset, at_s))
    for partition, items in by_partition.items():
        before_s = 0.0
        for offset, at_s in sorted(items):
            from_s = max(before_s, acknowledged.get((partition, offset), at_s))
            before_s = max(before_s, at_s)
            longest = max(longest, at_s - from_s)
            if not any(from_s < b + SESSION_S and a < at_s for a, b in gaps):
                outside = max(outside, at_s - from_s)
                cuts = [from_s, *(each for each in failed if from_s < each < at_s), at_s]
                alone = max(alone, *(end - begin for begin, end in pairwise(cuts)))
    return Stalls(alone, outside, longest)


def failures_of(life: Life) -> list[float]:
    """When it was killed or stopped."""
    killed = [] if life.killed_s is None else [life.killed_s]
    return killed + [stopped_s for stopped_s, _ in life.stops]


def going_back(committed: Iterable[tuple[int, int]]) -> list[str]:
    """(partition, offset) in the order of the offsets log: sentences where one is lower."""
    last: dict[int, int] = {}
    found = []
    for partition, offset in committed:
        if offset < last.get(partition, 0):
            found.append(f"{partition}: committed {offset} after {last[partition]}")
        last[partition] = offset
    return found


def judge(night: Night, commits: Mapping[str, Commits], log: list[tuple[int, int]]) -> Verdict:
    """All of it. `commits` by member, of its recording; `log` is the group's offsets log."""
    verdict = Verdict()
    tenures = [t for life in night.lives for t in tenures_of(life, commits[life.name])]
    handled = {(t.partition, offset) for t in tenures for offset, _ in t.handled}
    lost = sorted(set(night.acknowledged) - handled)
    again, unexcused = duplicates(tenures, night.outages)
    double = overlaps(tenures)
    failures = [at_s for life in night.lives for at_s in failures_of(life)]
    stood = stalls(tenures, night.acknowledged, night.outages, failures)
    back = going_back(log)
    verdict.say("records", len(night.acknowledged), None if night.acknowledged else "no records")
    verdict.say("not acknowledged", night.unacknowledged)
    verdict.say("done", done(night), undone(night))
    verdict.say("rebalances", sum(_assignments(life) for life in night.lives))
    verdict.say("outages of brokers", len(night.outages))
    verdict.say("lost", len(lost), f"lost: {lost[:3]}" if lost else None)
    verdict.say("handled twice", again, None)
    verdict.say("twice without excuse", len(unexcused), unexcused[0] if unexcused else None)
    verdict.say("commits", len(log), None if log else "no commits in the offsets log")
    verdict.say("commits that go back", len(back), back[0] if back else None)
    overlap_ms = max((ms for ms, _ in double), default=0.0)
    verdict.say("owned twice, ms", round(overlap_ms, 1), double[0][1] if double else None)
    stalled = f"a partition stood for {stood.alone_s:.1f} s" if stood.alone_s > STALL_S else None
    verdict.say("longest stall of one failure, s", round(stood.alone_s, 1), stalled)
    verdict.say("longest stall outside outages, s", round(stood.outside_s, 1))
    verdict.say("longest stall, s", round(stood.all_s, 1))
    _judge_ends(verdict, night)
    return verdict


BROKER_ACTS: Final = (Act.KILL_BROKER, Act.END_BROKER, Act.STOP_BROKER)


def done(night: Night) -> str:
    """What was done, each with how often."""
    return ", ".join(f"{act} {count}" for act, count in sorted(night.done.items()))


def undone(night: Night) -> str | None:
    """A night in which what was planned was not done is none.

    No second broker goes while the first is away, and no seventh member comes.
    """
    planned, found = night.planned, night.done
    for act in (Act.KILL_MEMBER, Act.END_MEMBER, Act.STOP_MEMBER):
        if found[act] < planned[act]:
            return f"{found[act]} of {planned[act]} times: {act}"
    if any(planned[act] for act in BROKER_ACTS) and not any(found[act] for act in BROKER_ACTS):
        return "nothing was done to brokers"
    return None


def _assignments(life: Life) -> int:
    return sum(line.get("event") == "assigned" for _, line in life.lines)


def _judge_ends(verdict: Verdict, night: Night) -> None:
    lag_s = None if night.drained_s is None else night.drained_s - night.healed_s
    late = None if lag_s is not None and lag_s <= LAG_S else f"lag 0 after {lag_s} s"
    verdict.say("lag 0 after healing, s", lag_s if lag_s is None else round(lag_s, 1), late)
    asked = [life for life in night.lives if life.asked_s is not None]
    took_s = [life.ended_s - life.asked_s for life in asked if life.ended_s and life.asked_s]
    hung = [
        life.name
        for life in asked
        if life.ended_s is None
        or life.exit_code != 0
        or life.ended_s - (life.asked_s or 0.0) > TERM_S
    ]
    verdict.say(
        "longest SIGTERM, s",
        round(max(took_s, default=0.0), 1),
        f"did not exit 0 in time: {hung}" if hung else None,
    )
    died = [life.name for life in night.lives if life.killed_s is None and life.asked_s is None]
    verdict.say("ended by themselves", len(died), f"{died} ended unasked" if died else None)
    noise = [line for life in night.lives for line in life.noise if "Traceback" in line]
    verdict.say("tracebacks", len(noise), noise[0] if noise else None)
    strange = [text for life in night.lives for text in (*unowned(life), *late_after_stops(life))]
    verdict.say("handed out unowned", len(strange), strange[0] if strange else None)
