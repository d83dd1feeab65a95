"""The thread that calls the user's offset store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from ksim.core.events import MemberFact

LOG = logging.getLogger("ksim.store")
NAME: Final = "ksim-store"
PATIENCE_S: Final = 5.0


class StoreThread:
    """Calls one after the other, and posts what they return.

    It does not keep the process from ending: a store that hangs would keep it for ever.
    """

    def __init__(self, post: Callable[[MemberFact], None]) -> None:
        self._post = post
        self._calls: SimpleQueue[Callable[[], MemberFact] | None] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=NAME, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], MemberFact]) -> None:
        """After those before it."""
        self._calls.put(function)

    def end(self) -> bool:
        """What waits is not called any more; false where a call does not return in a while."""
        self._ending.set()
        self._calls.put(None)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            LOG.warning("the offset store has not answered for %g s and is left", PATIENCE_S)
            return False
        return True

    def _work(self) -> None:
        while (function := self._calls.get()) is not None:
            if not self._ending.is_set():
                self._post(function())
