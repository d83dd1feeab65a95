"""A drawn scenario, run and judged: for people, and as a guide for Hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from ksim.consumer.engine import Engine
from ksim.scenario import GroupSpec, ProduceSpec, Scenario, ScenarioError, TopicSpec, parse
from ksim.strategies import ScenarioFailedError, run, running, scenarios
from tests.canary.plants import PLANTS

SLOW = Scenario(
    "slow",
    until_ms=5_000,
    topics=(TopicSpec("orders", 1),),
    groups=(GroupSpec("g", ("orders",), session_timeout_ms=6_000, handler_cost_ms=(500, 3_000)),),
    produce=(ProduceSpec("orders", 10, 2),),
)


@settings(max_examples=15, database=None)
@given(scenarios(max_duration="5s"))
def test_drawn_scenarios_pass(scenario: Scenario) -> None:
    assert run(scenario).verdict == "pass"


@pytest.fixture
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "next_batch", Engine.next_batch)  # so that it is put back
    PLANTS["commit-delivered"]()


@pytest.mark.usefixtures("_planted")
def test_a_failure_says_verdict_sentence_and_file() -> None:
    with pytest.raises(ScenarioFailedError) as raised:
        run(SLOW, seed=3)
    sentence, verdict, *_ = str(raised.value).splitlines()
    assert sentence == "one member, one partition, handlers of up to 3s"
    assert verdict.startswith("safety: S1")
    assert "committed offset 1 of orders-0" in str(raised.value)
    _, _, text = str(raised.value).partition("--seed 3`:\n\n")
    assert parse(text, "printed") == SLOW
    assert isinstance(raised.value, AssertionError)
    assert {"S1", "S2"} <= set(raised.value.report.failed)


@pytest.mark.usefixtures("_planted")
def test_checks_that_are_not_named_do_not_count() -> None:
    assert run(SLOW, checks=["S5"]).checks["S2"] == "fail"
    with pytest.raises(ScenarioFailedError):
        run(SLOW, checks=["S5", "S2"])


def test_a_check_that_is_not_there_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"checks=\['S99'\]: valid: S1, S2"):
        run(SLOW, checks=["S99"])


def test_what_no_run_can_do_is_refused() -> None:
    with pytest.raises(ScenarioError, match="no members"):
        run(Scenario("nobody", until_ms=1_000))


def test_hypothesis_is_guided(monkeypatch: pytest.MonkeyPatch) -> None:
    events: set[str] = set()
    targets: dict[str, float] = {}
    monkeypatch.setattr(running, "event", events.add)
    monkeypatch.setattr(running, "target", lambda found, label: targets.update({label: found}))
    run(SLOW)
    assert (events, targets) == (set(), {})

    @settings(max_examples=1, database=None)
    @given(st.just(SLOW))
    def guided(scenario: Scenario) -> None:
        run(scenario, label="slow ones")

    guided()
    assert targets["lag of slow ones"] == 2
    assert targets["rebalances of slow ones"] >= 1
    assert {"group PreparingRebalance -> CompletingRebalance", "callback assigned"} <= events
    assert "join MEMBER_ID_REQUIRED" in events


def test_a_second_run_in_one_test_needs_a_label() -> None:
    @settings(max_examples=1, database=None)
    @given(st.just(SLOW))
    def twice(scenario: Scenario) -> None:
        run(scenario)
        run(scenario, label="again")
        run(scenario)

    with pytest.raises(InvalidArgument, match="label='lag'"):
        twice()
