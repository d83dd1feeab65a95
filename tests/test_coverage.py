"""M1: edges of the member, codes of every kind of answer, and the list of what is not met."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ksim import observations as o
from ksim.core import commits, leaders, positions
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import COORDINATOR_MOVED, KafkaError
from ksim.core.member_state import LEGAL_EDGES, REACTIONS
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


COUNTED = {*EXPECTED, *NOT_MET}
CORE = Path(commits.__file__).parent
GROUP = ("find", "join", "sync", "heartbeat", "commit", "offsets", "leave")
# The rooms of the member, and whose answers each looks at.
LOOKS_AT = {
    "asks": ("commit", "offsets"),
    "commits": ("commit",),
    "leaders": ("metadata",),
    "member": GROUP,
    "member_state": GROUP,
    "membership": GROUP,
    "positions": ("metadata", "offsets", "list", "fetch"),
    "reading": (),
    "truncation": ("epoch",),
    "turn": GROUP,
}
# What the member says of its own accord, where nobody has refused anything so.
OWN_WORDS = {
    ("commits", "UNKNOWN_SERVER_ERROR"),
    ("positions", "UNKNOWN_SERVER_ERROR"),
    ("truncation", "OFFSET_OUT_OF_RANGE"),
}


def counted(kinds: Iterable[str], codes: Iterable[int]) -> None:
    for code in codes:
        name = KafkaError(code).name
        assert any(f"{kind} {name}" in COUNTED for kind in kinds), f"{name} of {kinds}"


def test_each_code_of_the_tables_of_the_core_counts() -> None:
    for kind, code in REACTIONS:
        counted((kind,), (code,))
    counted(("metadata",), (*positions.MISSING, positions.NOT_YET))
    counted(("metadata",), [code for code in leaders.THERE if code])
    counted(("fetch",), positions.UNREADABLE)
    counted(("commit",), commits.AWAY)
    counted(("offsets",), COORDINATOR_MOVED)


@pytest.mark.parametrize("room", sorted(LOOKS_AT))
def test_each_code_that_the_member_names_counts(room: str) -> None:
    tree = ast.parse((CORE / f"{room}.py").read_text("utf-8"))
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "KafkaError"
    }
    said = {name for name in named if (room, name) not in OWN_WORDS} - {"NONE"}
    counted(LOOKS_AT[room], [KafkaError[name] for name in sorted(said)])


def test_each_room_that_names_a_code_is_looked_at() -> None:
    coordinators = {path.stem for path in CORE.glob("coordinator*.py")}
    naming = {path.stem for path in CORE.glob("*.py") if "KafkaError." in path.read_text("utf-8")}
    assert naming - coordinators - {"errors"} <= set(LOOKS_AT)
