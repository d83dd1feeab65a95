"""`ksim conform`: no divergence from a real broker, and each planted one is found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ksim.conform.run import conform
from ksim.conform.script import draw_script
from tests.canary.plants import COORDINATOR_PLANTS
from tests.kafka_server import KafkaServer

ROOT = Path(__file__).parents[2]


def ksim_conform(module: list[str], kafka: KafkaServer, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", *module, "conform", "-b", kafka.bootstrap, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


def test_scripts_follow_from_their_seed() -> None:
    assert draw_script(5, 40) == draw_script(5, 40)
    assert draw_script(5, 40) != draw_script(6, 40)
    assert {step.kind for seed in range(50) for step in draw_script(seed, 40)} >= {
        "join", "sync", "heartbeat", "commit", "leave", "leave_batch", "wait", "deadline",
    }  # fmt: skip


@pytest.mark.kafka
def test_the_machine_answers_as_kafka(kafka: KafkaServer) -> None:
    code, said = ksim_conform(["ksim.cli.main"], kafka, "--seeds", "60")
    assert code == 0, said
    assert "60 scripts of 40 steps" in said
    assert "0 diverged" in said


@pytest.mark.kafka
@pytest.mark.parametrize("plant", sorted(COORDINATOR_PLANTS))
def test_a_planted_error_is_found(kafka: KafkaServer, plant: str) -> None:
    module = ["tests.canary", plant, "--"]
    code, said = ksim_conform(module, kafka, "--seeds", "60", "--no-shrink")
    assert code == 4, said
    assert "diverged after" in said


@pytest.mark.kafka
@pytest.mark.slow
def test_five_hundred_scripts(kafka: KafkaServer) -> None:
    host, _, port = kafka.bootstrap.rpartition(":")
    report = asyncio.run(conform(host, int(port), range(1_000, 1_500), 40))
    assert (report.scripts, report.divergences) == (500, ())


def test_no_broker_is_said() -> None:
    nobody = KafkaServer("127.0.0.1:1")
    code, said = ksim_conform(["ksim.cli.main"], nobody)
    assert code == 69
    assert said.startswith("ksim: 127.0.0.1:1: ")
    assert ksim_conform(["ksim.cli.main"], KafkaServer("nonsense"))[0] == 2
