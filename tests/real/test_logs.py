"""How a change of a member's state is written."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from ksim.consumer.observed import Change, Kind
from ksim.real.logs import LOG, JsonFormatter, TextFormatter, log_change


def change(**more: Any) -> Change:
    return Change(Kind.LOST, "m", 3, **more)


def told(formatter: logging.Formatter, caplog: pytest.LogCaptureFixture, found: Change) -> str:
    with caplog.at_level(logging.INFO, LOG.name):
        log_change("g", found)
    return formatter.format(caplog.records[-1])


def test_a_line_stays_one_line_whatever_a_broker_says(caplog: pytest.LogCaptureFixture) -> None:
    evil = 'two\nlines "and" {braces} ' + "x" * 5_000
    text = told(TextFormatter(), caplog, change(reason=evil))
    assert len(text.splitlines()) == 1
    assert len(text) < 1_500
    found = json.loads(told(JsonFormatter(), caplog, change(reason=evil)))
    assert found["reason"] == evil[:500]
    assert "%s" in told(TextFormatter(), caplog, change(reason="%s"))


@pytest.mark.parametrize(
    ("kind", "reason", "level"),
    [
        (Kind.LOST, "session.timeout.ms passed without a confirmation", "WARNING"),
        (Kind.LOST, "closed at once", "INFO"),
        (Kind.REFUSED, "REBALANCE_IN_PROGRESS", "INFO"),
        (Kind.FATAL, "FindCoordinator: GROUP_AUTHORIZATION_FAILED", "ERROR"),
        (Kind.IN_PROGRESS, "rebalance_in_progress", "INFO"),
    ],
)
def test_what_is_ordinary_is_no_warning(
    caplog: pytest.LogCaptureFixture, kind: Kind, reason: str, level: str
) -> None:
    told(JsonFormatter(), caplog, Change(kind, "m", 3, reason))
    assert caplog.records[-1].levelname == level


def test_other_lines_and_their_tracebacks_are_objects_too() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("kafka.x", logging.ERROR, "", 1, "it %s", ("broke",), info)
    found = json.loads(JsonFormatter().format(record))
    assert (found["logger"], found["message"]) == ("kafka.x", "it broke")
    assert "ValueError: broken" in found["exception"]
    assert "event" not in found
