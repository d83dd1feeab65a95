"""The examples as processes, on a real broker."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ksim.core.values import TopicPartition
from tests.consumer.arms import LIMIT_S, RealArm
from tests.kafka_server import KafkaServer

ROOT = Path(__file__).parents[2]


@pytest.mark.kafka
def test_the_worker_pool_handles_all_and_ends_by_a_signal(
    kafka: KafkaServer, fresh_name: Callable[[str], str]
) -> None:
    arm = RealArm(kafka, fresh_name)
    script = str(ROOT / "examples" / "worker_pool.py")
    arm.produce(0, 20)
    arm.produce(1, 20)
    command = [sys.executable, script, kafka.bootstrap, arm.group, arm.topic]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip() for _ in range(40)}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    assert lines == {f"{arm.topic}-{at}@{number} {number}" for at in (0, 1) for number in range(20)}
    expected = {TopicPartition(arm.topic, number): (20, "") for number in (0, 1)}
    assert arm.committed() == expected
