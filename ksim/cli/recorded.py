"""What every command that records has in common: its options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ksim.consumer.config import Config
from ksim.core.errors import ConfigError
from ksim.recorder import FileRecorder, header_of
from ksim.recording_payload import PAYLOADS, PayloadMode


def _mode(context: click.Context, option: click.Parameter, found: str) -> PayloadMode:
    del context, option
    return PayloadMode(found)


payload_option = click.option(
    "--payload",
    type=click.Choice([str(each) for each in PAYLOADS]),
    default=str(PayloadMode.DIGEST),
    show_default=True,
    callback=_mode,
    help="What a recording keeps of the records that were fetched.",
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """How a consumer is to be recorded; without a path, not at all."""

    path: Path | None
    payload: PayloadMode
    max_bytes: int | None
    keep: int | None

    def recorder(self, config: Config) -> FileRecorder | None:
        """The tap that does it. Raises ConfigError where it could not even begin."""
        if self.path is None:
            for name, value in (("max-bytes", self.max_bytes), ("keep", self.keep)):
                if value is not None:
                    raise ConfigError(f"--record-{name} {value}: needs --record FILE")
            return None
        if self.keep is not None and self.max_bytes is None:
            raise ConfigError(f"--record-keep {self.keep}: needs --record-max-bytes")
        if not self.path.parent.is_dir():
            raise ConfigError(f"--record {self.path}: {self.path.parent} is no directory")
        header = header_of("member", config.client_id, config.public(), self.payload)
        return FileRecorder(self.path, header, max_bytes=self.max_bytes, keep=self.keep)


def record_options(command: Callable[..., int]) -> Callable[..., int]:
    """`--record` and its relatives, given to the command as one argument `recorded`."""

    @functools.wraps(command)
    def wrapped(
        *,
        record: Path | None,
        payload: PayloadMode,
        record_max_bytes: int | None,
        record_keep: int | None,
        **others: Any,
    ) -> int:
        recorded = Recorded(record, payload, record_max_bytes, record_keep)
        return command(recorded=recorded, **others)

    path = click.Path(path_type=Path)
    for option in (
        click.option("--record-keep", type=click.IntRange(1), help="Of those keep the last ones."),
        click.option(
            "--record-max-bytes",
            type=click.IntRange(1),
            help="Begin another file (FILE-0001, ...) after so much.",
        ),
        payload_option,
        click.option("--record", type=path, metavar="FILE", help="Write a recording."),
    ):
        wrapped = option(wrapped)
    return wrapped
