"""Production: processes that are killed, stopped, frozen and joined lose nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kafka_server import KafkaServer
from tests.real.processes import NEVER, Member, Production, until

pytestmark = pytest.mark.kafka

RECORDS = 30_000
PER_SECOND = 1_000
PARTITIONS = 6
FREEZE_S = 10.0

Start = Callable[[str], Member]


class Group:
    def __init__(self, folder: Path, kafka: KafkaServer, group: str, topic: str) -> None:
        self.members: dict[str, Member] = {}
        self.topic = topic
        self.bootstrap = kafka.bootstrap
        self._folder = folder
        self._group = group

    def start(self, name: str) -> Member:
        member = Member(self._folder, name, self.bootstrap, self._group, self.topic)
        self.members[name] = member
        return member

    def share(self, *names: str) -> bool:
        """Whether these own all partitions, each one of them once."""
        owned = [p for name in names for p in self.members[name].owned()]
        return sorted(owned) == list(range(PARTITIONS))

    def handled(self) -> Counter[tuple[int, int]]:
        return Counter(place for m in self.members.values() for place in m.handled())


@pytest.fixture
def group(tmp_path: Path, kafka: KafkaServer, fresh_name: Callable[[str], str]) -> Iterator[Group]:
    topic = fresh_name("topic")
    kafka.create_topic(topic, PARTITIONS)
    made = Group(tmp_path, kafka, fresh_name("group"), topic)
    yield made
    for member in made.members.values():
        member.end()


def replays(member: Member) -> str:
    command = [sys.executable, "-m", "ksim.cli.main", "replay", str(member.recording)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout.split()[0]


def test_killed_stopped_and_joining_processes_lose_nothing(group: Group) -> None:
    for name in ("a", "b", "c"):
        group.start(name)
    until(lambda: group.share("a", "b", "c"), "three members share the topic")
    production = Production(group.bootstrap, group.topic, RECORDS, PER_SECOND)
    production.start()
    production.reach(RECORDS // 4)
    killed, stopped = group.members["a"], group.members["b"]
    killed.process.kill()
    killed.process.wait()
    production.reach(RECORDS // 2)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.process.wait(20) == 0
    assert stopped.events()[-1] == "revoked"
    production.reach(RECORDS * 3 // 4)
    group.start("d")
    production.join()
    assert production.failure is None, production.failure
    until(lambda: len(group.handled()) >= RECORDS, "every record is handled")
    until(lambda: group.share("c", "d"), "the last two share the topic")
    for name in ("c", "d"):
        group.members[name].process.send_signal(signal.SIGTERM)
    assert [group.members[name].process.wait(20) for name in ("c", "d")] == [0, 0]

    handled = group.handled()
    assert len(handled) == RECORDS
    twice = [place for place, times in handled.items() if times > 1]
    allowed = {*killed.unacknowledged(), *stopped.unacknowledged()}
    assert stopped.unacknowledged() == [], "a stopped member commits what it handled"
    assert set(twice) <= allowed, f"{len(twice)} handled twice, {len(allowed)} may be"
    assert all(times <= 2 for times in handled.values())
    assert replays(killed) == "INCOMPLETE"
    assert [replays(group.members[name]) for name in ("b", "c", "d")] == ["SAME"] * 3


def test_a_frozen_process_says_lost_before_it_hands_out_anything(group: Group) -> None:
    frozen, other = group.start("a"), group.start("b")
    until(lambda: group.share("a", "b"), "two members share the topic")
    production = Production(group.bootstrap, group.topic, 4_000, 200)
    production.start()
    production.reach(400)
    frozen.process.send_signal(signal.SIGSTOP)
    before = len(frozen.lines())
    NEVER.wait(FREEZE_S)
    until(lambda: group.share("b"), "the other one has everything")
    thawed_s = time.time()
    frozen.process.send_signal(signal.SIGCONT)
    until(lambda: "lost" in frozen.events(), "the frozen one knows that it has lost")
    until(lambda: group.share("a", "b") and len(frozen.owned()) > 0, "both share again")
    production.join()
    until(lambda: len(group.handled()) >= 4_000, "every record is handled")
    for member in (frozen, other):
        member.process.send_signal(signal.SIGTERM)
        assert member.process.wait(20) == 0

    after = frozen.lines()[before:]
    lost_at = next(at for at, line in enumerate(after) if line.get("event") == "lost")
    assert len([line for line in after[:lost_at] if "offset" in line]) <= 1
    assert after[lost_at]["t"] < thawed_s, "it says when it had to end, not when it found out"
    owned: list[int] = []
    for line in after[lost_at:]:
        if "offset" in line:
            assert line["partition"] in owned, "handed out what it does not own"
        elif line["event"] == "assigned":
            owned = [partition for _, partition in line["partitions"]]
        elif line["event"] in ("lost", "revoked"):
            owned = []
    assert replays(frozen) == "SAME"
