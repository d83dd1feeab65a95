"""What a consumer can be asked, before, while and after it owns something."""

from __future__ import annotations

from ksim.consumer.consumer import Consumer
from ksim.consumer.known import Known
from ksim.sim.driver import SimDriver
from tests.consumer.test_consumer import TP0, TP1
from tests.consumer.worlds import TinyWorld


def test_a_consumer_knows_what_it_owns_and_since_when_it_must_not(tiny: TinyWorld) -> None:
    seen: list[object] = []

    def application(driver: SimDriver) -> None:
        consumer = Consumer(tiny.config())
        assert isinstance(consumer, Known)
        assert (consumer.subscriptions(), consumer.generation_id) == ({}, -1)
        for message in consumer.messages(timeout_ms=1_000):
            consumer.mark_offset(message)
        seen.append((consumer.subscriptions(), consumer.generation_id, consumer.overdue_ms))
        consumer.commit_offsets()
        seen.append(consumer.lag())
        committed = consumer.committed("t", 0)
        assert committed is not None
        seen.append(committed.offset)
        tiny.cluster.nodes[1].gate.pause()
        driver.sleep_us(10_000_000)
        seen.append(consumer.overdue_ms > 0)

    tiny.produce(0, 3)
    tiny.play(application, 30_000)
    tiny.end()
    assert seen == [({"t": [0, 1]}, 1, 0), {TP0: 0, TP1: 0}, 3, True]
