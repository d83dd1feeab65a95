"""L1 on static members that do not name their instance."""

from __future__ import annotations

import pytest

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from tests.test_checks import Story, accused


def asks(story: Story, request: m.Request) -> Story:
    return story.see("a", e.TimerFired(), e.SendRequest(1, 1, "group", request, 30_000))


def joined(instance_id: str | None) -> Story:
    request = m.JoinGroupRequest("g", 10_000, 10_000, "", instance_id, "consumer", ())
    return asks(Story().start("a"), request)


def heartbeat(instance_id: str | None) -> m.HeartbeatRequest:
    return m.HeartbeatRequest("g", 1, "a", instance_id)


def commit(instance_id: str | None, generation_id: int = 1) -> m.OffsetCommitRequest:
    return m.OffsetCommitRequest("g", generation_id, "a", instance_id, ())


def sync(instance_id: str | None) -> m.SyncGroupRequest:
    return m.SyncGroupRequest("g", 1, "a", instance_id, "consumer", "range", ())


def test_a_heartbeat_without_the_instance() -> None:
    assert accused(asks(joined("i"), heartbeat(None)), "L1") == (
        "a joined as instance i, and named None in a HeartbeatRequest at 3.000 s: whoever takes "
        "its place cannot be told from it."
    )


@pytest.mark.parametrize(
    ("joined_as", "request_"),
    [("i", commit(None)), ("i", sync(None)), ("i", heartbeat("j")), (None, heartbeat("i"))],
)
def test_another_name_or_none(joined_as: str | None, request_: m.Request) -> None:
    assert accused(asks(joined(joined_as), request_), "L1")


@pytest.mark.parametrize(
    ("joined_as", "request_"),
    [
        ("i", commit("i")),
        ("i", sync("i")),
        ("i", heartbeat("i")),
        (None, heartbeat(None)),
        # Of no generation: of a tool, or of an application alone.
        ("i", commit(None, generation_id=-1)),
    ],
)
def test_the_name_it_joined_with(joined_as: str | None, request_: m.Request) -> None:
    assert not asks(joined(joined_as), request_).check("L1").violations


@pytest.mark.parametrize("what", ["paused", "resumed"])
def test_a_process_that_stands_still_is_the_same_one(what: str) -> None:
    story = joined("i").see("a", o.MemberLife("a", "g", what, ""))
    assert not asks(story, heartbeat("i")).check("L1").violations


def test_a_process_whose_join_nobody_saw_is_not_judged() -> None:
    assert not asks(Story().start("a"), heartbeat("i")).check("L1").violations


def test_another_process_may_have_another_name() -> None:
    story = joined("i").see("a", o.MemberLife("a", "g", "crashed", "")).start("a")
    request = m.JoinGroupRequest("g", 10_000, 10_000, "", None, "consumer", ())
    assert not asks(asks(story, request), heartbeat(None)).check("L1").violations
