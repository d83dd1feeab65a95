"""What a swarm chooses from: steps, faults, ways of applications, and error codes by request."""

from __future__ import annotations

from typing import Final

MEMBER_STEPS: Final = ("crash", "stop", "pause", "restart", "partition", "hold")
STEPS: Final = (
    *MEMBER_STEPS,
    "start",
    "disconnect",
    "close",
    "poll_gap",
    "pause_partitions",
    "resume_partitions",
    "seek",
    "move_coordinator",
    "refuse_offsets_log",
    "compact_offsets_log",
    "add_partitions",
    "create_topic",
    "delete_topic",
    "truncate",
    "stale_metadata",
    "broker crash",
    "broker pause",
    "broker restart",
)
ACTIONS: Final = (
    "drop", "delay", "duplicate", "error", "fatal error", "crash", "late", "disconnect",
)  # fmt: skip
WAYS: Final = (
    "static",
    "each",
    "workers",
    "partitions",
    "commit each",
    "callbacks",
    "patterns",
    "two assignors",
    "slow handler",
    "failing handler",
    "hanging handler",
    "short requests",
    "short polls",
    "unlike members",
    "one instance twice",
    "latest",
)
# A swarm's topic that is not there from the beginning, which a pattern takes when it comes.
NEW_TOPIC: Final = "t9"

_PASSING: Final = (
    "NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS",
    "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "ILLEGAL_GENERATION",
)  # fmt: skip
_LEADER: Final = ("NOT_LEADER_OR_FOLLOWER", "FENCED_LEADER_EPOCH", "UNKNOWN_LEADER_EPOCH")
_DENIED: Final = ("UNKNOWN_TOPIC_OR_PARTITION", "TOPIC_AUTHORIZATION_FAILED")
_NOT_ALLOWED: Final = ("GROUP_AUTHORIZATION_FAILED", "INVALID_GROUP_ID")
# Codes after which a member goes on. None that says what is not so of a log: a member that is told
# of an offset out of range rightly begins anew.
ERRORS: Final[dict[str, tuple[str, ...]]] = {
    "JoinGroup": _PASSING,
    "SyncGroup": _PASSING,
    "Heartbeat": (*_PASSING, *_NOT_ALLOWED),
    "OffsetCommit": (
        *_PASSING, *_DENIED, *_NOT_ALLOWED, "REQUEST_TIMED_OUT", "OFFSET_METADATA_TOO_LARGE",
    ),
    "OffsetFetch": (
        *_PASSING, "UNSTABLE_OFFSET_COMMIT", "REQUEST_TIMED_OUT", "UNKNOWN_TOPIC_OR_PARTITION",
    ),
    "LeaveGroup": ("UNKNOWN_MEMBER_ID", "NOT_COORDINATOR"),
    "FindCoordinator": ("COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"),
    "Metadata": ("LEADER_NOT_AVAILABLE", *_DENIED, "INVALID_TOPIC"),
    "ListOffsets": (*_LEADER, *_DENIED),
    "Fetch": (*_LEADER, *_DENIED, "KAFKA_STORAGE_ERROR"),
    "OffsetForLeaderEpoch": _LEADER,
}  # fmt: skip
# Codes that end a member, as its owner alone can mend what they say.
FATAL: Final[dict[str, tuple[str, ...]]] = {
    "JoinGroup": (
        *_NOT_ALLOWED, "FENCED_INSTANCE_ID", "GROUP_MAX_SIZE_REACHED",
        "INCONSISTENT_GROUP_PROTOCOL",
    ),
    "SyncGroup": (*_NOT_ALLOWED, "FENCED_INSTANCE_ID"),
    "Heartbeat": ("FENCED_INSTANCE_ID",),
    "OffsetCommit": ("FENCED_INSTANCE_ID",),
    "OffsetFetch": (*_NOT_ALLOWED, "FENCED_INSTANCE_ID"),
    "FindCoordinator": (*_NOT_ALLOWED, "UNSUPPORTED_VERSION"),
}  # fmt: skip
