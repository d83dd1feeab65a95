"""What users of the kit write: durations, numbers of records, and clusters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ksim.core.errors import MisuseError
from ksim.scenario import ClusterSpec, ProduceSpec
from ksim.scenario_keys import read
from ksim.scenario_table import Table
from ksim.texts import nearest, parse_duration

Duration = str | int
Payload = bytes | str | None
Payloads = Sequence[Payload] | Callable[[int], Payload]
NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
PAYLOADS = (bytes, str, type(None))
TICKS_PER_SECOND = 100
MOST_DAYS = 366
MOST_MS = MOST_DAYS * 24 * 3_600_000


def ms_of(duration: Duration, what: str) -> int:
    """Milliseconds of "20s", or of a number of them. Raises MisuseError."""
    found = parse_duration(duration) if isinstance(duration, str) else duration
    if type(found) is not int or not 0 <= found <= MOST_MS:
        raise MisuseError(
            f'{what} {duration!r}: a duration, as "1500ms", "30s", "5m" or 1500 (ms), '
            f"of at most {MOST_DAYS} days"
        )
    return found


def cluster_of(keys: Mapping[str, Any]) -> ClusterSpec:
    """From the keys that `[cluster]` has in scenarios. Raises ScenarioError."""
    return read(Table("ksim_cluster", "cluster", keys), ClusterSpec)


def load_of(
    topic: str, count: int | None, per_second: int | None, values: Payloads | None, start_ms: int
) -> ProduceSpec:
    """What is produced when. Raises MisuseError."""
    _check_values(topic, values)
    if count is None:
        if not isinstance(values, Sequence):
            raise MisuseError(f"produce({topic!r}): needs count = NUMBER, or a list of values")
        count = len(values)
    for number in (count, 1 if per_second is None else per_second):
        if type(number) is not int or number < 1:
            raise MisuseError(
                f"produce({topic!r}, {count=}, {per_second=}): whole numbers, at least 1"
            )
    if isinstance(values, Sequence) and len(values) < count:
        raise MisuseError(f"produce({topic!r}, {count=}): only {len(values)} values")
    # All at once is what fits into one tick.
    return ProduceSpec(topic, per_second or count * TICKS_PER_SECOND, count, start_ms)


def _check_values(topic: str, values: Payloads | None) -> None:
    if values is None or callable(values):
        return
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    wrong = [each for each in values if not isinstance(each, PAYLOADS)] if is_list else [values]
    if wrong:
        raise MisuseError(
            f"produce({topic!r}, values=...): {wrong[0]!r}: a list of bytes, str or None, "
            "or a function of the number"
        )


def record_of(values: Payloads | None) -> Callable[[int], tuple[bytes | None, bytes | None]]:
    """Key and value of each number; the key is the number."""

    def made(number: int) -> tuple[bytes | None, bytes | None]:
        key = str(number).encode()
        if values is None:
            return key, key
        value = values(number) if callable(values) else values[number]
        if not isinstance(value, PAYLOADS):
            raise MisuseError(f"produce, values({number}): {value!r} is no bytes, str or None")
        return key, value.encode() if isinstance(value, str) else value

    return made


def check_name(name: str, what: str, reserved: str = "") -> None:
    """Letters, digits, dots, dashes and underscores, as Kafka has it. Raises MisuseError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise MisuseError(f"{what} {name!r}: up to 200 letters, digits, '.', '-' or '_'")
    if reserved and re.fullmatch(reserved, name):
        raise MisuseError(f"{what} {name!r}: reports use this name for something else")


def check_among(name: str, valid: Sequence[str], what: str) -> None:
    """Raises MisuseError with the nearest valid name."""
    if not isinstance(name, str):
        raise MisuseError(f"{what} {name!r}: a name")
    if name not in valid:
        raise MisuseError(f"{what} {name!r}: {nearest(name, valid) if valid else 'there is none'}")
