"""What Hypothesis calls when it is imported, where ksim is installed.

Every user of Hypothesis would pay for what it imports: so the types are registered once somebody
else has loaded them, be that before or after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

SPECS: Final = "ksim.scenario_spec"
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
    if SPECS in sys.modules:
        _register(sys.modules[SPECS])
    else:
        sys.meta_path.insert(0, _Waiting())


def _register(specs: ModuleType) -> None:
    from hypothesis import strategies as st

    def lazily(name: str) -> Any:
        def made(_: type) -> Any:
            import ksim.strategies

            return getattr(ksim.strategies, name)()

        return made

    for spec, name in BY_TYPE.items():
        st.register_type_strategy(getattr(specs, spec), lazily(name))


class _Waiting(MetaPathFinder):
    """Finds nothing itself; it adds what is to be done once the module is there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != SPECS:
            return None
        sys.meta_path.remove(self)
        found = find_spec(fullname)
        if found is not None and found.loader is not None:
            found.loader = _Registering(found.loader)
        return found


class _Registering(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)
