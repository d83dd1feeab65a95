"""The clusters of the tests: profiles of `ksim.real.kafka_server`, one of each for a whole run.

`python -m tests.kafka_server PROFILE` runs one by hand until standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ksim.real import kafka_server
from ksim.real.kafka_server import (
    FAST,
    KafkaServer,
    KafkaUnavailableError,
    Profile,
    Security,
    brokers_of_one_run,
)
from tests import kafka_security

__all__ = ["FAST", "KafkaServer", "KafkaUnavailableError", "brokers_of_one_run", "shared_server"]

RUN_DIR_VARIABLE = "KSIM_KAFKA_RUN_DIR"
DELAY = "group.initial.rebalance.delay.ms"
SECURITY = Security(
    kafka_security.LISTENERS, kafka_security.secure_settings, kafka_security.format_options
)
PROFILES = {
    FAST: Profile(),
    "delay": Profile(settings={DELAY: "3000"}),  # Kafka's own
    "long-delay": Profile(settings={DELAY: "20000"}),
    "small-groups": Profile(settings={"group.max.size": "2"}),
    "three": Profile(nodes=3),
    "old": Profile("3.9.1"),
    "secure": Profile(security=SECURITY),
    "old-new": Profile(
        "3.9.1", settings={"group.coordinator.rebalance.protocols": "classic,consumer"}
    ),
    "old-delay": Profile("3.9.1", settings={DELAY: "3000", "group.max.size": "3"}),
}


def shared_server(run_dir: Path, profile: str = FAST) -> KafkaServer:
    """This run's cluster of a profile, started if it is not there; raises KafkaUnavailableError."""
    return kafka_server.shared_server(run_dir, profile, module="tests.kafka_server")


if __name__ == "__main__":
    kafka_server.main(sys.argv[1:], PROFILES)
