"""What other threads of the user do meanwhile, on both arms."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ksim.consumer.consumer import Consumer
from ksim.core.errors import CommitFailedError, KafkaError
from ksim.core.messages import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from ksim.core.values import TopicPartition
from ksim.sim.driver import SimDriver
from tests.consumer.arms import Arm
from tests.consumer.worlds import TinyWorld


class Slow:
    """A listener whose `assigned` lasts until it is let go."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.inside = self.let_go = False
        self.told: list[str] = []

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        del partitions
        self.inside = True
        self.arm.until(lambda: self.let_go, "the callback may end")
        self.told.append("assigned")

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        del partitions
        self.told.append("revoked")

    on_partitions_lost = on_partitions_revoked


def test_close_in_another_thread_waits_for_a_callback(arm: Arm) -> None:
    slow, steps = Slow(arm), list[str]()
    made: list[Consumer] = []

    def application() -> None:
        made.append(consumer := Consumer(arm.config(), listener=slow))
        for _ in consumer:
            pass
        steps.append("reading ended")

    def closer() -> None:
        arm.until(lambda: slow.inside, "the callback runs")
        steps.append("closing")
        made[0].close()
        steps.append("closed")

    arm.start(application)
    arm.start(closer)
    arm.until(lambda: "closing" in steps, "close is called")
    assert not slow.told
    slow.let_go = True
    arm.finish()
    assert slow.told == ["assigned", "revoked"]
    assert sorted(steps) == ["closed", "closing", "reading ended"]
    assert arm.committed() == {}


def test_an_answer_that_comes_too_late_is_not_kept(tiny: TinyWorld) -> None:
    kept: list[object] = []

    def application(driver: SimDriver) -> None:
        del driver
        consumer = Consumer(tiny.config())
        for message in consumer.messages(timeout_ms=3_000):
            consumer.mark_offset(message)
            with pytest.raises(CommitFailedError, match="REQUEST_TIMED_OUT") as caught:
                consumer.commit_offsets(timeout_ms=1)
            assert caught.value.error_code == KafkaError.REQUEST_TIMED_OUT
        kept.append(consumer._engine.answers)
        consumer.close()

    tiny.produce(0, 3)
    tiny.play(application, 20_000)
    tiny.end()
    assert kept == [{}]


class Hanging:
    """A store whose commits do not come back."""

    def __init__(self) -> None:
        self.closed = 0

    def gen_offset_store(self, consumer: Consumer) -> Hanging:
        del consumer
        return self

    def fetch_offset(self, request: OffsetFetchRequest) -> OffsetFetchResponse:
        del request
        raise OSError("not now")

    def commit_offset(self, request: OffsetCommitRequest) -> OffsetCommitResponse:
        raise AssertionError(request)

    def close(self) -> None:
        self.closed += 1


def test_a_store_is_closed_once_nothing_of_it_runs(tiny: TinyWorld) -> None:
    hanging = Hanging()

    def application(driver: SimDriver) -> None:
        del driver
        consumer = Consumer(tiny.config(), offset_store_factory=hanging)
        assert list(consumer.messages(timeout_ms=2_000)) == []
        consumer.close()
        consumer.close()

    tiny.play(application, 20_000)
    tiny.end()
    assert hanging.closed == 1
