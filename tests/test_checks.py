"""Each check on hand-made steps: those that are right, and those that it must not let pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ksim import observations as o
from ksim.checks import Checker
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from ksim.liveness import Bench, seen_bound_ms, stable_bound_ms
from ksim.scenario import parse

SCENARIO = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n',
    "test",
)
TP = TopicPartition("t", 0)
BROKER = "broker-1/3"


class Story:
    """Steps told one after the other, a second each."""

    def __init__(self) -> None:
        self.bench = Bench(SCENARIO)
        self.now_ms = 0
        self._token = 0

    def see(self, source: str, fact: Any, *orders: Any) -> Story:
        self.now_ms += 1_000
        self.bench.see(source, self.now_ms, fact, orders)
        return self

    def start(self, member: str) -> Story:
        return self.see(member, o.MemberLife(member, "g", "started", ""))

    def assign(self, member: str, offset: int = 0, tenure: int = 1) -> Story:
        order = e.AssignPartitions(1, (e.Assigned("t", 0, tenure, offset),))
        return self.see(member, e.TimerFired(), order)

    def hand_out(self, member: str, *offsets: int, handle: bool = True, tenure: int = 1) -> Story:
        for offset in offsets:
            self.see(member, o.HandedOut(member, "t", 0, tenure, offset))
            if handle:
                self.see(member, o.Handled(member, "t", 0, tenure, offset))
        return self

    def generation(self, number: int, *members: str) -> Story:
        to_state = "CompletingRebalance"
        order = e.StateChanged("g", "PreparingRebalance", to_state, number, members, "joined")
        return self.see(BROKER, e.TimerFired(), order)

    def stable(self, number: int, *members: str) -> Story:
        order = e.StateChanged("g", "CompletingRebalance", "Stable", number, members, "synced")
        return self.see(BROKER, e.TimerFired(), order)

    def commit(self, member: str, offset: int, generation_id: int = 1) -> Story:
        self._token += 1
        request = m.OffsetCommitRequest(
            "g", generation_id, member, None, (m.OffsetAndMetadata("t", 0, offset, -1, ""),)
        )
        order = e.AppendRecords(self._token, (e.OffsetRecord("g", "t", 0, offset, -1, ""),))
        return self.see(BROKER, e.RequestArrived(self._token, request, member, "f"), order)

    def record(self, number: int, **shares: Sequence[int]) -> Story:
        members = tuple(
            e.GroupRecordMember(
                name,
                None,
                name,
                "/h",
                1,
                1,
                b"",
                encode_assignment(TopicPartition("t", p) for p in own),
            )
            for name, own in shares.items()
        )
        entry = e.GroupRecord("g", "consumer", number, "range", "a", 0, members)
        return self.see(BROKER, e.TimerFired(), e.AppendRecords(99, (entry,)))

    def check(self, name: str) -> Checker:
        self.bench.end(self.now_ms)
        return next(checker for checker in self.bench.checkers if checker.name == name)


def healthy() -> Story:
    """A group of two generations, with everything in order."""
    story = Story().start("a").generation(1, "a").record(1, a=[0]).stable(1, "a").assign("a")
    story.see("producer", o.Produced("t", 0, 4))
    story.hand_out("a", 0, 1).commit("a", 2)
    revoked = e.PartitionsRevoked(1, ())
    story.see("a", e.TimerFired(), e.RevokePartitions(1, (TP,))).see("a", revoked)
    story.start("b").generation(2, "a", "b").record(2, a=[], b=[0]).stable(2, "a", "b")
    story.see("a", e.TimerFired(), e.AssignPartitions(2, ()))
    story.assign("b", offset=2).hand_out("b", 2, 3).commit("b", 4, generation_id=2)
    return story.see("faults", o.Healed(("a", "b")))


def test_a_healthy_group_passes_every_check() -> None:
    story = healthy()
    story.check("L1")
    assert set(story.bench.verdicts.values()) <= {"pass"}, story.bench.violations


def test_what_was_never_seen_is_not_judged() -> None:
    story = Story()
    story.check("L1")
    assert set(story.bench.verdicts.values()) == {"not judged"}


def accused(story: Story, name: str) -> str:
    checker = story.check(name)
    assert checker.verdict == "fail"
    return checker.violations[0].sentence


def test_s1_a_commit_past_a_record_that_nobody_handled() -> None:
    story = Story().generation(1, "a").assign("a").hand_out("a", 0).hand_out("a", 1, handle=False)
    sentence = accused(story.commit("a", 2), "S1")
    assert sentence == (
        "a committed offset 2 of t-0 at 6.000 s, but nobody has handled offset 1: it would be lost."
    )


def test_s2_a_commit_past_what_its_own_tenure_handled() -> None:
    story = Story().generation(1, "a", "b").assign("a").hand_out("a", 0, 1)
    story.assign("b", offset=0).hand_out("b", 0)
    sentence = accused(story.commit("b", 2), "S2")
    assert "b committed offset 2 of t-0" in sentence
    assert "offset 1 is the lowest that it has not handled" in sentence
    assert story.bench.verdicts["S1"] == "pass"


def test_s4_one_partition_for_two_members() -> None:
    sentence = accused(Story().record(3, a=[0], b=[0]), "S4")
    assert sentence == "generation 3 of g gives t-0 to a and to b at 1.000 s."


def test_s5_a_hand_out_after_another_was_assigned() -> None:
    story = Story().assign("a").hand_out("a", 0).assign("b", offset=1).hand_out("a", 1)
    sentence = accused(story, "S5")
    assert "a handed out offset 1 of t-0 at 5.000 s, although b has owned it since 4.000 s" in (
        sentence
    )


def test_s5_lets_a_handler_end_what_it_holds() -> None:
    story = Story().assign("a").hand_out("a", 0, handle=False).assign("b")
    story.see("a", o.Handled("a", "t", 0, 1, 0))
    assert story.check("S5").verdict == "pass"


@pytest.mark.parametrize(("member", "generation_id"), [("a", 1), ("z", 2)])
def test_s6_a_commit_of_another_generation_or_of_a_stranger(
    member: str, generation_id: int
) -> None:
    story = Story().generation(2, "a").commit(member, 0, generation_id=generation_id)
    assert f"from {member} in generation {generation_id}" in accused(story, "S6")


@pytest.mark.parametrize("offsets", [(1,), (0, 2), (0, 0), (0, 1, 0)])
def test_s10_gaps_and_repetitions(offsets: tuple[int, ...]) -> None:
    story = Story().assign("a").hand_out("a", *offsets)
    assert f"offset {offsets[-1]} of t-0" in accused(story, "S10")


def test_s12_generations_that_do_not_rise() -> None:
    story = Story().generation(2, "a").generation(2, "a")
    assert accused(story, "S12") == "generation 2 of g began at 2.000 s after generation 2."


def test_s12_allows_a_new_coordinator_to_fall_back() -> None:
    story = Story().generation(2, "a")
    entry = e.GroupRecord("g", "consumer", 1, "range", "a", 0, ())
    story.see(BROKER, e.LogReplayed((entry,))).generation(2, "a")
    assert story.check("S12").verdict == "pass"


def test_s12_two_leaders_of_a_generation() -> None:
    story = Story()
    for name in ("a", "b"):
        peers = (m.JoinedMember(name, None, b""),)
        answer = m.JoinGroupResponse(0, 1, "consumer", "range", name, name, peers)
        story.see(BROKER, e.TimerFired(), e.SendResponse(1, answer))
    assert "has two leaders" in accused(story, "S12")


def test_s12_a_sync_answer_that_the_leader_did_not_send() -> None:
    story = Story().record(1, a=[0])
    request = m.SyncGroupRequest("g", 1, "a", None, "consumer", "range", ())
    story.see(BROKER, e.RequestArrived(7, request, "a", "f"))
    answer = m.SyncGroupResponse(0, "consumer", "range", encode_assignment([]))
    story.see(BROKER, e.TimerFired(), e.SendResponse(7, answer))
    assert "something else than its leader had sent" in accused(story, "S12")


def test_l1_a_group_that_does_not_come_to_rest() -> None:
    story = healthy()
    story.see("a", e.TimerFired(), e.LosePartitions(2, (), "gone"))
    assert "a of g own nothing yet" in accused(story, "L1")


def test_l1_a_pause_within_the_session_takes_nothing_away() -> None:
    story = healthy()
    for what in ("paused", "resumed"):
        story.see("b", o.MemberLife("b", "g", what, ""))
    assert story.check("L1").verdict == "pass"


def test_l1_a_partition_without_owner() -> None:
    story = healthy().see("b", e.TimerFired(), e.AssignPartitions(3, ()))
    assert "nobody in g owns t-0" in accused(story, "L1")


def test_l1_fails_when_its_bound_is_over_even_if_rest_comes_later() -> None:
    story = healthy()
    story.see("a", e.TimerFired(), e.LosePartitions(2, (), "gone"))
    late_ms = story.now_ms + stable_bound_ms(SCENARIO) + 1_000
    assert not story.bench.at_rest(late_ms)
    story.see("a", e.TimerFired(), e.AssignPartitions(2, ()))
    assert story.check("L1").verdict == "fail"


def test_l2_a_record_that_nobody_handled() -> None:
    story = healthy().see("producer", o.Produced("t", 0, 5))
    assert "offset 4 of t-0 (end 5) is unhandled" in accused(story, "L2")


def test_bounds_grow_with_the_configuration() -> None:
    assert stable_bound_ms(SCENARIO) > 4 * 30_000
    assert seen_bound_ms(SCENARIO) >= stable_bound_ms(SCENARIO)
