"""A served cluster as a child process, the way people use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_S = 30.0


class Served:
    """`ksim serve` with these arguments; `info` is its first line. `module` is what is run."""

    def __init__(self, log: Path, *arguments: str, module: str = "ksim.cli.main") -> None:
        self._log = log.open("wb")
        self.log_path = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, log.read_text()
        self.info: dict[str, Any] = json.loads(line)
        self.bootstrap: str = self.info["bootstrap"]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        pairs = (each.rpartition(":") for each in self.bootstrap.split(","))
        return [(host, int(port)) for host, _, port in pairs]

    def resident_kib(self) -> int:
        """Memory of the process (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [each for each in status.splitlines() if each.startswith("VmRSS:")]
        return int(line.split()[1])

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        code = self.process.wait(STOP_S)
        self._log.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        text = self.log_path.read_text()
        assert "Traceback" not in text, text
        assert code == 0, code
