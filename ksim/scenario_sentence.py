"""A scenario in one sentence, for people who look at the smallest one that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from ksim.scenario_spec import ClusterSpec, EventSpec, FaultSpec, GroupSpec, Scenario, StepSpec
from ksim.texts import duration_text

NUMBERS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
ORDINALS: Final = ("every", "first", "second", "third", "fourth", "fifth", "sixth")
REQUESTS: Final = {
    "Metadata": "metadata",
    "FindCoordinator": "coordinator lookup",
    "JoinGroup": "join",
    "SyncGroup": "sync",
    "Heartbeat": "heartbeat",
    "LeaveGroup": "leave",
    "OffsetCommit": "commit",
    "OffsetFetch": "offset fetch",
    "ListOffsets": "offset lookup",
    "Fetch": "fetch",
    "OffsetForLeaderEpoch": "epoch lookup",
}
STRUCK: Final = {
    "drop": "lost",
    "delay": "delayed",
    "duplicate": "sent twice",
    "error": "refused with",
    "crash": "at which its member crashes",
    "late": "late",
    "disconnect": "lost with its connection",
}
DONE: Final = {
    "crash": "crashes",
    "start": "starts",
    "stop": "stops",
    "pause": "is paused",
    "restart": "restarts",
    "partition": "is cut off",
    "hold": "is held up",
    "heal": "is reached again",
    "disconnect": "loses its connections",
    "close": "closes",
    "poll_gap": "does not call in",
    "pause_partitions": "pauses its partitions",
    "resume_partitions": "resumes its partitions",
    "seek": "seeks",
    "move_coordinator": "gets another coordinator",
    "refuse_offsets_log": "cannot store offsets",
    "compact_offsets_log": "has its offsets log compacted",
    "add_partitions": "grows",
    "create_topic": "is created",
    "delete_topic": "is deleted",
    "truncate": "is truncated",
    "stale_metadata": "tell old metadata",
}
Say = Callable[[Any], str]
# What a group has otherwise than by default, and is worth a word; the rest stands in the file.
GROUP_WORDS: Final[dict[str, Say]] = {
    "workers": lambda found: f"{counted(found, 'worker')} each",
    "acknowledge": lambda _: "acknowledged one by one",
    "mode": lambda _: "a reader for each partition",
    "commit": lambda _: "a commit after each record",
    "instance_ids": lambda _: "static members",
    "topics_whitelist": lambda found: f"topics by the pattern {found}",
    "handler_cost_ms": lambda found: f"handlers of up to {duration_text(found[1])}",
    "handler_fails": lambda _: "handlers that fail",
    "handler_hangs": lambda found: f"a handler that hangs for {duration_text(found.for_ms)}",
    "commit_interval_ms": lambda found: f"commits every {duration_text(found)}",
    "dwell_time_ms": lambda found: f"revocations that wait {duration_text(found)}",
    "fetch_max_wait_ms": lambda found: f"fetches held for {duration_text(found)}",
    "start_every_ms": lambda found: f"starts {duration_text(found)} apart",
    "on_assigned": lambda _: "a callback when assigned",
    "on_revoked": lambda _: "a callback when revoked",
    "on_lost": lambda _: "a callback when lost",
    "overrides": lambda _: "members unlike their group",
}
CLUSTER_WORDS: Final[dict[str, Say]] = {
    "loss": lambda found: f"{found * 100:g} % of all messages lost",
    "group_max_size": lambda found: f"room for {counted(found, 'member')}",
}


def describe(scenario: Scenario) -> str:
    """Such as "two members, one partition, one heartbeat answer delayed past the session".

    For people only: two scenarios may have the same sentence. `ksim.scenario.dump` has all.
    """
    many = len(scenario.groups) > 1
    parts = [_members(group, named=many) for group in scenario.groups]
    parts.append(_partitions(scenario))
    if scenario.cluster.brokers > 1:
        parts.append(counted(scenario.cluster.brokers, "broker"))
    parts += _otherwise(scenario.cluster, ClusterSpec(), CLUSTER_WORDS)
    for group in scenario.groups:
        parts += _otherwise(group, GroupSpec(group.id), GROUP_WORDS)
    parts += [_step(step) for step in scenario.steps]
    parts += _faults(scenario)
    return ", ".join(parts)


def counted(count: int, what: str) -> str:
    """ "two members", "12 records"."""
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"{number} {what}{'' if count == 1 else 's'}"


def _members(group: GroupSpec, *, named: bool) -> str:
    return counted(group.members, "member") + (f" of {group.id}" if named else "")


def _partitions(scenario: Scenario) -> str:
    text = counted(sum(topic.partitions for topic in scenario.topics), "partition")
    topics = len(scenario.topics)
    return text if topics == 1 else f"{text} of {counted(topics, 'topic')}"


def _otherwise(found: Any, usual: Any, words: dict[str, Say]) -> Iterator[str]:
    for name, say in words.items():
        here = getattr(found, name)
        # Workers are never without acknowledgements, which go without saying.
        if name == "acknowledge" and getattr(found, "workers", None) is not None:
            continue
        if here != getattr(usual, name):
            yield say(here)


def _step(step: StepSpec) -> str:
    text = f"{step.target} {DONE[step.do]}"
    if step.peer is not None:
        text += f" from {'its coordinator' if step.peer == 'coordinator' else step.peer}"
    if step.offset is not None:
        text += f" to {step.offset}"
    if step.on is not None:
        behind = f"{duration_text(step.after_ms)} behind" if step.after_ms else "at"
        text += f" {behind} {_event(step.on)}"
    if step.for_ms is not None:
        text += f" for {duration_text(step.for_ms)}"
    return text


def _event(on: EventSpec) -> str:
    nth = ORDINALS[on.nth] if on.nth < len(ORDINALS) else f"{on.nth}th"
    of = "" if on.member is None else f" of {on.member}"
    article = "" if on.nth == 0 else "the "
    return f"{article}{nth} {_message(on.kind, on.direction)}{of}"


def _message(kind: str, direction: str) -> str:
    return f"{REQUESTS[kind]}{'' if direction == 'request' else ' answer'}"


def _faults(scenario: Scenario) -> Iterator[str]:
    """Those that say the same are counted together."""
    kinds = Counter((_kind(fault), _fate(fault, scenario)) for fault in scenario.faults)
    for (message, fate), count in kinds.items():
        yield f"{counted(count, message)} {fate}"


def _kind(fault: FaultSpec) -> str:
    return _message(fault.kind, fault.direction)


def _fate(fault: FaultSpec, scenario: Scenario) -> str:
    text = STRUCK[fault.do]
    if fault.error is not None:
        text += f" {fault.error}" if fault.do == "error" else f" and refused with {fault.error}"
    if fault.for_ms:
        text += _how_long(fault.for_ms, scenario)
    return text + (" from then on" if fault.keep else "")


def _how_long(for_ms: int, scenario: Scenario) -> str:
    """In the terms of what it outlasts."""
    bounds = {
        "the session": [group.session_timeout_ms for group in scenario.groups],
        "the rebalance timeout": [g.rebalance_timeout_ms or 0 for g in scenario.groups],
    }
    for name, all_ms in bounds.items():
        if all_ms and 0 < min(all_ms) <= for_ms:
            return f" past {name}"
    return f" by {duration_text(for_ms)}"
