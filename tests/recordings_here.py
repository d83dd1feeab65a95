"""The corpus: recordings of every format that was ever written, and what each replays to.

Never change a file; a new minor version adds a directory. A machine that decides otherwise on
purpose makes some diverge: then say so here, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ksim.recording import TAIL, line_of
from ksim.replay import ReplayVerdict

CORPUS = Path(__file__).parent / "recordings"
FILES = sorted(CORPUS.rglob("*.ksim"))
# All others replay the same.
OTHERWISE = {"torn": ReplayVerdict.INCOMPLETE, "broker": ReplayVerdict.UNSUPPORTED}


def verdict_of(path: Path) -> ReplayVerdict:
    """What this file of the corpus replays to."""
    return OTHERWISE.get(path.stem, ReplayVerdict.SAME)


def forge(source: Path, target: Path, change: Callable[[list[str]], None]) -> None:
    """A copy whose lines, as JSON texts without checksums, were changed; all checksums fit."""
    texts = [line[:-TAIL].decode() + "}" for line in source.read_bytes().splitlines(keepends=True)]
    change(texts)
    chain, lines, entries = "", list[bytes](), 0
    for text in texts:
        if text.startswith('{"end"'):
            text = f'{{"end":{entries},"digest":"{chain}"}}'
        entries += text.startswith('{"t":')
        line, chain = line_of(chain, text)
        lines.append(line)
    target.write_bytes(b"".join(lines))
