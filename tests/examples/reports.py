"""What the kit prints about the broken twins; `docs/test-kit.md` has it.

`python -m tests.examples.reports` prints it anew.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples import broken_twins as twins
from ksim.kit import CheckFailedError, SimulatedCluster
from tests.examples import test_partitions, test_plain_loop, test_sqlite, test_worker_pool

SETTINGS = {"initial_rebalance_delay": "0s"}
TITLES = {
    "The plain loop: commit before handling": (
        "The offset is committed first; a crash before the effect loses the record."
    ),
    "The worker pool: a swallowed error": (
        "The handler catches what its service raises and returns: the record counts as done."
    ),
    "Partitions mode: state kept across a revoke": (
        "What was gathered in one tenure of a partition is still there in the next, which reads it "
        "again."
    ),
    "Exactly once into SQLite: an unfenced store": (
        "A member that was away for longer than its session writes what it held, behind its "
        "successor."
    ),
}


def plays(folder: Path) -> list[Callable[[Any], None]]:
    """One for each title."""
    path = folder / "results.db"
    return [
        lambda cluster: test_plain_loop.play(cluster, twins.commit_before_handling),
        lambda cluster: test_worker_pool.play(cluster, twins.swallowed_error),
        lambda cluster: test_partitions.play(cluster, twins.state_kept_across_a_revoke),
        lambda cluster: test_sqlite.play(cluster, twins.unfenced_store, path),
    ]


def report_of(play: Callable[[Any], None]) -> str:
    """What `check` raises, with seed 0."""
    with SimulatedCluster(0, SETTINGS) as cluster:
        try:
            play(cluster)
        except CheckFailedError as error:
            return str(error)
    return "nothing was found"


def sections() -> list[str]:
    """As the document has them."""
    with tempfile.TemporaryDirectory() as folder:
        texts = [report_of(play) for play in plays(Path(folder))]
    return [
        f"### {title}\n\n{words}\n\n```text\n{text}\n```\n"
        for (title, words), text in zip(TITLES.items(), texts, strict=True)
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(sections()))
