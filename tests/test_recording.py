"""Recordings survive being cut, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from ksim.consumer.config import Config
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import DamagedRecordingError
from ksim.core.member import Member
from ksim.core.trace import plain
from ksim.recording import RecordingWriter, read_recording
from ksim.replay import ReplayVerdict, replay

FACTS: list[e.MemberFact] = [
    e.Started(),
    e.ResponseReceived(0, m.FindCoordinatorResponse(0, 1, "b", 9092)),
    e.TimerFired(),
    e.UserPolled(True, 1_050),
    e.RequestFailed(1, "gone"),
]


class Kept(io.BytesIO):
    """A file whose content outlives `close`."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


class Halving(Kept):
    """A file that takes at most half of a write, as a disk does that is just full."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[: (memoryview(data).nbytes + 1) // 2])


def member() -> Member:
    return Member(Config(group_id="g", topics=("t",)).member_config(), 1)


def record(change_at: int | None = None, kind: type[Kept] = Kept) -> bytes:
    """A whole recording; with `change_at`, that entry says something else than was decided."""
    file, machine = kind(), member()
    writer = RecordingWriter(file, {"vantage": "member", "seed": 1}, machine.snapshot())
    for number, fact in enumerate(FACTS, 1):
        now_ms = 1_000 + number * 20
        orders = machine.step(fact, now_ms=now_ms)
        if number == change_at:
            orders = [*orders, e.Closed()]
        writer.on_step(now_ms, fact, orders)
    writer.close()
    writer.close()
    return file.content


WHOLE = record()


def test_a_write_that_is_cut_short_goes_on() -> None:
    assert record(kind=Halving) == WHOLE


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "x.ksim"
    path.write_bytes(data)
    return path


def test_a_whole_recording_replays_the_same(tmp_path: Path) -> None:
    found = read_recording(put(tmp_path, WHOLE))
    assert found.complete
    assert [entry.fact for entry in found.entries] == [plain(fact) for fact in FACTS]
    assert replay(found).verdict == ReplayVerdict.SAME


def test_a_recording_cut_anywhere_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    for at in range(len(WHOLE)):
        data = WHOLE[:at]
        lines = data.count(b"\n")
        path = put(tmp_path, data)
        if lines < 2:
            with pytest.raises(DamagedRecordingError, match="no header and snapshot"):
                read_recording(path)
            continue
        found = read_recording(path)
        assert not found.complete
        assert len(found.entries) == lines - 2
        assert found.torn_bytes == len(data.rpartition(b"\n")[2])
        assert replay(found).verdict == ReplayVerdict.INCOMPLETE


def test_a_flipped_byte_is_found_in_its_line(tmp_path: Path) -> None:
    for at in range(0, len(WHOLE), 7):
        if WHOLE[at] == ord("\n"):
            continue
        line = WHOLE[:at].count(b"\n") + 1
        data = WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]
        with pytest.raises(DamagedRecordingError, match=f"line {line}:"):
            read_recording(put(tmp_path, data))


def test_removed_swapped_and_foreign_lines_are_found(tmp_path: Path) -> None:
    lines = WHOLE.splitlines(keepends=True)
    removed = [*lines[:3], *lines[4:]]
    swapped = [*lines[:3], lines[4], lines[3], *lines[5:]]
    foreign = [*lines[:3], b"garbage\n", *lines[3:]]
    for wrong in (removed, swapped, foreign):
        with pytest.raises(DamagedRecordingError, match="line 4:"):
            read_recording(put(tmp_path, b"".join(wrong)))


def test_something_after_the_end_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedRecordingError, match="after the end"):
        read_recording(put(tmp_path, WHOLE + b"more"))


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    file = Kept()
    writer = RecordingWriter(file, {"version": "9.9"}, {})
    writer.close()
    with pytest.raises(DamagedRecordingError, match=r"line 1: .* '9\.9'; this reads 0\.1, 1\.0"):
        read_recording(put(tmp_path, file.content))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DamagedRecordingError, match="cannot be read"):
        read_recording(tmp_path / "absent.ksim")


@pytest.mark.parametrize("entry", range(1, len(FACTS) + 1))
def test_a_replay_names_the_entry_where_it_parts(tmp_path: Path, entry: int) -> None:
    outcome = replay(read_recording(put(tmp_path, record(change_at=entry))))
    assert outcome.verdict == ReplayVerdict.DIVERGED
    assert outcome.divergence is not None
    assert (outcome.divergence.entry, outcome.divergence.line) == (entry, entry + 2)
    sentence = outcome.divergence.sentence()
    assert f"entry {entry} (line {entry + 2})" in sentence
    assert 'was {"_":"Closed"}, is now "nothing"' in sentence


@pytest.mark.parametrize("vantage", ["broker", None])
def test_a_vantage_that_cannot_be_replayed_is_refused(tmp_path: Path, vantage: str | None) -> None:
    file = Kept()
    RecordingWriter(file, {"vantage": vantage}, member().snapshot()).close()
    with pytest.raises(DamagedRecordingError, match="coordinator, member"):
        replay(read_recording(put(tmp_path, file.content)))


def test_a_snapshot_of_something_else_is_damage(tmp_path: Path) -> None:
    file = Kept()
    RecordingWriter(file, {"vantage": "member"}, {"_": "TimerFired"}).close()
    with pytest.raises(DamagedRecordingError, match="line 2"):
        replay(read_recording(put(tmp_path, file.content)))
