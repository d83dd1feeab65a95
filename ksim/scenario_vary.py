"""What a scenario varies, and the points that this makes of it.

Lists multiply in the order of the file, the last one fastest; what is drawn from the seed is drawn
once for all points; "each" comes innermost and counts the events of a run without the fault or step
that waits for them. A point's number stays the same when only some points are run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import product
from math import prod
from random import Random
from typing import Any, Final

from ksim.scenario_spec import EventSpec, Scenario, VarySpec
from ksim.scenario_table import ScenarioError
from ksim.texts import duration_text, parse_duration

EACH: Final = "each"
MOST_COMBINATIONS: Final = 10_000
Data = Mapping[str, Any]
Reader = Callable[[Data, str], Scenario]
# How often each (direction, kind, member) happens in a scenario's run.
Counts = Mapping[tuple[str, str, str], int]


def read_vary(varied: Data, base: Data, source: str, reader: Reader) -> tuple[VarySpec, ...]:
    """The fields that are varied. Raises ScenarioError where any of their values cannot be."""
    found = tuple(_spec(path, given, source) for path, given in varied.items())
    check_values(found, base, source, lambda data: reader(data, source))
    return found


def check_values(
    vary: Sequence[VarySpec], base: Data, source: str, check: Callable[[Data], object]
) -> None:
    """Check the scenario with one value after the other in its place; errors name the value."""
    for spec in vary:
        for value in _ends(spec, source):
            try:
                check(placed(base, {spec.path: value}, source))
            except ScenarioError as error:
                raise ScenarioError(f"{error} (vary.{spec.path} = {value!r})") from error


def _spec(path: str, given: Any, source: str) -> VarySpec:
    if isinstance(given, list) and given:
        return VarySpec(path, values=tuple(given))
    if isinstance(given, str):
        return VarySpec(path, text=given)
    raise ScenarioError(
        f'{source}: vary.{path} = {given!r}: must be a list, "each", or a range such as "5s..15s"'
    )


def _ends(spec: VarySpec, source: str) -> Sequence[Any]:
    """The values that have to be valid, for all between them to be so."""
    if spec.values:
        return spec.values
    if spec.text == EACH:
        where = spec.path.split(".")
        if len(where) != 4 or where[0] not in ("fault", "step") or where[2:] != ["on", "nth"]:
            raise ScenarioError(
                f'{source}: vary.{spec.path} = "each": only fault.N.on.nth and step.N.on.nth count'
            )
        return (1,)
    low, high, is_time = _range(spec, source)
    return tuple(duration_text(end) if is_time else end for end in (low, high))


def _range(spec: VarySpec, source: str) -> tuple[int, int, bool]:
    """Both ends, and whether they are times."""
    ends = (spec.text or "").split("..")
    times = [parse_duration(end) for end in ends]
    numbers = [int(end) if end.isascii() and end.isdigit() else None for end in ends]
    for found, is_time in ((times, True), (numbers, False)):
        low, high = found[0], found[-1]
        if len(found) == 2 and low is not None and high is not None and low <= high:
            return low, high, is_time
    raise ScenarioError(
        f'{source}: vary.{spec.path} = {spec.text!r}: must be a list, "each", or a range such as '
        '"5s..15s"'
    )


def placed(base: Data, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The data with these values at their paths. Raises ScenarioError where there is no such."""
    data = deepcopy(dict(base))
    for path, value in values.items():
        *way, last = path.split(".")
        at: Any = data
        for depth, name in enumerate(way):
            if isinstance(at, list):
                at = at[_index(at, name, f"{source}: vary.{path}", way[:depth])]
            elif isinstance(at, dict):
                at = at.setdefault(name, {})
        if isinstance(at, list):
            at[_index(at, last, f"{source}: vary.{path}", way)] = deepcopy(value)
        elif isinstance(at, dict):
            at[last] = deepcopy(value)
        else:
            raise ScenarioError(f"{source}: vary.{path}: {'.'.join(way)} is no table")
    return data


def _index(items: list[Any], name: str, at: str, way: Sequence[str]) -> int:
    if not (name.isascii() and name.isdigit()) or int(name) >= len(items):
        valid = f"0 to {len(items) - 1}" if items else "none"
        raise ScenarioError(f"{at}: there is no {'.'.join((*way, name))}; valid: {valid}")
    return int(name)


def stream(seed: int, purpose: str) -> Random:
    """The random numbers of one purpose outside of a run."""
    key = blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return Random(int.from_bytes(key, "big"))


def _drawn(spec: VarySpec, seed: int) -> Any:
    low, high, is_time = _range(spec, "")
    found = stream(seed, f"vary {spec.path}").randint(low, high)
    return duration_text(found) if is_time else found


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep: its number, what is varied there, and the scenario that this makes."""

    number: int
    values: tuple[tuple[str, Any], ...]
    scenario: Scenario

    def __str__(self) -> str:
        return ", ".join(f"{path} = {found}" for path, found in self.values)


class Sweep:
    """All points of a scenario and a seed, in their order; made one by one when asked for.

    `count` tells how often each event happens in a run of a scenario with this seed; `each` are the
    paths that go over all of them.
    """

    def __init__(
        self,
        text: str,
        vary: Sequence[VarySpec],
        seed: int,
        reader: Reader,
        count: Callable[..., Counts],
    ) -> None:
        self._base: Data = tomllib.loads(text)
        self._name = str(self._base.get("name", "a scenario"))
        self._reader = reader
        self._seed = seed
        self._count = count
        self._known: dict[str, Counts] = {}
        self.each = [spec.path for spec in vary if spec.text == EACH]
        fixed = {s.path: _drawn(s, seed) for s in vary if not s.values and s.text != EACH}
        lists = [spec for spec in vary if spec.values]
        combinations = prod(len(spec.values) for spec in lists)
        if combinations > MOST_COMBINATIONS:
            raise ScenarioError(
                f"{self._name}: vary: {combinations} combinations of the lists; valid: up to "
                f"{MOST_COMBINATIONS}"
            )
        self._blocks: list[tuple[dict[str, Any], tuple[int, ...]]] = []
        for chosen in product(*(spec.values for spec in lists)):
            names = [spec.path for spec in lists]
            values = {**fixed, **dict(zip(names, chosen, strict=True))}
            self._blocks.append((values, self._counts(self._scenario(values))))

    def _counts(self, scenario: Scenario) -> tuple[int, ...]:
        """How many values each "each" has here."""
        if not self.each:
            return ()
        places = [path.split(".")[:2] for path in self.each]
        gone = {(name, int(at)) for name, at in places}
        base = replace(
            scenario,
            steps=tuple(s for at, s in enumerate(scenario.steps) if ("step", at) not in gone),
            faults=tuple(f for at, f in enumerate(scenario.faults) if ("fault", at) not in gone),
        )
        key = repr(base)
        if key not in self._known:
            self._known[key] = self._count(base, self._seed)
        events = [
            scenario.steps[int(at)].on if name == "step" else scenario.faults[int(at)].on
            for name, at in places
        ]
        return tuple(_met(self._known[key], event) for event in events)

    def _scenario(self, values: Mapping[str, Any]) -> Scenario:
        at = ", ".join(f"{path} = {found}" for path, found in values.items())
        source = f"{self._name} with {at}" if at else self._name
        return self._reader(placed(self._base, values, source), source)

    def __len__(self) -> int:
        return sum(prod(counts) for _, counts in self._blocks)

    def point(self, number: int) -> Point:
        """The point of this number. Raises ScenarioError if there is none."""
        left = number
        for values, counts in self._blocks:
            size = prod(counts)
            if 0 <= left < size:
                nths: list[int] = []
                for count in reversed(counts):
                    left, nth = divmod(left, count)
                    nths.append(nth + 1)
                here = {**values, **dict(zip(self.each, reversed(nths), strict=True))}
                return Point(number, tuple(here.items()), self._scenario(here))
            left -= size
        raise ScenarioError(f"point {number}: the sweep has {len(self)} points, from 0")

    def points(self, most: int | None = None) -> Iterator[Point]:
        """All, or at most so many, spread evenly; which ones is drawn from the seed."""
        total = len(self)
        if most is None or most >= total:
            yield from map(self.point, range(total))
            return
        draw = stream(self._seed, "points")
        for at in range(most):
            low, high = at * total // most, (at + 1) * total // most
            yield self.point(draw.randrange(low, high))


def _met(counts: Counts, event: EventSpec | None) -> int:
    """How often the event of a fault or step happened."""
    if event is None:
        return 0
    return sum(
        count
        for (direction, kind, member), count in counts.items()
        if (direction, kind) == (event.direction, event.kind) and event.member in (None, member)
    )
