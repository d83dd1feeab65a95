"""Who may write to a file of a recording: several that begin at once, and where nothing locks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ksim import recording_files
from ksim.recording_files import _opened

WITHOUT = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from ksim.recording_files import _is_written, _opened
path = Path(sys.argv[1])
with _opened(path):
    print(_is_written(path), _opened(path))
"""


def test_without_locks_each_recording_may_be_in_use(tmp_path: object) -> None:
    """As on Windows: the consumer can be imported, and takes or deletes nothing of others."""
    command = [sys.executable, "-c", WITHOUT, f"{tmp_path}/x.ksim"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True None\n"), done.stderr


def test_an_empty_file_is_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "x.ksim"
    path.touch()
    with _opened(path) as file:
        assert _opened(path) is None
        file.write(b"mine")
    assert _opened(path) is None
    assert path.read_bytes() == b"mine"


def test_a_device_is_taken_by_all() -> None:
    path = Path(os.devnull)
    with _opened(path) as one, _opened(path) as other:
        assert one.write(b"1") == other.write(b"2") == 1


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_of_two_that_begin_at_once_one_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, ends: bool
) -> None:
    """The second one comes when the first has made the file, or found it empty, and has no lock."""
    path, second = tmp_path / "x.ksim", list[Any]()
    if made:
        path.touch()
    flock = fcntl.flock

    def later(file: Any, how: int) -> None:
        if not second:
            second.append(None)
            second[0] = _opened(path)
            second[0].write(b"of the second one")
            if ends:
                second[0].close()
        flock(file, how)

    monkeypatch.setattr(recording_files.fcntl, "flock", later)
    assert _opened(path) is None
    second[0].close()
    assert path.read_bytes() == b"of the second one"
