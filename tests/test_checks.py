"""Each check on hand-made steps: those that are right, and those that it must not let pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ksim import observations as o
from ksim.checks import Checker, S10Order
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import encode_assignment, encode_subscription
from ksim.core.values import TopicPartition
from ksim.liveness import Bench, seen_bound_ms, stable_bound_ms
from ksim.scenario import ClusterSpec, ProduceSpec, Scenario, parse

SCENARIO = parse(
    'name = "x"\nuntil = "1m"\n[topics.t]\npartitions = 1\n[[group]]\nid = "g"\ntopics = ["t"]\n'
    'commit_interval = "1m"\n',
    "test",
)
TP = TopicPartition("t", 0)
BROKER = "broker-1/3"


class Story:
    """Steps told one after the other, a second each."""

    def __init__(self, scenario: Scenario = SCENARIO) -> None:
        self.bench = Bench(scenario)
        self.now_ms = 0
        self._token = 0

    def see(self, source: str, fact: Any, *orders: Any) -> Story:
        self.now_ms += 1_000
        self.bench.see(source, self.now_ms, fact, orders)
        return self

    def start(self, member: str) -> Story:
        return self.see(member, o.MemberLife(member, "g", "started", ""))

    def known(self, member: str) -> Story:
        """A member of g from the beginning, without a second passing."""
        if member not in self.bench.truth.groups:
            self.bench.see(member, self.now_ms, o.MemberLife(member, "g", "started", ""), ())
        return self

    def assign(self, member: str, offset: int = 0, tenure: int = 1) -> Story:
        self.known(member)
        order = e.AssignPartitions(1, (e.Assigned("t", 0, tenure, offset),))
        self.see(member, e.TimerFired(), order)
        return self.tell(member, "assigned", TP)

    def tell(self, member: str, kind: str, *partitions: TopicPartition) -> Story:
        """The callback runs in the same instant."""
        self.bench.see(member, self.now_ms, o.CallbackRan(member, kind, partitions), ())
        return self

    def joined(self, member: str, number: int, *members: str) -> Story:
        """A leader has learned of the topic and of its members."""
        found = tuple(m.PartitionMetadata(0, at, 1, 0) for at in range(1))
        topics = (m.TopicMetadata(0, "t", found),)
        self.see(member, e.ResponseReceived(1, m.MetadataResponse((), topics)))
        wants = encode_subscription(("t",))
        peers = tuple(m.JoinedMember(name, None, wants) for name in members)
        answer = m.JoinGroupResponse(0, number, "consumer", "range", member, member, peers)
        return self.see(member, e.ResponseReceived(2, answer))

    def share(self, member: str, number: int, **shares: Sequence[int]) -> Story:
        """The leader sends its SyncGroup."""
        sent = tuple(
            (name, encode_assignment(TopicPartition("t", p) for p in own))
            for name, own in shares.items()
        )
        request = m.SyncGroupRequest("g", number, member, None, "consumer", "range", sent)
        order = e.SendRequest(3, 1, "group", request, 30_000)
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

    def commit(
        self, member: str, offset: int, generation_id: int = 1, leader_epoch: int = -1
    ) -> Story:
        self._token += 1
        marked = m.OffsetAndMetadata("t", 0, offset, leader_epoch, "")
        request = m.OffsetCommitRequest("g", generation_id, member, None, (marked,))
        entry = e.OffsetRecord("g", "t", 0, offset, leader_epoch, "")
        order = e.AppendRecords(self._token, (entry,))
        self.see(BROKER, e.RequestArrived(self._token, request, member, "f"), order)
        return self.see(BROKER, e.RecordsAppended(self._token, 0))

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
        return self.append(entry)

    def append(self, *entries: e.LogEntry, error_code: int = 0) -> Story:
        self._token += 1
        self.see(BROKER, e.TimerFired(), e.AppendRecords(self._token, entries))
        return self.see(BROKER, e.RecordsAppended(self._token, error_code))

    def check(self, name: str) -> Checker:
        self.bench.end(self.now_ms)
        return next(checker for checker in self.bench.checkers if checker.name == name)


def healthy() -> Story:
    """A group of two generations, with everything in order."""
    story = Story().start("a").generation(1, "a").joined("a", 1, "a").share("a", 1, a=[0])
    story.record(1, a=[0]).stable(1, "a").assign("a")
    story.see("producer", o.Produced("t", 0, 4))
    story.hand_out("a", 0, 1).commit("a", 2)
    revoked = e.PartitionsRevoked(1, ())
    story.see("a", e.TimerFired(), e.RevokePartitions(1, (TP,))).tell("a", "revoked", TP)
    story.see("a", revoked).start("b").generation(2, "a", "b").record(2, a=[], b=[0]).stable(
        2, "a", "b"
    )
    story.see("a", e.TimerFired(), e.AssignPartitions(2, ()))
    story.assign("b", offset=2).hand_out("b", 2, 3).commit("b", 4, generation_id=2)
    return story.see("faults", o.Healed(("a", "b")))


def test_a_healthy_group_passes_every_check() -> None:
    story = healthy()
    story.check("L1")
    verdicts = story.bench.verdicts
    assert verdicts.pop("M1") == "not judged"  # coverage is no matter of one run
    assert set(verdicts.values()) == {"pass"}, (verdicts, story.bench.violations)
    assert story.bench.verdict == "pass"


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
        "a committed offset 2 of t-0 at 6.000 s, "
        "but nobody in g has handled offset 1: it would be lost."
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


@pytest.mark.parametrize(
    ("where", "offsets", "verdict"),
    [
        (("t", 0), (0,), "pass"),
        (("t", 0), (0, 1, 0), "fail"),
        (("t", 0), (3,), "fail"),
        (("t", 1), (0,), "fail"),
        (("t", None), (0,), "pass"),
    ],
)
def test_s10_a_log_that_became_shorter_lets_its_tenure_go_back_once(
    where: tuple[str, int | None], offsets: tuple[int, ...], verdict: str
) -> None:
    topic, partition = where
    story = Story().assign("a").hand_out("a", 0, 1)
    cut = o.TopicIs(topic, 0) if partition is None else o.Truncated(topic, partition, 0, 1)
    story = story.see("faults", cut).hand_out("a", *offsets)
    assert story.check("S10").verdict == verdict


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


def test_s12_a_coordinator_finds_no_less_than_was_stored() -> None:
    records = [e.GroupRecord("g", "consumer", n, "range", "a", 0, ()) for n in (1, 2)]
    story = Story().append(records[1])
    story.see("other", e.LogReplayed((records[1], e.GroupRecord("h", "", 0, None, None, -1, ()))))
    assert not story.check("S12").violations
    story.see("other", e.LogReplayed((records[0],)))
    said = accused(story, "S12")
    assert said == "other loaded generation 1 of g at 4.000 s, but 2 had been stored."


def test_s12_a_generation_that_was_not_stored_is_made_again_elsewhere() -> None:
    made = e.StateChanged("g", "PreparingRebalance", "CompletingRebalance", 1, ("a",), "")
    story = Story().generation(1, "a")
    story.see("other", e.LogReplayed(()))
    story.see("other", e.TimerFired(), made)
    assert story.check("S12").verdict == "pass"
    story.see("other", e.TimerFired(), made)
    assert accused(story, "S12").startswith("generation 1 of g began at ")


@pytest.mark.parametrize("error_code", [19, 0])
def test_s12_a_group_whose_creation_was_not_stored_begins_again(error_code: int) -> None:
    story = Story().generation(1, "a")
    story.append(e.GroupRecord("g", "", 0, None, None, -1, ()), error_code=error_code)
    passes = story.generation(1, "b").check("S12").verdict == "pass"
    assert passes == (error_code != 0)


@pytest.mark.parametrize("error_code", [19, 0])
def test_s12_a_generation_of_a_group_in_the_step_in_which_it_is_removed(error_code: int) -> None:
    """A timer that was overdue comes first; then the group is not there any more."""
    made = e.StateChanged("g", "PreparingRebalance", "CompletingRebalance", 1, ("a",), "")
    created = e.GroupRecord("g", "", 0, None, None, -1, ())
    story = Story().see(BROKER, e.TimerFired(), e.AppendRecords(7, (created,)))
    story.see(BROKER, e.RecordsAppended(7, error_code), made)
    passes = story.generation(1, "b").check("S12").verdict == "pass"
    assert passes == (error_code != 0)


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
    assert "offset 4 of t-0 (end 5) is unhandled in g" in accused(story, "L2")


def test_bounds_grow_with_the_configuration() -> None:
    assert stable_bound_ms(SCENARIO) > 4 * 30_000
    assert seen_bound_ms(SCENARIO) >= stable_bound_ms(SCENARIO)


def test_a_record_that_is_committed_by_itself_costs_a_round_trip_too() -> None:
    (group,) = SCENARIO.groups
    produce = (ProduceSpec("t", per_second=10, count=100),)
    cluster = ClusterSpec(latency_ms=(1, 400))
    usual = replace(SCENARIO, cluster=cluster, produce=produce)
    apart = replace(usual, groups=(replace(group, commit="each"),))
    assert seen_bound_ms(apart) - seen_bound_ms(usual) == 100 * 2 * 400


def two_groups() -> Story:
    """a of g and b of h own the same partition, each for its own group."""
    story = Story().start("a").assign("a")
    story.see("b", o.MemberLife("b", "h", "started", "")).assign("b")
    return story.see("producer", o.Produced("t", 0, 2)).hand_out("b", 0, 1)


def test_groups_do_not_own_against_each_other() -> None:
    assert two_groups().hand_out("a", 0).check("S5").verdict == "pass"


@pytest.mark.parametrize("check", ["S1", "S2"])
def test_what_another_group_handled_does_not_count(check: str) -> None:
    story = two_groups().hand_out("a", 0).generation(1, "a")
    assert "a committed offset 2 of t-0" in accused(story.commit("a", 2), check)


def test_l2_judges_each_group_by_its_own_topics() -> None:
    story = two_groups().hand_out("a", 0).see("producer", o.Produced("unread", 0, 9))
    story.see("faults", o.Healed(("a", "b")))
    checker = story.check("L2")
    assert [v.sentence[:40] for v in checker.violations] == [
        "offset 1 of t-0 (end 2) is unhandled in "
    ]
    assert "unhandled in g at" in checker.violations[0].sentence


def test_a_seek_forward_gives_up_what_it_jumps_over() -> None:
    story = Story().generation(1, "a").assign("a").hand_out("a", 0)
    story.see("a", e.Sought("t", 0, 1, 5), e.DropBuffered("t", 0, 1, 5)).hand_out("a", 5)
    story.commit("a", 6)
    assert [story.check(name).verdict for name in ("S1", "S2", "S10")] == ["pass"] * 3


def sent(story: Story, member: str, offset: int) -> Story:
    """The member sends the commit; it has not arrived yet."""
    offsets = (m.OffsetAndMetadata("t", 0, offset, -1, ""),)
    request = m.OffsetCommitRequest("g", 1, member, None, offsets)
    return story.see(member, e.TimerFired(), e.SendRequest(9, 1, "group", request, 30_000))


@pytest.mark.parametrize(("before", "verdict"), [(True, "pass"), (False, "fail")])
def test_s2_only_a_commit_from_before_a_seek_back_may_pass_it(before: bool, verdict: str) -> None:
    story = Story().generation(1, "a").assign("a").hand_out("a", 0, 1, 2)
    if before:
        sent(story, "a", 3)
    story.see("a", e.Sought("t", 0, 1, 1), e.DropBuffered("t", 0, 1, 1))
    if not before:
        sent(story, "a", 3)
    assert story.commit("a", 3).check("S2").verdict == verdict


def test_s2_a_handler_of_an_older_tenure_raises_nothing() -> None:
    story = Story().generation(1, "a").assign("a").hand_out("a", 0, handle=False)
    story.assign("a", tenure=2).see("a", o.Handled("a", "t", 0, 1, 0)).commit("a", 1)
    assert "offset 0 is the lowest" in accused(story, "S2")


def test_a_check_that_crashes_is_broken_and_does_not_pass() -> None:
    story = healthy()
    checker = next(each for each in story.bench.checkers if each.name == "S10")
    assert isinstance(checker, S10Order)
    checker._next = None  # type: ignore[assignment]
    story.hand_out("b", 4).hand_out("b", 5)
    assert story.check("S10").verdict == "broken"
    assert story.bench.verdict == "broken"
    broken = [v.sentence for v in story.bench.violations if v.check == "S10"]
    assert len(broken) == 1
    assert broken[0].startswith("the check itself broke at 33.000 s: AttributeError: ")
    assert story.bench.verdicts["S5"] == "pass"


@pytest.mark.parametrize("name", ["waiting_for", "rests"])
def test_a_check_that_crashes_while_it_is_asked_is_broken(name: str) -> None:
    story = healthy()
    setattr(story.bench.stable, name, None)
    assert story.bench.waiting_for(story.now_ms) == () or name == "rests"
    story.bench.at_rest(story.now_ms)
    assert story.bench.verdicts["L1"] == "broken"
    assert story.check("L2").verdict == "pass"


def test_where_the_ground_truth_is_not_known_every_check_is_broken() -> None:
    story = healthy()
    story.bench.truth.ends = None  # type: ignore[assignment]
    story.see("producer", o.Produced("t", 0, 9))
    assert set(story.bench.verdicts.values()) <= {"broken", "not judged"}
    assert story.bench.verdict == "broken"


def cut_to(offset: int) -> Story:
    """a has handled four records of epoch 0, and the log is cut off under epoch 1."""
    story = Story().generation(1, "a").assign("a").see("producer", o.Produced("t", 0, 4))
    written_ms = story.now_ms
    for at in range(4):
        story.see("a", o.Handled("a", "t", 0, 1, at, written_ms))
    return story.see("faults", o.Truncated("t", 0, offset, 1))


@pytest.mark.parametrize("name", ["S1", "S2"])
def test_a_commit_of_an_epoch_that_was_cut_off_stands_for_its_end(name: str) -> None:
    assert cut_to(2).commit("a", 4, leader_epoch=0).check(name).verdict == "pass"


def test_s1_a_commit_over_records_that_took_the_place_of_others() -> None:
    story = cut_to(2).commit("a", 4, leader_epoch=1)
    assert "nobody in g has handled offset 2" in accused(story, "S1")
    assert "nobody in g has handled offset 2" in accused(cut_to(2).commit("a", 4), "S1")


def test_s2_a_record_that_is_gone_is_not_the_one_in_its_place() -> None:
    story = cut_to(2).see("a", e.TimerFired(), e.DropBuffered("t", 0, 1, 2))
    story.see("a", o.Handled("a", "t", 0, 1, 2, 0)).commit("a", 3, leader_epoch=1)
    assert "offset 2 is the lowest that it has not handled" in accused(story, "S2")
    new = cut_to(2).see("a", e.TimerFired(), e.DropBuffered("t", 0, 1, 2))
    new.see("a", o.Handled("a", "t", 0, 1, 2, new.now_ms)).commit("a", 3, leader_epoch=1)
    assert new.check("S2").verdict == "pass"


@pytest.mark.parametrize("name", ["S2", "S10"])
def test_what_was_buffered_below_a_truncation_is_still_to_come(name: str) -> None:
    """Two of four records are handled when the member learns that the log ends at 3."""
    story = Story().generation(1, "a").assign("a").hand_out("a", 0, 1)
    story.see("faults", o.Truncated("t", 0, 3, 1))
    story.see("a", e.TimerFired(), e.DropBuffered("t", 0, 1, 3))
    wrong = "but in tenure 1 offset 2 was next" if name == "S10" else "offset 2 is the lowest"
    story.hand_out("a", 3).commit("a", 4, leader_epoch=1)
    assert wrong in accused(story, name)


@pytest.mark.parametrize("name", ["S6", "S7"])
def test_what_a_term_had_under_way_is_no_write_of_the_next(name: str) -> None:
    """A coordinator that has failed gives its numbers again."""
    member = e.GroupRecordMember("x", None, "x", "/h", 1, 1, b"", b"")
    record = e.GroupRecord("g", "consumer", 1, "range", "x", 0, (member,))
    story = Story().start("a").see(BROKER, e.TimerFired(), e.AppendRecords(1, (record,)))
    request = m.SyncGroupRequest("g", 1, "a", None, "consumer", "range", ())
    story.see(BROKER, e.LogReplayed(())).see(
        "a", e.TimerFired(), e.SendRequest(1, 1, "group", request, 1_000)
    )
    story.generation(1, "a").stable(1, "a").assign("a").hand_out("a", 0).commit("a", 1)
    assert story.hand_out("a", 1).commit("a", 2).check(name).verdict == "pass"
