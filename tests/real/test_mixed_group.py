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
from tests.serve.clients import Seat, python_client
from tests.serve.test_foreign_clients import java_or_refuse

PARTITIONS = 10
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
        wanted = [Subscription(m["member_id"], None, (self._topic,)) for m in members]
        return self.found == assign_range(wanted, {self._topic: PARTITIONS})


@pytest.mark.parametrize("leader", NAMES)
def test_whoever_leads(
    leader: str, kafka: KafkaServer, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    """The first member of a group leads it for as long as it stays."""
    group, topic = fresh_name("group"), fresh_name("topic")
    kafka.create_topic(topic, PARTITIONS)
    with contextlib.ExitStack() as stack:
        arm = WireArm(group, kafka.bootstrap)
        stack.callback(arm.close)
        watch, present = Watch(arm, topic), set[str]()
        for name in (leader, *(each for each in NAMES if each != leader)):
            seat = Seat(kafka.bootstrap, name, group, topic)
            if name == "java":
                stack.callback(java_or_refuse(seat, tmp_path).leave)
            else:
                stack.callback(python_client(seat, tmp_path / f"{name}.log").leave)
            present.add(name)
            try:
                until(lambda: watch.shares_by_range(present), f"{present} share by range")
            except AssertionError as error:
                error.add_note(f"the group is {watch.told}, and {watch.found}")
                raise
        assert sorted(map(len, watch.found.values())) == [2, 2, 3, 3]
