"""S10 on members that may not choose where to go on."""

from __future__ import annotations

import pytest

from ksim.core import events as e
from ksim.scenario import parse
from tests.test_checks import Story, accused
from tests.test_deaths import GROUP, HEAD, NONE, told_nothing
from tests.test_unplaced import fetch, fetched


def reads(story: Story, offset: int) -> Story:
    return story.see("g-1", e.TimerFired(), e.SendRequest(9, 1, "fetch", fetch(offset), 30_000))


@pytest.mark.parametrize("text", [NONE, HEAD + GROUP])
def test_nobody_resets_where_there_is_no_reset(text: str) -> None:
    story = reads(told_nothing(Story(parse(text, "test")).start("g-1"), "g-1"), 0)
    if text == NONE:
        assert accused(story, "S10") == (
            "g-1 reads t-0 from offset 0 at 4.000 s, though it was told that it has no place "
            "there, and auto_offset_reset is none."
        )
    else:
        assert not story.check("S10").violations


def test_its_application_may_choose_by_a_seek() -> None:
    story = told_nothing(Story(parse(NONE, "test")).start("g-1"), "g-1")
    story = reads(story.see("g-1", e.Sought("t", 0, 1, 4)), 4)
    assert not story.see("g-1", e.ResponseReceived(9, fetched(4))).check("S10").violations


def test_the_order_of_records_is_judged_as_ever() -> None:
    story = Story().assign("a").hand_out("a", 0, 2)
    assert "offset 1 was next" in accused(story, "S10")
