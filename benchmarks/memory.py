"""What a slow consumer holds of a long backlog: `python benchmarks/memory.py BOOTSTRAP [RECORDS]`.

A handler of 1 ms for two minutes; the growth of the resident memory since before the consumer was
made, against twice `fetch_buffer_bytes` and 32 MiB.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from multiprocessing import get_context
from pathlib import Path
from typing import Final

RECORDS: Final = 5_000_000
RECORD_BYTES: Final = 100
PARTITIONS: Final = 12
SECONDS: Final = 120.0
HANDLER_S: Final = 0.001
KIB: Final = 1_024
MIB: Final = 2**20
FIXED_MIB: Final = 32


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmRSS:")]
    return int(line.split()[1]) / KIB


def produce(bootstrap: str, topic: str, records: int) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "batch.size": 256 * KIB,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    content = b"x" * RECORD_BYTES
    for number in range(records):
        while True:
            try:
                producer.produce(topic, content, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def consume(bootstrap: str, topic: str) -> tuple[int, float, float]:
    """Records handled, growth in MiB, and what it may be."""
    from ksim import Config, Consumer

    config = Config(
        bootstrap_servers=(bootstrap,),
        group_id=uuid.uuid4().hex,
        topics=(topic,),
        auto_offset_reset="earliest",
    )
    allowed_mib = 2 * config.fetch_buffer_bytes / MIB + FIXED_MIB
    before_mib = most_mib = resident_mib()
    until_s, handled, work = time.monotonic() + SECONDS, 0, threading.Event()
    with Consumer(config) as consumer:
        for message in consumer:
            work.wait(HANDLER_S)
            consumer.mark_offset(message)
            handled += 1
            if handled % 100 == 0:
                most_mib = max(most_mib, resident_mib())
                if time.monotonic() > until_s:
                    break
    return handled, most_mib - before_mib, allowed_mib


def main(bootstrap: str, records: int) -> int:
    topic = uuid.uuid4().hex
    # In a process of its own: what a producer has given back would hide growth.
    producing = get_context("spawn").Process(target=produce, args=(bootstrap, topic, records))
    producing.start()
    producing.join()
    handled, growth_mib, allowed_mib = consume(bootstrap, topic)
    print(f"backlog {records} records of {RECORD_BYTES} B, handled {handled} in {SECONDS:.0f} s")
    print(f"growth {growth_mib:.1f} MiB, allowed {allowed_mib:.0f} MiB")
    return 0 if growth_mib <= allowed_mib else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else RECORDS))
