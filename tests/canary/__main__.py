"""Plant one error by name, then run ksim's own command line."""

from __future__ import annotations

import sys

from ksim.cli.main import main
from tests.canary.plants import PLANTS

USAGE = 2


def plant_and_run(arguments: list[str]) -> None:
    """`--list`, or NAME -- KSIM-ARGUMENTS."""
    if arguments == ["--list"]:
        for name in sorted(PLANTS):
            what = (PLANTS[name].__doc__ or "").splitlines()[0]
            print(f"{name:<22} {what}")
        return
    if len(arguments) < 2 or arguments[1] != "--" or arguments[0] not in PLANTS:
        known = ", ".join(sorted(PLANTS))
        print(f"usage: python -m tests.canary NAME -- ARGUMENTS; NAME: {known}", file=sys.stderr)
        sys.exit(USAGE)
    PLANTS[arguments[0]]()
    sys.argv = ["ksim", *arguments[2:]]
    main()


if __name__ == "__main__":
    plant_and_run(sys.argv[1:])
