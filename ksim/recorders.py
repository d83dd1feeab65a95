"""Recordings of a whole run: one file for each life of each member."""

from __future__ import annotations

from pathlib import Path

from ksim.consumer.config import Config
from ksim.recorder import Snapshot, header_of
from ksim.recording import RecordingWriter
from ksim.recording_payload import PayloadKeeper, PayloadMode


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
        writer = RecordingWriter(path.open("wb", buffering=0), header, snapshot(), keeper)
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
