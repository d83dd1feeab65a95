"""The addresses of a name, found without keeping the owner from its timers."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

NAME: Final = "ksim-lookup"

Target = tuple[socket.AddressFamily, Any]


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Lookup:
    """One question to the resolver, which may take half a minute; a number needs none.

    `done` once `targets` are known or `reason` says why there are none; `wake` is called then.
    """

    def __init__(self, address: Address, wake: Callable[[], None]) -> None:
        self.done = False
        self.targets: tuple[Target, ...] = ()
        self.reason = ""
        self._address = address
        self._wake = wake
        if _is_number(address.host):
            self._look()
        else:
            threading.Thread(target=self._look_and_wake, name=NAME, daemon=True).start()

    def _look(self) -> None:
        try:
            found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
            self.targets = tuple((family, target) for family, _, _, _, target in found)
        except (OSError, UnicodeError) as error:
            self.reason = f"cannot resolve {self._address.host}: {error}"
        self.done = True

    def _look_and_wake(self) -> None:
        self._look()
        self._wake()


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
