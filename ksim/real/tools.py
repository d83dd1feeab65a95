"""What a test asks of a real cluster: fresh topics, records at their times, groups removed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ksim.core.errors import KsimError

WAIT_S = 20.0
LOOK_S = 0.05
TICK_S = 0.05
PRODUCER_S = 60.0  # kafka-python's producer would wait for ever
Record = Callable[[int], tuple[bytes | None, bytes | None]]
OnProduced = Callable[[str, int, int], None]


@contextlib.contextmanager
def _admin(bootstrap: str) -> Iterator[Any]:
    from kafka import KafkaAdminClient

    make: Any = KafkaAdminClient
    with contextlib.closing(make(bootstrap_servers=bootstrap)) as admin:
        yield admin


def _until(condition: Callable[[], bool], what: str) -> None:
    limit_s = time.monotonic() + WAIT_S
    never = threading.Event()
    while not condition():
        if time.monotonic() > limit_s:
            raise KsimError(f"the broker never had {what}, in {WAIT_S:g} s")
        never.wait(LOOK_S)


def make_topic(bootstrap: str, name: str, partitions: int) -> None:
    """An empty topic of this name, whatever was there before."""
    remove_topics(bootstrap, [name])
    with _admin(bootstrap) as admin:
        options = {"num_partitions": partitions, "replication_factor": -1}
        admin.create_topics({name: options}, wait_for_metadata=True)


def remove_topics(bootstrap: str, names: list[str]) -> None:
    """Return when none of them is there."""
    with _admin(bootstrap) as admin:
        there = [name for name in names if name in admin.list_topics()]
        if there:
            admin.delete_topics(there)
            _until(lambda: not set(there) & set(admin.list_topics()), f"no topic {there}")


def remove_group(bootstrap: str, group: str) -> None:
    """Put out whoever is in it, and forget it."""
    from kafka.admin import MemberToRemove

    remove: Any = MemberToRemove
    with _admin(bootstrap) as admin:

        def is_gone() -> bool:
            found = admin.describe_groups([group]).get(group) or {}
            members = [remove(each["member_id"]) for each in found.get("members") or ()]
            if members:
                admin.remove_group_members(group, members)
            return not members

        _until(is_gone, f"group {group} empty")
        with contextlib.suppress(Exception):  # one that never was cannot be deleted
            admin.delete_groups([group])


class Producing(threading.Thread):
    """Records at their rate, round and round over the partitions; tells the new ends."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        count: int,
        per_second: int,
        record: Record,
        on_produced: OnProduced,
    ) -> None:
        super().__init__(daemon=True)
        self.failure: BaseException | None = None
        self._servers = bootstrap
        self._topic = topic
        self._partitions = partitions
        self._count = count
        self._per_second = per_second
        self._record = record
        self._on_produced = on_produced
        self._ended = threading.Event()

    def run(self) -> None:
        from kafka import KafkaProducer

        make: Any = KafkaProducer
        try:
            with contextlib.ExitStack() as stack:
                producer = make(bootstrap_servers=self._servers)
                stack.callback(producer.close, PRODUCER_S)
                began_s, done = time.monotonic(), 0
                while done < self._count and not self._ended.is_set():
                    passed_s = time.monotonic() - began_s
                    due = min(self._count, 1 + int(passed_s * self._per_second))
                    self._write(producer, done, due)
                    done = due
                    self._ended.wait(TICK_S)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def _write(self, producer: Any, low: int, high: int) -> None:
        sent = []
        for number in range(low, high):
            key, value = self._record(number)
            partition = number % self._partitions
            sent.append(producer.send(self._topic, key=key, value=value, partition=partition))
        producer.flush(PRODUCER_S)
        ends = {each.partition: each.offset + 1 for each in (future.get() for future in sent)}
        for partition, end in ends.items():
            self._on_produced(self._topic, partition, end)

    def end(self) -> None:
        """No record more."""
        self._ended.set()
        self.join()
