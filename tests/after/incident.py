"""The incident of `docs/from-incident-to-test.md`, made again on a real broker and recorded.

`python -m tests.after.incident FOLDER` starts a broker, and two members of which the first has a
planted error: it does not believe that it is out of its group. It is stopped for longer than its
session, as by a long garbage collection, and goes on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.kafka_server import FAST, KafkaServer, brokers_of_one_run, shared_server
from tests.real.processes import Member, Production, until

PLANT: Final = "never-let-go"
GROUP, TOPIC = "g", "orders"
PARTITIONS: Final = 4
PER_SECOND: Final = 8
MOST: Final = 160
WAIT_S: Final = 60


def incident(folder: Path, server: KafkaServer, topic: str, group: str) -> list[Path]:
    """Stop the first member until the second has what it owned; returns the recordings."""
    server.create_topic(topic, PARTITIONS)
    production = Production(server.bootstrap, topic, MOST, PER_SECOND)
    production.daemon = True
    members: list[Member] = []
    try:
        for number, plant in ((1, PLANT), (2, None)):
            members.append(
                Member(folder, f"{group}-{number}", server.bootstrap, group, topic, plant)
            )
            until(lambda: members[-1].owned() != [], f"{members[-1].name} owns something")
        first, second = members
        until(lambda: len(first.owned()) == len(second.owned()) == 2, "they share the topic")
        production.start()
        production.reach(3 * PER_SECOND)
        first.process.send_signal(signal.SIGSTOP)
        until(lambda: len(second.owned()) == PARTITIONS, "the second has everything")
        production.reach(production.sent + PER_SECOND)
        first.process.send_signal(signal.SIGCONT)
        handled = len(first.handled()) + PER_SECOND
        until(lambda: len(first.handled()) >= handled, "the first goes on")
        for member in reversed(members):
            member.process.send_signal(signal.SIGTERM)
        for member in members:
            member.process.wait(WAIT_S)
        production.join(WAIT_S)
    finally:
        for member in members:
            member.end()
    return [member.recording for member in members]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as run_dir, brokers_of_one_run(Path(run_dir)):
        server = shared_server(Path(run_dir), FAST)
        for recording in incident(folder, server, TOPIC, GROUP):
            print(recording, recording.stat().st_size)
    subprocess.run([sys.executable, "-m", "ksim.cli.main", "check", str(folder)], check=False)


if __name__ == "__main__":
    main()
