"""What one recording decides: what excuses a member once does not excuse it for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life, Step
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from tests.after.test_judge import TP, commit, fills, gives, join, life, sync
from tests.after.test_judge import pattern as pattern  # a fixture


def told_of_topic(at_ms: int, error_code: int) -> Step:
    topic = m.TopicMetadata(error_code, TP.topic, ())
    return Step(at_ms, e.ResponseReceived(-1, m.MetadataResponse((), (topic,))), ())


def sends(at_ms: int, exchange: Exchange) -> Step:
    order = e.SendRequest(exchange.request_id, 1, "group", exchange.request, 1_000)
    return Step(at_ms, e.TimerFired(), (order,))


def commits(life_: Life, *exchanges: Exchange) -> Life:
    """The same life, which sends these beside what it does."""
    sent = [sends(each.sent_ms, each) for each in exchanges]
    steps = sorted((*life_.steps, *sent), key=lambda step: step.at_ms)
    numbered = [
        replace(each, sent=steps.index(step)) for each, step in zip(exchanges, sent, strict=True)
    ]
    return replace(life_, steps=tuple(steps), exchanges=(*life_.exchanges, *numbered))


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([], "fail"),
        ([told_of_topic(40, KafkaError.UNKNOWN_TOPIC_OR_PARTITION)], "pass"),
        ([told_of_topic(40, KafkaError.UNKNOWN_TOPIC_OR_PARTITION), fills(60, 1)], "fail"),
        ([told_of_topic(40, KafkaError.NONE)], "fail"),
    ],
)
def test_a_topic_that_is_read_again_is_judged_again(
    pattern: Life, steps: list[Step], verdict: str
) -> None:
    """Brokers that have just begun do not know a topic for a moment."""
    begun = [gives(10, 1, 1), fills(20, 1), Step(30, e.MarksTaken((e.Mark(*TP, 1, 0, ""),)), ())]
    one = life("one", [*begun, *steps], [join(1, 0, 5, 1, True), sync(1, 1, 6, b"")], pattern)
    early, late = commit(1, 1, 35, 1), replace(commit(1, 1, 100, 2), request_id=300)
    assert judge([commits(one, early, late)]).verdicts["S2"] == verdict
