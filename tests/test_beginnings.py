"""S10 on where a group begins that has nothing committed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.scenario import Scenario, parse
from tests.test_checks import Story, accused

TEXT = 'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
LATEST = parse(TEXT + 'auto_offset_reset = "latest"\n', "test")
EARLIEST = parse(TEXT, "test")


def told(
    committed: int = -1, *, error_code: int = 0, scenario: Scenario = LATEST, end: int = 5
) -> Story:
    """The coordinator says what is committed in a log of five records."""
    story = Story(scenario).start("a").see("producer", o.Produced("t", 0, end))
    answer = m.OffsetFetchResponse(0, (m.CommittedOffset("t", 0, committed, -1, "", error_code),))
    return story.see("a", e.ResponseReceived(1, answer))


def test_latest_begins_no_earlier_than_at_the_end() -> None:
    assert accused(told().assign("a", 4).hand_out("a", 4), "S10") == (
        "a began t-0 at offset 4 at 4.000 s, though nothing was committed, its policy is latest, "
        "and the log ended at 5."
    )


@pytest.mark.parametrize(
    "story",
    [
        lambda: told().assign("a", 5),
        # It grew before its leader was asked.
        lambda: told().see("producer", o.Produced("t", 0, 9)).assign("a", 9),
        lambda: told(2).assign("a", 2),
        lambda: told(scenario=EARLIEST).assign("a", 0),
        lambda: told().see("faults", o.Truncated("t", 0, 1, 1)).assign("a", 1),
        lambda: told().see("faults", o.TopicIs("t", 0)).assign("a", 0),
        # It is not known yet, and asked again.
        lambda: told(error_code=14).assign("a", 0),
        # Nobody leads it: it is announced without a position.
        lambda: told().assign("a", -1),
    ],
)
def test_beginnings_that_are_right_or_unknown(story: Callable[[], Story]) -> None:
    assert not story().check("S10").violations


@pytest.mark.parametrize(
    "between", [o.Truncated("t", 1, 0, 1), o.Truncated("u", 0, 0, 1), o.TopicIs("t", 2)]
)
def test_what_happens_to_others_excuses_nothing(between: object) -> None:
    assert accused(told().see("faults", between).assign("a", 0), "S10")


@pytest.mark.parametrize(("is_reset", "verdict"), [(True, "pass"), (False, "fail")])
def test_a_position_beyond_the_end_goes_on_at_the_end_even_if_that_has_passed_it(
    is_reset: bool, verdict: str
) -> None:
    story = told(2).assign("a", 2)
    story.see("a", o.PartitionSought("a", "t", 0, 7))
    story.see("a", e.Sought("t", 0, 1, 7), e.DropBuffered("t", 0, 1, 7, sought=True))
    gone = m.FetchedPartition("t", 0, 1, 5, 0, -1, 0, -1)
    story.see("a", e.ResponseReceived(2, m.FetchResponse(0, (gone,))))
    story.see("producer", o.Produced("t", 0, 12))
    if is_reset:
        answer = m.ListOffsetsResponse((m.ListedOffset("t", 0, 0, 10, 0),))
        story.see("a", e.ResponseReceived(3, answer))
    story.hand_out("a", 10, 11).commit("a", 12)
    assert (story.check("S10").verdict, story.check("S2").verdict) == (verdict, verdict)
