"""`ksim`: the commands, and which exit code each kind of end has."""

from __future__ import annotations

import errno
import io
import logging
import sys
import traceback
from importlib import import_module

import click

from ksim.cli.signals import signals
from ksim.cli.telling import STDOUT, abandon, say, tell
from ksim.core.errors import (
    AuthenticationError,
    ConfigError,
    DamagedRecordingError,
    GroupFatalError,
    KafkaError,
    MisuseError,
    NoBrokerError,
)

USAGE, DAMAGED, NO_BROKER, INTERNAL, NO_OUTPUT = 2, 5, 69, 70, 74
AUTHORIZATION, INTERRUPTED = 77, 130
CODES: dict[type[Exception], int] = {
    NoBrokerError: NO_BROKER,
    AuthenticationError: AUTHORIZATION,
    DamagedRecordingError: DAMAGED,
    ConfigError: USAGE,
    MisuseError: USAGE,
}
AUTHORIZATION_ERRORS = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)


# A command's rooms are loaded when it is called: a served cluster should be there at once.
COMMANDS = {
    "run": ("ksim.cli.run", "run"),
    "fuzz": ("ksim.cli.fuzz", "fuzz"),
    "shrink": ("ksim.cli.shrink", "shrink_command"),
    "consume": ("ksim.cli.consume", "consume"),
    "replay": ("ksim.cli.replay", "replay"),
    "mask": ("ksim.cli.mask", "mask_command"),
    "check": ("ksim.cli.check", "check"),
    "diff": ("ksim.cli.diff", "diff"),
    "lift": ("ksim.cli.lift", "lift_command"),
    "serve": ("ksim.cli.serve", "serve"),
    "conform": ("ksim.cli.conform", "conform_command"),
}


class Commands(click.Group):
    """The commands by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "consume":
            signals()  # first of all: its rooms take a while to load
        module, name = COMMANDS[cmd_name]
        found = getattr(import_module(module), name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kafka-ksim")
def commands() -> None:
    """Simulate, run, serve and replay Kafka consumer groups."""


def main() -> None:
    """Run a command; every end has its documented exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        found = commands.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        say(said.getvalue().rstrip("\n"), err=True)
        return USAGE
    except Exception as error:  # noqa: BLE001 - whatever has no code is ours, and has its own
        return _say(error, _code_of(error))
    return found if isinstance(found, int) else 0


def _code_of(error: Exception) -> int | None:
    match error:
        case GroupFatalError(error_code=code):
            return AUTHORIZATION if code in AUTHORIZATION_ERRORS else USAGE
        case OSError(filename=str()) | OSError(errno=errno.ENOSPC):
            return NO_OUTPUT
        case _:
            return next((code for kind, code in CODES.items() if isinstance(error, kind)), None)


def _say(error: Exception, code: int | None) -> int:
    """One line, as all others of stderr: where `ksim consume` logs objects, it is one, too.

    Without a code the error is ours, and comes with its traceback.
    """
    if isinstance(error, OSError) and code is not None:
        if error.filename is None:
            abandon(sys.stdout)  # what click itself writes, such as a help, names no file
        error = OSError(f"{error.filename or STDOUT}: {error.strerror}")
    handlers = logging.getLogger().handlers
    formatter = handlers[0].formatter if handlers else None
    if formatter is not None and getattr(formatter, "is_json", False):
        cause = None if code is not None else (type(error), error, error.__traceback__)
        record = logging.LogRecord("ksim", logging.ERROR, "", 0, "%s", (str(error),), cause)
        tell(formatter.format(record), err=True)
    elif code is None:
        tell("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    else:
        say(f"ksim: {error}", err=True)
    return INTERNAL if code is None else code


if __name__ == "__main__":
    main()
