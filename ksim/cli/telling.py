"""Lines for people, and files that they asked for.

What others chose, such as names in a recording, moves no cursor; an output that is full or closed
has one end, whichever command it is.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

import click

# C0, DEL and C1 (ECMA-48), without what lays out text.
ESCAPED: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}
STDOUT: Final = "standard output"


class OutputError(OSError):
    """Standard output takes nothing more."""


def say(text: str, *, err: bool = False) -> None:
    """One line to stdout, or to stderr. Raises OutputError where stdout is full.

    Who reads no further is told nothing more, and the command goes on: its exit code still tells.
    """
    tell(text.translate(ESCAPED), err=err)


def tell(text: str, *, err: bool = False) -> None:
    """The same of a text that has its layout; what cannot be encoded is shown by its number."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)
    except OSError as error:
        abandon(stream)
        # Where nobody reads stderr, nobody can be told.
        if not err and error.errno != errno.EPIPE:
            raise OutputError(error.errno, error.strerror, STDOUT) from error


def abandon(stream: TextIO | None) -> None:
    """What waits to be written there goes nowhere, and fails no second time at the end."""
    if stream is None:
        return
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def write_text(path: Path, text: str) -> int:
    """A file that was asked for, in a directory that is made; how many lines it has.

    Raises OSError that names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from error
    return len(text.splitlines())
