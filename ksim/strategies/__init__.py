"""Hypothesis strategies of scenarios, a run that judges them, and a machine of the pure core.

See `docs/strategies.md`. Names are loaded when they are first used: Hypothesis itself imports this
package, by its entry point, in every run where ksim is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ksim.scenario_sentence import describe
    from ksim.strategies.machine import GroupMachine
    from ksim.strategies.parts import clusters, groups, loads, members, subscriptions, topics
    from ksim.strategies.running import ScenarioFailedError, run
    from ksim.strategies.troubles import faults, steps
    from ksim.strategies.whole import scenarios

_HOMES = {
    "GroupMachine": "ksim.strategies.machine",
    "clusters": "ksim.strategies.parts",
    "describe": "ksim.scenario_sentence",
    "groups": "ksim.strategies.parts",
    "loads": "ksim.strategies.parts",
    "members": "ksim.strategies.parts",
    "subscriptions": "ksim.strategies.parts",
    "topics": "ksim.strategies.parts",
    "ScenarioFailedError": "ksim.strategies.running",
    "run": "ksim.strategies.running",
    "faults": "ksim.strategies.troubles",
    "steps": "ksim.strategies.troubles",
    "scenarios": "ksim.strategies.whole",
}

__all__ = [
    "GroupMachine",
    "ScenarioFailedError",
    "clusters",
    "describe",
    "faults",
    "groups",
    "loads",
    "members",
    "run",
    "scenarios",
    "steps",
    "subscriptions",
    "topics",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ksim.strategies' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "hypothesis":
            raise
        raise ModuleNotFoundError(
            f"ksim.strategies.{name} needs Hypothesis: pip install 'kafka-ksim[testing]'",
            name=error.name,
        ) from error
