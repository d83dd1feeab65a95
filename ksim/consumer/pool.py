"""Workers that handle messages beside each other: threads in production, greenlets in the world."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from ksim.consumer.message import Message
from ksim.consumer.partitions import PartitionConsumer
from ksim.consumer.port import Driver
from ksim.core.values import TopicPartition

LOGGER: Final = logging.getLogger("ksim.consumer")
END_TIMEOUT_MS = 30_000
REST_MS, LONGEST_REST_MS = 1_000, 60_000
T = TypeVar("T")
Handler = Callable[[T], object]


class WorkerPool:
    """`workers` of them, each with one message at a time, acknowledged when its handler returns.

    A message is handed to the pool only while a worker is idle, so that nothing waits in a queue
    that a rebalance would have to wait for. The first handler that raises ends all.
    """

    def __init__(self, driver: Driver, handler: Handler[Message], workers: int) -> None:
        self._driver = driver
        self._handler = handler
        self._idle = workers
        self._running = workers
        self._inbox: deque[Message] = deque()
        self._ended = False
        self.failure: BaseException | None = None
        for _ in range(workers):
            driver.spawn(self._work)

    @property
    def takes(self) -> bool:
        """Holding the lock: a worker is idle, or the pool is over and says why."""
        return self._idle > len(self._inbox) or self.failure is not None

    def put(self, message: Message) -> None:
        """Holding the lock: give it to an idle worker."""
        assert self._idle > len(self._inbox), "no worker is idle"
        self._inbox.append(message)
        self._driver.notify()

    def _work(self) -> None:
        while (message := self._next()) is not None:
            failure: BaseException | None = None
            try:
                self._handler(message)
                message.ack()
            except self._driver.exits:
                raise
            except BaseException as error:  # noqa: BLE001 - `run` raises it in its stead
                failure = error
            with self._driver.lock:
                self._idle += 1
                self.failure = self.failure or failure
                self._driver.notify()
        with self._driver.lock:
            self._running -= 1
            self._driver.notify()

    def _next(self) -> Message | None:
        with self._driver.lock:
            while not self._inbox and not self._ended:
                self._driver.wait(None)
            if self._ended:
                return None
            self._idle -= 1
            return self._inbox.popleft()

    def end(self, until_ms: int) -> bool:
        """Holding the lock: let workers finish what they hold; false if they do not in time."""
        self._ended = True
        self._inbox.clear()
        self._driver.notify()
        while self._running and self._driver.now_ms() < until_ms:
            self._driver.wait(until_ms)
        return not self._running

    def run(self, take: Callable[[], object], give_up: Callable[[], None]) -> None:
        """Until `take` gives no more, or a handler has raised, which is raised here."""
        try:
            while take() and self.failure is None:
                pass
        finally:
            with self._driver.lock:
                if self.end(self._driver.now_ms() + END_TIMEOUT_MS):
                    give_up()
        if self.failure is not None:
            raise self.failure


class Readers:
    """A worker for each partition, as long as it has it. The first that raises ends all.

    A partition whose handler returns before it has ended is given back: nobody would read it. One
    whose handlers do so again and again rests before that, for longer each time: each time costs
    the group a rebalance.
    """

    def __init__(
        self,
        driver: Driver,
        handler: Handler[PartitionConsumer],
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._driver = driver
        self._handler = handler
        self._is_ending = is_ending
        self._running = 0
        self._failure: BaseException | None = None
        self._rests: dict[TopicPartition, tuple[int, int]] = {}  # for how long, and until when

    def run(self, partitions: Iterable[PartitionConsumer], stop: Callable[[], None]) -> None:
        """Until there are no more partitions; raises what a reader raised."""
        driver = self._driver
        try:
            for partition in partitions:
                with driver.lock:
                    self._running += 1
                driver.spawn(partial(self._read, partition, stop))
        finally:
            stop()  # what ends the loop may be an exception, of which the readers know nothing
            with driver.lock:
                until_ms = driver.now_ms() + END_TIMEOUT_MS
                while self._running and driver.now_ms() < until_ms:
                    driver.wait(until_ms)
        if self._failure is not None:
            raise self._failure

    def _read(self, partition: PartitionConsumer, stop: Callable[[], None]) -> None:
        failure: BaseException | None = None
        try:
            self._handler(partition)
            self._give_back(partition)
        except self._driver.exits:
            raise
        except BaseException as error:  # noqa: BLE001 - `run` raises it in its stead
            failure = error
        with self._driver.lock:
            self._running -= 1
            self._failure = self._failure or failure
            if failure is not None:
                stop()
            self._driver.notify()

    def _give_back(self, partition: PartitionConsumer) -> None:
        if partition.ended or self._is_ending():
            return
        place = TopicPartition(partition.topic, partition.partition)
        for_ms = self._rest_ms(place)
        after = f" after {for_ms} ms" if for_ms else ""
        LOGGER.warning(
            "the handler of %s returned before the partition had ended: it is given back%s, and "
            "the group shares anew; read it until it ends, or close() it", place, after,
        )  # fmt: skip
        partition.rest(for_ms)
        if partition.ended or self._is_ending():
            return
        for error in partition.close():
            LOGGER.error("%s, which its handler did not read: %s", place, error)

    def _rest_ms(self, place: TopicPartition) -> int:
        """None at first; then from a second on, doubled while its handlers return soon after."""
        with self._driver.lock:
            now_ms = self._driver.now_ms()
            last_ms, over_ms = self._rests.get(place, (0, 0))
            soon = place in self._rests and now_ms - over_ms <= max(last_ms, REST_MS) * 2
            for_ms = min(max(last_ms * 2, REST_MS), LONGEST_REST_MS) if soon else 0
            self._rests[place] = for_ms, now_ms + for_ms
            return for_ms
