"""Plain data, and the one way into a machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.session import Session
from ksim.core.trace import MalformedTraceError, plain, value_of
from ksim.core.values import TopicPartition

TP = TopicPartition("t", 1)
SAMPLES: list[Any] = [
    None,
    True,
    -5,
    "text",
    b"\x00\xff",
    TP,
    (1, ("a", b"b")),
    [1, [2]],
    {TP: [1], "k": (b"",)},
    e.TimerFired(),
    e.RevokePartitions(3, (TP,)),
    e.SendRequest(1, 2, "group", m.HeartbeatRequest("g", 1, "m", None), 30),
    e.ResponseReceived(1, m.JoinGroupResponse(0, 1, "c", "r", "l", "m", ())),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_value_comes_back_from_json(sample: Any) -> None:
    assert value_of(json.loads(json.dumps(plain(sample)))) == sample


@pytest.mark.parametrize(
    "data",
    [
        1.5,
        {"_": "Nobody"},
        {"_": "TimerFired", "more": 1},
        {"_": "Mark", "topic": "t"},
        {"b64": "not base64!"},
        {"tp": [1]},
        {"what": []},
        {},
    ],
)
def test_what_is_no_value_is_refused(data: Any) -> None:
    with pytest.raises(MalformedTraceError):
        value_of(data)


def test_what_a_trace_cannot_hold_is_misuse() -> None:
    with pytest.raises(TypeError):
        plain({1, 2})


class Machine:
    deadline_ms: int | None = None

    def step(self, fact: Any, *, now_ms: int) -> list[Any]:
        return [("did", fact, now_ms)]


class Chain:
    """Feeds another fact while it performs an order, and listens."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.session = Session(Machine(), self, [self])

    def on_step(self, now_ms: int, fact: Any, orders: Any) -> None:
        self.seen.append(("step", fact, now_ms, list(orders)))

    def perform(self, order: Any, now_ms: int) -> None:
        if order[1] == "first":
            self.session.feed("second", now_ms)
        self.seen.append(("performed", order[1]))


def test_a_fact_that_comes_during_a_step_waits_its_turn() -> None:
    chain = Chain()
    chain.session.feed("first", 5)
    kinds = [entry[:2] for entry in chain.seen]
    assert kinds == [
        ("step", "first"),
        ("performed", "first"),
        ("step", "second"),
        ("performed", "second"),
    ]


def test_time_never_goes_back() -> None:
    chain = Chain()
    chain.session.feed("a", 10)
    chain.session.feed("b", 4)
    assert [entry[2] for entry in chain.seen if entry[0] == "step"] == [10, 10]
