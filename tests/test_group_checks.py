"""S11, L3 and L4, and the budget that they go by, on hand-made steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ksim import observations as o
from ksim.budget import FEW, ROUNDS, Budget, Share, budget_of
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import Subscription
from ksim.core.values import TopicPartition
from ksim.group_checks import _wrong
from ksim.scenario import parse
from tests.test_checks import SCENARIO, TP, Story, accused

WANTS = ("t",)


def passes(story: Story, name: str) -> None:
    checker = story.check(name)
    assert checker.verdict == "pass", checker.violations


# S11


def wrong(protocol: str = "range", **shares: Sequence[int]) -> str:
    """Of three partitions of t that a and b want."""
    members = [Subscription(name, None, WANTS) for name in ("a", "b")]
    given = {
        name: tuple(TopicPartition("t", number) for number in own) for name, own in shares.items()
    }
    return _wrong(protocol, members, {"t": 3}, given)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"a": [0, 1], "b": [2, 3]}, "b was given t-3, which does not exist or nobody wants"),
        ({"a": [0, 1], "c": [2]}, "c was given t-2, but does not want t"),
        ({"a": [0, 1], "b": [1, 2]}, "t-1 was given to a and to b"),
        ({"a": [0, 1], "b": []}, "nobody was given t-2"),
        ({"a": [0, 1, 2], "b": []}, "a has 3 of t, b 0"),
        ({"a": [0], "b": [1, 2]}, "t-1 was given to b, where range gives it to a"),
        ({"a": [0, 1], "b": [2]}, ""),
    ],
)
def test_s11_what_is_wrong_with_an_assignment(shares: dict[str, list[int]], words: str) -> None:
    assert wrong(**shares) == words


def test_s11_round_robin_goes_another_way() -> None:
    assert wrong("roundrobin", a=[0, 2], b=[1]) == ""
    assert wrong("roundrobin", a=[0, 1], b=[2]) == (
        "t-1 was given to a, where roundrobin gives it to b"
    )
    assert wrong("roundrobin", a=[0, 1, 2]) == "a has 3 of t, b 0"


def test_s11_goes_by_what_the_leader_knew() -> None:
    passes(Story().joined("a", 1, "a").share("a", 1, a=[0]), "S11")
    story = Story().joined("a", 1, "a").share("a", 1, a=[])
    assert accused(story, "S11") == (
        "a, leader of generation 1 of g, shared out at 3.000 s: nobody was given t-0."
    )


def test_s11_does_not_judge_what_it_did_not_see() -> None:
    assert Story().share("a", 1, a=[0]).check("S11").verdict == "not judged"
    other = Story().joined("a", 2, "a").share("a", 1, a=[])
    assert other.check("S11").verdict == "not judged"


# L3


def rounds(story: Story, first: int, count: int) -> Story:
    for number in range(first, first + count):
        story.generation(number, "a")
    return story


def test_l3_one_cause_brings_few_rebalances() -> None:
    passes(rounds(Story().start("a"), 1, FEW), "L3")
    sentence = accused(rounds(Story().start("a"), 1, FEW + 1), "L3")
    assert sentence == (
        f"generation {FEW + 1} of g began at {FEW + 2}.000 s without a cause; budget, spent: "
        f"a started at 1.000 s: {FEW}."
    )


def test_l3_a_rebalance_out_of_the_blue() -> None:
    assert "nothing happened lately" in accused(rounds(Story(), 1, 1), "L3")


def test_l3_a_cause_is_forgotten_when_the_group_must_have_settled() -> None:
    story = Story().start("a")
    story.now_ms += budget_of(SCENARIO).shares[0].settle_ms
    assert "nothing happened lately" in accused(rounds(story, 1, 1), "L3")


FAULT = ROUNDS + 1


def struck(name: str, target: str, for_ms: int = 0) -> Callable[[Story], Story]:
    return lambda story: story.see("faults", o.FaultStruck(name, target, for_ms))


def unanswered(story: Story, channel: str) -> Story:
    request = m.HeartbeatRequest("g", 1, "a", None)
    story.see("a", e.TimerFired(), e.SendRequest(1, 1, channel, request, 30_000))
    return story.see("a", e.RequestFailed(1, "no answer"))


@pytest.mark.parametrize(
    ("cause", "brings"),
    [
        (struck("pause", "g-2"), FAULT),
        (struck("crash", "broker-1"), FAULT),
        (struck("add_partitions", "t"), FAULT),
        (struck("move_coordinator", "g"), FAULT),
        (struck("drop request Heartbeat", "g-1"), FAULT),
        (lambda s: unanswered(s, "group"), FEW),
        (lambda s: s.see("a", e.PartitionClosed("t", 0, 1)), FEW),
        (
            lambda s: s.see("a", e.TimerFired(), e.LosePartitions(1, (), "max.poll.interval.ms")),
            FAULT,
        ),
        (struck("delay request JoinGroup", "g-1", 10_000), FAULT),
        (struck("delay request JoinGroup", "g-1", 9_999), 0),
        (struck("duplicate request JoinGroup", "g-1"), 0),
        # What is about reading alone.
        (struck("drop request Fetch", "g-1"), 0),
        (struck("crash response Fetch", "g-1"), FAULT),
        (lambda s: unanswered(s, "fetch"), 0),
        # What disturbs nobody, or shows in the life of a member.
        (struck("pause_partitions", "g-1"), 0),
        (struck("resume_partitions", "g-1"), 0),
        (struck("seek", "g-1"), 0),
        (struck("compact_offsets_log", "g"), 0),
        (struck("start", "g-2"), 0),
        # A link that was whole is not healed.
        (struck("heal", "g-1"), 0),
        (lambda s: struck("heal", "g-1")(struck("partition", "g-1")(s)), 2 * FAULT),
        # What happens to another group, or comes of a rebalance itself, is no cause.
        (struck("crash", "h-1"), 0),
        (lambda s: s.see("a", e.TimerFired(), e.LosePartitions(1, (), "refused")), 0),
    ],
)
def test_l3_what_a_cause_is(cause: Callable[[Story], Story], brings: int) -> None:
    story = cause(Story().start("a"))
    assert story.check("L3").verdict == "not judged"
    rounds(story, 1, FEW + brings)
    passes(story, "L3")
    story.generation(99, "a")
    assert story.check("L3").verdict == "fail"


def asked(story: Story, request: Any, request_id: int = 1) -> Story:
    return story.see("a", e.TimerFired(), e.SendRequest(request_id, 1, "group", request, 30_000))


SYNC = m.SyncGroupRequest("g", 1, "a", None, None, None, ())
JOIN = m.JoinGroupRequest("g", 10_000, 10_000, "a", None, "consumer", ())
WAITS_MS = 2_000


@pytest.mark.parametrize(
    ("waits", "brings"),
    [
        (lambda s: asked(s, SYNC), FEW),
        (lambda s: asked(asked(s, SYNC), SYNC, 2), 2 * FEW),
        (lambda s: asked(s, SYNC).see("a", e.ResponseReceived(1, None)), 0),
        (lambda s: asked(s, JOIN), 0),
    ],
)
def test_l3_an_answer_that_must_have_come(waits: Callable[[Story], Story], brings: int) -> None:
    """It counts before the request fails, and then no more."""
    story = waits(Story().start("a"))
    story.now_ms += WAITS_MS
    passes(rounds(story, 1, FEW + brings), "L3")
    if brings:
        story.see("a", e.RequestFailed(1, "no answer in 30000 ms"))
    assert story.generation(99, "a").check("L3").verdict == "fail"


def test_l3_an_answer_may_take_its_time() -> None:
    story = asked(rounds(Story().start("a"), 1, FEW), SYNC)
    assert rounds(story, FEW + 1, 1).check("L3").verdict == "fail"


def test_l3_a_member_that_crashed_waits_for_nothing() -> None:
    story = asked(Story().start("a"), SYNC).see("cluster", o.MemberLife("a", "g", "crashed", ""))
    story.now_ms += WAITS_MS
    passes(rounds(story, 1, 2 * FEW), "L3")
    assert story.generation(99, "a").check("L3").verdict == "fail"


def at_rest() -> Story:
    return rounds(Story().start("a"), 1, 1).stable(1, "a").assign("a")


@pytest.mark.parametrize(("quiet", "verdict"), [(1, "fail"), (0, "pass")])
def test_l3_a_cause_is_spent_when_the_group_has_been_at_rest(quiet: int, verdict: str) -> None:
    story = at_rest()
    story.now_ms += budget_of(SCENARIO).shares[0].quiet_ms - 1_000 * (not quiet) - 1_000
    assert rounds(story, 2, 1).check("L3").verdict == verdict


@pytest.mark.parametrize("one_of_two", [True, False])
def test_l3_a_static_member_is_waited_for_after_another_process_took_its_place(
    one_of_two: bool,
) -> None:
    """Its SyncGroup is, for a rebalance timeout, and a group rests meanwhile."""
    static = '[[group.member]]\nnumber = 2\ninstance_id = "i"\n' if one_of_two else ""
    text = (
        'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\nmembers = 2\n'
        'topics = ["t"]\nsession_timeout = "6s"\nrebalance_timeout = "15s"\n'
    )
    (share,) = budget_of(parse(text + static, "test")).shares
    assert share.quiet_ms == (21_000 if one_of_two else 12_000)


@pytest.mark.parametrize(("rests", "verdict"), [(True, "fail"), (False, "pass")])
def test_l3_a_coordinator_that_moves_costs_a_group_at_rest_nothing(
    rests: bool, verdict: str
) -> None:
    story = at_rest()
    story.now_ms += budget_of(SCENARIO).shares[0].quiet_ms
    if not rests:
        story.see("a", e.TimerFired(), e.RevokePartitions(1, (TP,)))
    story = struck("move_coordinator", "g")(story)
    assert rounds(story, 2, 1).check("L3").verdict == verdict


def test_l3_a_log_that_takes_nothing_lets_every_round_fail() -> None:
    passes(rounds(struck("refuse_offsets_log", "g", 90_000)(Story().start("a")), 1, 60), "L3")


SLOW = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\n'
    'topics = ["t"]\nmembers = 2\nrebalance_timeout = "6s"\non_assigned = { sleep = "7s" }\n',
    "test",
)


@pytest.mark.parametrize(("members", "verdict"), [(("a",), "pass"), (("a", "b"), "fail")])
def test_l3_a_round_that_a_slow_member_missed_brings_another(
    members: tuple[str, ...], verdict: str
) -> None:
    story = Story(SLOW).start("a").start("b")
    for number in range(1, 20):
        story.generation(number, *members)
    assert story.check("L3").verdict == verdict


def beats(count: int, every_ms: int, error_code: int = 0) -> Story:
    story = Story().start("g-1")
    request = m.HeartbeatRequest("g", 1, "g-1", None)
    for number in range(count):
        story.now_ms += every_ms - 2_000
        order = e.SendRequest(number, 1, "group", request, 1_000)
        story.see("g-1", e.TimerFired(), order)
        story.see("g-1", e.ResponseReceived(number, m.HeartbeatResponse(error_code)))
    return story


def test_l3_a_member_does_not_send_more_heartbeats_than_it_should() -> None:
    # Twenty of them, three seconds apart as they should be, or half of that.
    assert not beats(30, 3_000).check("L3").violations
    assert not beats(30, 2_000).check("L3").violations
    story = beats(30, 2_000)
    request = m.HeartbeatRequest("g", 1, "g-1", None)
    for number in range(100):
        story.bench.see(
            "g-1", story.now_ms, e.TimerFired(), (e.SendRequest(number, 1, "", request, 1),)
        )
    assert "g-1 sent 20 heartbeats within" in accused(story, "L3")


def test_l3_a_heartbeat_that_is_refused_is_repeated() -> None:
    story = beats(1, 2_000)
    request = m.HeartbeatRequest("g", 1, "g-1", None)
    for number in range(100):
        order = e.SendRequest(number, 1, "", request, 1)
        story.bench.see("g-1", story.now_ms, e.TimerFired(), (order,))
        refused = e.ResponseReceived(number, m.HeartbeatResponse(14))
        story.bench.see("g-1", story.now_ms, refused, ())
    assert not story.check("L3").violations


@pytest.mark.parametrize(("generation_id", "verdict"), [(0, "fail"), (1, "pass")])
def test_l3_a_loss_by_the_answer_to_another_generation(generation_id: int, verdict: str) -> None:
    story = rounds(Story().start("a"), 1, 1)
    request = m.HeartbeatRequest("g", generation_id, "a", None)
    story.see("a", e.TimerFired(), e.SendRequest(9, 1, "group", request, 1_000)).assign("a")
    lost = e.LosePartitions(1, (TP,), "refused")
    story.see("a", e.ResponseReceived(9, m.HeartbeatResponse(22)), lost)
    assert story.check("L3").verdict == verdict


# L4


def stopped(after_ms: int, share: Share) -> Story:
    story = Story().start("a").start("b")
    story.now_ms += share.settle_ms + after_ms
    for name in ("a", "b"):
        story.see(name, e.TimerFired(), e.RevokePartitions(1, (TP,)))
    return story


def test_l4_a_stop_that_is_longer_than_the_configuration_allows() -> None:
    share = budget_of(SCENARIO).shares[0]
    story = stopped(0, share).assign("a")
    story.now_ms += share.stop_ms
    sentence = accused(story.assign("b"), "L4")
    assert sentence.startswith("g stood still from ")
    assert sentence.endswith("(nothing happened lately).")


def test_l4_a_stop_in_time() -> None:
    share = budget_of(SCENARIO).shares[0]
    passes(stopped(0, share).assign("a").assign("b"), "L4")


def test_l4_a_member_that_dies_holds_nothing_back() -> None:
    share = budget_of(SCENARIO).shares[0]
    story = stopped(0, share).assign("a").see("b", o.MemberLife("b", "g", "crashed", ""))
    story.now_ms += 10 * share.stop_ms
    passes(story, "L4")


def test_l4_a_cause_relaxes_it_by_the_time_to_settle() -> None:
    share = budget_of(SCENARIO).shares[0]
    story = stopped(0, share).see("faults", o.FaultStruck("hold", "g-2", 0)).assign("a")
    story.now_ms += share.settle_ms
    passes(story.assign("b"), "L4")


def test_l4_a_stop_that_never_ends() -> None:
    share = budget_of(SCENARIO).shares[0]
    story = stopped(0, share)
    story.now_ms += share.stop_ms
    assert "stood still" in accused(story, "L4")


# The budget itself


def test_a_budget_is_a_value_that_faults_enlarge() -> None:
    share = Share("g", 3, 60_000, 10_000, 2_000, lambda name: name == "g-2")
    before = Budget((share,))
    after = before.struck(5_000, o.FaultStruck("pause", "g-2", 7_000))
    assert before.causes == ()
    assert [(c.what, c.until_ms, c.groups) for c in after.causes] == [("pause g-2", 72_000, ("g",))]
    assert after.reaching("g", 72_000)
    assert not after.reaching("g", 72_001)
    assert not after.reaching("h", 10_000)
    later = after.with_cause("again", 80_000, ("g",))
    assert [cause.what for cause in later.causes] == ["again"]
