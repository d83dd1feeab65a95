"""What one recording decides: what excuses a member once does not excuse it for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksim.after.judge import judge
from ksim.after.lives import Exchange, Life, Step
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member_state import Release
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


@pytest.mark.parametrize(
    ("steps", "offset", "verdict"),
    [
        ([fills(20, 1)], 1, "pass"),
        ([fills(40, 1)], 1, "undecided"),  # it was marked before it was read
        ([], 3, "undecided"),  # what is marked was handed out in another tenure, or never
        ([fills(20, 1)], 3, "undecided"),
        ([Step(20, e.Sought(*TP, 1, 3), (e.DropBuffered(*TP, 1, 3, sought=True),))], 3, "pass"),
        ([gives(15, 1, 2)], 3, "undecided"),
    ],
)
def test_a_commit_of_what_its_tenure_has_not_read_is_undecided(
    pattern: Life, steps: list[Step], offset: int, verdict: str
) -> None:
    """An application may mark by name what it was given before."""
    tenure = 2 if steps and isinstance(steps[0].fact, e.TimerFired) else 1
    marked = Step(30, e.MarksTaken((e.Mark(*TP, tenure, offset - 1, ""),)), ())
    end = m.FetchedPartition(*TP, KafkaError.NOT_LEADER_OR_FOLLOWER, 9, 0, 9, 0)
    log = Step(5, e.ResponseReceived(0, m.FetchResponse(0, (end,))), ())
    told = sorted([log, gives(10, 1, 1), *steps, marked], key=lambda step: step.at_ms)
    one = life("one", told, [], pattern)
    assert judge([commits(one, commit(1, 1, 50, offset))]).verdicts["S2"] == verdict


def ordered(order: e.MemberOrder) -> Step:
    return Step(20, e.TimerFired(), (order,))


REVOKES = ordered(e.RevokePartitions(1, (TP,)))
GIVES_UP = ordered(e.AbandonPartitions(1))
REVOKED = Step(30, e.PartitionsRevoked(1, ()), ())
LOSES, LOST = ordered(e.LosePartitions(2, (TP,), "")), Step(30, e.PartitionsLost(2), ())


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([REVOKES, REVOKED], "pass"),
        ([REVOKES, REVOKED, REVOKED], "fail"),
        ([REVOKES, REVOKED, gives(40, 2, 2), REVOKED], "fail"),
        # The driver gives up waiting in the moment in which the application ends by itself.
        ([REVOKES, GIVES_UP, REVOKED, REVOKED], "pass"),
        ([REVOKES, GIVES_UP, REVOKED, REVOKED, REVOKED], "fail"),
        ([REVOKES, REVOKED, LOSES, LOST], "pass"),
        ([LOSES, LOST, LOST], "fail"),
        ([LOST], "fail"),  # nobody had asked for it
    ],
)
def test_each_end_is_told_once(pattern: Life, steps: list[Step], verdict: str) -> None:
    one = life("one", [gives(10, 1, 1), *steps], [], pattern)
    assert judge([one]).verdicts["S8"] == verdict


@pytest.mark.parametrize(
    ("steps", "verdict"), [([LOST], "pass"), ([LOST, LOST], "fail"), ([REVOKED, LOST], "pass")]
)
def test_an_end_that_was_asked_for_before_the_recording_is_told_once(
    pattern: Life, steps: list[Step], verdict: str
) -> None:
    one = life("one", [*steps, gives(40, 1, 1)], [], pattern)
    state = replace(pattern.state, next_revocation_id=2)
    assert judge([replace(one, state=state)]).verdicts["S8"] == verdict


def test_a_recording_may_begin_when_the_application_was_given_up(pattern: Life) -> None:
    one = life("one", [REVOKED, REVOKED, gives(40, 1, 1)], [], pattern)
    state = replace(pattern.state, next_revocation_id=1, release=Release.REVOKING)
    assert judge([replace(one, state=state)]).verdicts["S8"] == "pass"
