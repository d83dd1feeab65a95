"""Files whose checksums fit and whose content is none: replay takes none of them for the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ksim.core.errors import DamagedRecordingError
from ksim.recording import read_recording
from ksim.replay import ReplayVerdict, replay_file
from tests.cli.commands import ROOT, ksim
from tests.recordings_here import CORPUS, forge

STATIC = CORPUS / "1.0" / "static.ksim"
Change = Callable[[list[str]], None]


def first(texts: list[str], part: str) -> int:
    return next(at for at, text in enumerate(texts) if part in text and at > 1)


def back(texts: list[str]) -> None:
    texts[40] = re.sub(r'^\{"t":\d+', '{"t":0', texts[40])


def beyond(texts: list[str]) -> None:
    for at in range(40, len(texts) - 1):
        texts[at] = re.sub(r'^\{"t":\d+', '{"t":' + "9" * 4_000, texts[at])


def twice(texts: list[str]) -> None:
    texts[40] = texts[40][:-1] + ',"payload":[],"orders":[{"_":"Closed"}]}'


def twice_within(texts: list[str]) -> None:
    at = first(texts, '"_":"SendRequest",')
    texts[at] = texts[at].replace('"_":"SendRequest",', '"_":"SendRequest","node_id":7,', 1)


def no_payload(texts: list[str]) -> None:
    texts[40] = texts[40][:-1] + ',"payload":NOT JSON}'


def no_payload_before_a_divergence(texts: list[str]) -> None:
    no_payload(texts)
    texts[42] = texts[42].replace('"orders":[', '"orders":[{"_":"Closed"},').replace("},]", "}]")


def deep(texts: list[str]) -> None:
    texts[40] = texts[40].replace('"fact":', '"fact":' + "[" * 600 + "]" * 600 + ',"orders":[]}', 1)
    texts[40] = texts[40].partition(',"orders":[]}')[0] + ',"orders":[]}'


def deep_order(texts: list[str]) -> None:
    texts[40] = texts[40].partition('"orders":')[0] + '"orders":[' + "[" * 600 + "]" * 601 + "}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (back, "line 41: t goes from "),
        (beyond, "line 41: t goes from "),
        (twice, "line 41: "),
        (no_payload, "line 41: "),
        (no_payload_before_a_divergence, "line 41: "),
        (deep, "line 41: "),
        (deep_order, "line 41: "),
        (twice_within, "'node_id' stands twice in an object"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)  # fmt: skip
def test_it_is_damage_at_its_line(tmp_path: Path, change: Change, words: str) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, change)
    outcome = replay_file(path)
    assert outcome.verdict == ReplayVerdict.DAMAGED
    assert words in outcome.problem
    assert len(outcome.problem) < 500


@pytest.mark.parametrize(
    "change", [back, beyond, twice, no_payload], ids=lambda each: each.__name__
)
def test_all_other_readers_say_so_too(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, change)
    with pytest.raises(DamagedRecordingError, match="line 41: "):
        read_recording(path)


def true_for_one(texts: list[str]) -> None:
    at = first(texts, '"_":"SendRequest","request_id":1,')
    texts[at] = texts[at].replace('"request_id":1,', '"request_id":true,')


def test_true_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, true_for_one)
    outcome = replay_file(path)
    assert outcome.verdict == ReplayVerdict.DIVERGED
    assert outcome.divergence is not None
    assert "request_id was true, is now 1" in outcome.divergence.sentence()
    shown = ksim("replay", "--entry", str(outcome.divergence.entry), str(path))
    assert shown.returncode == 4


def test_a_number_that_no_entry_has_is_a_mistake() -> None:
    found = ksim("replay", str(STATIC), "--entry", "1" + "0" * 22)
    assert found.returncode == 2
    assert "is not in the range" in found.stderr
    assert "Traceback" not in found.stderr


def test_what_can_be_read_once_is_replayed_without_the_state_before(tmp_path: Path) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, true_for_one)
    found = subprocess.run(
        [sys.executable, "-m", "ksim.cli.main", "replay", "/dev/stdin"],
        cwd=ROOT,
        input=path.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert found.returncode == 4
    assert found.stdout.startswith(b"DIVERGED")
    assert b"/dev/stdin cannot be read twice" in found.stderr
