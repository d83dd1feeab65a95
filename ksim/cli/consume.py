"""`ksim consume`: a production consumer that writes what it reads to stdout."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from ksim.consumer.config import Config, duration_or_count
from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Tap
from ksim.consumer.message import ConsumerError, Message
from ksim.core.errors import ConfigError, GroupFatalError, KafkaError, error_name
from ksim.core.session import StepListener
from ksim.core.trace import Plain
from ksim.core.values import TopicPartition
from ksim.recording import RecordingWriter

STDOUT, STDERR = 1, 2
CORRUPT = 65
LOOK_MS = 500
ENVIRONMENT = "KSIM_CONFIG_"


class Events:
    """Rebalances and errors on stderr, one JSON object in one write each."""

    def __init__(self) -> None:
        self.consumer: Consumer | None = None

    def write(self, event: str, partitions: Sequence[TopicPartition], **more: Any) -> None:
        generation_id = -1 if self.consumer is None else self.consumer.generation_id
        content = {
            "event": event,
            "partitions": [list(tp) for tp in partitions],
            "generation": generation_id,
            "t": round(time.time(), 3),
            **more,
        }
        _write_all(STDERR, _line(content))

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.write("assigned", partitions)

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.write("revoked", partitions)

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.write("lost", partitions)

    def error(self, error_code: int, message: str) -> None:
        self.write("error", (), error=error_name(error_code), code=error_code, message=message)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


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
    content["headers"] = [
        [name, None if data is None else data.decode("utf-8", "replace")]
        for name, data in message.headers
    ]
    return _line(content)


def text_line(message: Message) -> bytes:
    """The value alone."""
    return (message.value or b"") + b"\n"


@click.command()
@click.option("-b", "--bootstrap", required=True, help="HOST:PORT, several with commas.")
@click.option("-g", "--group", required=True, help="The group id.")
@click.option("-t", "--topic", "topics", required=True, multiple=True, help="A topic; repeat it.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML of keys.")
@click.option("-X", "settings", multiple=True, metavar="KEY=VALUE", help="A configuration key.")
@click.option(
    "--from",
    "reset",
    type=click.Choice(["earliest", "latest", "none"]),
    default="latest",
    show_default=True,
    help="Where to begin without a committed offset.",
)
@click.option("--assignor", type=click.Choice(["range", "roundrobin"]))
@click.option("--format", "layout", type=click.Choice(["json", "text"]), default="json")
@click.option("--max-messages", type=int, help="Stop after so many.")
@click.option("--idle-exit", help="Stop when nothing came for so long, such as 10s.")
@click.option("--record", type=click.Path(path_type=Path), help="Write a recording.")
def consume(
    bootstrap: str,
    group: str,
    topics: Sequence[str],
    config_file: Path | None,
    settings: Sequence[str],
    reset: str,
    assignor: str | None,
    layout: str,
    max_messages: int | None,
    idle_exit: str | None,
    record: Path | None,
) -> int:
    """Consume topics as a member of a group; stop it with SIGINT or SIGTERM.

    Example: ksim consume -b localhost:9092 -g audit -t orders --from earliest
    """
    mapping: dict[str, Any] = {"auto_offset_reset": reset}
    mapping |= _environment() | _file(config_file) | _settings(settings)
    mapping |= {"bootstrap_servers": bootstrap, "group_id": group, "topics": tuple(topics)}
    if assignor is not None:
        mapping["partition_strategy"] = assignor
    config = Config.from_mapping(mapping)
    idle_ms = None if idle_exit is None else duration_or_count("idle-exit", idle_exit)
    line = json_line if layout == "json" else text_line
    tap = None if record is None else _Recorder(record, config)
    try:
        return _Loop(config, line, max_messages, idle_ms, tap).go()
    finally:
        if tap is not None:
            tap.close()


def _environment() -> dict[str, Any]:
    return {
        name.removeprefix(ENVIRONMENT).lower(): os.environ[name]
        for name in sorted(os.environ)
        if name.startswith(ENVIRONMENT)
    }


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _settings(settings: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"-X {setting!r}: must be KEY=VALUE")
        found[key] = text
    return found


class _Recorder:
    """Makes the recording when the member begins, and ends it when it is over."""

    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._config = config
        self._writer: RecordingWriter | None = None

    def __call__(self, snapshot: Plain) -> StepListener:
        config = self._config
        header = {"vantage": "member", "member": config.client_id, "config": config.public()}
        self._writer = RecordingWriter(self._path.open("wb", buffering=0), header, snapshot)
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Loop:
    """Reads, writes, marks; ends by a signal, a count, idleness or a closed stdout."""

    def __init__(
        self,
        config: Config,
        line: Any,
        max_messages: int | None,
        idle_ms: int | None,
        tap: Tap | None,
    ) -> None:
        self._config = config
        self._line = line
        self._left = max_messages
        self._idle_ms = idle_ms
        self._events = Events()
        self._taps = () if tap is None else (tap,)
        self._signals = 0
        self._consumer: Consumer | None = None
        self._code = 0

    def go(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        consumer = Consumer(self._config, listener=self._events, taps=self._taps)
        self._consumer = self._events.consumer = consumer
        with consumer, contextlib.suppress(BrokenPipeError):
            try:
                self._read(consumer)
            except GroupFatalError as error:
                self._events.error(error.error_code, str(error))
                raise
        self._tell_errors(consumer)
        return self._code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + number)
        if self._consumer is None:
            raise SystemExit(0)  # nothing was joined yet, so there is nothing to drain
        self._consumer.stop()

    def _read(self, consumer: Consumer) -> None:
        last = time.monotonic()
        while not consumer.ended and self._left != 0:
            for message in consumer.messages(timeout_ms=LOOK_MS):
                _write_all(STDOUT, self._line(message))
                consumer.mark_offset(message)
                last = time.monotonic()
                if self._left is not None:
                    self._left -= 1
                    if self._left == 0:
                        return
            self._tell_errors(consumer)
            idle_ms = (time.monotonic() - last) * 1_000
            if self._code or (self._idle_ms is not None and idle_ms >= self._idle_ms):
                return

    def _tell_errors(self, consumer: Consumer) -> None:
        for error in consumer.errors():
            self._tell(error)

    def _tell(self, error: ConsumerError) -> None:
        self._events.error(error.error_code, error.context)
        if error.error_code == KafkaError.CORRUPT_MESSAGE:
            self._code = CORRUPT
