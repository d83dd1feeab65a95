"""What the engine keeps of each tenure, and the callbacks that it owes to the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from ksim.consumer.message import ConsumerError, RebalanceListener
from ksim.consumer.port import is_over
from ksim.core import events as e
from ksim.core.acks import HandedOut
from ksim.core.messages import FindCoordinatorResponse, OffsetCommitResponse
from ksim.core.values import Record, TopicPartition

QUEUE_LIMIT: Final = 1_000
KEPT_LIMITS: Final = 8
TAKES_MARKS: Final = (e.TimerFired, e.CommitRequested, e.PartitionsRevoked, e.RequestFailed)
ANSWERS: Final = (OffsetCommitResponse, FindCoordinatorResponse)


def takes_marks(fact: e.MemberFact) -> bool:
    """Whether the member may send a commit now, which has to have all that is marked."""
    answered = isinstance(fact, e.ResponseReceived) and isinstance(fact.response, ANSWERS)
    return answered or isinstance(fact, TAKES_MARKS)


class Stream:
    """One tenure on this side: what is buffered, handed out and marked.

    `held` counts what is in flight, in the hands of the thread `reader`; `unfinished` are those,
    where each is acknowledged by itself.
    While `seeking`, what is buffered is from before the seek. After a truncation `ceiling` is the
    last record handed out since: marks beyond it are of records that are gone. `start` is where
    reading began, or was sought; `reading` counts seeks and truncations, and of what was handed out
    in readings up to `limits[i][0]` only records below `limits[i][1]` count. `ended`: the tenure is
    over, or its reader gave it back.
    """

    __slots__ = (
        "ceiling", "ended", "errors", "first_out", "held", "last_out", "limits", "mark",
        "metadata", "moved_ms", "paused", "queue", "reader", "reading", "seeking", "start",
        "tenure", "tp", "unfinished",
    )  # fmt: skip

    def __init__(self, tp: TopicPartition, tenure: int, start: int = 0) -> None:
        self.tp = tp
        self.tenure = tenure
        self.start = start
        self.queue: deque[Record] = deque()
        self.mark = -1
        self.metadata = ""
        self.moved_ms = -1
        self.paused = False
        self.first_out = -1
        self.last_out = -1
        self.held = 0
        self.reader: object = None
        self.seeking = 0
        self.reading = 0
        self.limits: list[tuple[int, int]] = []
        self.unfinished = HandedOut()
        self.ended = False
        self.ceiling: int | None = None
        self.errors: deque[ConsumerError] = deque(maxlen=QUEUE_LIMIT)

    def start_anew(self, offset: int, committed: int) -> None:
        """The next one is at `offset`; what is marked below is done, and committed if it is not."""
        if offset <= self.mark:
            self.mark = offset - 1 if committed < offset else -1
            self.metadata = ""
        self.held = 0
        self._read_anew(offset)
        self.unfinished = HandedOut()

    def _read_anew(self, offset: int) -> None:
        """What is handed out from here on is not what was handed out before, by the same offset."""
        kept = [each for each in self.limits if each[1] < offset]
        if len(kept) == KEPT_LIMITS:
            (_, low), (last, _), *_ = kept
            kept[:2] = [(last, low)]
        self.limits = [*kept, (self.reading, offset)]
        self.reading += 1

    def takes(self, tenure: int | None, reading: int | None, offset: int) -> bool:
        """Whether a word of this record, handed out then, counts now; None: whenever it was.

        A record from before a seek does where the seek went ahead of it, and one from before a
        truncation where it is still in the log.
        """
        in_time = reading in (None, self.reading) or all(
            offset < low for last, low in self.limits if reading <= last
        )
        return tenure in (None, self.tenure) and in_time

    def cut(self, end_offset: int) -> None:
        """Forget what stood from here on; where nothing was known before, reading begins here."""
        self._read_anew(end_offset)
        self.start = end_offset if self.start < 0 else self.start
        self.queue = deque(record for record in self.queue if record.offset < end_offset)
        self.unfinished.cut(end_offset)
        if self.mark >= end_offset:
            self.mark, self.metadata = end_offset - 1, ""
        self.ceiling = end_offset - 1


def let_go(streams: Iterable[Stream], closer: object) -> bool:
    """`closer` will ask for no more, and neither will a thread that has ended: theirs is done.

    Whether others hold something still; what they hold is waited for.
    """
    held = [stream for stream in streams if stream.held]
    for stream in held:
        if stream.reader == closer or is_over(stream.reader):
            stream.held = 0
    return any(stream.held for stream in held)


class Owed:
    """A callback that the user's thread runs at its next safe point, and what it answers then."""

    __slots__ = ("answer", "kind", "partitions")

    def __init__(
        self, kind: str, partitions: tuple[TopicPartition, ...], answer: e.MemberFact | None
    ) -> None:
        self.kind = kind
        self.partitions = partitions
        self.answer = answer

    def tell(self, listener: RebalanceListener | None) -> None:
        """Call the listener, if there is one."""
        if listener is None:
            return
        match self.kind:
            case "assigned":
                listener.on_partitions_assigned(self.partitions)
            case "revoked":
                listener.on_partitions_revoked(self.partitions)
            case _:
                listener.on_partitions_lost(self.partitions)


def offers_streams(told: Owed, owed: Iterable[Owed]) -> bool:
    """Whether the streams that are there now are those of this assignment.

    An application that was busy is told of assignments that are over; theirs are gone, and what is
    there is offered once, after the callback of its own.
    """
    return told.kind == "assigned" and all(later.kind != "assigned" for later in owed)
