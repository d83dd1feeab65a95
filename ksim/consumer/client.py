"""A configuration that one consumer after the other is made from."""

from __future__ import annotations

import threading

from ksim.consumer.config import Config
from ksim.core.errors import ClientInUseError


class Client:
    """Serves one consumer at a time; after its `close` it can be used again.

    `Consumer.from_client` makes a consumer of it, with a group and topics of its own.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._in_use = threading.Lock()

    def begin_use(self) -> None:
        """By a consumer that begins. Raises ClientInUseError."""
        if not self._in_use.acquire(blocking=False):
            raise ClientInUseError(
                f"client {self.config.client_id!r} has a consumer; close that one first"
            )

    def end_use(self) -> None:
        """By the consumer that has it, at its end."""
        self._in_use.release()
