"""What a failing test leaves: its seed, how to see it again, and files to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from ksim.checks import Violation
from ksim.kit.report import LAST_LINES, Step, last_lines
from ksim.timeline import Timeline

REGRESSION: Final = "regression.toml"
SCENARIO: Final = "regression.scenario.toml"
MOST_NAME: Final = 150
SEED_FOLDER: Final = "seed-"


@dataclass(frozen=True, slots=True)
class Failure:
    """One test that failed under one seed; `command` runs it again."""

    test: str
    seed: int
    command: str
    steps: Sequence[Step]
    violations: Sequence[Violation] = ()
    scenario: str = ""


def folder_of(directory: Path, test: str) -> Path:
    """Where the files of a test are, whatever its seed; a long id is cut, and told by a digest."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", test).strip("-")
    if len(name) > MOST_NAME:
        name = f"{name[:MOST_NAME]}-{blake2b(test.encode(), digest_size=6).hexdigest()}"
    return directory / name


def saved_seeds(directory: Path | None, test: str) -> list[int]:
    """Seeds with which this test has failed before, as `save` has left them.

    A test with parameters has a folder for each of them, which begins as its own.
    """
    if directory is None:
        return []
    own = folder_of(directory, test).name
    names = [
        path.parent.name.removeprefix(SEED_FOLDER)
        for path in directory.glob(f"*/{SEED_FOLDER}*/regression*.toml")
        if path.parts[-3] == own or path.parts[-3].startswith(f"{own}-")
    ]
    return sorted({int(name) for name in names if name.isdigit()})


def save(failure: Failure, directory: Path) -> list[str]:
    """Write timeline and regression below `directory`; returns the lines that tell of them."""
    folder = folder_of(directory, failure.test) / f"{SEED_FOLDER}{failure.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = Timeline(f"{failure.test}, seed {failure.seed}")
    for step in failure.steps:
        drawn.see(*step)
    timeline = folder / "timeline.html"
    timeline.write_text(drawn.html(), "utf-8")
    if failure.scenario:
        regression = folder / SCENARIO
        regression.write_text(failure.scenario, "utf-8")
    else:
        regression = folder / REGRESSION
        regression.write_text(_regression(failure), "utf-8")
    return [
        f"seed {failure.seed}; again with: {failure.command}",
        f"timeline: {timeline}",
        f"saved regression: {regression}",
        *_last(failure),
    ]


def _last(failure: Failure) -> list[str]:
    """The last steps; where a check has failed, those before it did."""
    steps = failure.steps
    if not failure.violations:
        return [f"last {LAST_LINES} steps:", *last_lines(steps)]
    at_ms = failure.violations[0].at_ms
    before = [step for step in steps if step[1] <= at_ms]
    return [f"last {LAST_LINES} steps before {failure.violations[0].check}:", *last_lines(before)]


def _regression(failure: Failure) -> str:
    """TOML; with the same --ksim-record this seed is run first from now on."""
    keys: list[tuple[str, str | int]] = [
        ("test", failure.test),
        ("seed", failure.seed),
        ("command", failure.command),
    ]
    keys += [(each.check, each.sentence) for each in failure.violations[:1]]
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys)


def listening(steps: list[Step]) -> Callable[..., None]:
    """A watch of a run that keeps every step."""

    def see(source: str, now_ms: int, fact: object, orders: Sequence[object]) -> None:
        steps.append((source, now_ms, fact, tuple(orders)))

    return see
