"""`ksim replay`: recordings against today's machine."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from ksim.after.lives import SUFFIX, VANTAGE
from ksim.cli.telling import say
from ksim.core.errors import ConfigError, DamagedRecordingError
from ksim.core.trace import Plain
from ksim.recording import Entry, RecordingReader
from ksim.replay import (
    Divergence,
    ReplayOutcome,
    ReplayVerdict,
    look_at,
    replay_file,
    same,
    short,
    state_before,
)

MOST_DIFFERENCES: Final = 20
CODES: Final = {
    ReplayVerdict.SAME: 0,
    ReplayVerdict.INCOMPLETE: 0,
    ReplayVerdict.DIVERGED: 4,
    ReplayVerdict.UNSUPPORTED: 5,
    ReplayVerdict.DAMAGED: 5,
}
WORST_FIRST: Final = (4, 5, 0)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--entry", type=click.IntRange(1, sys.maxsize), help="Show this entry of one file in full."
)
def replay(files: Sequence[Path], entry: int | None) -> int:
    """Feed recordings to today's code and compare each decision.

    A directory stands for all recordings in it, and has a line that adds up.

    Example: ksim replay night/g-1.ksim
    """
    paths = [path for each in files for path in recordings_in(each)]
    if entry is not None:
        if len(paths) != 1:
            raise ConfigError(f"--entry {entry}: of one file, not of {len(paths)}")
        return _show_entry(paths[0], entry)
    counts: Counter[ReplayVerdict] = Counter()
    entries, began_s = 0, time.process_time()
    for path in paths:
        outcome = replay_file(path)
        counts[outcome.verdict] += 1
        entries += outcome.entries
        _tell(path, outcome)
    if any(each.is_dir() for each in files):
        took_s = max(time.process_time() - began_s, 0.001)
        found = ", ".join(f"{counts[each]} {each}" for each in ReplayVerdict if counts[each])
        say(f"{len(paths)} files: {found}; {entries} entries, {entries / took_s:.0f}/s of CPU")
    codes = [0, *(CODES[each] for each in counts)]
    return next(code for code in WORST_FIRST if code in codes)


def recordings_in(path: Path) -> list[Path]:
    """The file itself, or all recordings in a directory. Raises ConfigError where are none."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob(f"*{SUFFIX}"))
    if not found:
        raise ConfigError(f"{path}: no {SUFFIX} files in this directory")
    return found


def members_in(path: Path) -> list[Path]:
    """The file itself, or the recordings of members in this directory and in none below it.

    What is below may be of another run, whose members would contradict these. What coordinators
    and brokers saw is left out, and that is told. Raises ConfigError where nothing is left.
    """
    if not path.is_dir():
        return [path]
    inside = sorted(path.glob(f"*{SUFFIX}"))
    if not inside:
        below = next(path.rglob(f"*{SUFFIX}"), None)
        hint = "" if below is None else f"; those of one run are looked at together: {below.parent}"
        raise ConfigError(f"{path}: no {SUFFIX} files in this directory{hint}")
    found = [each for each in inside if _is_of_member(each)]
    if not found:
        raise ConfigError(f"{path}: no recordings of members in this directory")
    return found


def _is_of_member(path: Path) -> bool:
    """What cannot be read counts, so that it is told."""
    try:
        vantage = RecordingReader(path).header.get("vantage")
    except DamagedRecordingError:
        return True
    if vantage == VANTAGE:
        return True
    say(f"{path}: left out: vantage {vantage!r}, not {VANTAGE}", err=True)
    return False


def _tell(path: Path, outcome: ReplayOutcome) -> None:
    if outcome.problem:
        say(f"{outcome.verdict:<11} {path}")
        say(outcome.problem, err=True)
        return
    say(f"{outcome.verdict:<11} {path}  {outcome.entries} entries")
    if outcome.verdict == ReplayVerdict.INCOMPLETE:
        last = outcome.entries + 2
        say(
            f"{path}: no end line; replayed up to line {last}, "
            f"{outcome.torn_bytes} bytes of a torn line dropped",
            err=True,
        )
    if outcome.divergence is not None:
        for line in _about(path, outcome.divergence):
            say(line, err=True)


def _about(path: Path, found: Divergence) -> Iterator[str]:
    yield f"{path}: {found.sentence()}"
    for entry in found.agreed:
        yield f"  agreed: {_line_of(entry)}"
    differences = found.differences()
    for each in differences[:MOST_DIFFERENCES]:
        yield f"  differs: {each}"
    if len(differences) > MOST_DIFFERENCES:
        yield f"  and {len(differences) - MOST_DIFFERENCES} more differences"
    if not path.is_file():
        yield f"  state before: not known, as {path} cannot be read twice: replay a file of it"
        return
    try:
        state = state_before(path, found.entry)
    except DamagedRecordingError as error:
        yield f"  state before: not known, as it is another file by now: {error}"
        return
    for name, value in state.items():
        yield f"  state before: {name} = {short(value)}"
    yield f"  reproduce: ksim replay --entry {found.entry} {shlex.quote(str(path))}"


def _line_of(entry: Entry) -> str:
    orders = ", ".join(_name_of(order) for order in entry.orders) or "nothing"
    return f"line {entry.line} at {entry.now_ms} ms: {short(entry.fact)} -> {orders}"


def _name_of(order: Plain) -> str:
    kind = order.get("_", "?")
    request = order.get("request")
    return f"{kind} {request['_']}" if isinstance(request, dict) and "_" in request else str(kind)


def _show_entry(path: Path, number: int) -> int:
    found = look_at(path, number)
    for name, value in (
        ("state before", found.state),
        ("fact", found.fact),
        ("recorded", found.recorded),
        ("decided", found.decided),
    ):
        say(f"{name}\n{json.dumps(value, indent=2)}")
    agreed = same(found.recorded, found.decided)
    verdict = ReplayVerdict.SAME if agreed else ReplayVerdict.DIVERGED
    say(f"{verdict:<11} {path}  entry {number} (line {found.line}) at {found.now_ms} ms")
    return CODES[verdict]
