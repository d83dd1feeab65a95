"""`ksim consume`: a production consumer that writes what it reads to stdout."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ksim.cli.operating import serve_health
from ksim.cli.output import Output, check_stdout, json_bytes, set_up_logs
from ksim.cli.reading import Ends, Loop
from ksim.cli.recorded import Recorded, record_options
from ksim.cli.settings import config_of, duration_ms
from ksim.cli.signals import signals
from ksim.consumer.config import Acknowledge, Config, ConsumerMode
from ksim.consumer.message import Message
from ksim.core.errors import ConfigError
from ksim.real.logs import FORMATS, LEVEL_NAMES


def _put(content: dict[str, Any], name: str, data: bytes | None) -> None:
    """A string where the bytes are one, otherwise base64 and a word that says so."""
    try:
        content[name] = None if data is None else data.decode()
    except UnicodeDecodeError:
        assert data is not None, "None has no bytes to fail on"
        content[name] = base64.b64encode(data).decode()
        content[f"{name}_encoding"] = "base64"


def json_line(message: Message) -> bytes:
    """The documented object of one message, as a line."""
    content: dict[str, Any] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": message.timestamp_ms,
    }
    _put(content, "key", message.key)
    _put(content, "value", message.value)
    _put_headers(content, message.headers)
    return json_bytes(content)


def _put_headers(content: dict[str, Any], headers: Sequence[tuple[str, bytes | None]]) -> None:
    """Strings where all values are some, otherwise all of them in base64."""
    try:
        content["headers"] = [
            [name, data if data is None else data.decode()] for name, data in headers
        ]
    except UnicodeDecodeError:
        encoded = [
            (name, data if data is None else base64.b64encode(data)) for name, data in headers
        ]
        _put_headers(content, encoded)
        content["headers_encoding"] = "base64"


def text_line(message: Message) -> bytes:
    """The value alone."""
    return (message.value or b"") + b"\n"


@click.command()
@click.option("-b", "--bootstrap", help="HOST:PORT, several with commas.")
@click.option("-g", "--group", help="The group id.")
@click.option("-t", "--topic", "topics", multiple=True, help="A topic; repeat it.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="A .toml or .properties file."
)
@click.option(
    "-X",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A configuration key, as ksim, Java or librdkafka spell it.",
)
@click.option(
    "--from",
    "reset",
    type=click.Choice(["earliest", "latest", "none"]),
    help="Where to begin without a committed offset.  [default: latest]",
)
@click.option("--assignor", type=click.Choice(["range", "roundrobin"]))
@click.option("--format", "layout", type=click.Choice(["json", "text"]), default="json")
@click.option("--max-messages", type=click.IntRange(min=0), help="Stop after so many.")
@click.option(
    "--idle-exit", help="Stop when nothing came for so long, from the first assignment on: 10s."
)
@click.option(
    "--close-timeout",
    default="25s",
    show_default=True,
    help="How long the last commit and leaving may take; what stops you should wait longer.",
)
@click.option("--log-format", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(LEVEL_NAMES), default="info", show_default=True)
@click.option(
    "--metrics-port", type=int, help="Serve /livez, /readyz and /metrics; 0: a free port."
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where to serve them.")
@record_options
def consume(
    bootstrap: str | None,
    group: str | None,
    topics: Sequence[str],
    config_file: Path | None,
    settings: Sequence[str],
    reset: str | None,
    assignor: str | None,
    layout: str,
    max_messages: int | None,
    idle_exit: str | None,
    close_timeout: str,
    log_format: str,
    log_level: str,
    metrics_port: int | None,
    metrics_host: str,
    recorded: Recorded,
) -> int:
    """Consume topics as a member of a group; stop it with SIGINT or SIGTERM.

    A flag goes before -X, that before KSIM_CONFIG_KEY in the environment, that before the file.

    Example: ksim consume -b localhost:9092 -g audit -t orders --from earliest
    """
    output = Output()
    set_up_logs(output, FORMATS[log_format](), log_level)  # first: errors are in its layout, too
    signals().as_json = log_format == "json"
    check_stdout()
    flags = {
        "bootstrap_servers": None if bootstrap is None else tuple(bootstrap.split(",")),
        "group_id": group,
        "topics": tuple(topics) or None,
        "auto_offset_reset": reset,
        "partition_strategy": assignor,
        "return_errors": True,  # each becomes an event
    }
    config = config_of(flags, settings, config_file)
    _check_usable(config)
    idle_ms = None if idle_exit is None else duration_ms("--idle-exit", idle_exit)
    line = json_line if layout == "json" else text_line
    ends = Ends(max_messages, idle_ms, duration_ms("--close-timeout", close_timeout))
    loop = Loop(config, line, ends, output, signals())
    with contextlib.ExitStack() as stack:
        taps = []
        if (recorder := recorded.recorder(config)) is not None:
            stack.callback(recorder.close)
            taps.append(recorder)
        if metrics_port is not None:
            stack.callback(serve_health(metrics_host, metrics_port, loop, output).stop)
        return loop.go(taps)


def _check_usable(config: Config) -> None:
    """One stream and marks are all that this command knows. Raises ConfigError."""
    for name, needed in (("mode", ConsumerMode.MULTIPLEX), ("acknowledge", Acknowledge.MARK)):
        if getattr(config, name) != needed:
            raise ConfigError(
                f"{name} = {getattr(config, name).value!r}: ksim consume knows {needed.value!r}"
            )
