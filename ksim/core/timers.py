"""Timers by key, as plain state: arming a key again replaces what was armed under it.

Most timers are postponed long before they fire (a heartbeat pushes the session timer away), so
postponing does not touch the heap: the entry that is queued already is looked at when its old
deadline comes, and queued again with the new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace

from ksim.core.trace import registered

TimerKey = tuple[str, ...]

_SLACK = 64


@registered
@dataclass(slots=True)
class KeyedTimers:
    """Times in ms. Those of one deadline come out by rank, then in the order they were armed.

    `live` maps a key to (deadline, rank, number) and to (deadline, number) of its heap entry;
    a heap entry that `live` does not name is dead.
    """

    live: dict[TimerKey, tuple[int, int, int, int, int]] = field(default_factory=dict)
    heap: list[tuple[int, int, int, TimerKey]] = field(default_factory=list)
    armed: int = 0

    @property
    def deadline_ms(self) -> int | None:
        """No timer is due before this; after postponements it may be early, and None is exact."""
        return self.heap[0][0] if self.heap else None

    def armed_until(self, key: TimerKey) -> int | None:
        """The deadline of `key` itself, or None when it is not armed."""
        found = self.live.get(key)
        return None if found is None else found[0]

    def arm(self, key: TimerKey, deadline_ms: int, rank: int = 0) -> None:
        self.armed = number = self.armed + 1
        before = self.live.get(key)
        if before is not None and before[3] < deadline_ms:
            self.live[key] = (deadline_ms, rank, number, before[3], before[4])
            return
        self.live[key] = (deadline_ms, rank, number, deadline_ms, number)
        heappush(self.heap, (deadline_ms, rank, number, key))
        if len(self.heap) > _SLACK + 2 * len(self.live):
            self._compact()

    def cancel(self, key: TimerKey) -> None:
        """Forget `key`; nothing happens when it is not armed."""
        if self.live.pop(key, None) is None:
            return
        heap = self.heap
        while heap and heap[0][3] not in self.live:
            heappop(heap)

    def clear(self) -> None:
        self.live.clear()
        self.heap.clear()

    def pop_due(self, now_ms: int) -> TimerKey | None:
        """The key of the first timer that is due at `now_ms`, no longer armed; None if none is."""
        heap = self.heap
        while heap and heap[0][0] <= now_ms:
            _, _, number, key = heap[0]
            current = self.live.get(key)
            if current is None or current[4] != number:
                heappop(heap)
            elif current[2] != number:
                deadline, rank, number, *_ = current
                self.live[key] = (deadline, rank, number, deadline, number)
                heapreplace(heap, (deadline, rank, number, key))
            else:
                heappop(heap)
                del self.live[key]
                if not self.live:
                    heap.clear()
                return key
        return None

    def _compact(self) -> None:
        for key, (deadline, rank, number, *_) in self.live.items():
            self.live[key] = (deadline, rank, number, deadline, number)
        self.heap[:] = [
            (at, rank, number, key) for key, (at, rank, number, *_) in self.live.items()
        ]
        heapify(self.heap)
