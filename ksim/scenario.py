"""Scenarios: frozen values, read from a closed TOML grammar and written back to the same value.

A mistake is one line: the file, the path in it, the value, and the nearest name that is valid.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ksim.scenario_check import check_names
from ksim.scenario_keys import Schema, quoted, read, schema, toml, written
from ksim.scenario_spec import (
    REQUESTS,
    STEPS,
    VERSION,
    CallbackSpec,
    ClusterSpec,
    EventSpec,
    FaultSpec,
    GroupSpec,
    HandlerFailure,
    HandlerHang,
    MemberSpec,
    ProduceSpec,
    Scenario,
    StepSpec,
    TopicSpec,
    VarySpec,
)
from ksim.scenario_table import ScenarioError, Table
from ksim.scenario_vary import read_vary

__all__ = [
    "REQUESTS",
    "STEPS",
    "CallbackSpec",
    "ClusterSpec",
    "EventSpec",
    "FaultSpec",
    "GroupSpec",
    "HandlerFailure",
    "HandlerHang",
    "MemberSpec",
    "ProduceSpec",
    "Scenario",
    "ScenarioError",
    "StepSpec",
    "TopicSpec",
    "VarySpec",
    "dump",
    "fault_of",
    "json_schema",
    "load",
    "parse",
    "scenario_of",
]


TABLES = ("cluster", "topics", "groups", "produce", "steps", "faults")


def load(path: str | Path) -> Scenario:
    """Read a scenario file. Raises ScenarioError, one line."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Scenario:
    """The scenario of a TOML text; `source` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: not TOML: {error}") from error
    except RecursionError:
        raise ScenarioError(f"{source}: nested too deeply to be read") from None
    varied = data.pop("vary", {})
    scenario = scenario_of(data, source)
    if not isinstance(varied, dict):
        Table(source, "", {}).refuse("vary", varied, "must be a table: [vary]")
    vary = read_vary(varied, data, source, scenario_of)
    return replace(scenario, vary=vary)


def scenario_of(data: Mapping[str, Any], source: str) -> Scenario:
    """The scenario of plain data, without `vary`."""
    table = Table(source, "", data)
    table.asked.append("vary")
    check_version(table)
    scenario = read(table, Scenario)
    check_names(source, scenario)
    return scenario


def check_version(table: Table) -> None:
    """Before anything else: what a newer one says may have no meaning here."""
    version = table.data.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        table.refuse(
            "version",
            version,
            f"this ksim reads scenario files up to version {VERSION}; upgrade kafka-ksim",
        )


def fault_of(data: Mapping[str, Any], source: str) -> FaultSpec:
    """One `[[fault]]` that stands alone, such as a JSON object. Raises ScenarioError."""
    return read(Table(source, "", data), FaultSpec)


# Writing


def dump(scenario: Scenario) -> str:
    """TOML that `parse` reads as the same value; what is as by default is left out."""
    lines = written(scenario, TABLES)
    if cluster := written(scenario.cluster):
        lines += ["", "[cluster]", *cluster]
    for topic in scenario.topics:
        lines += ["", f"[topics.{quoted(topic.name)}]", *written(topic)]
    for group in scenario.groups:
        lines += ["", "[[group]]", *written(group, ("overrides",))]
        for member in group.overrides:
            lines += ["", "[[group.member]]", *written(member)]
    for name, items in (
        ("produce", scenario.produce),
        ("step", scenario.steps),
        ("fault", scenario.faults),
    ):
        for item in items:
            lines += ["", f"[[{name}]]", *written(item)]
    if scenario.vary:
        lines += ["", "[vary]"]
        lines += [f"{quoted(v.path)} = {toml(v.values or v.text)}" for v in scenario.vary]
    return "\n".join(lines) + "\n"


def json_schema() -> Schema:
    """The grammar, as `docs/scenario.schema.json` has it."""
    found = schema(Scenario)
    found["properties"]["vary"] = {
        "description": "Fields that are varied, by path; a run of such a file is a sweep.",
        "type": "object",
        "additionalProperties": {
            "anyOf": [
                {"type": "array", "minItems": 1},
                {"const": "each"},
                {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)?\.\.[0-9]+(ms|s|m|h)?$"},
            ]
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ksim scenario",
        **found,
    }
