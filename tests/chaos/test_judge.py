"""The judge of a night sees each thing that must not be, and excuses only what is excused."""

from __future__ import annotations

from typing import Any

from tests.chaos.judge import (
    Commits,
    Stalls,
    duplicates,
    going_back,
    judge,
    overlaps,
    stalls,
    tenures_of,
)
from tests.chaos.members import Life
from tests.chaos.plan import Act, draw
from tests.chaos.run import Night

Line = tuple[float, dict[str, Any]]


def event(at_s: float, kind: str, *partitions: int) -> Line:
    return at_s, {"event": kind, "partitions": [["orders", p] for p in partitions], "t": at_s}


def record(at_s: float, offset: int, partition: int = 0) -> Line:
    return at_s, {"topic": "orders", "partition": partition, "offset": offset}


def life(name: str, *lines: Line, **more: Any) -> Life:
    asked = {} if "killed_s" in more else {"asked_s": 90.0, "ended_s": 91.0, "exit_code": 0}
    return Life(name, 0.0, lines=list(lines), **asked, **more)


def night(*lives: Life, records: int, **more: Any) -> Night:
    acknowledged = {(0, offset): 1.0 for offset in range(records)}
    return Night(1, 0.0, 80.0, drained_s=85.0, acknowledged=acknowledged, lives=list(lives), **more)


def faults(
    happened: Night, commits: dict[str, Commits], log: list[tuple[int, int]] | None = None
) -> list[str]:
    return judge(happened, commits, [(0, 2)] if log is None else log).faults


GOOD = (
    event(1, "assigned", 0), record(2, 0), record(3, 1), event(10, "revoked", 0),
)  # fmt: skip
NEXT = (event(12, "assigned", 0), record(13, 2), event(90, "revoked", 0))
COMMITS: dict[str, Commits] = {"a": [{0: 2}], "b": [{0: 3}]}


def test_a_good_night_has_no_faults() -> None:
    assert faults(night(life("a", *GOOD), life("b", *NEXT), records=3), COMMITS) == []


def test_a_lost_record_is_seen() -> None:
    (fault,) = faults(night(life("a", *GOOD), life("b", *NEXT), records=4), COMMITS)
    assert fault == "lost: [(0, 3)]"


def test_two_owners_are_seen() -> None:
    early = (event(9.5, "assigned", 0), *NEXT[1:])
    (fault,) = faults(night(life("a", *GOOD), life("b", *early), records=3), COMMITS)
    assert fault == "0 owned by a and b: 500 ms"


def test_a_stop_that_ends_in_a_loss_ends_the_ownership() -> None:
    lines = (event(1, "assigned", 0), record(2, 0), event(20.1, "lost", 0))
    stopped = life("a", *lines, stops=[(5.0, 20.0)])
    other = life("b", event(12, "assigned", 0), record(13, 0), event(90, "revoked", 0))
    (first,) = tenures_of(stopped, [{}])
    assert (first.ended_s, first.end) == (5.0, "stopped")
    assert overlaps([first, *tenures_of(other, [{}])]) == []


def test_a_short_stop_does_not_excuse_a_later_revocation() -> None:
    stopped = life("a", *GOOD, stops=[(4.0, 5.0)])
    (tenure,) = tenures_of(stopped, [{}])
    assert (tenure.ended_s, tenure.end) == (10, "revoked")


def test_a_duplicate_after_a_revocation_is_a_fault() -> None:
    again = (event(12, "assigned", 0), record(13, 1), record(14, 2), event(90, "revoked", 0))
    uncommitted: dict[str, Commits] = {"a": [{0: 1}], "b": [{0: 3}]}
    (fault,) = faults(night(life("a", *GOOD), life("b", *again), records=3), uncommitted)
    assert fault == "0@1 again after a: revoked"


def test_a_duplicate_after_a_kill_is_excused_beyond_the_commit_only() -> None:
    again = (event(12, "assigned", 0), record(13, 0), record(14, 1), record(15, 2), NEXT[-1])
    killed = life("a", *GOOD[:3], killed_s=5.0)
    happened = night(killed, life("b", *again), records=3)
    assert faults(happened, {"a": [{0: 0}], "b": [{0: 3}]}) == []
    (fault,) = faults(happened, {"a": [{0: 1}], "b": [{0: 3}]})
    assert fault == "0@0 again though a committed it"


def test_an_outage_of_brokers_excuses_a_commit_that_failed() -> None:
    again = (event(12, "assigned", 0), record(13, 1), record(14, 2), event(90, "revoked", 0))
    tenures = [*tenures_of(life("a", *GOOD), [{0: 1}]), *tenures_of(life("b", *again), [{}])]
    assert duplicates(tenures, [(8.0, 9.0)]) == (1, [])
    assert duplicates(tenures, [(40.0, 50.0)])[1] == ["0@1 again after a: revoked"]


def test_what_a_stopped_member_had_in_its_hands_is_from_before_its_stop() -> None:
    """Its last line comes after SIGCONT, when the next owner has committed that record."""
    slept = (event(1, "assigned", 0), record(21, 0), event(22, "lost", 0))
    stopped = life("a", *slept, stops=[(5.0, 20.0)])
    other = life("b", event(12, "assigned", 0), record(13, 0), event(90, "revoked", 0))
    tenures = [*tenures_of(stopped, [{}]), *tenures_of(other, [{0: 1}])]
    assert duplicates(tenures, []) == (1, [])
    awake = life("a", event(1, "assigned", 0), record(21, 0), event(22, "revoked", 0))
    tenures = [*tenures_of(awake, [{}]), *tenures_of(other, [{0: 1}])]
    assert duplicates(tenures, []) == (1, ["0@0 again though b committed it"])


def test_a_stall_counts_from_when_there_was_something_to_read() -> None:
    lines = (event(1, "assigned", 0), record(2, 0), record(30, 1), event(90, "revoked", 0))
    tenures = tenures_of(life("a", *lines), [{}])
    assert stalls(tenures, {(0, 0): 1.5, (0, 1): 29.0}, []) == Stalls(1.0, 1.0, 1.0)
    early = {(0, 0): 1.5, (0, 1): 2.0}
    assert stalls(tenures, early, []) == Stalls(28.0, 28.0, 28.0)
    assert stalls(tenures, early, [(10.0, 20.0)]) == Stalls(0.5, 0.5, 28.0)
    assert stalls(tenures, early, [], [1.0, 8.0, 19.0, 31.0]) == Stalls(11.0, 28.0, 28.0)
    slow = night(life("a", *lines), records=2)
    assert "a partition stood for 28.0 s" in faults(slow, {"a": [{0: 2}]})
    other = life("b", killed_s=17.0, stops=[(9.0, 9.5)])
    assert "a partition stood for 13.0 s" not in faults(
        night(life("a", *lines), other, records=2), {"a": [{0: 2}], "b": []}
    )
    alone = life("b", killed_s=10.0)
    assert "a partition stood for 20.0 s" in faults(
        night(life("a", *lines), alone, records=2), {"a": [{0: 2}], "b": []}
    )


def test_a_commit_that_goes_back_is_seen() -> None:
    assert going_back([(0, 5), (1, 3), (0, 5), (0, 7), (1, 4)]) == []
    assert going_back([(0, 5), (1, 9), (0, 4)]) == ["0: committed 4 after 5"]


def test_ends_that_must_not_be_are_seen() -> None:
    hung = Life("a", 0.0, lines=list(GOOD), asked_s=85.0)
    said = "did not exit 0 in time: ['a']"
    assert said in faults(night(hung, records=2), {"a": [{0: 2}]})
    slow = Life("a", 0.0, lines=list(GOOD), asked_s=30.0, ended_s=80.0, exit_code=0)
    assert said in faults(night(slow, records=2), {"a": [{0: 2}]})
    failed = Life("a", 0.0, lines=list(GOOD), asked_s=30.0, ended_s=31.0, exit_code=70)
    assert said in faults(night(failed, records=2), {"a": [{0: 2}]})
    vanished = Life("a", 0.0, lines=list(GOOD), ended_s=50.0, exit_code=70)
    assert "['a'] ended unasked" in faults(night(vanished, records=2), {"a": [{0: 2}]})
    noisy = life("a", *GOOD)
    noisy.noise.append("Traceback (most recent call last):")
    assert noisy.noise == faults(night(noisy, records=2), {"a": [{0: 2}]})


def test_what_is_handed_out_unowned_is_seen() -> None:
    wrong = life("a", *GOOD, record(11, 2))
    assert "a wrote 0@2 unowned" in faults(night(wrong, records=2), {"a": [{0: 2}]})
    lines = (event(1, "assigned", 0), record(21, 0), record(22, 1), event(23, "lost", 0))
    late = life("a", *lines, stops=[(5.0, 20.0)])
    wanted = "a wrote 2 records after SIGCONT before `lost`"
    assert wanted in faults(night(late, records=2), {"a": [{0: 2}]})


def test_lag_that_stays_is_seen() -> None:
    slow = night(life("a", *GOOD), records=2)
    slow.drained_s = None
    assert "lag 0 after None s" in faults(slow, {"a": [{0: 2}]})


def test_a_plan_is_the_seeds() -> None:
    assert draw(1, 180) == draw(1, 180) != draw(2, 180)
    acts = {action.act for seed in range(5) for action in draw(seed, 180)}
    assert acts == set(Act)


def test_a_night_in_which_nothing_was_done_is_none() -> None:
    calm = night(life("a", *GOOD), records=2)
    assert faults(calm, {"a": [{0: 2}]}) == []
    calm.planned.update({Act.KILL_MEMBER: 3, Act.START_MEMBER: 9, Act.STOP_BROKER: 4})
    assert faults(calm, {"a": [{0: 2}]}) == ["0 of 3 times: kill member"]
    calm.done.update({Act.KILL_MEMBER: 3})
    assert faults(calm, {"a": [{0: 2}]}) == ["nothing was done to brokers"]
    calm.done.update({Act.STOP_BROKER: 1})
    assert faults(calm, {"a": [{0: 2}]}) == []
