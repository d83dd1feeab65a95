"""Canaries of what is over: answers, requests, commits and processes that others have followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ksim.consumer.engine import Engine
from ksim.core import commits, member, membership, positions, turn
from ksim.core.member_state import Tenure


def latest_is_earliest() -> None:
    """Without a committed offset, `auto.offset.reset` latest begins at the start of the log."""
    positions.RESET_TIMESTAMP["latest"] = positions.OFFSET_EARLIEST  # type: ignore[index]


def old_offsets_count() -> None:
    """What was committed an assignment ago is where the present one begins."""
    honest = member.ON_RESPONSE["offsets"]

    def on_offsets(now: turn.Turn, pending: Any, response: Any) -> None:
        honest(now, replace(pending, epoch=now.state.epoch), response)

    member.ON_RESPONSE["offsets"] = on_offsets  # type: ignore[index]


def old_commits_hold_back() -> None:
    """No commit goes out before that of the last generation has its answer."""
    turn.OF_ONE_EPOCH = ("sync", "heartbeat", "offsets")  # type: ignore[misc, assignment]


def heartbeats_without_instance() -> None:
    """A static member's heartbeats leave out its instance."""
    honest = membership.HeartbeatRequest

    def request(group_id: str, generation_id: int, member_id: str, _: str | None) -> Any:
        return honest(group_id, generation_id, member_id, None)

    membership.HeartbeatRequest = request  # type: ignore[misc, assignment]


def commits_without_instance() -> None:
    """A static member's commits leave out its instance."""
    honest = commits.OffsetCommitRequest

    def request(
        group_id: str, generation_id: int, member_id: str, _: str | None, offsets: Any
    ) -> Any:
        return honest(group_id, generation_id, member_id, None, offsets)

    commits.OffsetCommitRequest = request  # type: ignore[misc, assignment]


def busy_pool_waits() -> None:
    """An application all of whose workers are busy is taken for one that waits for records."""
    honest = Engine.set_waiting

    def set_waiting(self: Engine, waiting: bool) -> None:
        del waiting
        honest(self, True)

    Engine.set_waiting = set_waiting  # type: ignore[method-assign]


def unknown_commits_are_forgotten() -> None:
    """A commit without an answer changes nothing of what was acknowledged before."""

    def doubt(tenure: Tenure, offset: int) -> None:
        del tenure, offset

    commits._doubt = doubt


STALE_PLANTS: dict[str, Callable[[], None]] = {
    "latest-is-earliest": latest_is_earliest,
    "old-offsets-count": old_offsets_count,
    "old-commits-hold-back": old_commits_hold_back,
    "heartbeats-without-instance": heartbeats_without_instance,
    "commits-without-instance": commits_without_instance,
    "busy-pool-waits": busy_pool_waits,
    "unknown-commits-are-forgotten": unknown_commits_are_forgotten,
}
