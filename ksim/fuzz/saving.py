"""A failing seed as a small scenario file, ready to be kept as a regression."""

from __future__ import annotations

from typing import Final

from ksim.fuzz.swarm import draw_scenario
from ksim.scenario import Scenario, dump
from ksim.scenario_check import check_run
from ksim.scenario_table import ScenarioError
from ksim.shrink import shrink
from ksim.sim.runner import run

BROKEN: Final = "broken"


class TwoDigestsError(AssertionError):
    """The same seed ran in two ways."""


def breaks_by(error: Exception) -> str:
    """What stands in the place of a check where a run raises."""
    return f"{BROKEN}: {type(error).__name__}"


def fails_check(scenario: Scenario, seed: int, check: str) -> str | None:
    """The sentence of the first violation of this check; None where it does not fail.

    `check` may be what `breaks_by` says: then the run has to raise the same kind of error.
    """
    try:
        check_run("shrunk", scenario)
        result = run(scenario, seed)
        if check == breaks_by(TwoDigestsError()) and run(scenario, seed).digest != result.digest:
            raise TwoDigestsError("two runs have two digests")
    except ScenarioError:
        return None  # no file could say this
    except Exception as error:  # noqa: BLE001 - a scenario that breaks something else is another find
        return f"{error!r}" if breaks_by(error) == check else None
    return next((each.sentence for each in result.violations if each.check == check), None)


def save_shrunk(seed: int, check: str) -> str:
    """The text of the smallest scenario of this seed that still fails the check.

    Where shrinking itself breaks, of the scenario as it was drawn: a find is never lost to that.
    """
    drawn = draw_scenario(seed)
    try:
        small = shrink(drawn, lambda one: fails_check(one, seed, check) is not None).scenario
    except Exception as error:  # noqa: BLE001 - the other finds of a campaign are still to be saved
        return f"# Not made small: {error!r}\n{_as_drawn(drawn, seed, check)}"
    return text_of(small, seed, check, f"ksim fuzz, seed {seed}")


def _as_drawn(scenario: Scenario, seed: int, check: str) -> str:
    return f"# Fails {check} with --seed {seed}\n\n{dump(scenario)}"


def text_of(scenario: Scenario, seed: int, check: str, origin: str) -> str:
    """A scenario file that says what it is for."""
    sentence = (fails_check(scenario, seed, check) or "nothing any more").replace("\n", " ")
    what = f"Breaks ({check.removeprefix(BROKEN + ': ')})" if check.startswith(BROKEN) else None
    return (
        f"# {what or f'Fails {check}'} with --seed {seed}: {sentence}\n"
        f"# Found by {origin}, and made small. Say here what was wrong, and keep it.\n\n"
        f"{dump(scenario)}"
    )
