"""Where the command line's configuration comes from: flags, -X, the environment, a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ksim.consumer.config import KEYS, Config
from ksim.consumer.config_files import read_file
from ksim.consumer.config_kinds import Whole
from ksim.consumer.config_names import translated
from ksim.core.errors import ConfigError

ENVIRONMENT = "KSIM_CONFIG_"


def config_of(flags: Mapping[str, Any], settings: Sequence[str], path: Path | None) -> Config:
    """A flag goes before -X, that before the environment, that before the file, then defaults.

    Raises ConfigError, which says where the mistake stands. Flags that are None were not given.
    """
    merged: dict[str, Any] = {} if path is None else translated(KEYS, read_file(path), str(path))
    merged |= translated(KEYS, _environment(), "environment")
    merged |= translated(KEYS, _given(settings), "-X")
    merged |= {name: found for name, found in flags.items() if found is not None}
    return Config(**merged)


def duration_ms(name: str, text: str) -> int:
    """The milliseconds of "1500ms", "30s" or "5m", for an option. Raises ConfigError."""
    try:
        return Whole(0, "ms").read(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r}: {error}") from None


def _environment() -> dict[str, str]:
    return {
        name.removeprefix(ENVIRONMENT).lower(): os.environ[name]
        for name in sorted(os.environ)
        if name.startswith(ENVIRONMENT)
    }


def _given(settings: Sequence[str]) -> dict[str, str]:
    """The KEY=VALUE of each -X. Without a "=" its text may be a secret gone astray."""
    found: dict[str, str] = {}
    for number, setting in enumerate(settings, 1):
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"-X, the one with number {number}: must be KEY=VALUE")
        if key in found:
            raise ConfigError(f"-X {key} is given more than once")
        found[key] = text
    return found
