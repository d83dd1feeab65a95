"""What the kit raises in a test."""

from __future__ import annotations

from ksim.core.errors import KsimError, MisuseError
from ksim.kit.report import Report


class ApplicationError(KsimError):
    """An application has raised, has never asked for a message, or has blocked the simulation."""


class BlockedError(ApplicationError):
    """An application does not hand control back; the message has its stack."""


class BlockingCallError(MisuseError):
    """An application calls what would stop the whole simulation; the message has the line."""


class OnlySimulatedError(KsimError):
    """This cannot be done to a real cluster from outside."""


class CheckFailedError(AssertionError):
    """A check has failed. `report` has all of it, `report.timeline` the picture."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.text())
        self.report = report


def reads_nothing(name: str, has_consumer: bool, standing: str) -> ApplicationError:
    """Of an application that is there and never asks for a message."""
    what = "has never asked its Consumer for a message" if has_consumer else "has made no Consumer"
    return ApplicationError(
        f"{name} {what}; {standing}. An application reads by "
        "`for message in consumer`, batches(), partitions() or run(handler)."
    )
