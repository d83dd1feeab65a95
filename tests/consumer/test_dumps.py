"""What the flight recorder holds can be had at any time, on both drivers, and replays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.consumer.config import Config
from ksim.consumer.consumer import Consumer
from ksim.consumer.insight import Insight
from ksim.core.errors import MisuseError
from ksim.recorder import Flight
from ksim.recording import read_recording
from ksim.replay import ReplayVerdict, replay_file
from tests.consumer.arms import Arm

COUNT = 30


def is_same(path: Path) -> None:
    outcome = replay_file(path)
    assert outcome.verdict == ReplayVerdict.SAME, outcome
    assert outcome.entries > 10


def test_a_consumer_writes_what_led_here(arm: Arm, tmp_path: Path) -> None:
    path = tmp_path / "here.ksim"
    arm.produce(0, COUNT)

    def application() -> None:
        with Consumer(arm.config()) as consumer:
            for at, message in enumerate(consumer, 1):
                consumer.mark_offset(message)
                if at == COUNT:
                    consumer.dump_recording(path)
                    return

    arm.start(application)
    arm.finish()
    is_same(path)
    found = read_recording(path)
    assert found.header["payload"] == "digest"
    (part,) = next(entry.payload for entry in found.entries if entry.payload)
    assert (part["first"], part["partition"]) == (0, 0)


def test_an_error_writes_it_where_it_is_wanted(arm: Arm, tmp_path: Path) -> None:
    arm.produce(0, COUNT)

    def application() -> None:
        config = arm.config(flight_recorder_dir=str(tmp_path), client_id="a/b")
        with Consumer(config) as consumer:
            for _ in consumer:
                raise LookupError("the application's own")

    arm.start(application)
    with pytest.raises(LookupError):
        arm.finish()
    (path,) = tmp_path.glob("a_b-*.ksim")
    is_same(path)
    assert read_recording(path).header["why"] == "LookupError: the application's own"


def test_no_recording_of_one_millisecond_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of several processes with one client id that hear SIGUSR1 at once."""

    class Asked(Insight):
        config = Config(group_id="g", topics=("t",), flight_recorder_dir=str(tmp_path))

        def _flight(self, why: str) -> Flight:
            return Flight({"why": why}, {}, [], 0)

    monkeypatch.setattr("ksim.consumer.insight.time.time_ns", lambda: 7_000_000)
    found = [Asked().dump_to_directory(why) for why in ("one", "two", "three")]
    assert [path and path.name for path in found] == [
        "ksim-7.ksim",
        "ksim-7.2.ksim",
        "ksim-7.3.ksim",
    ]
    assert sorted(tmp_path.iterdir()) == sorted(path for path in found if path)
    assert [path and read_recording(path).header["why"] for path in found] == [
        "one",
        "two",
        "three",
    ]


def test_what_cannot_be_written_is_logged_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Asked(Insight):
        config = Config(group_id="g", topics=("t",), flight_recorder_dir=str(tmp_path))

        def _flight(self, why: str) -> Flight:
            raise OSError(28, f"No space left on device ({why})")

    assert Asked().dump_to_directory("a test") is None
    (line,) = caplog.messages
    assert line.startswith("cannot write a recording (a test): [Errno 28] No space left")


def test_without_a_recorder_there_is_nothing(arm: Arm, tmp_path: Path) -> None:
    arm.produce(0, 1)

    def application() -> None:
        config = arm.config(flight_recorder_bytes=0, flight_recorder_dir=str(tmp_path))
        with Consumer(config) as consumer:
            next(iter(consumer))
            consumer.dump_recording(tmp_path / "x.ksim")

    arm.start(application)
    with pytest.raises(MisuseError, match="flight_recorder_bytes = 0"):
        arm.finish()
    assert not list(tmp_path.iterdir())
