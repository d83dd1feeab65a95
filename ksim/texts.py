"""Texts that people write: durations, and names that are nearly right."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

DEFAULT_PORT = 9092
SHOWN_CHARS = 200
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def nearest(name: str, valid: Sequence[str]) -> str:
    """The hint at the end of an error line."""
    found = difflib.get_close_matches(name, valid, 1, 0.5)
    return f"nearest: {found[0]!r}" if found else f"valid: {', '.join(valid)}"


def shown(found: object) -> str:
    """A value in an error line, however long it is."""
    try:
        text = repr(found)
    except ValueError:  # of numbers with thousands of digits
        return f"{type(found).__name__} that is too long to be shown"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def parse_duration(text: str) -> int | None:
    """Milliseconds of "1500ms", "30s", "5m" or "1h"; None where it is no duration."""
    for unit in sorted(UNITS, key=len, reverse=True):
        number = text.removesuffix(unit)
        if number != text and number.isascii() and number.isdigit():
            return int(number) * UNITS[unit]
    return None


def parse_address(text: str, default_port: int) -> tuple[str, int] | None:
    """Host and port of `host`, `host:port` or `[ipv6]:port`; None where it is none of them."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or "]" in port:
        host, port = text.strip(), str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        return None
    return host, int(port)


def duration_text(ms: int) -> str:
    """The shortest text of so many milliseconds."""
    unit = next((u for u in ("m", "s") if ms and ms % UNITS[u] == 0), "ms")
    return f"{ms // UNITS[unit]}{unit}"
