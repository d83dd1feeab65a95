"""M1: edges of the member, codes of every kind of answer, and the list of what is not met."""

from __future__ import annotations

from typing import Any

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import LEGAL_EDGES
from ksim.coverage import EXPECTED, NOT_MET, Coverage, missing
from ksim.scenario import load
from ksim.sim.runner import run
from tests.library.files import SCENARIOS

JOIN = m.JoinGroupRequest("g", 1, 1, "", None, "consumer", ())


def joined(request_id: int, error_code: int = 0) -> e.ResponseReceived:
    response = m.JoinGroupResponse(error_code, 1, "consumer", "range", "m", "m", ())
    return e.ResponseReceived(request_id, response)


def sent(request_id: int, request: Any) -> e.SendRequest:
    return e.SendRequest(request_id, 1, "group", request, 1)


def edges(*steps: tuple[Any, tuple[Any, ...]]) -> list[str]:
    """Those of one member that goes through these facts with these orders."""
    coverage = Coverage()
    for fact, orders in steps:
        coverage.see("g-1", 0, fact, orders)
    return [name.removeprefix("member ") for name in coverage.counts if name.startswith("member ")]


START = (e.Started(), (sent(1, JOIN),))


def test_a_join_that_is_refused_goes_back() -> None:
    code = int(KafkaError.UNKNOWN_MEMBER_ID)
    assert edges(START, (joined(1, code), (sent(2, JOIN),))) == [
        "UNJOINED -> PREPARING_REBALANCE",
        "PREPARING_REBALANCE -> UNJOINED",
    ]


def test_an_answer_to_an_older_join_moves_nothing() -> None:
    assert edges((e.Started(), (sent(2, JOIN),)), (joined(1), ())) == [
        "UNJOINED -> PREPARING_REBALANCE"
    ]


def test_another_life_begins_anew() -> None:
    started = o.MemberLife("g-1", "g", "started", "")
    assert edges(START, (joined(1), ()), (started, ()), START) == [
        "UNJOINED -> PREPARING_REBALANCE",
        "PREPARING_REBALANCE -> COMPLETING_REBALANCE",
    ]


def test_a_run_takes_only_edges_that_are_legal() -> None:
    coverage = Coverage()
    run(load(SCENARIOS / "night.scenario.toml"), 7, watches=(coverage.see,))
    legal = {f"member {one} -> {other}" for one, others in LEGAL_EDGES.items() for other in others}
    taken = {name for name in coverage.seen if name.startswith("member ")}
    assert taken <= legal
    assert len(taken) >= 4
    assert legal <= set(EXPECTED)


@pytest.mark.parametrize(
    ("response", "name"),
    [
        (m.MetadataResponse((), (m.TopicMetadata(3, "t", ()),)), "metadata UNKNOWN_TOPIC"),
        (m.ListOffsetsResponse((m.ListedOffset("t", 0, 6, -1),)), "list NOT_LEADER_OR_FOLLOWER"),
        (m.OffsetForLeaderEpochResponse((m.EpochEnd("t", 0, 74, -1, -1),)), "epoch FENCED_LEADER"),
        (m.LeaveGroupResponse(25), "leave UNKNOWN_MEMBER_ID"),
    ],
)
def test_codes_of_every_kind_of_answer_count(response: m.Response, name: str) -> None:
    coverage = Coverage()
    coverage.see("g-1", 0, e.ResponseReceived(1, response), ())
    (found,) = coverage.seen
    assert found.startswith(name)
    assert found in EXPECTED
    assert found not in missing(coverage.seen)


def test_what_is_not_met_is_in_the_documents() -> None:
    text = (SCENARIOS.parent / "docs" / "checks.md").read_text("utf-8")
    assert not set(NOT_MET) & set(EXPECTED)
    assert all(f"| `{name}` | {why} |" in text for name, why in NOT_MET.items())
