"""A group of four clients on a real broker shares by range, whichever of them leads."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ksim.core.assignors import Assignment, assign_range
from ksim.core.subscription import Subscription, decode_assignment
from tests.conformance.forty.arms import WireArm
from tests.kafka_server import KafkaServer
from tests.real.processes import until
from tests.serve.clients import ClientProcess, Seat, python_client
from tests.serve.test_foreign_clients import java_or_refuse

PARTITIONS = 10
RECORDS = 200
NAMES = ("ksim", "java", "librdkafka", "kafka-python")
pytestmark = pytest.mark.kafka


def raw(text: str) -> bytes:
    """The bytes behind what kafka-python shows of them."""
    return re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), text.encode())


class Watch:
    """What the coordinator says of the group."""

    def __init__(self, arm: WireArm, topic: str) -> None:
        self._arm = arm
        self._topic = topic
        self.found: Assignment = {}
        self.owners: dict[int, str] = {}
        self.told = ""

    def shares_by_range(self, names: set[str]) -> bool:
        """Whether these clients are the members, and own what range gives them."""
        group = self._arm.describe()
        self.told = f"{group['group_state']} of {[m['client_id'] for m in group['members']]}"
        members = group["members"]
        if group["group_state"] != "Stable" or {m["client_id"] for m in members} != names:
            return False
        self.found = {
            m["member_id"]: list(decode_assignment(raw(m["member_assignment"]))) for m in members
        }
        names_of = {m["member_id"]: m["client_id"] for m in members}
        self.owners = {
            tp.partition: names_of[member_id]
            for member_id, share in self.found.items()
            for tp in share
        }
        wanted = [Subscription(m["member_id"], None, (self._topic,)) for m in members]
        return self.found == assign_range(wanted, {self._topic: PARTITIONS})


def produce(bootstrap: str, topic: str) -> dict[int, int]:
    """So many records in each partition; value to partition."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap})
    found = {number: number % PARTITIONS for number in range(RECORDS)}
    for number, partition in found.items():
        producer.produce(topic, str(number), partition=partition)
    assert producer.flush(60) == 0, "not all of it was acknowledged"
    return found


@pytest.mark.parametrize("leader", NAMES)
def test_whoever_leads(
    leader: str, kafka: KafkaServer, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    """The first member of a group leads it for as long as it stays, and each reads its share."""
    group, topic = fresh_name("group"), fresh_name("topic")
    kafka.create_topic(topic, PARTITIONS)
    with contextlib.ExitStack() as stack:
        arm = WireArm(group, kafka.bootstrap)
        stack.callback(arm.close)
        watch, present = Watch(arm, topic), set[str]()
        clients: dict[str, ClientProcess] = {}
        for name in (leader, *(each for each in NAMES if each != leader)):
            seat = Seat(kafka.bootstrap, name, group, topic)
            if name == "java":
                clients[name] = java_or_refuse(seat, tmp_path)
            else:
                clients[name] = python_client(seat, tmp_path / f"{name}.log")
            stack.callback(clients[name].leave)
            present.add(name)
            try:
                until(lambda: watch.shares_by_range(present), f"{present} share by range")
            except AssertionError as error:
                error.add_note(f"the group is {watch.told}, and {watch.found}")
                raise
        assert sorted(map(len, watch.found.values())) == [2, 2, 3, 3]
        written = produce(kafka.bootstrap, topic)
        until(lambda: sum(len(each.seen) for each in clients.values()) >= RECORDS, "all of it read")
        for name, client in clients.items():
            own = [value for value, at in written.items() if watch.owners[at] == name]
            assert sorted(client.seen) == own, name
