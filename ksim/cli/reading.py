"""The loop of `ksim consume`: read, write, mark, until something ends it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ksim.cli.output import STDOUT, Output, reader_is_gone
from ksim.cli.signals import Signals
from ksim.consumer.config import Config
from ksim.consumer.consumer import Consumer
from ksim.consumer.engine import Tap
from ksim.consumer.message import ConsumerError, Message
from ksim.core.errors import GroupFatalError, KafkaError, error_name
from ksim.core.values import TopicPartition

LOG: Final = logging.getLogger("ksim.cli")
LOOK_MS: Final = 500
USAGE, CORRUPT, NO_OUTPUT, AUTHORIZATION = 2, 65, 74, 77
# What does not get better by waiting, with its exit code. All else is told and tried again.
ENDS: Final = {
    int(KafkaError.CORRUPT_MESSAGE): CORRUPT,
    int(KafkaError.UNSUPPORTED_COMPRESSION_TYPE): CORRUPT,
    int(KafkaError.TOPIC_AUTHORIZATION_FAILED): AUTHORIZATION,
    int(KafkaError.GROUP_AUTHORIZATION_FAILED): AUTHORIZATION,
    int(KafkaError.INVALID_TOPIC): USAGE,
}


class Events:
    """Rebalances and errors on stderr, one JSON object in one write each.

    `assigned_s`: when something was assigned last, by the monotonic clock.
    """

    def __init__(self, output: Output) -> None:
        self.consumer: Consumer | None = None
        self.assigned_s: float | None = None
        self._output = output

    def write(
        self, event: str, partitions: Sequence[TopicPartition], ago_ms: int = 0, **more: Any
    ) -> None:
        generation_id = -1 if self.consumer is None else self.consumer.generation_id
        content = {
            "event": event,
            "partitions": [list(tp) for tp in partitions],
            "generation": generation_id,
            "t": round(time.time() - ago_ms / 1_000, 3),
            **more,
        }
        self._output.event(content)

    def on_partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned_s = time.monotonic()
        self.write("assigned", partitions)

    def on_partitions_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.write("revoked", partitions)

    def on_partitions_lost(self, partitions: Sequence[TopicPartition]) -> None:
        ago_ms = 0 if self.consumer is None else self.consumer.overdue_ms
        self.write("lost", partitions, ago_ms)

    def error(self, error_code: int, message: str, about: TopicPartition | None = None) -> None:
        partitions = () if about is None else (about,)
        self.write(
            "error", partitions, error=error_name(error_code), code=error_code, message=message
        )


@dataclass(frozen=True, slots=True)
class Ends:
    """What ends the reading besides signals, in ms; None: nothing of that kind."""

    max_messages: int | None
    idle_ms: int | None
    close_timeout_ms: int


class Loop:
    """Reads, writes, marks; ends by a signal, a count, idleness, an error or a lost stdout."""

    def __init__(
        self,
        config: Config,
        line: Callable[[Message], bytes],
        ends: Ends,
        output: Output,
        signals: Signals,
    ) -> None:
        self._config = config
        self._line = line
        self._ends = ends
        self._left = ends.max_messages
        self._output = output
        self._events = Events(output)
        self._signals = signals
        self._code = 0
        self.consumer: Consumer | None = None
        signals.limit_s = ends.close_timeout_ms / 1_000

    def go(self, taps: Sequence[Tap]) -> int:
        """The exit code. Raises what ends a consumer for good, after it has left the group."""
        consumer = Consumer(self._config, listener=self._events, taps=(self._signals, *taps))
        self.consumer = self._events.consumer = self._signals.consumer = consumer
        self._signals.dump = lambda: consumer.dump_to_directory("SIGUSR1")
        if self._signals.stopping:
            consumer.stop()  # the signal came before there was anything to stop
        try:
            self._read(consumer)
        except Exception as error:
            consumer.dump_on_error(error)
            if isinstance(error, GroupFatalError):
                self._events.error(error.error_code, str(error))
            raise
        finally:
            consumer.close(self._ends.close_timeout_ms)
        self._tell_errors(consumer)
        return self._signals.forced or self._code

    def _read(self, consumer: Consumer) -> None:
        last = looked = time.monotonic()
        while not consumer.ended and self._left != 0 and not self._code:
            for message in consumer.messages(timeout_ms=LOOK_MS):
                if not self._write(message):
                    return
                consumer.mark_offset(message)
                last = time.monotonic()
                if self._is_last() or (last - looked) * 1_000 >= LOOK_MS:
                    break
            looked = time.monotonic()
            self._tell_errors(consumer)
            if self._is_idle(last, looked):
                return
            if reader_is_gone(STDOUT):
                LOG.info("the reader of stdout is gone, ends")
                return

    def _is_idle(self, last_s: float, now_s: float) -> bool:
        """Whether nothing came for so long, although there was somewhere for it to come from."""
        assigned_s = self._events.assigned_s
        if self._ends.idle_ms is None or assigned_s is None:
            return False
        return (now_s - max(last_s, assigned_s)) * 1_000 >= self._ends.idle_ms

    def _write(self, message: Message) -> bool:
        """Whether the line is out; what is not must not be marked."""
        try:
            self._output.message(self._line(message))
        except BrokenPipeError:
            LOG.info("the reader of stdout is gone, ends")
            return False
        except OSError as error:
            LOG.error("cannot write to stdout, ends: %s", os.strerror(error.errno or 0))
            self._code = NO_OUTPUT
            return False
        return True

    def _is_last(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def _tell_errors(self, consumer: Consumer) -> None:
        for error in consumer.errors():
            self._tell(error)

    def _tell(self, error: ConsumerError) -> None:
        cause = error.cause
        about = None if cause.partition < 0 else TopicPartition(cause.topic, cause.partition)
        self._events.error(error.error_code, str(error), about)
        self._code = self._code or ENDS.get(error.error_code, 0)
