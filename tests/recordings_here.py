"""The corpus: recordings of every format that was ever written, and what each replays to.

Never change a file; a new minor version adds a directory. A machine that decides otherwise on
purpose makes some diverge: then say so here, with the reason.
"""

from __future__ import annotations

from pathlib import Path

from ksim.replay import ReplayVerdict

CORPUS = Path(__file__).parent / "recordings"
FILES = sorted(CORPUS.rglob("*.ksim"))
# All others replay the same.
OTHERWISE = {"torn": ReplayVerdict.INCOMPLETE, "broker": ReplayVerdict.UNSUPPORTED}


def verdict_of(path: Path) -> ReplayVerdict:
    """What this file of the corpus replays to."""
    return OTHERWISE.get(path.stem, ReplayVerdict.SAME)
