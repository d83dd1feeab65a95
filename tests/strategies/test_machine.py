"""The machine of the pure core: honest members pass, and dishonest ones are found."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ksim.core import commits, member
from ksim.core.turn import Turn
from ksim.strategies import GroupMachine
from ksim.strategies.pure import PureGroup
from tests.canary.plants import PLANTS

FEW = settings(max_examples=25, stateful_step_count=30, database=None)
SEARCH = settings(FEW, max_examples=300, derandomize=True, phases=[Phase.generate])


class Pair(GroupMachine):
    """As a user would set it."""

    members = 2
    partitions = 3
    consumer: ClassVar[dict[str, Any]] = {"commit_interval_ms": 100}


Pair.TestCase.settings = FEW
TestPair = Pair.TestCase


def test_a_member_that_delivers_for_ever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "extend_lease", Turn.extend_lease)  # so that it is put back
    monkeypatch.setitem(member.ON_TIMER, "session", member.ON_TIMER["session"])
    PLANTS["deliver-for-ever"]()
    with pytest.raises(AssertionError, match=r"is handed out by g-\d and g-\d"):
        run_state_machine_as_test(GroupMachine, settings=SEARCH)


def test_a_commit_of_what_is_not_handled_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = commits.OffsetAndMetadata

    def ahead(topic: str, partition: int, offset: int, *rest: object) -> object:
        return honest(topic, partition, offset + 1, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(commits, "OffsetAndMetadata", ahead)
    with pytest.raises(AssertionError, match=r"orders-.: committed \d+, handled up to \d+"):
        run_state_machine_as_test(GroupMachine, settings=SEARCH)


def test_without_trouble_a_group_handles_and_commits_everything() -> None:
    group = PureGroup(2)
    for name in ("g-1", "g-2"):
        group.start(name)
    for tp in group.partitions:
        group.produce(tp, 3)
    for _ in range(1_000):
        for name, channel in group.ready():
            if (name, channel) in group.ready():
                group.deliver(name, channel)
        for each in group.members.values():
            each.give_back()
            for tp in each.delivers:
                while each.owned[tp].buffer:
                    each.handle(tp)
        group.advance(20)
    assert list(group.committed.values()) == [3, 3]
    assert sorted(tp.partition for each in group.members.values() for tp in each.delivers) == [0, 1]
