"""What recordings bear witness to about what lies between members."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Life, Step
from ksim.core import events as e
from tests.after.test_judge import TP, commit, gives, life
from tests.after.test_judge import pattern as pattern  # a fixture
from tests.after.test_own import commits


def seeks(at_ms: int, offset: int) -> Step:
    return Step(at_ms, e.Sought(*TP, 1, offset), (e.DropBuffered(*TP, 1, offset, sought=True),))


@pytest.mark.parametrize(
    ("sought", "offsets", "verdict"),
    [
        (5, [10, 12, 6], "pass"),
        (5, [10, 12, 13, 6], "fail"),  # with the second commit after it, a seek permits no more
        (5, [10, 6, 7], "pass"),
        (5, [10, 6, 5], "fail"),
        (11, [10, 12, 13, 11], "fail"),
        (11, [10, 12, 11], "pass"),  # the first one was under way
    ],
)
def test_a_seek_lets_a_member_go_back_once(
    pattern: Life, sought: int, offsets: list[int], verdict: str
) -> None:
    one = life("one", [gives(0, 1, 1), seeks(150, sought)], [], pattern)
    sent = [
        replace(commit(1, 1, 100 * number, offset), request_id=number)
        for number, offset in enumerate(offsets, 1)
    ]
    assert judge([commits(one, *sent)]).verdicts["S13"] == verdict
