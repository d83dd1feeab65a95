"""The application of a simulated member: it reads, handles at a cost, marks, and can misbehave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from ksim import observations as o
from ksim.consumer.consumer import Consumer
from ksim.consumer.message import Message
from ksim.consumer.partitions import PartitionConsumer
from ksim.core.errors import CommitFailedError, MisuseError
from ksim.core.values import TopicPartition
from ksim.scenario import CallbackSpec, GroupSpec
from ksim.sim.driver import SimDriver
from ksim.sim.world import US_PER_MS, World

Tell = Callable[[o.Observation], None]


class PlannedError(Exception):
    """Raised by a callback because the scenario says so."""


class Wishes(Protocol):
    """What a scenario's steps have asked the application to do at its next record."""

    close_wanted: bool
    gap_ms: int


class Application:
    """One life of a member's application; also its rebalance listener."""

    def __init__(
        self,
        world: World,
        driver: SimDriver,
        group: GroupSpec,
        name: str,
        tell: Tell,
        wishes: Wishes,
    ) -> None:
        self._driver = driver
        self._group = group
        self._name = name
        self._tell = tell
        self._wishes = wishes
        self._draw = world.stream(f"handler {name}")
        self._records = 0
        self.consumer: Consumer | None = None

    # Reading

    def read(self, consumer: Consumer) -> None:
        """Until the consumer is closed or stopped; what a callback raises is caught."""
        loop = self._loop
        if self._group.workers is not None:
            loop = self._work
        elif self._group.mode == "partitions":
            loop = self._apart
        while not consumer.ended:
            try:
                loop(consumer)
            except PlannedError:
                continue

    def _loop(self, consumer: Consumer) -> None:
        for message in consumer.messages(timeout_ms=self._group.poll_timeout_ms):
            self._handle(message)
            if self._wishes.close_wanted:
                self._tell(o.LeftUnmarked(*self._place(message)))
                consumer.close()
                return
            if self._group.acknowledge == "each":
                message.ack()
            else:
                consumer.mark_offset(message)
            self._commit_each(consumer)
            self._stay_away()
            if consumer.ended:
                return
        self._stay_away()

    def _commit_each(self, consumer: Consumer) -> None:
        if self._group.commit == "each":
            self._commit(consumer)

    @staticmethod
    def _commit(consumer: Consumer) -> None:
        try:
            consumer.commit_offsets()
        except CommitFailedError:
            return  # what was not committed comes again, as the application knows

    def _stay_away(self) -> None:
        """The application is busy with something else, and does not call in."""
        gap_ms, self._wishes.gap_ms = self._wishes.gap_ms, 0
        if gap_ms:
            self._tell(o.Away(self._name, gap_ms))
            self._spend(gap_ms)
            self._tell(o.Away(self._name, 0))

    def _work(self, consumer: Consumer) -> None:
        workers = self._group.workers
        assert workers is not None, "no workers are asked for"
        consumer.run(self._handle, workers=workers)

    def _apart(self, consumer: Consumer) -> None:
        for partition in consumer.partitions():
            self._driver.spawn(partial(self._read_one, consumer, partition))

    def _read_one(self, consumer: Consumer, partition: PartitionConsumer) -> None:
        for message in partition:
            self._handle(message)
            if self._wishes.close_wanted:
                self._tell(o.LeftUnmarked(*self._place(message)))
                consumer.stop()
                return
            consumer.mark_offset(message)

    # Handling

    def _spend(self, for_ms: int) -> None:
        if for_ms:
            self._driver.sleep_us(for_ms * US_PER_MS)

    def _handle(self, message: Message) -> None:
        """A record is handled when its effect happens: after the cost, in the sink."""
        group = self._group
        place = self._place(message)
        self._tell(o.HandedOut(*place, message.timestamp_ms))
        self._records += 1
        if group.handler_hangs is not None and self._records == group.handler_hangs.nth:
            self._spend(group.handler_hangs.for_ms)
        fails = group.handler_fails
        if fails is not None and self._records % fails.every == 0:
            for _ in range(fails.times):
                self._cost()
                self._spend(fails.backoff_ms)
        self._cost()
        self._tell(o.Handled(*place, message.timestamp_ms))

    def _place(self, message: Message) -> tuple[str, str, int, int, int]:
        return self._name, message.topic, message.partition, message.tenure, message.offset

    def _cost(self) -> None:
        low_ms, high_ms = self._group.handler_cost_ms
        if high_ms:
            self._driver.sleep_us(self._draw.randint(low_ms * US_PER_MS, high_ms * US_PER_MS))

    # Listening

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._told("assigned", partitions, self._group.on_assigned)

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._told("revoked", partitions, self._group.on_revoked)

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._told("lost", partitions, self._group.on_lost)

    def _told(
        self, kind: str, partitions: Sequence[TopicPartition], plan: CallbackSpec | None
    ) -> None:
        self._tell(o.CallbackRan(self._name, kind, tuple(partitions)))
        if plan is None:
            return
        consumer = self.consumer
        assert consumer is not None, f"{self._name} is told before it has a consumer"
        self._spend(plan.sleep_ms)
        if plan.commit:
            self._commit(consumer)
        for tp in partitions if plan.seek_back else ():
            self._seek_back(consumer, tp, plan.seek_back)
        if plan.close:
            consumer.close()
        if plan.raises:
            raise PlannedError(f"{self._name} raises when partitions are {kind}")

    def _seek_back(self, consumer: Consumer, tp: TopicPartition, count: int) -> None:
        known = consumer.committed(*tp)
        offset = 0 if known is None else max(0, known.offset - count)
        try:
            consumer.seek(*tp, offset)
        except MisuseError:
            return  # it is not this member's any more
        self._tell(o.PartitionSought(self._name, *tp, offset))
