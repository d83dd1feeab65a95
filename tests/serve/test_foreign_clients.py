"""Five clients that know nothing of ksim's broker, unmodified, in one group on `ksim serve`."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import REQUIRE_VARIABLE, refuse
from tests.serve.clients import CLIENTS, ClientProcess, Seat, java_client, python_client
from tests.serve.served import Served
from tests.serve.test_serve import NO_DELAY, control, produce, wait_for

PARTITIONS = 10
RECORDS = 1_000
JUDGED = ("S3", "S4", "S6", "S12", "S13")


class Group:
    """The clients by name, and what all of them have seen together."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.clients: dict[str, ClientProcess] = {}
        self.produced = 0

    def owners(self) -> set[str]:
        return {share["client_id"] for share in control(self.served, "GET", "/ownership")}

    def consume(self) -> None:
        """Produce, and wait until every record so far was seen by someone."""
        produce(self.served.bootstrap, self.produced, RECORDS, PARTITIONS)
        self.produced += RECORDS
        wait_for(lambda: len(self.seen()) == self.produced)

    def seen(self) -> set[int]:
        return {value for client in self.clients.values() for value in list(client.seen)}

    def wait_for_owners(self, *names: str) -> None:
        wait_for(lambda: self.owners() == set(names))


def java_or_refuse(seat: Seat, tmp_path: Path) -> ClientProcess:
    try:
        return java_client(seat, tmp_path, tmp_path / "java.log")
    except Exception as error:
        refuse(
            f"{type(error).__name__}: {error}",
            required=os.environ.get(REQUIRE_VARIABLE) == "1",
        )
        raise


def test_five_clients_join_crash_move_and_leave(tmp_path: Path) -> None:
    arguments = ("--brokers", "3", "--topic", f"t:{PARTITIONS}", "--control-port", "0", *NO_DELAY)
    with Served(tmp_path / "log", *arguments) as served:
        group = Group(served)
        group.clients["java"] = java_or_refuse(Seat(served.bootstrap, "java"), tmp_path)
        try:
            for name in CLIENTS:
                log = tmp_path / f"{name}.log"
                group.clients[name] = python_client(Seat(served.bootstrap, name), log)
            group.wait_for_owners(*group.clients)
            group.consume()
            assert all(client.seen for client in group.clients.values())

            group.clients["aiokafka"].kill()
            group.wait_for_owners("java", "librdkafka", "kafka-python", "ksim")
            group.consume()

            (before,) = control(served, "GET", "/groups")
            moved = control(served, "POST", "/coordinator", {"group": "g", "node": None})
            assert moved["node"] != before["node"]
            group.consume()
            group.wait_for_owners("java", "librdkafka", "kafka-python", "ksim")

            group.clients["librdkafka"].leave()
            group.wait_for_owners("java", "kafka-python", "ksim")
            group.consume()
            found = control(served, "GET", "/checks")
            assert [each["sentence"] for each in found["violations"]] == []
            assert {name: found["checks"][name] for name in JUDGED} == dict.fromkeys(JUDGED, "pass")
        finally:
            for client in group.clients.values():
                if client.running:
                    client.leave()
