"""What recording costs: `python benchmarks/consume.py BOOTSTRAP [ROUNDS] [RECORDS]` prints a table.

One consumer reads a topic from its beginning and marks each record, or the last of each batch, in a
process of its own for each run: without a recorder, with a recording to a file, with the flight
recorder. Rounds alternate; medians of records/s and of CPU per record, and what each costs compared
with none of the same round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

RECORDS: Final = 600_000
RECORD_BYTES: Final = 100
ROUNDS: Final = 7
OFF, FILE, RING = "off", "file", "ring"
MODES: Final = (OFF, FILE, RING)
STYLES: Final = ("batches", "messages")
KIB: Final = 1_024
US: Final = 1e6
LIMIT: Final = 1.05


def consume(bootstrap: str, topic: str, records: int, mode: str, style: str) -> dict[str, Any]:
    """In a process of its own: seconds, CPU seconds and what was recorded."""
    from ksim import Config, Consumer
    from ksim.recorder import FileRecorder, header_of
    from ksim.recording_payload import PayloadMode

    config = Config(
        bootstrap_servers=(bootstrap,),
        group_id=uuid.uuid4().hex,
        topics=(topic,),
        auto_offset_reset="earliest",
        flight_recorder_bytes=4 * KIB * KIB if mode == RING else 0,
    )
    with tempfile.TemporaryDirectory() as folder:
        header = header_of("member", "m", config.public(), PayloadMode.DIGEST)
        recorder = FileRecorder(Path(folder) / "m.ksim", header) if mode == FILE else None
        left, began_s, cpu_s = records, time.monotonic(), time.process_time()
        with Consumer(config, taps=[recorder] if recorder else []) as consumer:
            handed_out = consumer.batches() if style == "batches" else ([m] for m in consumer)
            for batch in handed_out:
                consumer.mark_offset(batch[-1])
                left -= len(batch)
                if left <= 0:
                    break
            took_s = time.monotonic() - began_s
        if recorder:
            recorder.close()
        used_s = time.process_time() - cpu_s  # what was still to be written is paid for too
        entries = 0
        if recorder:
            entries = (Path(folder) / "m.ksim").read_bytes().count(b"\n")
    return {"seconds": took_s, "cpu": used_s, "entries": entries}


def run(bootstrap: str, topic: str, records: int, mode: str, style: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", bootstrap, topic, str(records), mode, style]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout))


def measure(bootstrap: str, topic: str, rounds: int, records: int, style: str) -> bool:
    """One table; whether both ways of recording cost at most 5 %."""
    seen: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for number in range(rounds):
        at = number % len(MODES)
        for mode in MODES[at:] + MODES[:at]:
            seen[mode].append(run(bootstrap, topic, records, mode, style))
    entries = statistics.median(each["entries"] for each in seen[FILE])
    print(f"{style}: {records} records of {RECORD_BYTES} B, {rounds} rounds, {entries:.0f} entries")
    print(f"{'':8}{'records/s':>12}{'CPU us/record':>16}{'time':>10}{'CPU':>10}")
    good = True
    for mode in MODES:
        speed = statistics.median(records / each["seconds"] for each in seen[mode])
        cpu_us = statistics.median(each["cpu"] * US / records for each in seen[mode])
        ratios = [
            statistics.median(
                each[what] / before[what]
                for each, before in zip(seen[mode], seen[OFF], strict=True)
            )
            for what in ("seconds", "cpu")
        ]
        good = good and all(ratio <= LIMIT for ratio in ratios)
        print(f"{mode:8}{speed:12.0f}{cpu_us:16.3f}{ratios[0]:10.3f}{ratios[1]:10.3f}")
    return good


def main(bootstrap: str, rounds: int, records: int) -> int:
    from memory import produce  # of the script beside this one

    topic = uuid.uuid4().hex
    produce(bootstrap, topic, records)
    found = [measure(bootstrap, topic, rounds, records, style) for style in STYLES]
    return 0 if all(found) else 1


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        bootstrap, topic, records, mode, style = sys.argv[2:]
        print(json.dumps(consume(bootstrap, topic, int(records), mode, style)))
    else:
        numbers = [int(each) for each in sys.argv[2:4]]
        rounds, records = (numbers + [ROUNDS, RECORDS][len(numbers) :])[:2]
        sys.exit(main(sys.argv[1], rounds, records))
