"""What was refused once and went well since waits as shortly as the first time.

Each test goes wrong in one way, and then well: nothing of the wait may be left.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.member import ON_TIMER
from ksim.core.member_state import DEFAULT_REACTION
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from tests.core.desk import TOPIC, Desk

CORE = Path(__file__).parents[2] / "ksim" / "core"
LOADING = int(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
NOT_LEADER = int(KafkaError.NOT_LEADER_OR_FOLLOWER)
BROKERS = (m.BrokerEndpoint(1, "broker-1", 9092),)
FOUND = m.FindCoordinatorResponse(0, 1, "broker-1", 9092)
JOINED = m.JoinGroupResponse(0, 1, "consumer", "range", "other", "c-1", ())
MET = m.JoinGroupResponse(KafkaError.MEMBER_ID_REQUIRED, -1, None, None, "", "c-1", ())
Trouble = Callable[[Desk], None]


def until(desk: Desk, kind: type) -> None:
    while kind not in desk.open:
        desk.timer()


def fails(desk: Desk, kind: type) -> None:
    until(desk, kind)
    desk.feed(e.RequestFailed(desk.open.pop(kind).request_id, "timed out"))


def epochs_of(desk: Desk, epoch: int) -> None:
    """New metadata, in which one partition has another leader epoch."""
    until(desk, m.MetadataRequest)
    partitions = (m.PartitionMetadata(0, 0, 1, epoch), m.PartitionMetadata(0, 1, 1, 0))
    topic = m.TopicMetadata(0, TOPIC, partitions)
    desk.answer(m.MetadataRequest, m.MetadataResponse(BROKERS, (topic,)))


def assigned(partitions: tuple[int, ...]) -> m.SyncGroupResponse:
    data = encode_assignment(TopicPartition(TOPIC, p) for p in partitions)
    return m.SyncGroupResponse(0, "consumer", "range", data)


def found_offsets(offset: int) -> m.OffsetFetchResponse:
    return m.OffsetFetchResponse(
        0, tuple(m.CommittedOffset(TOPIC, p, offset, -1, "", 0) for p in range(2))
    )


def listed(*codes: int) -> m.ListOffsetsResponse:
    return m.ListOffsetsResponse(
        tuple(m.ListedOffset(TOPIC, p, code, -1 if code else 5) for p, code in enumerate(codes))
    )


def ends(*found: m.EpochEnd) -> m.OffsetForLeaderEpochResponse:
    return m.OffsetForLeaderEpochResponse(found)


def fetched(code: int) -> m.FetchResponse:
    return m.FetchResponse(
        0, tuple(m.FetchedPartition(TOPIC, p, code, 12, 0, 12, 2, 0) for p in range(2))
    )


def synced(desk: Desk) -> None:
    """From the start to an assignment whose offsets are asked for."""
    desk.answer(m.FindCoordinatorRequest, FOUND)
    desk.learn()
    desk.answer(m.JoinGroupRequest, MET)
    desk.answer(m.JoinGroupRequest, JOINED)
    desk.answer(m.SyncGroupRequest, assigned((0, 1)))
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))


def marked(desk: Desk) -> None:
    """A commit is under way."""
    desk.join()
    tenure = desk.member.state.owned[TopicPartition(TOPIC, 0)].tenure
    desk.feed(e.MarksTaken((e.Mark(TOPIC, 0, tenure, 20, ""),)))
    until(desk, m.OffsetCommitRequest)


def committed(code: int) -> m.OffsetCommitResponse:
    return m.OffsetCommitResponse((m.PartitionError(TOPIC, 0, code),))


def find(desk: Desk) -> None:
    away = m.FindCoordinatorResponse(KafkaError.COORDINATOR_NOT_AVAILABLE, -1, "", -1)
    desk.answer(m.FindCoordinatorRequest, away)


def found(desk: Desk) -> None:
    until(desk, m.FindCoordinatorRequest)
    desk.answer(m.FindCoordinatorRequest, FOUND)


def join(desk: Desk) -> None:
    found(desk)
    desk.learn()
    desk.answer(m.JoinGroupRequest, MET)
    refused = m.JoinGroupResponse(LOADING, -1, None, None, "", "", ())
    desk.answer(m.JoinGroupRequest, refused)


def joined(desk: Desk) -> None:
    until(desk, m.JoinGroupRequest)
    desk.answer(m.JoinGroupRequest, JOINED)


def sync(desk: Desk) -> None:
    found(desk)
    desk.learn()
    desk.answer(m.JoinGroupRequest, MET)
    joined(desk)
    desk.answer(m.SyncGroupRequest, m.SyncGroupResponse(LOADING, None, None, b""))


def joined_and_synced(desk: Desk) -> None:
    joined(desk)
    until(desk, m.SyncGroupRequest)
    desk.answer(m.SyncGroupRequest, assigned((0, 1)))


def heartbeat(desk: Desk) -> None:
    desk.join()
    until(desk, m.HeartbeatRequest)
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(LOADING))


def beaten(desk: Desk) -> None:
    until(desk, m.HeartbeatRequest)
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(0))


def joins_again(desk: Desk) -> None:
    """The next generation begins with a heartbeat of its own."""
    tenure = desk.member.state.owned[TopicPartition(TOPIC, 0)].tenure
    desk.feed(e.PartitionClosed(TOPIC, 0, tenure))
    desk.feed(e.PartitionsRevoked(desk.of(e.RevokePartitions)[-1].revocation_id, ()))
    assert m.JoinGroupRequest in desk.open


def commit(desk: Desk) -> None:
    marked(desk)
    desk.answer(m.OffsetCommitRequest, committed(LOADING))


def commit_taken(desk: Desk) -> None:
    until(desk, m.OffsetCommitRequest)
    desk.answer(m.OffsetCommitRequest, committed(0))


def unknown_member(desk: Desk) -> None:
    """What was refused so far was of a tenure that is over."""
    until(desk, m.HeartbeatRequest)
    unknown = int(KafkaError.UNKNOWN_MEMBER_ID)
    desk.answer(m.HeartbeatRequest, m.HeartbeatResponse(unknown))


def metadata(desk: Desk) -> None:
    fails(desk, m.MetadataRequest)


def learned(desk: Desk) -> None:
    until(desk, m.MetadataRequest)
    desk.learn()


def offsets(desk: Desk) -> None:
    synced(desk)
    desk.answer(m.OffsetFetchRequest, m.OffsetFetchResponse(LOADING, ()))


def offsets_found(desk: Desk) -> None:
    until(desk, m.OffsetFetchRequest)
    desk.answer(m.OffsetFetchRequest, found_offsets(10))


def offsets_listed_badly(desk: Desk) -> None:
    synced(desk)
    desk.answer(m.OffsetFetchRequest, found_offsets(-1))
    desk.answer(m.ListOffsetsRequest, listed(NOT_LEADER, NOT_LEADER))


def offsets_listed(desk: Desk) -> None:
    until(desk, m.ListOffsetsRequest)
    desk.answer(m.ListOffsetsRequest, listed(0, 0))


def epochs(desk: Desk) -> None:
    desk.join()
    desk.answer(m.FetchRequest, fetched(0))
    epochs_of(desk, 1)
    refused = m.EpochEnd(TOPIC, 0, NOT_LEADER, -1, -1)
    desk.answer(m.OffsetForLeaderEpochRequest, ends(refused))


def epochs_ended(desk: Desk) -> None:
    until(desk, m.OffsetForLeaderEpochRequest)
    desk.answer(m.OffsetForLeaderEpochRequest, ends(m.EpochEnd(TOPIC, 0, 0, 0, 12)))


def fetch(desk: Desk) -> None:
    desk.join()
    desk.answer(m.FetchRequest, fetched(NOT_LEADER))


def fetched_well(desk: Desk) -> None:
    until(desk, m.FetchRequest)
    desk.answer(m.FetchRequest, fetched(0))


PAIRS: tuple[tuple[str, Trouble, Trouble], ...] = (
    ("find", find, found),
    ("join", join, joined),
    ("sync", sync, joined_and_synced),
    ("heartbeat", heartbeat, beaten),
    ("heartbeat", heartbeat, joins_again),
    ("commit", commit, commit_taken),
    ("commit", commit, unknown_member),
    ("metadata", metadata, learned),
    ("offsets", offsets, offsets_found),
    ("offsets", offsets_listed_badly, offsets_listed),
    ("epochs", epochs, epochs_ended),
    ("fetch", fetch, fetched_well),
)


@pytest.mark.parametrize(("what", "goes_wrong", "goes_well"), PAIRS)
def test_what_went_well_leaves_nothing_of_the_wait(
    what: str, goes_wrong: Trouble, goes_well: Trouble
) -> None:
    desk = Desk(metadata_max_age_ms=1_000)
    desk.feed(e.Started())
    goes_wrong(desk)
    state = desk.member.state
    assert state.attempts[f"{what}_backoff"] == 1
    goes_well(desk)
    assert f"{what}_backoff" not in {**state.attempts, **state.timers}


def test_each_backoff_is_looked_at() -> None:
    every = {name for name in ON_TIMER if name.endswith("_backoff")}
    assert every == {f"{what}_backoff" for what, _, _ in PAIRS}


def called(method: str) -> set[str]:
    """The names that the core calls this with, as far as they are written out."""
    calls = [
        node
        for path in sorted(CORE.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(f".{method}")
    ]
    return {ast.unparse(argument).strip("'") for call in calls for argument in call.args}


def test_whatever_backs_off_succeeds_somewhere() -> None:
    of_each_kind = {f"{kind}_backoff" for kind in DEFAULT_REACTION}
    backs_off = (called("back_off") - {"f'{kind}_backoff"}) | of_each_kind
    assert backs_off == {name for name in ON_TIMER if name.endswith("_backoff")}
    assert backs_off <= called("succeed")
