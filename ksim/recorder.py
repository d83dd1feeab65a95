"""Recorders of a running member: to files from a thread beside the owner, or in memory for later.

Both are taps: `Consumer(config, taps=[recorder])`. What they do for a step is to put it into a
queue; text is made of it later, by whoever writes.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.member import Member
from ksim.core.trace import Plain
from ksim.core.values import Payload
from ksim.recording import Chain, entry_text
from ksim.recording_files import Files, Segment, clock_of, is_made, numbered
from ksim.recording_hiding import Step, hidden, hidden_state
from ksim.recording_payload import KEY_BYTES, PayloadKeeper, PayloadMode

BATCH_S: Final = 0.05  # for so long entries are collected before they are written
MOST_QUEUED: Final = 100_000  # a disk that stands still for longer loses some
SHARES: Final = 4  # of the ring; the oldest is dropped whole
OBJECT_SHARE: Final = 2  # an entry takes about so many times its text
SAMPLED: Final = 32  # one entry of so many is weighed
WEIGHED: Final = (m.JoinGroupResponse, m.MetadataResponse, m.OffsetFetchResponse)
HIDDEN: Final = "***"
NEW_BYTES: Final = 6  # of the name of a file that is not whole yet

Snapshot = Callable[[], Plain]


@cache
def _release() -> str:
    return version("kafka-ksim")


def header_of(
    vantage: str,
    member: str,
    config: dict[str, Any],
    payload: PayloadMode = PayloadMode.NONE,
    seed: int | None = None,
) -> dict[str, Any]:
    """What a recording says of itself. User data of the subscription may be anything: not shown."""
    if config.get("user_data") is not None:
        config = config | {"user_data": HIDDEN}
    return {
        "ksim": _release(),
        "vantage": vantage,
        "member": member,
        "seed": seed,
        "config": config,
        "payload": str(payload),
    }


def new_keeper(mode: PayloadMode) -> PayloadKeeper:
    """With a key that nobody else has."""
    return PayloadKeeper(mode, secrets.token_bytes(KEY_BYTES))


@runtime_checkable
class Recorder(Protocol):
    """A tap that writes to files, as metrics see it."""

    @property
    def recorded_bytes(self) -> int: ...

    @property
    def recording_dropped(self) -> int: ...


class Wanted(Protocol):
    """What a configuration says of the flight recorder."""

    @property
    def client_id(self) -> str: ...

    @property
    def flight_recorder_bytes(self) -> int: ...

    @property
    def flight_recorder_ms(self) -> int: ...

    def public(self) -> dict[str, Any]: ...


class _Tap:
    """What the two recorders share: the payload that came with the next step."""

    def __init__(self, keeper: PayloadKeeper) -> None:
        self._keeper = keeper
        self._payload: Plain = None

    def on_payload(self, payload: Payload) -> None:
        """By the owner, before the step of the fetch that brought it."""
        self._payload = self._keeper.keep(payload)

    def _step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> Step:
        payload, self._payload = self._payload, None
        return Step(now_ms, fact, orders, payload)


class FileRecorder(_Tap):
    """Writes what a member does to `path`; with `max_bytes` to `path-0001` and so on.

    What a process before this one wrote is never overwritten: it goes on with the next free name.
    Each file begins with a snapshot and replays alone; of those beyond `keep` the oldest is
    deleted. A disk that is full or gone ends the recording and not the member: it is said once, and
    what is not written is counted. `close` it when the consumer is closed.
    """

    def __init__(
        self,
        path: Path,
        header: dict[str, Any],
        *,
        max_bytes: int | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__(new_keeper(PayloadMode(header["payload"])))
        self._files = Files(path, header, max_bytes is not None, keep)
        self._max_bytes = max_bytes
        self._snapshot: Snapshot = lambda: None
        self._queue: deque[Step | Segment] = deque()
        self._gap = 0  # entries that were dropped, and no file says so yet
        self._asked = 0
        self._draining = False
        self.dropped = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, snapshot: Snapshot) -> FileRecorder:
        """As a tap: the member begins."""
        self._snapshot = snapshot
        self._files.begin(Segment(snapshot(), 0, ""))
        self._thread = threading.Thread(target=self._write, name="ksim-recorder", daemon=True)
        self._thread.start()
        return self

    @property
    def waiting(self) -> bool:
        """Something is not written yet."""
        return bool(self._queue) or self._wake.is_set() or self._draining

    @property
    def recorded_bytes(self) -> int:
        """How much is written, in all files."""
        return self._files.all_bytes

    @property
    def recording_dropped(self) -> int:
        """How many entries are not written, and will not be."""
        return self.dropped + self._files.dropped

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """By the owner, holding the driver's lock."""
        step = self._step(now_ms, fact, orders)
        if self._files.failed:
            self.dropped += 1
            return
        if len(self._queue) >= MOST_QUEUED:
            self._gap += 1
            self.dropped += 1
            return
        if self._gap:
            self._gap = 0
            self.dropped += 1
            self._asked += 1
            self._queue.append(Segment(self._snapshot(), now_ms, "entries before were dropped"))
        else:
            self._queue.append(step)
            if self._max_bytes is not None and self._is_full():
                self._asked += 1
                self._queue.append(Segment(self._snapshot(), now_ms, ""))
        if not self._wake.is_set():
            self._wake.set()

    def _is_full(self) -> bool:
        begun, written = self._files.begun, self._files.bytes
        return begun > self._asked and written >= (self._max_bytes or 0)

    def close(self) -> None:
        """Write what waits and the end; may be called again."""
        if self._thread is not None:
            self._closing.set()
            self._wake.set()
            self._thread.join()
            self._thread = None

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._draining = True
            self._closing.wait(BATCH_S)
            self._wake.clear()
            closing = self._closing.is_set()
            self._drain()
            self._draining = False
            if closing:
                self._files.close(self._gap)
                return

    def _drain(self) -> None:
        steps: list[Step] = []
        for _ in range(len(self._queue)):
            found = self._queue.popleft()
            if isinstance(found, Step):
                steps.append(found)
            else:
                self._files.write(steps)
                steps = []
                self._files.end()
                self._files.begin(found)
        self._files.write(steps)


@dataclass(slots=True)
class _Share:
    """A part of the ring: what the machine was when it began, and what came then."""

    began_ms: int
    snapshot: Plain
    steps: list[Step] = field(default_factory=list[Step])
    weight: int = 0


class FlightRecorder(_Tap):
    """Keeps the last `most_bytes` or `most_ms` of what a member does, to be written when wanted.

    It holds whole shares: one more than `most_ms` would need, or an older one after a time in
    which nothing happened. That is left out when it is written. A step costs an append: no text is
    made of it before `Flight.write`.
    """

    def __init__(self, header: dict[str, Any], *, most_bytes: int, most_ms: int) -> None:
        super().__init__(new_keeper(PayloadMode(header["payload"])))
        self._header = header
        self._most_bytes = most_bytes
        self._most_ms = most_ms
        self._snapshot: Snapshot = lambda: None
        self._shares: deque[_Share] = deque()
        self._full = header["payload"] == PayloadMode.FULL
        self._mean = 0
        self._count = 0

    def __call__(self, snapshot: Snapshot) -> FlightRecorder:
        """As a tap: the member begins."""
        self._snapshot = snapshot
        self._shares.append(_Share(-1, snapshot()))
        return self

    def on_step(self, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """By the owner, holding the driver's lock."""
        step = self._step(now_ms, fact, orders)
        share = self._shares[-1]
        share.steps.append(step)
        share.weight += self._weight(step)
        if share.began_ms < 0:
            share.began_ms = now_ms
        if (
            share.weight * SHARES >= self._most_bytes
            or (now_ms - share.began_ms) * SHARES >= self._most_ms
        ):
            self._turn(now_ms)

    def _weight(self, step: Step) -> int:
        """Most entries of a member are alike: few are weighed, and those that may be large."""
        self._count += 1
        fact = step.fact
        large = (type(fact) is e.ResponseReceived and type(fact.response) in WEIGHED) or (
            self._full and step.payload is not None
        )
        if large or self._count % SAMPLED == 1:
            weight = OBJECT_SHARE * len(entry_text(*step))
            self._mean += (weight - self._mean) // SHARES
            return weight
        return self._mean

    def _turn(self, now_ms: int) -> None:
        shares = self._shares
        shares.append(_Share(now_ms, self._snapshot()))
        while len(shares) > 1 and (
            sum(each.weight for each in shares) > self._most_bytes
            or now_ms - shares[1].began_ms > self._most_ms
        ):
            shares.popleft()

    def flight(self, now_ms: int, why: str) -> Flight:
        """Holding the driver's lock: what is kept now."""
        steps = [step for share in self._shares for step in share.steps]
        since_ms = steps[-1].now_ms - self._most_ms if steps else 0
        about = {"clock": clock_of(now_ms), "why": why}
        return Flight(self._header | about, self._shares[0].snapshot, steps, since_ms)


def flight_recorder_of(config: Wanted) -> FlightRecorder | None:
    """The one that a configuration asks for."""
    if not config.flight_recorder_bytes:
        return None
    header = header_of("member", config.client_id, config.public(), PayloadMode.DIGEST)
    most_bytes, most_ms = config.flight_recorder_bytes, config.flight_recorder_ms
    return FlightRecorder(header, most_bytes=most_bytes, most_ms=most_ms)


@dataclass(frozen=True, slots=True)
class Flight:
    """A copy of a ring; what is older than `since_ms` is not written."""

    header: dict[str, Any]
    snapshot: Plain
    steps: list[Step]
    since_ms: int

    def write(self, path: Path) -> None:
        """As a recording that replays alone; takes its place whole or not at all."""
        with self._beside(path) as new:
            new.replace(path)

    def write_new(self, path: Path) -> Path:
        """The same, where nothing is yet: this path or the next number of it."""
        with self._beside(path) as new:
            # Made before it is replaced: two processes may look for a free name at once.
            found = next(filter(is_made, numbered(path)))
            try:
                new.replace(found)
            except OSError:
                found.unlink(missing_ok=True)
                raise
        return found

    @contextmanager
    def _beside(self, path: Path) -> Iterator[Path]:
        """A whole file beside this path, which is gone afterwards if it was not moved."""
        chain = Chain()
        snapshot, steps = self._recent()
        lines = [chain.begin(self.header, hidden_state(snapshot))]
        lines += [chain.entry(entry_text(*hidden(step))) for step in steps]
        lines.append(chain.end())
        # Several may write to one path at once: each has a name that nobody else has.
        new = path.with_name(f"{path.name}.{secrets.token_hex(NEW_BYTES)}.new")
        try:
            with new.open("xb") as file:
                file.writelines(lines)
            yield new
        finally:
            new.unlink(missing_ok=True)

    def _recent(self) -> tuple[Plain, Sequence[Step]]:
        """Where a share began earlier, its machine is made once more and led up to that time."""
        recent = next((at for at, step in enumerate(self.steps) if step.now_ms >= self.since_ms), 0)
        if not recent:
            return self.snapshot, self.steps
        try:
            machine = Member.restore(self.snapshot)
            for step in self.steps[:recent]:
                machine.step(step.fact, now_ms=step.now_ms)
        except Exception:  # noqa: BLE001 - better too much of it than nothing
            return self.snapshot, self.steps
        return machine.snapshot(), self.steps[recent:]
