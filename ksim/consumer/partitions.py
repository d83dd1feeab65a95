"""One partition of a consumer in partitions mode: what is read, marked and given back by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ksim.consumer import checked
from ksim.consumer.engine import Engine
from ksim.consumer.message import ConsumerError, Message
from ksim.consumer.stream import Stream


class PartitionConsumer:
    """One tenure of one partition. Iterate it, in a thread of its own; it ends with the tenure.

    Asking for the next message ends the one before. `Consumer.partitions` makes these; after a
    rebalance the same partition comes back as a new one.
    """

    def __init__(self, engine: Engine, stream: Stream, is_ending: Callable[[], bool]) -> None:
        self._engine = engine
        self._stream = stream
        self._is_ending = is_ending
        self.topic, self.partition = stream.tp

    def __repr__(self) -> str:
        return f"PartitionConsumer({self.topic}-{self.partition}, tenure {self._stream.tenure})"

    def __iter__(self) -> Iterator[Message]:
        return self.messages()

    def messages(self, timeout_ms: int | None = None) -> Iterator[Message]:
        """Messages until none comes for `timeout_ms` (None: until the tenure is over)."""
        return (found[0] for found in self.batches(1, timeout_ms))

    def batches(
        self, max_records: int = 500, timeout_ms: int | None = None
    ) -> Iterator[Sequence[Message]]:
        """As `messages`, but several at once; the whole batch is in flight."""
        most = checked.whole("max_records", max_records, 1, checked.MOST)
        return self._several(most, checked.timeout_or_none("timeout_ms", timeout_ms))

    def _several(self, most: int, timeout_ms: int | None) -> Iterator[Sequence[Message]]:
        while found := self._take(most, timeout_ms):
            yield found

    def _take(self, most: int, timeout_ms: int | None) -> Sequence[Message]:
        engine, stream = self._engine, self._stream
        driver = engine.driver
        with driver.lock:
            engine.settle_of(stream)
            until_ms = None if timeout_ms is None else driver.now_ms() + timeout_ms
            while not (stream.ended or engine.closed or self._is_ending()):
                if found := engine.next_of(stream, most):
                    engine.set_waiting(False)
                    return found
                if until_ms is not None and driver.now_ms() >= until_ms:
                    break
                engine.set_waiting(not engine.held)
                driver.wait(until_ms)
            return []

    def rest(self, for_ms: int) -> None:
        """For so long, or until its tenure is over, nobody reads it, or is waited for."""
        engine, driver = self._engine, self._engine.driver
        with driver.lock:
            engine.settle_of(self._stream)
            until_ms = driver.now_ms() + for_ms
            while not (self.ended or self._is_ending()) and driver.now_ms() < until_ms:
                engine.set_waiting(not engine.held)
                driver.wait(until_ms)

    @property
    def ended(self) -> bool:
        """The tenure is over, or it was closed: there will be no more messages here."""
        return self._stream.ended or self._engine.closed

    def high_water_mark_offset(self) -> int:
        """The offset of the next record that will be produced, as last seen; -1 before a fetch."""
        with self._engine.driver.lock:
            return self._engine.news.high_water_marks.get(self._stream.tp, -1)

    def errors(self) -> list[ConsumerError]:
        """Refusals about this partition since the last call, oldest first."""
        with self._engine.driver.lock:
            found = list(self._stream.errors)
            self._stream.errors.clear()
            return found

    def close(self) -> list[ConsumerError]:
        """Stop reading, drop what is buffered, and let the group share anew; returns its errors.

        What was marked is committed; what was not comes again, here or to another member.
        """
        with self._engine.driver.lock:
            return self._engine.give_back(self._stream)
