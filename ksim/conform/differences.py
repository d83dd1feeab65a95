"""What Kafka 3.9 is known to do otherwise than Kafka 4.x: one table, and which broker has what.

The machine does each of these when it is told to (`CoordinatorConfig.differences`), so all else is
compared as strictly as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ksim.core.coordinator_state import Difference

SENTENCES: Final[Mapping[Difference, str]] = {
    Difference.COMMIT_TO_UNKNOWN_GROUP: (
        "OffsetCommit 9 with a generation to an unknown group is answered 22, not 69"
    ),
    Difference.SYNC_EXTENDS_SESSION: (
        "a SyncGroup that is answered in Stable restarts the session timer"
    ),
    Difference.ASSIGNMENT_HIDDEN: (
        "DescribeGroups shows assignments in Stable only, not the last ones in other states"
    ),
    Difference.LEAVES_ONE_BY_ONE: (
        "a LeaveGroup of several decides about a rebalance after each of them, not after all"
    ),
    Difference.PENDING_LEAVES_QUIETLY: (
        "an id that was given out and not used may leave without a rebalance"
    ),
    Difference.EXPIRY_WAITS_FOR_DELAY: (
        "an expiry during the initial delay does not end it, even if all others have joined"
    ),
    Difference.DELAY_GROWS_ONCE: (
        "new members prolong the initial delay of generation 1 only"
    ),
    Difference.REFUSED_JOIN_COMPLETES: (
        "a join that is refused for want of room may end the join phase"
    ),
    Difference.SYNC_BEFORE_PROTOCOL: (
        "a SyncGroup that names a protocol before the group has one is answered 23, not 27"
    ),
    Difference.VOTE_TIE: (
        "protocols with equally many votes: the first in the order of Scala's map, not of Java's"
    ),
    Difference.LAST_OFFSET_TAKES_GROUP: (
        "OffsetDelete removes an Empty group that has no offset left"
    ),
    Difference.JOIN_WRITES_NO_GROUP: (
        "a join that creates a group writes nothing: until something is written to its partition, "
        "DescribeGroups calls the group Dead and ListGroups leaves it out"
    ),
}  # fmt: skip
_WITH_NEW_COORDINATOR: Final = (
    Difference.JOIN_WRITES_NO_GROUP,
)  # fmt: skip
_WITH_SCALA_COORDINATOR: Final = (
    Difference.COMMIT_TO_UNKNOWN_GROUP,
    Difference.SYNC_EXTENDS_SESSION,
    Difference.ASSIGNMENT_HIDDEN,
    Difference.LEAVES_ONE_BY_ONE,
    Difference.PENDING_LEAVES_QUIETLY,
    Difference.EXPIRY_WAITS_FOR_DELAY,
    Difference.DELAY_GROWS_ONCE,
    Difference.REFUSED_JOIN_COMPLETES,
    Difference.SYNC_BEFORE_PROTOCOL,
    Difference.VOTE_TIE,
    Difference.LAST_OFFSET_TAKES_GROUP,
)
PROTOCOLS: Final = "group.coordinator.rebalance.protocols"
DESCRIBE_SINCE_4: Final = 6  # DescribeGroups of KIP-1043 came with Kafka 4.0
NEW_COORDINATOR: Final = "consumer"


def differences_of(newest: Mapping[str, int], protocols: str) -> tuple[Difference, ...]:
    """What to expect of a broker with these newest versions and rebalance protocols.

    Kafka 3.9 has both coordinators; it takes the new one where the consumer protocol is on.
    """
    if newest["DescribeGroups"] >= DESCRIBE_SINCE_4:
        return ()
    is_new = NEW_COORDINATOR in [each.strip() for each in protocols.split(",")]
    return _WITH_NEW_COORDINATOR if is_new else _WITH_SCALA_COORDINATOR
