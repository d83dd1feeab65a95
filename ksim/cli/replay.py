"""`ksim replay`: recordings against today's machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ksim.core.errors import DamagedRecordingError
from ksim.recording import read_recording
from ksim.replay import ReplayVerdict
from ksim.replay import replay as replay_recording

DIVERGED, DAMAGED = 4, 5
WORST_FIRST = (DIVERGED, DAMAGED, 0)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def replay(files: Sequence[Path]) -> int:
    """Feed recordings to today's code and compare each decision.

    Example: ksim replay night/g-1.ksim
    """
    codes = [0, *(_one(path) for path in files)]
    return next(code for code in WORST_FIRST if code in codes)


def _one(path: Path) -> int:
    try:
        recording = read_recording(path)
        outcome = replay_recording(recording)
    except DamagedRecordingError as error:
        text = str(error)
        click.echo(f"{text if text.startswith(str(path)) else f'{path}: {text}'}", err=True)
        return DAMAGED
    click.echo(f"{outcome.verdict:<10} {path}  {outcome.entries} entries")
    if outcome.verdict == ReplayVerdict.INCOMPLETE:
        last = outcome.entries + 2
        click.echo(
            f"{path}: no end line; replayed up to line {last}, "
            f"{recording.torn_bytes} bytes of a torn line dropped",
            err=True,
        )
    if outcome.divergence is not None:
        click.echo(f"{path}: {outcome.divergence.sentence()}", err=True)
        return DIVERGED
    return 0
