"""The smallest examples: what does not matter is gone, and the rest is as it usually is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import Phase, find, settings
from hypothesis.vendor.pretty import pretty

from ksim.scenario import Scenario, dump, parse
from ksim.strategies import describe, scenarios

MANY = settings(
    max_examples=3_000,
    database=None,
    phases=[Phase.generate, Phase.shrink],  # to explain takes longer than all else
)


@pytest.mark.parametrize(
    ("shows", "sentence"),
    [
        (lambda _: True, "one member, one partition"),
        (lambda s: s.groups[0].members > 1, "two members, one partition"),
        (
            lambda s: any(f.do == "delay" and f.for_ms > 6_000 for f in s.faults),
            "one member, one partition, one metadata delayed past the session",
        ),
        (
            lambda s: any(step.do == "pause" for step in s.steps),
            "one member, one partition, g-1 is paused for 2s",
        ),
        (
            lambda s: any(f.kind == "Heartbeat" for f in s.faults) and s.topics[0].partitions > 1,
            "one member, two partitions, one heartbeat lost",
        ),
        (
            lambda s: s.groups[0].workers is not None,
            "one member, one partition, two workers each",
        ),
    ],
)
def test_it_shrinks_to(shows: Callable[[Scenario], bool], sentence: str) -> None:
    found = find(
        scenarios(max_steps=1, max_faults=1, max_ways=1), shows, settings=MANY, random=Random(1)
    )
    assert describe(found) == sentence
    assert len(found.produce) == 1
    assert found.produce[0].count == 1
    assert found.until_ms == 5_000


def test_an_example_is_printed_as_a_file() -> None:
    found = find(scenarios(max_steps=1), lambda s: bool(s.steps), settings=MANY, random=Random(1))
    text = pretty(found)
    assert text == f"parse('''\n{dump(found)}''', 'drawn')"
    assert eval(text, {"parse": parse}) == found
