"""Changes of a member as lines of the standard library's `logging`; never payloads or secrets.

The library installs no handler: who runs it decides where lines go. A line is a sentence and its
fields; `JsonFormatter` writes them as one object, which has `level` and never `event`.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, ClassVar, Final

from ksim.consumer.observed import Change, Kind

LOG: Final = logging.getLogger("ksim.consumer")
MOST_CHARS: Final = 500  # of one field: what a broker sent may be long
LEVELS: Final = {
    Kind.LOST: logging.WARNING,
    Kind.REFUSED: logging.WARNING,
    Kind.COMMIT_REFUSED: logging.WARNING,
    Kind.BROKER_LOST: logging.WARNING,
    Kind.STORE_LOST: logging.WARNING,
    Kind.FATAL: logging.ERROR,
}
# A rebalance refuses commits and joins; that is how it works, and no reason for alarm.
EXPECTED: Final = ("REBALANCE_IN_PROGRESS", "closed at once")


class Fields(dict[str, Any]):
    """`name=value` of each, in quotes where it would not be one word."""

    def __str__(self) -> str:
        return " ".join(f"{name}={_word(text)}" for name, text in self.items())


def _word(value: object) -> str:
    text = str(value)
    return text if text and not any(c in text for c in ' ="\n') else json.dumps(text)


def log_change(group_id: str, change: Change) -> None:
    """One line for one change."""
    level = LEVELS.get(change.kind, logging.INFO)
    if change.reason in EXPECTED:
        level = logging.INFO
    if not LOG.isEnabledFor(level):
        return
    found = {
        "group": group_id,
        "member": change.member_id,
        "generation": change.generation_id,
        "reason": change.reason,
        "duration_ms": change.duration_ms,
        "count": change.partitions,
        "detail": change.detail,
    }
    fields = Fields({n: _short(v) for n, v in found.items() if v is not None and v != ""})
    LOG.log(level, "%s %s", change.kind.value, fields)


def _short(value: Any) -> Any:
    return value[:MOST_CHARS] if isinstance(value, str) else value


def _parts(record: logging.LogRecord) -> tuple[str, Fields]:
    match record.args:
        case (str() as sentence, Fields() as fields):
            return sentence, fields
        case _:
            return record.getMessage(), Fields()


class JsonFormatter(logging.Formatter):
    """One JSON object: `t` (unix seconds), `level`, `logger`, `message` and the fields."""

    is_json: ClassVar = True

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message, fields = _parts(record)
        content: dict[str, Any] = {
            "t": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            **fields,
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            content["exception"] = record.exc_text
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO ksim.consumer joins group=g ...`; UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """In UTC, whatever the machine is set to."""
        del datefmt
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{seconds}.{int(record.msecs):03d}Z"


FORMATS: Final[dict[str, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}
LEVEL_NAMES: Final = ("debug", "info", "warning", "error")
