"""What a run shows beside the steps of its machines: the ground truth that checks judge by.

They travel in the same stream as facts do, under the name of the node where they happened.
"""

from __future__ import annotations

from ksim.core.values import TopicPartition, value


@value
class Produced:
    """Records up to but not including `end_offset` are in the log."""

    topic: str
    partition: int
    end_offset: int


@value
class HandedOut:
    """The application of `member` received this record, which says when it was written."""

    member: str
    topic: str
    partition: int
    tenure: int
    offset: int
    timestamp_ms: int = -1


@value
class Handled:
    """The handler's effect has happened: not when it was handed out, and not when it was marked."""

    member: str
    topic: str
    partition: int
    tenure: int
    offset: int
    timestamp_ms: int = -1


@value
class LeftUnmarked:
    """The application of `member` ends at this record, which it has handled, without a mark."""

    member: str
    topic: str
    partition: int
    tenure: int
    offset: int


@value
class Away:
    """The application of `member` does not call in for so long; 0: it is back."""

    member: str
    for_ms: int


@value
class PartitionsPaused:
    """The application of `member` has paused these; not `paused`: it has resumed them."""

    member: str
    partitions: tuple[TopicPartition, ...]
    paused: bool


@value
class PartitionSought:
    """The application of `member` wants this record next."""

    member: str
    topic: str
    partition: int
    offset: int


@value
class MemberLife:
    """`what` is started, crashed, paused, resumed, stopping, closed or failed."""

    member: str
    group_id: str
    what: str
    detail: str


@value
class FaultStruck:
    """Something was made to go wrong, for pictures and sentences."""

    name: str
    target: str
    for_ms: int


@value
class CallbackRan:
    """The application was told: `kind` is assigned, revoked or lost."""

    member: str
    kind: str
    partitions: tuple[TopicPartition, ...]


@value
class TopicIs:
    """The topic has so many partitions from now on; 0: it is gone, with all that was in it."""

    topic: str
    partitions: int


@value
class Truncated:
    """An unclean election: what stood from `end_offset` on is lost, `leader_epoch` follows."""

    topic: str
    partition: int
    end_offset: int
    leader_epoch: int


@value
class Healed:
    """Faults are over; from here on these members have to come to rest.

    Those that are `apart` may run as well, or start later, but are cut off for good: nothing is
    asked of them.
    """

    members: tuple[str, ...]
    apart: tuple[str, ...] = ()


Observation = (
    Produced
    | HandedOut
    | Handled
    | LeftUnmarked
    | Away
    | PartitionsPaused
    | PartitionSought
    | MemberLife
    | FaultStruck
    | CallbackRan
    | TopicIs
    | Truncated
    | Healed
)
