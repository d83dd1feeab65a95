"""What can be asked of a consumer at any time, and from any thread."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from pathlib import Path
from typing import Final

from ksim.consumer.known import Known
from ksim.core.errors import MisuseError
from ksim.recorder import Flight

LOG: Final = logging.getLogger("ksim.recording")
NS_IN_MS: Final = 1_000_000


class Insight(Known):
    """The part of `Consumer` that changes nothing: what is known, and the flight recorder."""

    def dump_recording(self, path: str | Path, why: str = "asked for") -> None:
        """Write what the flight recorder holds as a recording that `ksim replay` takes.

        What stands at this path is replaced. Raises MisuseError where `flight_recorder_bytes` is 0,
        OSError where it cannot be written.
        """
        self._flight(why).write(Path(path))

    def _flight(self, why: str) -> Flight:
        recorder = self._engine.flight_recorder
        if recorder is None:
            raise MisuseError("flight_recorder_bytes = 0: there is nothing to write")
        with self._driver.lock:
            return recorder.flight(self._driver.now_ms(), why)

    def dump_to_directory(self, why: str) -> Path | None:
        """The same to a new file in `flight_recorder_dir`, or where temporary files go.

        Others may have this client id and this directory: no file that is there is replaced.
        Never raises: what goes wrong is logged, and so is where it is. Returns None then.
        """
        folder = Path(self.config.flight_recorder_dir or tempfile.gettempdir())
        client = re.sub(r"[^\w.-]", "_", self.config.client_id)
        wanted = folder / f"{client}-{time.time_ns() // NS_IN_MS}.ksim"
        try:
            path = self._flight(why).write_new(wanted)
        except (MisuseError, OSError) as error:
            LOG.error("cannot write a recording (%s): %s", why, error)
            return None
        LOG.warning("wrote a recording (%s): %s", why, path)
        return path

    def dump_on_error(self, error: BaseException) -> None:
        """To `flight_recorder_dir`, if there is one: what led to this."""
        wanted = self.config.flight_recorder_dir is not None and isinstance(error, Exception)
        if wanted and self._engine.flight_recorder is not None:
            self.dump_to_directory(f"{type(error).__name__}: {error}")
