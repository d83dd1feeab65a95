"""The rules of the house, each proven on a planted breach as well as on the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES = 500
FUNCTION_LINES = 70
PURE_ROOMS = ("ksim/core", "ksim/broker")
PURE_MODULES = {
    "__future__",
    "base64",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "re",
    "struct",
    "types",
    "typing",
}
HOMES = {
    "simpy": ("ksim/sim/",),
    "greenlet": ("ksim/sim/",),
    "kafka": ("ksim/wire/", "ksim/real/"),
    "prometheus_client": ("ksim/real/metrics.py",),
    "hypothesis": ("ksim/strategies/",),
    "pytest": ("ksim/pytest_plugin.py",),
}
NET_DOOR = "ksim/real/sasl.py"
BANNED_CALLS = {
    "time.sleep": "wait for a condition",
    "random.random": "draw from a named stream",
    "random.seed": "draw from a named stream",
    "datetime.now": "time comes from the driver",
}
HEAVY = ("kafka", "simpy", "greenlet", "click", "rich", "hypothesis", "pytest")
MIRRORED = ("broker", "consumer", "core", "real", "sim", "wire")

Rule = Callable[[str, str], Iterator[str]]


def modules_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each module that is imported, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def sizes(path: str, source: str) -> Iterator[str]:
    lines = source.count("\n")
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines, at most {FILE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"


def purity(path: str, source: str) -> Iterator[str]:
    room = next((room for room in PURE_ROOMS if path.startswith(room)), None)
    if room is None:
        return
    seen = ("ksim.core",) if room == "ksim/core" else ("ksim.core", "ksim.broker")
    for line, module in modules_of(ast.parse(source)):
        if module.startswith("ksim"):
            if not module.startswith(seen):
                yield f"{path}:{line}: {module} is another room"
        elif module.split(".")[0] not in PURE_MODULES:
            yield f"{path}:{line}: {module} is not pure"


def homes(path: str, source: str) -> Iterator[str]:
    for line, module in modules_of(ast.parse(source)):
        allowed = HOMES.get(module.split(".")[0])
        if path.startswith("ksim/") and allowed is not None and not path.startswith(allowed):
            yield f"{path}:{line}: {module} belongs to {', '.join(allowed)}"


def calls(path: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            for banned, instead in BANNED_CALLS.items():
                if name == banned or name.endswith(f".{banned}"):
                    yield f"{path}:{node.lineno}: {name}: {instead}"
            if name == "print" and path.startswith("ksim/"):
                yield f"{path}:{node.lineno}: print: the command line writes with click"


def one_door(path: str, source: str) -> Iterator[str]:
    """`kafka.net` moves with each release of kafka-python: one file follows it."""
    for line, module in modules_of(ast.parse(source)):
        if module.startswith("kafka.net") and path.startswith("ksim/") and path != NET_DOOR:
            yield f"{path}:{line}: {module} belongs to {NET_DOOR}"


RULES: tuple[Rule, ...] = (sizes, purity, homes, calls, one_door)


def sources() -> list[tuple[str, str]]:
    found = [*(ROOT / "ksim").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return [(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in sorted(found)]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    breaches = [breach for path, source in sources() for breach in rule(path, source)]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        (sizes, "ksim/x.py", "\n" * 501),
        (sizes, "ksim/x.py", "def f():\n" + "    pass\n" * 70),
        (purity, "ksim/core/x.py", "import time\n"),
        (purity, "ksim/core/x.py", "from ksim.sim.world import World\n"),
        (purity, "ksim/broker/x.py", "def f():\n    import random\n"),
        (homes, "ksim/checks.py", "import simpy\n"),
        (homes, "ksim/sim/x.py", "from kafka import KafkaConsumer\n"),
        (homes, "ksim/checks.py", "import pytest\n"),
        (calls, "tests/x.py", "import time\ntime.sleep(1)\n"),
        (calls, "ksim/x.py", "print(1)\n"),
        (one_door, "ksim/real/x.py", "from kafka.net.sasl import get_sasl_mechanism\n"),
    ],
)
def test_each_rule_sees_a_breach(rule: Rule, path: str, source: str) -> None:
    assert list(rule(path, source))


def unmirrored(modules: list[str], tests: dict[str, str]) -> list[str]:
    """Modules of mirrored rooms that no test of their room imports."""
    missing: list[str] = []
    for module in modules:
        room = module.split("/")[1]
        name = module.removesuffix(".py").replace("/", ".")
        texts = [text for path, text in tests.items() if path.startswith(f"tests/{room}/")]
        parent, _, leaf = name.rpartition(".")
        wanted = (name, f"from {parent} import {leaf}")
        if not any(word in text for text in texts for word in wanted):
            missing.append(module)
    return missing


# Modules that are only ever seen through another one of their room.
INSIDE = {
    "ksim/real/connection.py": "tested through ksim.real.transport",
    "ksim/wire/errors.py": "tested through ksim.wire.codec",
    "ksim/wire/requests.py": "tested through ksim.wire.codec",
    "ksim/wire/responses.py": "tested through ksim.wire.codec",
    "ksim/core/commits.py": "rooms of the member, tested through ksim.core.member",
    "ksim/core/membership.py": "rooms of the member, tested through ksim.core.member",
    "ksim/core/positions.py": "rooms of the member, tested through ksim.core.member",
    "ksim/core/reading.py": "rooms of the member, tested through ksim.core.member",
    "ksim/core/turn.py": "rooms of the member, tested through ksim.core.member",
    "ksim/core/coordinator_admin.py": "rooms of the coordinator, tested through it",
    "ksim/core/coordinator_expiry.py": "rooms of the coordinator, tested through it",
    "ksim/core/coordinator_offsets.py": "rooms of the coordinator, tested through it",
    "ksim/core/coordinator_join.py": "rooms of the coordinator, tested through it",
    "ksim/core/coordinator_rebalance.py": "rooms of the coordinator, tested through it",
    "ksim/core/coordinator_requests.py": "rooms of the coordinator, tested through it",
}


def test_every_module_has_a_test_in_its_room() -> None:
    files = sources()
    modules = [
        path
        for path, source in files
        if path.startswith(tuple(f"ksim/{room}/" for room in MIRRORED))
        and len(ast.parse(source).body) > 1
        and path not in INSIDE
    ]
    tests = {path: source for path, source in files if path.startswith("tests/")}
    assert not unmirrored(modules, tests), "no test imports " + ", ".join(
        unmirrored(modules, tests)
    )
    assert unmirrored(["ksim/core/new.py"], tests) == ["ksim/core/new.py"]


def test_importing_ksim_loads_nothing_heavy() -> None:
    code = f"import sys, ksim; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "[]"


def test_the_public_names_can_be_had() -> None:
    import ksim

    assert [name for name in ksim.__all__ if getattr(ksim, name) is None] == []


def test_a_group_of_tests_runs_in_one_worker(tmp_path: Path) -> None:
    """Tests that share brokers rest on it, and pytest-xdist has lost it before without a word."""
    (tmp_path / "test_grouped.py").write_text(
        "import pytest\n"
        "@pytest.mark.xdist_group('together')\n"
        "@pytest.mark.parametrize('at', range(8))\n"
        "def test_one(at, worker_id, record_property):\n"
        "    record_property('worker', worker_id)\n"
    )
    command = ["-m", "pytest", "-c", "/dev/null", "-n", "2", "--dist", "loadgroup"]
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, *command, f"--junitxml={report}", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    found = re.findall(r'name="worker" value="(gw\d)"', report.read_text())
    assert len(found) == 8
    assert len(set(found)) == 1
