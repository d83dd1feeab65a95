"""A producer that knows which of its records the brokers have acknowledged."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

TICK_S: Final = 0.02
FLUSH_S: Final = 120.0
NEVER: Final = threading.Event()


class Load(threading.Thread):
    """`per_second` records with acks=all until `stop`; `acknowledged`: (partition, offset) -> s."""

    def __init__(self, bootstrap: str, topic: str, per_second: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[tuple[int, int], float] = {}
        self.sent = 0
        self.unacknowledged = 0
        self.failure: BaseException | None = None
        self._servers = bootstrap
        self._topic = topic
        self._per_second = per_second
        self._stopping = threading.Event()

    def run(self) -> None:
        from confluent_kafka import Producer

        options: dict[str, Any] = {
            "bootstrap.servers": self._servers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
            "topic.metadata.refresh.interval.ms": 5_000,
            "log_level": 0,
        }
        try:
            producer = Producer(options)
            began_s = time.monotonic()
            while not self._stopping.is_set():
                due = int((time.monotonic() - began_s) * self._per_second)
                for number in range(self.sent, due):
                    text = str(number).encode()
                    producer.produce(self._topic, text, text, on_delivery=self._delivered)
                self.sent = due
                producer.poll(0)
                NEVER.wait(TICK_S)
            producer.flush(FLUSH_S)
            self.unacknowledged = self.sent - len(self.acknowledged)
        except BaseException as error:  # noqa: BLE001 - the run raises it
            self.failure = error

    def _delivered(self, error: Any, message: Any) -> None:
        if error is None:
            self.acknowledged[message.partition(), message.offset()] = time.time()

    def stop(self) -> None:
        """Stop producing and return when everything is acknowledged or given up."""
        self._stopping.set()
        self.join()
        if self.failure is not None:
            raise self.failure
