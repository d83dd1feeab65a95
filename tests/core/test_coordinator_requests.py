"""The coordinator on heartbeats, sessions, leaving, offsets, failover and static members."""

from __future__ import annotations

from typing import Any

import pytest

from ksim.core import messages as m
from ksim.core.coordinator import Coordinator
from ksim.core.coordinator_state import LEGAL_PREDECESSORS, GroupState
from ksim.core.events import (
    GroupRecord,
    LogReplayed,
    RecordsAppended,
    RequestArrived,
    Resigned,
    TimerFired,
)
from ksim.core.trace import plain, value_of
from ksim.core.values import TopicPartition
from tests.core.rig import BOTH, RANGE, Rig, completing

# Heartbeat


@pytest.mark.parametrize(
    ("member", "generation", "instance", "code"),
    [
        ("L", 1, None, 0),
        ("L", -1, None, 22),
        ("L", 2, None, 22),
        ("x", -1, None, 25),
        ("S", 1, "i", 0),
        ("L", 1, "i", 82),
        ("S", 1, "unmapped", 25),
        ("S", 1, None, 0),
    ],
)
def test_heartbeat(member: str, generation: int, instance: str | None, code: int) -> None:
    rig = Rig()
    rig.stable("L", "S@i")
    assert rig.heartbeat(member, generation, instance) == code


def test_heartbeat_of_an_unknown_group_or_an_empty_one() -> None:
    rig = Rig()
    assert rig.heartbeat("a") == 25
    rig.commit()
    assert rig.heartbeat("a") == 25


def test_completing_answers_heartbeats_with_none() -> None:
    rig = completing("L", "F")
    assert rig.heartbeat("L") == 0
    assert rig.commit_code("L", 1) == 27
    assert rig.commit_code("L", 0) == 22
    assert rig.commit_code("L", -1) == 22


# Sessions


def test_what_keeps_a_session_alive() -> None:
    def timed(touch: Any) -> int:
        rig = Rig()
        rig.stable("L")
        start = rig.now
        rig.until(start + 5_000)
        touch(rig)
        while rig.group().members:
            rig.until(rig.machine.deadline_ms or 0)
        return rig.now - start

    assert timed(lambda rig: rig.heartbeat("L")) == 15_000
    assert timed(lambda rig: rig.commit("L", 1)) == 15_000
    assert timed(lambda rig: rig.commit("L", 1, metadata="x" * 4097)) == 15_000
    assert timed(lambda rig: rig.sync("L")) == 10_000
    assert timed(lambda rig: rig.heartbeat("L", 2)) == 10_000
    assert timed(lambda rig: rig.commit("L", 2)) == 10_000
    assert timed(lambda rig: rig.committed()) == 10_000


def test_expiry_empties_the_group() -> None:
    rig = Rig()
    rig.stable("L", "F")
    start = rig.now
    rig.until(start + 5_000)
    rig.heartbeat("F")
    rig.until(start + 10_000)
    assert list(rig.group().members) == ["F"]
    assert rig.group().leader == "F"
    assert rig.group().state == "PreparingRebalance"
    rig.until(start + 30_000)
    assert (rig.group().state, rig.group().generation_id) == ("Empty", 2)
    assert rig.idle


def test_new_member_is_evicted_after_five_minutes() -> None:
    rig = Rig()
    rig.stable("L", rebalance=1_800_000)
    start = rig.now
    token = rig.add("N", rebalance=1_800_000)
    for at in range(4_000, 300_000, 4_000):
        rig.until(start + at)
        assert rig.heartbeat("L") == 27
    rig.until(start + 301_000)
    assert rig.at(token) == start + 300_000
    assert (rig.code(token), rig.answer(token).member_id) == (25, "")


def test_heartbeat_of_a_parked_new_member_shortens_its_timer() -> None:
    rig = Rig()
    rig.stable("L", rebalance=60_000)
    start = rig.now
    token = rig.add("N", rebalance=60_000)
    assert rig.heartbeat("N") == 27
    rig.until(start + 9_000)
    rig.heartbeat("L")
    rig.until(start + 10_000)
    assert rig.code(token) == 25


# LeaveGroup


def test_leave() -> None:
    rig = Rig()
    rig.stable("L", "F", "S@i", "T@j")
    assert rig.leave("x") == 25
    assert rig.leave("", "nobody") == rig.leave("") == 25
    assert rig.leave("S", "j") == 82
    assert rig.leave("S", "nobody") == 25
    assert rig.leave("", "i") == 0
    assert rig.group().state == "PreparingRebalance"
    assert rig.leave("T") == rig.leave("F") == rig.leave("L") == 0
    assert (rig.group().state, rig.group().generation_id) == ("Empty", 2)
    assert rig.leave("L", group="unknown") == 25


def test_leave_answers_the_parked_join() -> None:
    rig = Rig()
    token = rig.add("a")
    rig.add("b")
    assert rig.leave("a") == 0
    assert (rig.code(token), rig.answer(token).member_id) == (25, "")
    assert rig.group().leader == "b"


def test_pending_id_that_leaves_starts_a_rebalance() -> None:
    rig = Rig()
    rig.stable("L", "F")
    rig.join(fresh="p")
    assert rig.leave("p") == 0
    assert rig.group().state == "PreparingRebalance"


def test_pending_id_holds_the_join_phase_open() -> None:
    rig = Rig()
    rig.stable("L", "F")
    rig.join(fresh="p")
    start = rig.now
    tokens = [rig.join("L"), rig.join("F")]
    assert [rig.code(token) for token in tokens] == [None, None]
    rig.until(start + 10_000)
    assert [rig.at(token) for token in tokens] == [start + 10_000] * 2


# Offsets


@pytest.mark.parametrize(
    ("member", "generation", "instance", "code"),
    [
        ("", -1, None, 25),
        ("x", 1, None, 25),
        ("L", 1, None, 0),
        ("L", -1, None, 22),
        ("L", 0, None, 22),
        ("L", 1, "i", 82),
        ("L", 1, "j", 25),
        ("S", 1, "i", 0),
    ],
)
def test_commit_in_stable(member: str, generation: int, instance: str | None, code: int) -> None:
    rig = Rig()
    rig.stable("L", "S@i")
    assert rig.commit_code(member, generation, instance=instance) == code
    assert rig.committed() == (-1 if code else 7)


def test_commit_without_a_member() -> None:
    rig = Rig()
    assert rig.commit_code("a", 1) == 69
    assert rig.commit_code("any", -1, instance="any") == 0
    assert rig.commit_code("any", 0) == 25
    assert rig.committed() == 7
    assert rig.committed("nobody") == -1
    rig.add("a")
    assert rig.commit_code() == 25


@pytest.mark.parametrize(
    ("metadata", "code"),
    [("x" * 4096, 0), ("x" * 4097, 12), ("\U0001f600" * 2048, 0), ("\U0001f600" * 2049, 12)],
)
def test_metadata_is_measured_in_utf16_units(metadata: str, code: int) -> None:
    assert Rig().commit_code(metadata=metadata) == code


def test_refused_metadata_spares_the_other_partitions() -> None:
    rig = Rig()
    offsets = (
        m.OffsetAndMetadata("t", 0, 5, 3, "m"),
        m.OffsetAndMetadata("t", 1, 5, 3, "m" * 5000),
    )
    answer = rig.answer(rig.ask(m.OffsetCommitRequest("g", -1, "", None, offsets)))
    assert [each.error_code for each in answer.partitions] == [0, 12]
    assert len(rig.log) == 1
    partitions = (TopicPartition("t", 0), TopicPartition("t", 1))
    found = rig.answer(rig.ask(m.OffsetFetchRequest("g", partitions)))
    assert found.partitions == (
        m.CommittedOffset("t", 0, 5, 3, "m", 0),
        m.CommittedOffset("t", 1, -1, -1, "", 0),
    )


def test_offsets_are_seen_when_they_are_stored() -> None:
    rig = Rig()
    rig.hold = True
    token = rig.commit(offset=42)
    assert token not in rig.answers
    assert rig.committed() == -1
    rig.appended(0)
    assert rig.answer(token) == m.OffsetCommitResponse((m.PartitionError("t", 0, 0),))
    assert rig.committed() == 42
    refused = rig.commit(offset=43)
    rig.appended(6)
    assert rig.answer(refused).partitions[0].error_code == 16
    assert rig.committed() == 42


# Static members


def test_static_follower_restarts() -> None:
    rig = Rig()
    rig.stable("L", "F@i")
    answer = rig.answer(rig.join(instance="i", fresh="F2", protocols=(("range", b"other"),)))
    assert (answer.error_code, answer.generation_id, answer.member_id) == (0, 1, "F2")
    assert (answer.leader, answer.members) == ("L", ())
    assert rig.group().state == "Stable"
    assert rig.answer(rig.sync("F2", instance="i")).assignment == b"F"
    assert rig.heartbeat("F", 1, "i") == 82
    assert rig.code(rig.sync("F", instance="i")) == 82
    assert rig.code(rig.join("F", instance="i")) == 82
    assert rig.commit_code("F", 1, instance="i") == 82
    assert rig.leave("F", "i") == 82
    assert rig.heartbeat("F") == 25
    record = rig.log[-1]
    assert isinstance(record, GroupRecord)
    assert [each.member_id for each in record.members] == ["L", "F2"]


def test_static_leader_restarts_and_does_not_lead() -> None:
    rig = Rig()
    rig.stable("L@i", "F")
    answer = rig.answer(rig.join(instance="i", fresh="L2", version=8))
    assert (answer.leader, answer.members) == ("L", ())
    assert rig.group().leader == "L2"


def test_static_replacement_that_is_refused() -> None:
    rig = Rig()
    rig.stable("L", "F@i")
    rig.hold = True
    token = rig.join(instance="i", fresh="F2", session=20_000)
    assert rig.code(token) is None
    rig.appended(7)
    assert (rig.code(token), rig.answer(token).member_id) == (15, "")
    assert rig.group().static_members == {"i": "F"}
    assert rig.group().members["F"].session_timeout_ms == 10_000
    assert rig.heartbeat("F", 1, "i") == 0


def test_rebalance_while_a_static_replacement_is_stored() -> None:
    rig = Rig()
    rig.stable("L", "F@i")
    rig.hold = True
    token = rig.join(instance="i", fresh="F2")
    leader = rig.join("L")
    assert rig.answer(leader).generation_id == rig.answer(token).generation_id == 2
    rig.appended(0)
    assert rig.group().state == "CompletingRebalance"


def test_static_replacement_that_changes_the_choice() -> None:
    rig = Rig()
    rig.stable("L", "F@i", protocols=BOTH)
    assert rig.code(rig.join(instance="i", protocols=(("roundrobin", b""),))) is None
    assert rig.group().state == "PreparingRebalance"


def test_static_replacement_while_parked() -> None:
    rig = Rig()
    first = rig.join(instance="i", fresh="a")
    second = rig.join(instance="i", fresh="b")
    assert rig.answer(first) == m.JoinGroupResponse(82, -1, None, None, "", "a", ())
    rig.until(3_000)
    parked = rig.sync("b", instance="i")
    assert rig.code(parked) == rig.code(second) == 0


def test_static_replacement_while_completing() -> None:
    rig = Rig()
    rig.join(instance="i", fresh="L")
    rig.join(instance="j", fresh="F")
    rig.until(6_000)
    parked = rig.sync("F", instance="j")
    assert rig.code(rig.join(instance="j", fresh="F2")) is None
    assert rig.code(parked) == 82
    assert rig.group().state == "PreparingRebalance"


def test_silent_static_members_stay_for_one_generation() -> None:
    rig = Rig()
    rig.stable("S@1", "T@2", session=60_000, rebalance=12_000)
    start = rig.now
    token = rig.add("D")
    rig.until(start + 12_000)
    answer = rig.answer(token)
    assert (answer.generation_id, answer.leader, len(answer.members)) == (2, "D", 3)
    rig.sync("D", 2)
    for at in range(16_000, 24_000, 4_000):
        rig.until(start + at)
        rig.heartbeat("D", 2)
    rig.until(start + 24_000)
    assert list(rig.group().members) == ["D"]


def test_all_static_and_nobody_rejoins() -> None:
    rig = Rig()
    rig.stable("S@1", "T@2", session=60_000, rebalance=12_000)
    start = rig.now
    assert rig.leave("S", "1") == 0
    rig.until(start + 59_999)
    assert rig.group().state == "PreparingRebalance"
    rig.until(start + 60_000)
    assert rig.group().state == "Empty"


# Failover


def test_failover() -> None:
    before = Rig()
    before.stable("L", "F")
    before.commit("L", 1)
    before.until(before.now + 9_000)
    pending = before.add("N")
    before.feed(Resigned())
    assert before.code(pending) == 16
    assert before.changes[-1].to_state == "Dead"
    assert before.heartbeat("L") == 16
    assert before.machine.deadline_ms is None
    after = Rig(load=False)
    after.now = before.now
    after.feed(LogReplayed(tuple(before.log)))
    assert after.group().state == "Stable"
    assert after.committed() == 7
    after.until(before.now + 9_999)
    assert after.heartbeat("L") == after.heartbeat("F") == 0
    assert after.code(after.sync("F")) == 0
    assert after.code(after.join("N")) == 25
    assert after.code(after.join("F", protocols=RANGE)) == 0
    assert after.code(after.join("F", protocols=BOTH)) is None


def test_failover_reuses_a_generation() -> None:
    before = Rig()
    before.stable("L", "F")
    before.join("L")
    before.join("F")
    assert before.group().generation_id == 2
    parked = before.sync("F", 2)
    before.feed(Resigned())
    assert before.code(parked) == 16
    after = Rig(load=False)
    after.feed(LogReplayed(tuple(before.log)))
    assert after.heartbeat("L", 2) == 22
    assert after.heartbeat("L", 1) == 0
    after.join("L")
    assert after.answer(after.join("F", protocols=BOTH)).generation_id == 2


def test_resigning_answers_what_is_being_stored() -> None:
    rig = Rig()
    rig.hold = True
    token = rig.commit()
    rig.feed(Resigned())
    assert rig.answer(token).partitions[0].error_code == 16
    rig.appended(0)
    assert len(rig.answers) == 1


def test_log_of_offsets_alone_makes_the_group() -> None:
    before = Rig()
    before.commit()
    after = Rig(load=False)
    after.feed(LogReplayed(tuple(before.log)))
    assert after.group().state == "Empty"
    assert after.committed() == 7


def test_creation_that_is_not_stored() -> None:
    rig = Rig()
    rig.hold = True
    token = rig.join(instance="i")
    rig.appended(3)
    assert rig.code(token) == 15
    assert rig.machine.state.groups == {}
    assert rig.idle


# The machine


def test_edges_are_those_of_kafka() -> None:
    assert {to.value: [each.value for each in LEGAL_PREDECESSORS[to]] for to in GroupState} == {
        "Empty": ["PreparingRebalance"],
        "PreparingRebalance": ["Empty", "CompletingRebalance", "Stable"],
        "CompletingRebalance": ["PreparingRebalance"],
        "Stable": ["CompletingRebalance"],
        "Dead": ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"],
    }


def test_overdue_timers_come_before_the_fact() -> None:
    rig = Rig()
    rig.stable("L", "F")
    rig.now += 10_000
    assert rig.heartbeat("L") == 25


def test_late_answer_of_the_log_is_ignored() -> None:
    rig = Rig()
    rig.feed(RecordsAppended(99, 0))
    rig.feed(TimerFired())
    assert rig.machine.step(
        RequestArrived(1, m.HeartbeatRequest("g", 0, "", None), "c", "f"), now_ms=0
    )


def test_snapshot_is_the_whole_state() -> None:
    rig = Rig()
    rig.stable("L", "F@i")
    rig.commit("L", 1)
    rig.hold = True
    rig.join(instance="i")
    data = rig.machine.snapshot()
    again = Coordinator.restore(data)
    assert again.snapshot() == data == plain(value_of(data))
    assert again.state == rig.machine.state
