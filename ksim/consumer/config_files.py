"""Files of configuration: TOML, and Java's .properties."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ksim.core.errors import ConfigError

ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
BLANK: Final = " \t\f"
# Key, then blanks, '=' or ':' with blanks around, then the value; a backslash takes what follows.
LINE: Final = re.compile(r"((?:\\.|[^\\ \t\f=:])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.|$)", re.DOTALL)


def read_file(path: Path) -> dict[str, Any]:
    """Keys and values as the file spells them. Raises ConfigError."""
    readers = {".toml": _toml, ".properties": properties}
    if path.suffix not in readers:
        raise ConfigError(f"{path}: {path.suffix!r}: {' or '.join(readers)}")
    try:
        return readers[path.suffix](path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: no UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None


def _toml(text: str) -> dict[str, Any]:
    return dict(_flat("", tomllib.loads(text)))


def _flat(before: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys are tables to TOML: `session.timeout.ms = 1` is one key to us."""
    for name, found in table.items():
        if isinstance(found, dict):
            yield from _flat(f"{before}{name}.", found)
        else:
            yield before + name, found


def properties(text: str) -> dict[str, str]:
    """As `java.util.Properties` reads it; the last line of a key wins. Raises ValueError."""
    found: dict[str, str] = {}
    for number, line in _logical_lines(text):
        matched = LINE.fullmatch(line)
        assert matched is not None, "any line is a key, and perhaps a value"
        try:
            name, value = (ESCAPE.sub(_unescaped, part) for part in matched.groups())
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        found[name] = value
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end in a backslash joined with the next."""
    whole, began = "", 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        part = line.lstrip(BLANK)
        if not began and (not part or part[0] in "#!"):
            continue
        began = began or number
        if (len(part) - len(part.rstrip("\\"))) % 2:
            whole += part[:-1]
            continue
        yield began, whole + part
        whole, began = "", 0
    if began and whole:
        yield began, whole


def _unescaped(matched: re.Match[str]) -> str:
    escape = matched.group(1)
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    if escape == "u":
        raise ValueError("\\u needs four hexadecimal digits")
    return ESCAPES.get(escape, escape)
