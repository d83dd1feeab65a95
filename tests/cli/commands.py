"""The real command line, as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios"


def ksim(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `ksim` in a process of its own; extra environment by name."""
    return subprocess.run(
        [sys.executable, "-m", "ksim.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(*arguments: str) -> str:
    """The one line that a command says when it refuses; exit code 2, and nothing was run."""
    found = ksim(*arguments)
    assert found.returncode == 2, found.stdout + found.stderr
    assert found.stdout == ""
    (line,) = found.stderr.splitlines()
    return line


def digest(output: str) -> str:
    """The digest that a run prints last."""
    return next(line.split()[1] for line in output.splitlines() if line.startswith("digest"))
