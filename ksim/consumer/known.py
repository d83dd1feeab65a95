"""What a consumer can be asked at any time; none of it waits for a broker."""

from __future__ import annotations

from ksim.consumer.config import Config
from ksim.consumer.engine import Engine
from ksim.consumer.health import Health, Statistics, glance_at, health_of, statistics_of
from ksim.consumer.message import ConsumerError, Notification
from ksim.consumer.offsets import Committed
from ksim.consumer.port import Driver
from ksim.core.values import TopicPartition


class Known:
    """The part of `Consumer` that only looks."""

    config: Config
    _driver: Driver
    _engine: Engine

    def subscriptions(self) -> dict[str, list[int]]:
        """Topic to partitions that this member owns now."""
        with self._driver.lock:
            found: dict[str, list[int]] = {}
            for tp in sorted(self._engine.streams):
                found.setdefault(tp.topic, []).append(tp.partition)
            return found

    def committed(self, topic: str, partition: int) -> Committed | None:
        """What was committed last, as far as this member knows it: by its predecessor or by itself.

        Known for the partitions that it owns or has owned; None where nothing is committed.
        """
        with self._driver.lock:
            return self._engine.news.committed.get(TopicPartition(topic, partition))

    def high_water_marks(self) -> dict[TopicPartition, int]:
        """The end of each partition as last seen by a fetch."""
        with self._driver.lock:
            return dict(self._engine.news.high_water_marks)

    def lag(self) -> dict[TopicPartition, int]:
        """How many offsets lie between what is marked and the end, of each owned partition.

        Counted from the last mark of this tenure, or from where it began to read; up to the high
        water mark, or, for `read_committed`, to the last stable offset. A partition is absent until
        a fetch has told its end.
        """
        with self._driver.lock:
            return self._engine.news.lag(self._engine.streams.values())

    def health(self) -> Health:
        """How this consumer does: its owner, its membership, each partition. For any thread."""
        with self._driver.lock:
            return health_of(self._engine)

    def glance(self) -> Health:
        """As `health`, but without partitions, and without waiting for anybody: for probes."""
        return glance_at(self._engine)

    def statistics(self) -> Statistics:
        """What this consumer has counted; `ksim.real.metrics` shows it to Prometheus."""
        with self._driver.lock:
            return statistics_of(self._engine, self.config.group_id, self.config.client_id)

    @property
    def overdue_ms(self) -> int:
        """How long ago hand-outs had to end, as nothing confirmed the membership; 0: not yet."""
        return max(0, self._driver.now_ms() - self._engine.deliver_until_ms)

    @property
    def waiting(self) -> bool:
        """The user's thread waits inside a call for the next message."""
        return self._engine.waiting

    @property
    def generation_id(self) -> int:
        """The generation of the last assignment; -1 before the first."""
        return self._engine.generation_id

    @property
    def stale_marks(self) -> int:
        """Marks that came after their tenure was over and were ignored."""
        return self._engine.stale_marks

    def errors(self) -> list[ConsumerError]:
        """What went wrong since the last call, oldest first, with `return_errors`.

        Without it errors are logged, and this is empty. At most 1,000 are kept.
        """
        with self._driver.lock:
            return self._engine.news.errors.take()

    def notifications(self) -> list[Notification]:
        """Rebalances since the last call, oldest first, with `return_notifications`.

        Without it this is empty. At most 1,000 are kept.
        """
        with self._driver.lock:
            return self._engine.news.notifications.take()

    @property
    def dropped(self) -> tuple[int, int]:
        """How many errors and how many notifications were dropped, because nobody read them."""
        news = self._engine.news
        return news.errors.dropped, news.notifications.dropped
