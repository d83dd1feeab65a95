"""What Hypothesis calls when it is imported, where ksim is installed.

It costs every user of Hypothesis what it imports: the specs of scenarios, not what runs them.
"""

from __future__ import annotations

from typing import Any, Final

# The strategy of each type that a test may name in an annotation.
BY_TYPE: Final = {
    "Scenario": "scenarios",
    "ClusterSpec": "clusters",
    "GroupSpec": "groups",
    "FaultSpec": "faults",
    "StepSpec": "steps",
    "ProduceSpec": "loads",
}


def register() -> None:
    """Let `from_type(Scenario)` and arguments that are annotated draw what can be run."""
    from hypothesis import strategies as st

    from ksim import scenario_spec

    def lazily(name: str) -> Any:
        def made(_: type) -> Any:
            import ksim.strategies

            return getattr(ksim.strategies, name)()

        return made

    for spec, name in BY_TYPE.items():
        st.register_type_strategy(getattr(scenario_spec, spec), lazily(name))
