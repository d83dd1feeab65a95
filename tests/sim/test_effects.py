"""A step has struck only where it changed something."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.scenario import parse
from ksim.scenario_spec import STEPS
from ksim.sim.effects import ALWAYS, BROKERS, MEMBERS, Effects
from ksim.sim.runner import Run
from ksim.sim.steps import LINKS, OWNED
from tests.sim.test_runner import BASE, Watch
from tests.sim.test_steps import ran, step


def struck(more: str, base: str = BASE, verdict: str = "pass") -> list[tuple[str, str]]:
    watch: Watch = ran(more, base, verdict)
    return [(fact.name, fact.target) for fact in watch.facts(o.FaultStruck)]


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (step("crash", "g-2") + step("crash", "g-2", at="11s"), "crash"),
        (step("pause", "g-2", 'for = "1s"') + step("pause", "g-2", at="10500ms"), "pause"),
        (step("partition", "g-1", 'for = "1s"') + step("heal", "g-1", at="12s"), "partition"),
        (step("start", "g-1"), ""),
        (step("seek", "g-2", "partition = 1\noffset = 0", at="10ms"), ""),
    ],
)
def test_what_changes_nothing_has_not_struck(more: str, name: str) -> None:
    found = struck(more)
    assert [each for each, _ in found if each in ("crash", "pause", "partition")] == (
        [name] if name else []
    )
    assert not [each for each, _ in found if each in ("heal", "start", "seek")]


def test_a_move_needs_another_broker() -> None:
    two = BASE.replace("[cluster]", "[cluster]\nbrokers = 2")
    assert struck(step("move_coordinator", "g")) == []
    assert struck(step("move_coordinator", "g"), two) == [("move_coordinator", "g")]


def test_a_broker_that_is_restarted_loses_its_connections() -> None:
    watch = ran(step("restart", "coordinator"), BASE.replace("[cluster]", "[cluster]\nbrokers = 2"))
    assert [fact.name for fact in watch.facts(o.FaultStruck)] == ["restart"]
    failed = [fact.reason for _, _, fact, _ in watch.steps if isinstance(fact, e.RequestFailed)]
    assert any(reason.endswith("closed the connection") for reason in failed)


def test_a_truncation_of_an_empty_or_absent_topic_is_none() -> None:
    base = BASE + '[[produce]]\ntopic = "orders"\nper_second = 1\ncount = 1\nstart = "19s"\n'
    gone = '[[step]]\non = { request = "JoinGroup" }\ndo = "delete_topic"\ntarget = "orders"\n'
    found = struck(gone + step("truncate", "orders", "count = 3"), base)
    assert ("truncate", "orders") not in found


def test_every_step_is_looked_at() -> None:
    made = Run(parse(BASE, "test"), 1)
    others = Effects(made.cluster, made.members)._others
    assert {*MEMBERS, *BROKERS, *ALWAYS, *LINKS, *OWNED, *others} == set(STEPS)
