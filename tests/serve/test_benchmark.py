"""The benchmark runs; what it measures is for people, and no test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_prints_its_table() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "serve.py"), "20_000"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 7
    assert "20,000 records of 100 B consumed" in found.stdout
