"""Which messages pass between clients and brokers; clients are named by their client ids."""

from __future__ import annotations

from enum import Enum


class Passage(Enum):
    """What becomes of a message: `LOST` leaves its connection silent, `REFUSED` breaks it."""

    OPEN = "open"
    HELD = "held"
    LOST = "lost"
    REFUSED = "refused"


class Links:
    """All that is cut, held back or refused at the moment."""

    __slots__ = ("_cut", "_held", "_paused", "_refused")

    def __init__(self) -> None:
        self._cut: set[tuple[str, int]] = set()
        self._held: set[tuple[str, int]] = set()
        self._paused: set[int] = set()
        self._refused: set[str] = set()

    def passage(self, client_id: str, node_id: int) -> Passage:
        """Of a message between this client and this broker, either way."""
        link = client_id, node_id
        if client_id in self._refused:
            return Passage.REFUSED
        if link in self._cut:
            return Passage.LOST
        if node_id in self._paused or link in self._held:
            return Passage.HELD
        return Passage.OPEN

    def is_paused(self, node_id: int) -> bool:
        return node_id in self._paused

    def cut(self, client_id: str, node_id: int) -> None:
        self._cut.add((client_id, node_id))

    def hold(self, client_id: str, node_id: int) -> None:
        self._held.add((client_id, node_id))

    def release(self, client_id: str, node_id: int) -> None:
        self._held.discard((client_id, node_id))

    def heal(self, client_id: str, node_id: int) -> None:
        """Neither cut nor held any more."""
        self._cut.discard((client_id, node_id))
        self._held.discard((client_id, node_id))

    def refuse(self, client_id: str) -> None:
        """To the brokers this client is dead until `admit`."""
        self._refused.add(client_id)

    def admit(self, client_id: str) -> None:
        self._refused.discard(client_id)

    def pause(self, node_id: int) -> None:
        """The broker stands still: its connections stay open and nothing moves."""
        self._paused.add(node_id)

    def resume(self, node_id: int) -> None:
        self._paused.discard(node_id)
