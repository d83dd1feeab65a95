"""Recorders: segments that replay alone, disks that are full or slow, what is not kept."""

from __future__ import annotations

import errno
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ksim.recorder as recording
import ksim.recording_files as recording_files
from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.member import Member
from ksim.core.subscription import (
    MalformedProtocolError,
    decode_subscription,
    encode_subscription,
)
from ksim.core.trace import value_of
from ksim.core.values import Record, SizedPayload, TopicPartition
from ksim.recorder import FileRecorder, FlightRecorder, header_of
from ksim.recorders import Recorders
from ksim.recording import read_recording
from ksim.recording_hiding import Stars, starred
from ksim.recording_payload import PayloadMode
from ksim.replay import ReplayVerdict, replay_file
from tests.recordings_live import ENTRIES, WHOLE, header, live, whole

TP = TopicPartition("orders", 0)
PASSWORD, USER_DATA = "a-very-secret-password", b"a-very-secret-user-data"
LIMIT_S = 30.0


def test_a_file_has_every_step_and_an_end(tmp_path: Path) -> None:
    path = tmp_path / "m.ksim"
    recorder = FileRecorder(path, header())
    assert [*live(recorder)][-1] == ENTRIES
    recorder.close()
    recorder.close()
    assert whole(path) == WHOLE
    assert read_recording(path).header["segment"] == 1
    assert recorder.recorded_bytes == path.stat().st_size
    assert recorder.recording_dropped == 0


@pytest.mark.parametrize("keep", [None, 3])
def test_each_segment_begins_with_a_snapshot_and_replays_alone(
    tmp_path: Path, keep: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "BATCH_S", 0.0)
    recorder = FileRecorder(tmp_path / "m.ksim", header(), max_bytes=8_000, keep=keep)
    for at in live(recorder):
        if at % 10 == 0:
            settle(recorder)
    recorder.close()
    files = sorted(tmp_path.iterdir())
    steps = [step for path in files for step in whole(path)]
    if keep is None:
        assert len(files) > 3
        assert steps == WHOLE
        assert [path.name for path in files][:2] == ["m-0001.ksim", "m-0002.ksim"]
    else:
        assert len(files) == keep
        assert steps == WHOLE[-len(steps) :]
    found = [read_recording(path) for path in files]
    for before, after, path in zip(found, found[1:], files, strict=False):
        assert after.header["segment"] == before.header["segment"] + 1
        end = json.loads(path.read_bytes().splitlines()[-1])
        assert after.header["after"] == end["digest"]
    assert all(path.stat().st_size < 40_000 for path in files)


def test_what_an_earlier_process_recorded_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.ksim"
    path.touch()  # made for it
    for _ in range(3):
        recorder = FileRecorder(path, header())
        assert [*live(recorder)][-1] == ENTRIES
        recorder.close()
    names = ["m.2.ksim", "m.3.ksim", "m.ksim"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names
    assert [whole(tmp_path / name) for name in names] == [WHOLE] * 3
    assert [read_recording(tmp_path / name).header["segment"] for name in names] == [1] * 3
    assert caplog.messages == [
        f"{path} is there already: the recording is {tmp_path / name}" for name in names[:2]
    ]


def test_numbers_go_on_and_what_earlier_processes_left_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "BATCH_S", 0.0)
    others = [tmp_path / "m-0002.ksim", tmp_path / "m-0001.txt", tmp_path / "am-0001.ksim"]
    for each in others:
        each.write_text("not a segment of it\n")
    for most in (3, 30_000, 8_000):
        recorder = FileRecorder(tmp_path / "m.ksim", header(), max_bytes=most, keep=3)
        for at in live(recorder):
            if at == 1 and most == 3:
                # The first file is there from the start; how many follow is the writer's pace.
                assert (tmp_path / "m-0003.ksim").exists()
            if at % 10 == 0 and most != 3:
                settle(recorder)
        recorder.close()
        files = sorted(set(tmp_path.iterdir()) - {*others})
        assert len(files) <= 3
    found = [read_recording(path).header for path in files]
    numbers = [int(path.stem.removeprefix("m-")) for path in files]
    assert numbers == [about["segment"] for about in found]
    assert numbers == [*range(numbers[0], numbers[0] + 3)]
    assert all(each.read_text() == "not a segment of it\n" for each in others)


def filled(recorder: FileRecorder, files: int) -> None:
    """Until there are so many of it."""
    for _ in live(recorder):
        settle(recorder)
        if recorder._files.begun == files:
            return
    raise AssertionError(f"{recorder._files.begun} files")


def test_what_a_process_beside_this_one_records_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "BATCH_S", 0.0)

    def recorder() -> FileRecorder:
        return FileRecorder(tmp_path / "m.ksim", header(), max_bytes=8_000, keep=2)

    def numbers() -> list[int]:
        return sorted(int(path.stem.removeprefix("m-")) for path in tmp_path.iterdir())

    one, other, third = recorder(), recorder(), recorder()
    filled(one, 2)
    filled(other, 3)
    assert numbers() == [1, 2, 4, 5]
    one.close()
    filled(third, 1)
    assert numbers() == [2, 4, 5, 6]
    other.close()
    third.close()
    last = recorder()
    filled(last, 1)
    last.close()
    assert numbers() == [6, 7]


def settle(recorder: FileRecorder) -> None:
    """Until what was told is written."""
    until(lambda: not recorder.waiting)


def until(condition: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(LIMIT_S * 1_000)):
        if condition():
            return
        waited.wait(0.001)
    raise AssertionError("it is never written")


def test_a_full_disk_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    recorder = FileRecorder(Path("/dev/full"), header())
    with caplog.at_level(logging.ERROR, "ksim.recording"):
        assert [*live(recorder)][-1] == ENTRIES
        recorder.close()
    (line,) = caplog.messages
    assert line == (
        "cannot write the recording /dev/full: No space left on device; goes on without it"
    )
    assert recorder.recording_dropped == ENTRIES
    assert recorder.recorded_bytes == 0


@pytest.mark.parametrize("room", [25_000, 35_000])
def test_what_fits_on_a_disk_does_not_count_as_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    honest = recording_files._opened

    class Disk:
        """A file of a disk with so much room."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.left = room

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(data[: self.left])
            self.left -= written
            return int(written)

        def close(self) -> None:
            self.file.close()

        def fileno(self) -> int:
            return int(self.file.fileno())

    monkeypatch.setattr(recording_files, "_opened", lambda path: Disk(honest(path)))
    recorder = FileRecorder(tmp_path / "m.ksim", header())
    assert [*live(recorder)][-1] == ENTRIES
    recorder.close()
    outcome = replay_file(tmp_path / "m.ksim")
    assert outcome.verdict == ReplayVerdict.INCOMPLETE
    assert outcome.entries > 0
    assert outcome.entries + recorder.recording_dropped == ENTRIES
    assert recorder.recorded_bytes == room == (tmp_path / "m.ksim").stat().st_size


def test_a_directory_that_is_not_there_is_said_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = FileRecorder(tmp_path / "absent" / "m.ksim", header(), max_bytes=1_000)
    assert [*live(recorder)][-1] == ENTRIES
    recorder.close()
    assert [("No such file" in line) for line in caplog.messages] == [True]
    assert recorder.recording_dropped == ENTRIES


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The disk stands still until this is set, and little waits for it."""
    monkeypatch.setattr(recording, "MOST_QUEUED", 20)
    monkeypatch.setattr(recording, "BATCH_S", 0.0)
    moves = threading.Event()
    honest = recording_files.Files.write

    def write(self: Any, steps: Any) -> None:
        assert moves.wait(LIMIT_S)
        honest(self, steps)

    monkeypatch.setattr(recording_files.Files, "write", write)
    return moves


def test_a_disk_that_stands_still_loses_steps_and_not_the_recording(
    tmp_path: Path, moves: threading.Event
) -> None:
    recorder = FileRecorder(tmp_path / "m.ksim", header())
    for at in live(recorder):
        if at == 1:
            # The writer has it, and stands still; a late one would find a full queue.
            until(lambda: not recorder._queue)
        if at >= 100:
            moves.set()
            settle(recorder)
    recorder.close()
    first, second = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    steps = [whole(first), whole(second)]
    kept = sum(map(len, steps))
    assert recorder.recording_dropped == ENTRIES - kept > 40
    assert {path.name for path in (first, second)} == {"m.ksim", "m-0002.ksim"}
    later = read_recording(tmp_path / "m-0002.ksim")
    assert later.header["why"] == "entries before were dropped"
    assert whole(tmp_path / "m.ksim") == WHOLE[: len(whole(tmp_path / "m.ksim"))]
    assert whole(tmp_path / "m-0002.ksim") == WHOLE[-len(later.entries) :]


def test_what_a_disk_loses_last_leaves_the_recording_without_an_end(
    tmp_path: Path, moves: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.ksim"
    recorder = FileRecorder(path, header())
    for at in live(recorder):
        if at == 1:
            until(lambda: not recorder._queue)
    moves.set()
    recorder.close()
    outcome = replay_file(path)
    assert outcome.verdict == ReplayVerdict.INCOMPLETE
    missing = ENTRIES - outcome.entries
    assert recorder.recording_dropped == missing > 0
    assert caplog.messages == [
        f"the last {missing} entries of the recording {path} were dropped: it has no end"
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["m.ksim"]


def payload_of(path: Path) -> Any:
    (entry,) = read_recording(path).entries
    return entry.payload


def record_fetch(path: Path, mode: PayloadMode, checksums: bytes = b"") -> Any:
    """What stands beside a fetch of two records."""
    machine = Member(Config(group_id="g", topics=("t",)).member_config(), 1)
    recorder = FileRecorder(path, header(mode))
    tap = recorder(machine.snapshot)
    payload = SizedPayload()
    payload[TP] = (Record(4, 10, b"k", b"v", ()), Record(6, 11, None, b"w", (("h", b"x"),)))
    if checksums:
        payload.sizes[TP], payload.checksums[TP] = 80, checksums
    tap.on_payload(payload)
    fact = e.RequestFailed(5, "gone")
    tap.on_step(1, fact, machine.step(fact, now_ms=1))
    recorder.close()
    return payload_of(path)


def test_payloads_are_digests_of_a_key_that_is_not_written(tmp_path: Path) -> None:
    one = record_fetch(tmp_path / "a.ksim", PayloadMode.DIGEST, b"1234")
    (part,) = one
    digest = part.pop("digest")
    assert part == {
        "topic": "orders", "partition": 0, "first": 4, "last": 6, "count": 2, "bytes": 80,
    }  # fmt: skip
    (again,) = record_fetch(tmp_path / "b.ksim", PayloadMode.DIGEST, b"1234")
    assert len(digest) == 16
    assert again["digest"] != digest
    assert record_fetch(tmp_path / "c.ksim", PayloadMode.NONE) is None


def test_payloads_may_be_kept_in_full(tmp_path: Path) -> None:
    (part,) = record_fetch(tmp_path / "a.ksim", PayloadMode.FULL)
    assert part["records"] == [[4, 10, "aw==", "dg==", []], [6, 11, None, "dw==", [["h", "eA=="]]]]


def secret_config() -> Config:
    return Config(
        group_id="g",
        topics=("t",),
        user_data=USER_DATA,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username="anna",
        sasl_plain_password=PASSWORD,
    )


def leader(config: Config) -> Iterator[tuple[e.MemberFact, list[e.MemberOrder]]]:
    """A member that joins and is the leader of another one with the same user data."""
    metadata = encode_subscription(["t"], user_data=USER_DATA)
    machine = Member(config.member_config(), 1)
    members = tuple(m.JoinedMember(name, None, metadata) for name in ("a", "b"))
    joined = m.JoinGroupResponse(0, 1, "consumer", "range", "a", "a", members)
    facts: list[e.MemberFact] = [
        e.Started(),
        e.ResponseReceived(0, m.FindCoordinatorResponse(0, 1, "b", 9092)),
        e.ResponseReceived(2, joined),
    ]
    yield from ((fact, machine.step(fact, now_ms=10)) for fact in facts)


def test_neither_passwords_nor_user_data_are_recorded(tmp_path: Path) -> None:
    config = secret_config()
    about = header_of("member", "m", config.public())
    path, ring_path = tmp_path / "m.ksim", tmp_path / "ring.ksim"
    machine = Member(config.member_config(), 1)
    file = FileRecorder(path, about)
    ring = FlightRecorder(about, most_bytes=10**6, most_ms=10**6)
    file(machine.snapshot)
    ring(machine.snapshot)
    seen = [*leader(config)]
    for fact, orders in seen:
        file.on_step(10, fact, orders)
        ring.on_step(10, fact, orders)
    file.close()
    ring.flight(1, "").write(ring_path)
    text = json.dumps([str(step) for step in seen])
    assert USER_DATA.decode() in text
    for each in (path, ring_path):
        assert replay_file(each).verdict == ReplayVerdict.SAME
        data = each.read_bytes()
        assert b"JoinGroupResponse" in data
        assert PASSWORD.encode() not in data
        assert not any(USER_DATA in found for found in bytes_in(read_recording(each)))
        assert any(b"*" * len(USER_DATA) in found for found in bytes_in(read_recording(each)))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"T", b"TOP-SECRET-TOKEN", b"\0\1\0\0\0\1\0\6orders\0\0\0\x99TOP-SECRET-TOKEN",
        b"\0\1\0\0\0\1TOP-SECRET-TOKEN", b"\0\1\0\0\0\1\0\1\xffTOP-SECRET-TOKEN",
        b"\xff\1TOP-SECRET-TOKEN", b"\0\1\0\0\0\1\0\6orders\0",
    ],
)  # fmt: skip
def test_bytes_that_are_no_subscription_are_hidden_and_fail_alike(data: bytes) -> None:
    new = starred(data)
    assert len(new) == len(data)
    assert b"TOP" not in new
    assert b"SECRET" not in new
    sentences = []
    for each in (data, new):
        with pytest.raises(MalformedProtocolError) as error:
            decode_subscription("", None, each)
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]


@pytest.mark.parametrize("mode", [PayloadMode.DIGEST, PayloadMode.FULL])
def test_recordings_of_runs_have_no_user_data(tmp_path: Path, mode: PayloadMode) -> None:
    config = secret_config()
    recorders = Recorders(tmp_path, 0, mode)
    recorder = recorders("m", config, Member(config.member_config(), 1).snapshot)
    for fact, orders in leader(config):
        recorder.on_step(10, fact, orders)
    recorders.close()
    path = tmp_path / "m.ksim"
    assert replay_file(path).verdict == ReplayVerdict.SAME
    found = bytes_in(read_recording(path))
    assert any(USER_DATA in each for each in found) is (mode == PayloadMode.FULL)
    assert any(b"*" * len(USER_DATA) in each for each in found) is (mode != PayloadMode.FULL)


def bytes_in(found: Any) -> list[bytes]:
    """All bytes that plain data holds."""
    if isinstance(found, dict) and set(found) == {"b64"}:
        return [value_of(found)]
    if isinstance(found, dict):
        found = [*found.values()]
    elif hasattr(found, "entries"):
        steps = [[entry.fact, entry.orders] for entry in found.entries]
        found = [found.snapshot, *steps]
    return [each for item in found for each in bytes_in(item)] if isinstance(found, list) else []


def test_user_data_of_one_length_stays_unlike() -> None:
    stars = Stars()
    given = [b"", *(bytes((number,)) for number in range(256)), b"long-one", b"long-two"]
    found = [stars.of(data) for data in given]
    assert [*map(len, found)] == [*map(len, given)]
    assert len(set(found)) == len(given)
    assert found == [stars.of(data) for data in given]
    assert found[-2:] == [b"********", b"*******+"]
