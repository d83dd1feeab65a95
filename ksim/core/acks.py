"""Which records of one tenure are finished, where each is acknowledged by itself."""

from __future__ import annotations

from collections import deque
from typing import Final

NOTHING: Final = -1


class HandedOut:
    """Records in the order in which they were handed out, and which of them are finished.

    What may be committed is the end of the contiguous finished prefix: every record before it is
    finished, in whatever order that happened. Offsets may have holes (compaction, transactions).
    """

    __slots__ = ("_order", "_unfinished")

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._unfinished: set[int] = set()

    def __len__(self) -> int:
        """How many are not finished yet."""
        return len(self._unfinished)

    def add(self, offset: int) -> None:
        """This record was handed out now."""
        assert not self._order or offset > self._order[-1], f"{offset} after {self._order[-1]}"
        self._order.append(offset)
        self._unfinished.add(offset)

    def finish(self, offset: int) -> int:
        """This record is done with; returns the new end of the prefix, NOTHING if it did not move.

        A second acknowledgement of the same record changes nothing.
        """
        self._unfinished.discard(offset)
        prefix = NOTHING
        while self._order and self._order[0] not in self._unfinished:
            prefix = self._order.popleft()
        return prefix

    def cut(self, end_offset: int) -> None:
        """Forget the records from here on: they are not in the log any more."""
        self._order = deque(offset for offset in self._order if offset < end_offset)
        self._unfinished = {offset for offset in self._unfinished if offset < end_offset}
