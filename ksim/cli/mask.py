"""`ksim mask`: recordings that can be given away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ksim.after.lives import SUFFIX
from ksim.cli.replay import recordings_in
from ksim.cli.telling import say
from ksim.core.errors import ConfigError
from ksim.masking import Mask, in_order, mask, masked_name, names_of


@click.command("mask")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path),
    help="The copy; of several recordings, a directory for the copies.",
)  # fmt: skip
def mask_command(files: Sequence[Path], out: Path) -> int:
    """Copy recordings with groups, topics, members, clients and hosts renamed.

    Each name becomes the same one in all of them, and names keep their order.

    Example: ksim mask night/*.ksim -o masked
    """
    sources = list(dict.fromkeys(path for each in files for path in recordings_in(each)))
    for source in sources:
        refuse_pipe(source)
    names = names_of(sources)
    single = len(sources) == 1 and not files[0].is_dir() and not out.is_dir()
    counts: Counter[str] = Counter()
    targets: dict[Path, Path] = {}
    for source in sources:
        target = out
        if not single:
            name = masked_name(source, names)
            counts[name] += 1
            target = out / f"{name}{f'.{counts[name]}' if counts[name] > 1 else ''}{SUFFIX}"
        spare(out, target, sources)
        targets[source] = target
    if not single:
        out.mkdir(parents=True, exist_ok=True)
    for source in in_order(sources):
        try:
            found = mask(source, targets[source], names)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(targets[source])) from error
        _tell(found)
    return 0


def refuse_pipe(source: Path) -> None:
    """All names have to be known before the first is replaced. Raises ConfigError."""
    if source.exists() and not source.is_file():
        raise ConfigError(f"{source}: is a pipe or a device, and is read twice: mask a file of it")


def spare(out: Path, target: Path, sources: Sequence[Path]) -> None:
    """Before anything is written. Raises ConfigError where the target is one of the sources."""
    if target.exists() and any(each.exists() and target.samefile(each) for each in sources):
        raise ConfigError(f"-o {out}: would overwrite {target}")


def _tell(found: Mask) -> None:
    say(f"masked      {found.target}  {found.entries} entries")
    if found.line:
        say(
            f"{found.source}: line {found.line}: decided otherwise under other names; "
            "the copy diverges there",
            err=True,
        )
