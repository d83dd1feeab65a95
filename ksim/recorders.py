"""Recordings of a whole run: one file for each life of each member."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ksim.consumer.config import Config
from ksim.recorder import Snapshot, header_of
from ksim.recording import RecordingWriter
from ksim.recording_hiding import Step, hidden, hidden_state
from ksim.recording_payload import PayloadKeeper, PayloadMode


class _Hiding(RecordingWriter):
    """Without user data of subscriptions."""

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """Write one entry."""
        step = hidden(Step(now_ms, fact, orders, None))
        super().on_step(now_ms, step.fact, step.orders)


class Recorders:
    """One file for each life of each member, in one directory, which is made; raises OSError."""

    def __init__(
        self, directory: Path, seed: int, payload: PayloadMode = PayloadMode.DIGEST
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._seed = seed
        self._payload = payload
        self.paths: list[Path] = []
        self._writers: list[RecordingWriter] = []

    def __call__(self, name: str, config: Config, snapshot: Snapshot) -> RecordingWriter:
        path = self._directory / f"{name}.ksim"
        header = header_of("member", name, config.public(), self._payload, self._seed)
        # By the seed, so that the same run makes the same file.
        keeper = PayloadKeeper(self._payload, str(self._seed).encode())
        file = path.open("wb", buffering=0)
        full = self._payload == PayloadMode.FULL
        kind, state = (RecordingWriter, snapshot()) if full else (_Hiding, hidden_state(snapshot()))
        writer = kind(file, header, state, keeper)
        self.paths.append(path)
        self._writers.append(writer)
        return writer

    def close(self) -> None:
        """Close all files; raises OSError with the name of the first that could not be written."""
        failed: OSError | None = None
        for path, writer in zip(self.paths, self._writers, strict=True):
            try:
                writer.close()
            except OSError as error:
                failed = failed or OSError(error.errno, error.strerror, str(path))
        if failed is not None:
            raise failed
