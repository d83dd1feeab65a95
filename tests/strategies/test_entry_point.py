"""Hypothesis finds ksim; ksim does without Hypothesis."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from ksim.strategies.hook import register


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_entry_point_is_there() -> None:
    (found,) = [each for each in entry_points(group="hypothesis") if each.name == "ksim"]
    assert found.load() is register


def test_hypothesis_loads_nothing_but_the_hook() -> None:
    found = python(
        "import sys, hypothesis; names = sorted(sys.modules)\n"
        "print('ksim.scenario_spec' in names, 'ksim.strategies.hook' in names)\n"
        "print([n for n in names if n.startswith('ksim.') and not n.startswith('ksim.strategies')])"
    )
    assert found.stdout.splitlines() == ["False True", "[]"], found.stderr


@pytest.mark.parametrize("first", ["hypothesis", "ksim.scenario"])
def test_types_are_registered_whichever_is_loaded_first(first: str) -> None:
    found = python(
        f"import {first}, warnings; warnings.simplefilter('ignore')\n"
        "from hypothesis import strategies as st\n"
        "from ksim.scenario import Scenario\n"
        "print(st.from_type(Scenario).example().topics[0].name)"
    )
    assert found.stdout == "orders\n", found.stderr


def test_without_hypothesis_the_message_says_what_to_install() -> None:
    found = python(
        "import sys; sys.modules['hypothesis'] = None\n"
        "import ksim.strategies\n"
        "print(callable(ksim.strategies.describe))\n"
        "ksim.strategies.scenarios"
    )
    assert found.stdout == "True\n"
    assert found.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: ksim.strategies.scenarios needs Hypothesis: "
        "pip install 'kafka-ksim[testing]'"
    )


def test_another_module_that_is_missing_is_not_taken_for_hypothesis() -> None:
    found = python(
        "import sys; sys.modules['simpy'] = None\nimport ksim.strategies; ksim.strategies.run"
    )
    assert "import of simpy halted" in found.stderr.splitlines()[-1]
