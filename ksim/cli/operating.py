"""`--metrics-port`: the pages of the consumer that a loop runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ksim.core.errors import ConfigError

if TYPE_CHECKING:
    from ksim.cli.output import Output
    from ksim.cli.reading import Loop
    from ksim.real.health import HealthServer


def serve_health(host: str, port: int, loop: Loop, output: Output) -> HealthServer:
    """Begin to serve and say where. Raises ConfigError where that cannot be."""
    try:
        from ksim.real.metrics import page
    except ImportError as error:
        raise ConfigError(
            f"--metrics-port needs the extra: pip install 'kafka-ksim[prometheus]' ({error})"
        ) from error
    from ksim.real.health import HealthServer, Pages

    try:
        server = HealthServer(host, port, Pages(lambda: loop.consumer, page))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--metrics-port {port}: cannot listen on {host}: {error}") from error
    # A log line that no level hides: with port 0 nobody else knows.
    output.event({
        "t": round(time.time(), 3), "level": "INFO", "logger": "ksim.cli",
        "message": "serves /livez, /readyz, /metrics", "metrics": server.address,
    })  # fmt: skip
    return server
