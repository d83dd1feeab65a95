"""Never a lost join: two members that start together, or shortly after each other, share."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import pytest

from ksim.consumer.config import Config
from ksim.consumer.consumer import Consumer
from tests.kafka_server import KafkaServer
from tests.real.processes import NEVER, until

PARTITIONS = 6
FEW, MANY = 5, 200
MOST_APART_S = 1.5
SETTLED_S = 40.0


class Reader(threading.Thread):
    """One member that reads until it is stopped."""

    def __init__(self, config: Config, after_s: float) -> None:
        super().__init__(daemon=True)
        self.consumer: Consumer | None = None
        self.failure: BaseException | None = None
        self._config = config
        self._after_s = after_s

    def run(self) -> None:
        try:
            NEVER.wait(self._after_s)
            with Consumer(self._config) as self.consumer:
                for message in self.consumer:
                    self.consumer.mark_offset(message)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def owned(self) -> list[int]:
        found = {} if self.consumer is None else self.consumer.subscriptions()
        return [partition for partitions in found.values() for partition in partitions]

    def stop(self) -> None:
        until(lambda: self.consumer is not None or self.failure is not None, "it was made")
        if self.consumer is not None:
            self.consumer.stop()
        self.join(SETTLED_S)
        assert not self.is_alive(), "it does not end"
        if self.failure is not None:
            raise self.failure


def start_pairs(kafka: KafkaServer, fresh_name: Callable[[str], str], count: int) -> None:
    stream = random.Random(count)
    topic = fresh_name("topic")
    kafka.create_topic(topic, PARTITIONS)
    for _ in range(count):
        apart_s = stream.choice((0.0, stream.uniform(0.0, MOST_APART_S)))
        config = Config(
            bootstrap_servers=(kafka.bootstrap,),
            group_id=fresh_name("group"),
            topics=(topic,),
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
        )
        start_pair([Reader(config, 0.0), Reader(config, apart_s)])


def start_pair(readers: list[Reader]) -> None:
    with contextlib.ExitStack() as stack:
        for reader in readers:
            reader.start()
            stack.callback(reader.stop)
        until(lambda: _share(readers), "both have a share", SETTLED_S)


def _share(readers: list[Reader]) -> bool:
    for reader in readers:
        if reader.failure is not None:
            raise reader.failure
    owned = [reader.owned() for reader in readers]
    return all(owned) and sorted(owned[0] + owned[1]) == list(range(PARTITIONS))


@pytest.mark.kafka
def test_a_few_pairs_settle(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> None:
    start_pairs(kafka, fresh_name, FEW)


@pytest.mark.slow
@pytest.mark.kafka
def test_two_hundred_pairs_settle(kafka: KafkaServer, fresh_name: Callable[[str], str]) -> None:
    start_pairs(kafka, fresh_name, MANY)
