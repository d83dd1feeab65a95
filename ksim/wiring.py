"""The one place that binds a driver to a Consumer: the world it runs in, otherwise real brokers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from threading import Event

from ksim.consumer.checked import timeout
from ksim.consumer.config import Config
from ksim.consumer.port import Driver

DriverFactory = Callable[[Config], Driver]

Sleeper = Callable[[int], None]

_sleeper: ContextVar[Sleeper | None] = ContextVar("ksim_sleeper", default=None)
_factory: ContextVar[DriverFactory | None] = ContextVar("ksim_driver_factory", default=None)


def context_with(factory: DriverFactory, sleeper: Sleeper | None = None) -> Context:
    """A context in which every Consumer gets its driver from `factory`."""
    context = copy_context()
    context.run(_factory.set, factory)
    context.run(_sleeper.set, sleeper)
    return context


@contextmanager
def driven_by(factory: DriverFactory) -> Iterator[None]:
    """While this lasts, every Consumer of the caller's context gets its driver from `factory`."""
    before = _factory.get()
    _factory.set(factory)
    try:
        yield
    finally:
        _factory.set(before)


def sleep_ms(for_ms: int) -> None:
    """Wait so long, in the time of the world that the caller runs in.

    In production as `time.sleep`; in a simulation it costs nothing, and others go on. Raises
    MisuseError for what is no number of milliseconds.
    """
    for_ms = timeout("sleep_ms", for_ms)
    sleeper = _sleeper.get()
    if sleeper is not None:
        sleeper(for_ms)
    else:
        Event().wait(for_ms / 1_000)


def driver_for(config: Config) -> Driver:
    """The driver of the world that the caller runs in. Raises ConfigError for no servers."""
    factory = _factory.get()
    if factory is not None:
        return factory(config)
    from ksim.real.driver import RealDriver  # late: keeps sockets out of simulations

    return RealDriver(config)
