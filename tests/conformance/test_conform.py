"""`ksim conform`: no divergence from a real broker, and each planted one is found."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from ksim.conform import run
from ksim.conform.arms import BROKEN, BrokerArm, Data
from ksim.conform.differences import SENTENCES, differences_of
from ksim.conform.pulse import STALLED_MS, Pulse
from ksim.conform.run import Report, Run, conform
from ksim.conform.script import KINDS, Step, draw_script, groups_of
from ksim.conform.side import Side
from ksim.conform.trial import DivergenceError, Target
from ksim.core.coordinator import CoordinatorConfig
from ksim.core.coordinator_state import Difference
from tests.canary.plants import COORDINATOR_PLANTS
from tests.kafka_server import KafkaServer

ROOT = Path(__file__).parents[2]
STEPS = 40
LIMIT_S = 30.0
KafkaOf = Callable[[str], KafkaServer]


def ksim_conform(module: list[str], kafka: KafkaServer, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", *module, "conform", "-b", kafka.bootstrap, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


def report_of(kafka: KafkaServer, seeds: Sequence[int]) -> Report:
    host, _, port = kafka.bootstrap.rpartition(":")
    return asyncio.run(conform(host, int(port), seeds, STEPS))


# Scripts and the table of differences


def test_scripts_follow_from_their_seed() -> None:
    assert draw_script(5, STEPS) == draw_script(5, STEPS)
    assert draw_script(5, STEPS) != draw_script(6, STEPS)
    assert {len(draw_script(seed, STEPS)) for seed in range(50)} == {STEPS}
    assert {step.kind for seed in range(50) for step in draw_script(seed, STEPS)} == set(KINDS)
    assert {groups_of(seed) for seed in range(50)} == {1, 2}


def test_every_difference_has_its_sentence_and_its_broker() -> None:
    assert set(SENTENCES) == set(Difference)
    scala = differences_of({"DescribeGroups": 5}, "classic")
    new = differences_of({"DescribeGroups": 5}, "classic, consumer")
    assert set(scala) | set(new) == set(Difference)
    assert not set(scala) & set(new)
    assert differences_of({"DescribeGroups": 6}, "classic,consumer") == ()
    assert differences_of({"DescribeGroups": 6}, "classic") == ()


# The two sides


def ask_a_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    then: Callable[[BrokerArm, asyncio.Event], Awaitable[None]],
) -> dict[int, Data]:
    """What one ListGroups was answered by this server, once `then` is over.

    `then` has an event for whatever comes.
    """
    heard: dict[int, Data] = {}
    answered = asyncio.Event()

    def told(number: int, answer: Data) -> None:
        heard[number] = answer
        answered.set()

    async def run_both() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            arm = BrokerArm(host, port, told)
            arm.ask(1, "ListGroups", 3, {}, "probe")
            await then(arm, answered)
            await arm.close()

    asyncio.run(asyncio.wait_for(run_both(), LIMIT_S))
    return heard


def test_a_connection_that_ends_is_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.close()

    async def then(arm: BrokerArm, answered: asyncio.Event) -> None:
        del arm
        await answered.wait()

    heard = ask_a_server(serve, then)
    assert heard[1][BROKEN].startswith("IncompleteReadError")


def test_who_hangs_up_is_answered_by_nobody() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        gone.set()

    async def then(arm: BrokerArm, answered: asyncio.Event) -> None:
        del answered
        await asked.wait()
        await arm.hang_up([1])
        await gone.wait()

    assert ask_a_server(serve, then) == {}


def test_ids_have_labels_and_lists_an_order() -> None:
    side = Side()
    known, new = f"a-1-{uuid.uuid4()}", f"b-7-{uuid.uuid4()}"
    side.learn("a", "g", known)
    members = [{"member_id": new, "client_host": "/h"}, {"member_id": known, "client_host": "/h"}]
    assert side.plain({"members": members, "throttle_time_ms": 3}) == {
        "members": [{"member_id": "a0"}, {"member_id": "b-7-<new>"}]
    }
    side.learn("a", "g", new)
    assert (side.label(new), side.ids) == ("a1", {("a", "g"): new})


# What is not believed


def test_a_late_beat_is_a_stall() -> None:
    async def nothing() -> None: ...

    pulse = Pulse(nothing)
    began_s = time.monotonic()
    pulse.note(STALLED_MS)
    assert pulse.worst_since_ms(began_s) == 0
    pulse.note(STALLED_MS + 1)
    pulse.note(900)
    pulse.note(STALLED_MS + 2)
    assert pulse.worst_since_ms(began_s) == 900
    assert pulse.worst_since_ms(time.monotonic() + 1) == 0


class ScriptedTrial:
    """A trial that diverges in its first runs; each diverges with what is `wrong`."""

    wrong: Sequence[str] = ()
    runs = 0

    def __init__(self, target: Target, group_ids: Sequence[str], seed: int) -> None:
        del target, group_ids, seed
        self.done: list[str] = []
        self.tidied = False

    def __getattr__(self, name: str) -> int:
        if name in ("adopted", "unseen", "untold", "tied"):
            return 0
        raise AttributeError(name)

    @property
    def arm(self) -> object:
        state = type("State", (), {"differed": {}})
        return type("Arm", (), {"machine": type("Machine", (), {"state": state})})

    async def run(self, script: Sequence[Step]) -> None:
        del script
        at = ScriptedTrial.runs
        ScriptedTrial.runs += 1
        if at < len(self.wrong):
            self.tidied = self.wrong[at] == "tidied"
            raise DivergenceError(self.wrong[at])


class ScriptedPulse(Pulse):
    """Something stood still in each run that says so."""

    def worst_since_ms(self, since_s: float) -> int:
        del since_s
        return 700 if ScriptedTrial.wrong[ScriptedTrial.runs - 1] == "stalled" else 0


@pytest.mark.parametrize(
    ("wrong", "runs", "diverged", "not_judged", "stalled", "tidied"),
    [
        ([], 1, 0, (), 0, 0),
        (["wrong"], 1, 1, (), 0, 0),
        (["stalled"], 2, 0, (), 1, 0),
        (["stalled", "wrong"], 2, 1, (), 1, 0),
        (["stalled", "stalled"], 3, 0, (), 2, 0),
        (["stalled", "stalled", "stalled"], 3, 0, (0,), 3, 0),
        (["tidied"], 2, 0, (), 0, 1),
        (["tidied", "tidied", "tidied"], 3, 1, (), 0, 3),
    ],
)
def test_what_may_be_mere_disturbance_is_run_again(
    monkeypatch: pytest.MonkeyPatch,
    wrong: list[str],
    runs: int,
    diverged: int,
    not_judged: tuple[int, ...],
    stalled: int,
    tidied: int,
) -> None:
    monkeypatch.setattr(run, "Trial", ScriptedTrial)
    monkeypatch.setattr(ScriptedTrial, "wrong", wrong)
    monkeypatch.setattr(ScriptedTrial, "runs", 0)

    async def nothing() -> None: ...

    target = Target("nowhere", 0, CoordinatorConfig(), {})
    report = asyncio.run(Run(target, ScriptedPulse(nothing)).all([0], STEPS, shrink=False))
    assert ScriptedTrial.runs == runs
    assert len(report.divergences) == diverged
    assert (report.not_judged, report.stalled, report.tidied) == (not_judged, stalled, tidied)


# Against a real broker


@pytest.mark.kafka
def test_the_machine_answers_as_kafka(kafka: KafkaServer) -> None:
    code, said = ksim_conform(["ksim.cli.main"], kafka, "--seeds", "60")
    assert code == 0, said
    assert "60 scripts of 40 steps" in said
    assert "0 diverged" in said
    assert "known differences" not in said


@pytest.mark.kafka
@pytest.mark.parametrize("plant", sorted(COORDINATOR_PLANTS))
def test_a_planted_error_is_found(kafka: KafkaServer, plant: str) -> None:
    module = ["tests.canary", plant, "--"]
    code, said = ksim_conform(module, kafka, "--seeds", "30", "--no-shrink")
    assert code == 4, said
    assert "diverged after" in said


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "scripts"),
    [
        ("fast", 500),
        ("delay", 100),
        ("small-groups", 100),
        ("old", 300),
        ("old-new", 300),
        ("old-delay", 200),
    ],
)
def test_no_unknown_divergence(kafka_of: KafkaOf, profile: str, scripts: int) -> None:
    report = report_of(kafka_of(profile), range(1_000, 1_000 + scripts))
    assert (report.scripts, report.divergences, report.not_judged) == (scripts, (), ())
    assert bool(report.expected) == profile.startswith("old")
    assert set(report.known) <= set(report.expected)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("plant", sorted(COORDINATOR_PLANTS))
@pytest.mark.parametrize("profile", ["old", "old-new"])
def test_no_known_difference_hides_a_planted_error(
    kafka_of: KafkaOf, profile: str, plant: str
) -> None:
    module = ["tests.canary", plant, "--"]
    code, said = ksim_conform(module, kafka_of(profile), "--seeds", "100", "--no-shrink")
    assert code == 4, said


def test_no_broker_is_said() -> None:
    nobody = KafkaServer("127.0.0.1:1")
    code, said = ksim_conform(["ksim.cli.main"], nobody)
    assert code == 69
    assert said.startswith("ksim: 127.0.0.1:1: ")
    assert ksim_conform(["ksim.cli.main"], KafkaServer("nonsense"))[0] == 2
