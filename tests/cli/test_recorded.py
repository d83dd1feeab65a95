"""`ksim consume` records, in files of a size, and writes what it remembers on SIGUSR1."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ksim.recording import read_recording
from ksim.replay import ReplayVerdict, replay_file
from tests.cli.commands import refusal
from tests.cli.consuming import Consuming, fill, served
from tests.real.processes import until


def test_a_session_is_recorded_in_files_that_replay_alone(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, 500)
        options = ("--record", str(folder / "m.ksim"), "--record-max-bytes", "20000")
        more = ("--payload", "full", "--idle-exit", "1500ms", "-X", "fetch.max.bytes=100")
        with Consuming(tmp_path, cluster.bootstrap, *options, *more) as consuming:
            consuming.ends_with(0)
            assert consuming.offsets() == [*range(500)]
    files = sorted(folder.iterdir())
    assert len(files) > 1
    assert [replay_file(path).verdict for path in files] == [ReplayVerdict.SAME] * len(files)
    kept = [
        record[0]
        for path in files
        for entry in read_recording(path).entries
        for part in entry.payload or ()
        for record in part["records"]
    ]
    assert kept == [*range(500)]


def test_sigusr1_writes_what_led_here_and_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, 10)
        options = ("-X", f"flight_recorder_dir={folder}")
        with Consuming(tmp_path, cluster.bootstrap, *options) as consuming:
            consuming.has_handled(10)
            consuming.signal(signal.SIGUSR1)
            until(lambda: len([*folder.glob("*.ksim")]) == 1, "a file")
            (path,) = folder.iterdir()
            fill(cluster.bootstrap, 10)
            consuming.has_handled(20)
            consuming.signal(signal.SIGTERM)
            consuming.ends_with(0)
        assert f"wrote a recording (SIGUSR1): {path}" in consuming.stderr
    assert replay_file(path).verdict == ReplayVerdict.SAME
    assert read_recording(path).header["why"] == "SIGUSR1"


def test_a_full_disk_ends_the_recording_and_not_the_session(tmp_path: Path) -> None:
    with served(tmp_path) as cluster:
        fill(cluster.bootstrap, 10)
        options = ("--record", "/dev/full", "--idle-exit", "1s")
        with Consuming(tmp_path, cluster.bootstrap, *options) as consuming:
            consuming.ends_with(0)
            assert consuming.offsets() == [*range(10)]
        assert consuming.stderr.count("cannot write the recording /dev/full") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--record-keep", "3"), "--record-keep 3: needs --record FILE"),
        (("--record", "x", "--record-keep", "3"), "--record-keep 3: needs --record-max-bytes"),
        (("--record", "/absent/x"), "/absent is no directory"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: tuple[str, ...], words: str) -> None:
    assert words in refusal("consume", "-b", "127.0.0.1:1", "-g", "g", "-t", "t", *options)
