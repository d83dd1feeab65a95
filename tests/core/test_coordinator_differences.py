"""What Kafka 3.9 does otherwise: each difference by itself, beside what Kafka 4 does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from ksim.core import messages as m
from ksim.core.coordinator import Coordinator
from ksim.core.coordinator_state import Difference
from ksim.core.events import LogReplayed
from ksim.core.values import TopicPartition
from tests.core.rig import BOTH, SWAPPED, Rig

See = Callable[[Rig], Any]
NO_DELAY: Final = {"initial_rebalance_delay_ms": 0}


def state(rig: Rig) -> str:
    return str(rig.group().state)


def sync_late(rig: Rig) -> str:
    rig.stable("a")
    rig.until(5_000)
    assert rig.code(rig.sync("a")) == 0
    rig.until(10_500)
    return state(rig)


def describe_in_rebalance(rig: Rig) -> bytes:
    rig.stable("a", "b")
    rig.join("a")
    (group,) = rig.answer(rig.ask(m.DescribeGroupsRequest(("g",)))).groups
    assert group.group_state == "PreparingRebalance"
    return bytes(group.members[1].assignment)


def leave_two(rig: Rig) -> int:
    """How long the join phase then lasts; b has the longest rebalance timeout."""
    for name, rebalance in (("a", 10_000), ("b", 50_000), ("c", 10_000)):
        rig.add(name, rebalance=rebalance)
        for other in rig.group().members:
            rig.join(other, rebalance=rig.group().members[other].rebalance_timeout_ms)
    rig.sync_all()
    leaving = tuple(m.MemberIdentity(each, None) for each in ("a", "b"))
    rig.ask(m.LeaveGroupRequest("g", leaving))
    until = rig.machine.state.timers.armed_until(("join", "g"))
    assert until is not None
    return until - rig.now


def leave_pending(rig: Rig) -> str:
    rig.stable("a")
    rig.join(fresh="p")
    assert rig.leave("p") == 0
    return state(rig)


def pending_expires(rig: Rig) -> int:
    joined = rig.add("a", rebalance=60_000, session=60_000)
    rig.join(fresh="p", session=6_000)
    rig.until(30_000)
    return rig.at(joined)


def second_window(rig: Rig) -> int:
    rig.stable("a")
    rig.leave("a")
    assert state(rig) == "Empty"
    began = rig.now
    first = rig.add("b", rebalance=60_000)
    rig.until(began + 1_000)
    rig.add("c", rebalance=60_000)
    rig.until(began + 60_000)
    return rig.at(first) - began


def one_too_many(rig: Rig) -> str:
    """A group that was loaded with more members than it may have."""
    before = Rig()
    before.stable("a", "b", "c")
    rig.feed(LogReplayed(tuple(before.log)))
    tokens = [rig.join(name) for name in "abc"]
    assert rig.code(tokens[2]) == 81
    return state(rig)


def sync_at_once(rig: Rig) -> int | None:
    rig.add("a")
    return rig.code(rig.sync("a", 0))


def vote(rig: Rig) -> str:
    rig.add("a", protocols=BOTH)
    rig.add("b", protocols=SWAPPED)
    rig.join("a", protocols=BOTH)
    return str(rig.group().protocol_name)


def forget_all(rig: Rig) -> bool:
    rig.commit()
    rig.ask(m.OffsetDeleteRequest("g", (TopicPartition("t", 0),)))
    return "g" in rig.machine.state.groups


def create(rig: Rig) -> int:
    rig.join(fresh="p")
    return len(rig.log)


CASES: Final[dict[Difference, tuple[dict[str, int], See, Any, Any]]] = {
    Difference.COMMIT_TO_UNKNOWN_GROUP: (NO_DELAY, lambda rig: rig.commit_code("a", 1), 69, 22),
    Difference.SYNC_EXTENDS_SESSION: (NO_DELAY, sync_late, "Empty", "Stable"),
    Difference.ASSIGNMENT_HIDDEN: ({}, describe_in_rebalance, b"b", b""),
    Difference.LEAVES_ONE_BY_ONE: (NO_DELAY, leave_two, 10_000, 50_000),
    Difference.PENDING_LEAVES_QUIETLY: (NO_DELAY, leave_pending, "PreparingRebalance", "Stable"),
    Difference.EXPIRY_WAITS_FOR_DELAY: (
        {"initial_rebalance_delay_ms": 20_000}, pending_expires, 6_000, 20_000,
    ),
    Difference.DELAY_GROWS_ONCE: ({}, second_window, 6_000, 3_000),
    Difference.REFUSED_JOIN_COMPLETES: (
        {"group_max_size": 2}, one_too_many, "PreparingRebalance", "CompletingRebalance",
    ),
    Difference.SYNC_BEFORE_PROTOCOL: ({}, sync_at_once, 27, 23),
    Difference.VOTE_TIE: (NO_DELAY, vote, "range", "roundrobin"),
    Difference.LAST_OFFSET_TAKES_GROUP: ({}, forget_all, True, False),
    Difference.JOIN_WRITES_NO_GROUP: ({}, create, 1, 0),
}  # fmt: skip


@pytest.mark.parametrize("difference", Difference)
def test_a_difference_does_what_its_name_says(difference: Difference) -> None:
    config, see, now, before = CASES[difference]
    rig = Rig(**config)
    assert see(rig) == now
    assert rig.machine.state.differed == {}
    rig = Rig(**config, differences=(difference.value,))
    assert see(rig) == before
    assert set(rig.machine.state.differed) == {difference}
    again = Coordinator.restore(rig.machine.snapshot())
    assert again.snapshot() == rig.machine.snapshot()


@pytest.mark.parametrize("difference", Difference)
def test_all_others_leave_it_as_it_is(difference: Difference) -> None:
    config, see, now, _ = CASES[difference]
    others = tuple(each.value for each in Difference if each != difference)
    assert see(Rig(**config, differences=others)) == now
