"""What a test of the kit has shown, in words for people."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ksim.checks import Violation, seconds
from ksim.narrative import Narrative
from ksim.timeline import Timeline

LAST_LINES = 30
LINE_WIDTH = 200
SENTENCES = 2
Step = tuple[str, int, Any, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict, of each check and of all.

    `notes` say what a reader has to know: how to have judged what was not, and what did not come.
    """

    verdict: str
    checks: dict[str, str]
    violations: tuple[Violation, ...]
    notes: tuple[str, ...]
    story: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that did not hold."""
        return tuple(name for name, found in self.checks.items() if found in ("fail", "broken"))

    def text(self) -> str:
        """Verdict, sentences, and what happened."""
        lines = [f"{self.verdict}: {', '.join(self.failed) or 'all checks hold'}"]
        lines += sentences(self.violations)
        lines += [f"  {note}" for note in self.notes]
        lines += ["what happened:", *(f"  {line}" for line in self.story)]
        return "\n".join(lines)

    def timeline(self, title: str) -> str:
        """The picture, as one HTML page."""
        drawn = Timeline(title)
        for step in self.steps:
            drawn.see(*step)
        return drawn.html()


class NotJudgedWarning(UserWarning):
    """A test of the kit has passed, and shows less than it seems to."""


def warn_of(report: Report) -> None:
    """A test that passes shows no report: what it does not prove is said as a warning.

    So is what it asked for in vain, such as a fault that has struck nothing.
    """
    for note in report.notes:
        warnings.warn(note, NotJudgedWarning, stacklevel=3)


def sentences(violations: Sequence[Violation]) -> list[str]:
    """The first ones of each check, a line each, and how many more there are."""
    by_check: dict[str, list[Violation]] = {}
    for each in violations:
        by_check.setdefault(each.check, []).append(each)
    lines: list[str] = []
    for check, found in by_check.items():
        lines += [f"  {check}: {each.sentence}" for each in found[:SENTENCES]]
        if len(found) > SENTENCES:
            lines.append(f"  {check}: {len(found) - SENTENCES} more like these")
    return lines


def story_of(steps: Sequence[Step]) -> tuple[str, ...]:
    """Rebalances, faults and ends, a line each."""
    told = Narrative()
    for step in steps:
        told.see(*step)
    return tuple(told.lines)


def last_lines(steps: Sequence[Step], most: int = LAST_LINES) -> list[str]:
    """The last steps of all machines and applications, a line each."""
    found: list[str] = []
    for source, at_ms, fact, orders in steps[-most:]:
        ordered = f" -> {', '.join(type(order).__name__ for order in orders)}" if orders else ""
        line = f"{seconds(at_ms):>11}  {source:<12} {fact!r}{ordered}"
        found.append(line if len(line) <= LINE_WIDTH else f"{line[: LINE_WIDTH - 3]}...")
    return found
