"""Reading TOML strictly: a table knows where it stands and which of its keys were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ksim.core.errors import ConfigError
from ksim.texts import nearest, parse_duration


class ScenarioError(ConfigError):
    """A scenario file says something that has no meaning."""


REQUIRED: Any = object()
LONGEST_MS: Final = (1 << 63) - 1  # what a number of a trace can say


@dataclass(slots=True)
class Table:
    """A TOML table that knows where it stands and which of its keys were asked for."""

    source: str
    path: str
    data: Mapping[str, Any]
    asked: list[str] = field(default_factory=list)

    def refuse(self, key: str, found: Any, why: str) -> None:
        path = f"{self.path}.{key}" if self.path else key
        raise ScenarioError(f"{self.source}: {path} = {found!r}: {why}")

    def refuse_whole(self, why: str) -> None:
        raise ScenarioError(f"{self.source}: {self.path or 'the file'}: {why}")

    def among_valid(self, key: str, found: str, valid: Sequence[str]) -> None:
        if found not in valid:
            self.refuse(key, found, nearest(found, valid))

    def get(self, key: str, default: Any) -> Any:
        self.asked.append(key)
        if key in self.data:
            return self.data[key]
        if default is REQUIRED:
            path = f"{self.path}.{key}" if self.path else key
            raise ScenarioError(f"{self.source}: {path} is missing")
        return default

    def among(self, path: str, name: str, valid: Sequence[str], what: str) -> None:
        if name not in valid:
            raise ScenarioError(
                f"{self.source}: {path} = {name!r}: no such {what}; {nearest(name, valid)}"
            )

    def finish(self) -> None:
        """Keys that nobody asked for are mistakes."""
        for key in self.data:
            if key not in self.asked:
                self.refuse(key, self.data[key], f"unknown key; {nearest(key, self.asked)}")

    def text(self, key: str) -> str:
        found = self.get(key, REQUIRED)
        if not isinstance(found, str) or not found:
            self.refuse(key, found, "must be a text")
        return str(found)

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if key in self.data else self.get(key, None)

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.get(key, REQUIRED)
        if not isinstance(found, list) or not found or not all(isinstance(t, str) for t in found):
            self.refuse(key, found, 'must be a list of texts, such as ["orders"]')
        return tuple(found)

    def count(
        self, key: str, default: Any = REQUIRED, *, least: int = 1, most: int | None = None
    ) -> int:
        found = self.get(key, default)
        if type(found) is not int or found < least or (most is not None and found > most):
            valid = f"{least} or more" if most is None else f"{least} to {most}"
            self.refuse(key, found, f"must be a whole number, {valid}")
        return int(found)

    def flag(self, key: str) -> bool:
        found = self.get(key, False)
        if not isinstance(found, bool):
            self.refuse(key, found, "must be true or false")
        return bool(found)

    def fraction(self, key: str, default: float) -> float:
        found = self.get(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
            self.refuse(key, found, "must be a number from 0 to 1")
        return float(found)

    def choice(self, key: str, valid: Sequence[str], default: Any = REQUIRED) -> str:
        found = self.get(key, default)
        if found not in valid:
            self.refuse(key, found, nearest(str(found), [str(v) for v in valid]))
        return str(found)

    def duration(self, key: str, default: Any = REQUIRED) -> int:
        found = self.get(key, default)
        if found is default:
            return int(found)
        parsed = parse_duration(found) if isinstance(found, str) else None
        if parsed is None:
            self.refuse(key, found, 'must be a duration with its unit, such as "1500ms" or "30s"')
        assert parsed is not None, "refused above"
        self._short_enough(key, parsed)
        return parsed

    def _short_enough(self, key: str, ms: int) -> None:
        if ms > LONGEST_MS:
            self.refuse(key, self.data[key], f"is too long; valid: 0ms to {LONGEST_MS}ms")

    def maybe_duration(self, key: str) -> int | None:
        return self.duration(key) if key in self.data else self.get(key, None)

    def range(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        if key not in self.data:
            self.asked.append(key)
            return default
        found = self.get(key, REQUIRED)
        ends = found.split("..") if isinstance(found, str) else []
        parsed = [parse_duration(end) for end in ends]
        known = [ms for ms in parsed if ms is not None]
        if len(known) != len(ends) or len(known) not in (1, 2) or known[0] > known[-1]:
            self.refuse(key, found, 'must be a duration or a range of them, such as "1ms..5ms"')
        self._short_enough(key, known[-1])
        return known[0], known[-1]

    def table(self, key: str) -> Table:
        found = self.get(key, {})
        if not isinstance(found, dict):
            self.refuse(key, found, "must be a table")
        return Table(self.source, f"{self.path}.{key}" if self.path else key, found)

    def named(self, key: str) -> list[tuple[str, Table]]:
        outer = self.table(key)
        return [(name, outer.table(name)) for name in sorted(outer.data)]

    def tables(self, key: str) -> list[Table]:
        found = self.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            self.refuse(key, found, f"must be tables: [[{key}]]")
        path = f"{self.path}.{key}" if self.path else key
        return [Table(self.source, f"{path}[{at}]", item) for at, item in enumerate(found)]
