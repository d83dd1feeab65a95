"""What a fetch lacked cannot be handed out; whatever else is not handed out is skipped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life, Step, read_lives
from ksim.after.steps import Fetched
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError, KafkaError
from ksim.core.member_state import Position, Tenure
from ksim.recording import line_of
from tests.after.recorded import ROOT
from tests.after.test_judge import TP, gives, life
from tests.after.test_judge import pattern as pattern  # a fixture

END = 1_000
CORPUS = ROOT / "tests" / "recordings"


@dataclass(slots=True)
class Reader:
    """A member that reads one partition, step by step."""

    steps: list[Step]
    asked: list[Exchange]
    tenure: int = 1

    @property
    def now_ms(self) -> int:
        return 10 * len(self.steps)

    def fetch(self, begin: int, end: int, count: int, kept: tuple[int, int] | None = None) -> None:
        answer = m.FetchedPartition(*TP, 0, END, 0, end, count, 0)
        fetched = () if kept is None else (Fetched(*TP, *kept, count),)
        orders = (e.BufferRecords(0, (e.Assigned(*TP, self.tenure, begin),)),) if count else ()
        self._answered(begin, answer, orders, fetched)

    def strays(self, at: int, listed: int) -> None:
        """Its position is not in the log, and it goes on where its policy says."""
        code = KafkaError.OFFSET_OUT_OF_RANGE
        self._answered(at, m.FetchedPartition(*TP, code, END, listed, at, 0), (), ())
        answer = m.ListOffsetsResponse((m.ListedOffset(*TP, 0, listed, 0),))
        self.steps.append(Step(self.now_ms, e.ResponseReceived(-1, answer), ()))

    def _answered(
        self, begin: int, answer: m.FetchedPartition, orders: Any, fetched: tuple[Fetched, ...]
    ) -> None:
        wanted = (m.FetchPartition(*TP, begin),)
        request = m.FetchRequest(0, 0, 0, 0, wanted)
        number = len(self.asked)
        self.asked.append(Exchange(number, 1, request, 0, self.now_ms, False))
        fact = e.ResponseReceived(number, m.FetchResponse(0, (answer,)))
        self.steps.append(Step(self.now_ms, fact, orders, fetched))

    def out(self, first: int, last: int) -> None:
        fact = e.RecordsHandedOut(*TP, self.tenure, first, last, self.now_ms)
        self.steps.append(Step(self.now_ms, fact, ()))

    def of(self, pattern: Life) -> Life:
        return life("one", self.steps, self.asked, pattern)


def reader() -> Reader:
    return Reader([gives(0, 1, 1)], [])


Fetch = tuple[int, int, int, tuple[int, int] | None]
Outs = tuple[int, int]


@pytest.mark.parametrize(
    ("read", "verdict"),
    [
        ([(0, 10, 10, None), (0, 9), (10, 20, 10, None), (12, 19)], "fail"),
        # Holes at the end of a fetch, at the beginning of one, and a fetch that has nothing else.
        ([(0, 10, 8, None), (0, 7), (10, 20, 10, None), (10, 19)], "pass"),
        ([(0, 10, 10, None), (0, 9), (10, 20, 6, None), (14, 19)], "pass"),
        ([(0, 10, 8, None), (0, 7), (10, 15, 0, None), (15, 25, 8, None), (17, 24)], "pass"),
        # More is skipped than was missing, or somewhere else.
        ([(0, 10, 9, None), (0, 6), (10, 20, 10, None), (10, 19)], "fail"),
        ([(0, 10, 10, None), (0, 9), (10, 20, 6, None), (15, 19)], "fail"),
        ([(0, 10, 9, None), (0, 9), (10, 20, 10, None), (11, 19)], "fail"),
        ([(0, 10, 9, None), (0, 8), (10, 20, 10, None), (10, 19), (20, 30, 9, None)], "pass"),
        # It is known where the holes are.
        ([(0, 10, 9, (0, 8)), (0, 8), (10, 20, 10, None), (10, 19)], "pass"),
        ([(0, 10, 9, (0, 9)), (0, 8), (10, 20, 10, None), (10, 19)], "fail"),
        ([(0, 10, 10, None), (0, 9), (10, 20, 6, (14, 19)), (14, 19)], "pass"),
        ([(0, 10, 10, None), (0, 9), (10, 20, 6, (13, 19)), (14, 19)], "fail"),
        # Nobody has fetched what lies between.
        ([(0, 10, 9, None), (0, 8), (20, 30, 10, None), (20, 29)], "fail"),
    ],
)
def test_a_hole_excuses_what_was_missing_there_and_nothing_else(
    pattern: Life, read: list[Fetch | Outs], verdict: str
) -> None:
    one = reader()
    for each in read:
        if len(each) == 2:
            one.out(*each)
        else:
            one.fetch(*each)
    assert judge([one.of(pattern)]).verdicts["S10"] == verdict


def test_a_hole_is_passed_once(pattern: Life) -> None:
    one = reader()
    one.fetch(0, 10, 9)
    one.out(0, 3)
    one.out(5, 7)
    one.out(9, 9)
    assert judge([one.of(pattern)]).verdicts["S10"] == "fail"


def test_a_hole_in_one_tenure_excuses_nothing_in_the_next(pattern: Life) -> None:
    one = reader()
    one.fetch(0, 10, 5)
    one.out(0, 4)
    one.tenure = 2
    one.steps.append(gives(one.now_ms, 2, 2))
    one.fetch(0, 10, 10)
    one.out(5, 9)
    assert judge([one.of(pattern)]).verdicts["S10"] == "fail"


@pytest.mark.parametrize(("first", "verdict"), [(50, "pass"), (51, "fail")])
def test_what_the_log_lacks_by_now_is_left_out(pattern: Life, first: int, verdict: str) -> None:
    """Retention took it, and `auto_offset_reset` says where to go on."""
    one = reader()
    one.fetch(0, 10, 10)
    one.out(0, 9)
    one.strays(10, 50)
    one.fetch(first, 60, 60 - first)
    one.out(first, 59)
    assert judge([one.of(pattern)]).verdicts["S10"] == verdict


@pytest.mark.parametrize(("first", "verdict"), [(8, "pass"), (10, "undecided"), (12, "fail")])
def test_what_a_ring_has_buffered_may_have_holes(pattern: Life, first: int, verdict: str) -> None:
    """Its fetch was before the recording: nobody knows what it lacked."""
    one = Reader([Step(0, e.TimerFired(), ())], [])
    one.out(0, 7)
    one.fetch(10, 20, 10)
    one.out(first, 19)
    tenure = Tenure(*TP, 1, Position.READY, 10, 0)
    ring = replace(one.of(pattern), state=replace(pattern.state, owned={TP: tenure}))
    found = judge([ring])
    assert found.verdicts["S10"] == verdict
    said = [each.sentence for each in found.undecided if each.check == "S10"]
    assert len(said) == (verdict == "undecided"), said


# What stands beside a fetch


def with_payload(folder: Path, change: dict[str, Any]) -> Path:
    """A recording with right checksums, and this in the first payload."""
    bodies: list[str] = []
    for line in (CORPUS / "1.0" / "callbacks.ksim").read_text("ascii").splitlines():
        body = json.loads(line)
        del body["c"]
        payload = body.get("payload")
        if isinstance(payload, list) and change:
            payload[0] |= change
            change = {}
        if "end" in body:
            body["digest"] = chain_of(bodies)
        bodies.append(json.dumps(body, separators=(",", ":")))
    assert not change
    path, chain = folder / "forged.ksim", ""
    with path.open("wb") as file:
        for body in bodies:
            line_, chain = line_of(chain, body)
            file.write(line_)
    return path


def chain_of(bodies: list[str]) -> str:
    chain = ""
    for body in bodies:
        _, chain = line_of(chain, body)
    return chain


@pytest.mark.parametrize(
    "change",
    [
        {"count": "many"},
        {"count": 0},
        {"first": -1},
        {"first": 10**9},
        {"count": 10**9},
        {"partition": True},
        {"topic": None},
        {"xcount": 1},
        {"records": {}},
    ],
)
def test_what_stands_beside_a_fetch_is_of_its_type(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DamagedRecordingError, match=r"line \d+: .*payload"):
        read_lives([with_payload(tmp_path, change)])


def test_a_payload_as_the_schema_says_is_read(tmp_path: Path) -> None:
    (life,) = read_lives([with_payload(tmp_path, {"bytes": 1})])
    assert any(step.fetched for step in life.steps)
