"""What the pytest plugin adds to a run that does not use it: `python benchmarks/plugin.py`.

CPU time of the whole pytest process on one empty test, without other plugins, with this one and
with `-p no:ksim`, turn about; the figure is the median of the differences. The target is below
5 ms. Byte code is written, as is usual: pytest caches what it makes of a plugin.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PAIRS = 25


def cpu_ms(folder: Path, *options: str) -> float:
    """Of one run of pytest."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    usual = ("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:xdist")
    command = [sys.executable, "-m", "pytest", *usual, *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=usual_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1_000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def usual_environment() -> dict[str, str]:
    return {name: found for name, found in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing() -> None:\n    pass\n")
        cpu_ms(folder), cpu_ms(folder, "-p", "no:ksim")  # byte code is written, files are cached
        found = [(cpu_ms(folder), cpu_ms(folder, "-p", "no:ksim")) for _ in range(pairs)]
    with_it, without = (statistics.median(column) for column in zip(*found, strict=True))
    added = statistics.median(one - other for one, other in found)
    sys.stdout.write(
        f"with {with_it:.1f} ms, without {without:.1f} ms; adds {added:.1f} ms "
        f"(median of {pairs} pairs)\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PAIRS)
