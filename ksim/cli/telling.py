"""Lines for people: what others chose, such as names in a recording, moves no cursor."""

from __future__ import annotations

from typing import Final

import click

# C0, DEL and C1 (ECMA-48), without what lays out text.
ESCAPED: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
}


def say(text: str, *, err: bool = False) -> None:
    """One line to stdout, or to stderr."""
    click.echo(text.translate(ESCAPED), err=err)
