"""`ksim`: the commands, and which exit code each kind of end has."""

from __future__ import annotations

import sys
import traceback

import click

from ksim.cli.conform import conform_command
from ksim.cli.consume import consume
from ksim.cli.replay import replay
from ksim.cli.run import run
from ksim.cli.serve import serve
from ksim.core.errors import (
    ConfigError,
    DamagedRecordingError,
    GroupFatalError,
    KafkaError,
    MisuseError,
    NoBrokerError,
)

USAGE, DAMAGED, NO_BROKER, INTERNAL, AUTHORIZATION, INTERRUPTED = 2, 5, 69, 70, 77, 130
AUTHORIZATION_ERRORS = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kafka-ksim")
def commands() -> None:
    """Simulate, run, serve and replay Kafka consumer groups."""


for command in (run, consume, replay, serve, conform_command):
    commands.add_command(command)


def main() -> None:
    """Run a command; every end has its documented exit code."""
    sys.exit(_run())


def _run() -> int:
    try:
        found = commands.main(standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USAGE
    except NoBrokerError as error:
        return _say(error, NO_BROKER)
    except DamagedRecordingError as error:
        return _say(error, DAMAGED)
    except (ConfigError, MisuseError) as error:
        return _say(error, USAGE)
    except GroupFatalError as error:
        return _say(error, AUTHORIZATION if error.error_code in AUTHORIZATION_ERRORS else USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - whatever is left is ours, and has its own code
        traceback.print_exc()
        return INTERNAL
    return found if isinstance(found, int) else 0


def _say(error: Exception, code: int) -> int:
    click.echo(f"ksim: {error}", err=True)
    return code


if __name__ == "__main__":
    main()
