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
    """The application of `member` received this record."""

    member: str
    topic: str
    partition: int
    tenure: int
    offset: int


@value
class Handled:
    """The handler's effect has happened: not when it was handed out, and not when it was marked."""

    member: str
    topic: str
    partition: int
    tenure: int
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
class Healed:
    """Faults are over; from here on the group has to come to rest."""

    members: tuple[str, ...]


Observation = Produced | HandedOut | Handled | MemberLife | FaultStruck | CallbackRan | Healed
