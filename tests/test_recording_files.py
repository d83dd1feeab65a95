"""Recordings where files cannot be locked."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from ksim.recording_files import _is_written, _lock
path = Path(sys.argv[1])
with path.open("wb") as file:
    _lock(file)
print(_is_written(path))
"""


def test_without_locks_each_recording_may_be_in_use(tmp_path: object) -> None:
    """As on Windows: the consumer can be imported, and deletes nothing of others."""
    command = [sys.executable, "-c", WITHOUT, f"{tmp_path}/x.ksim"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
