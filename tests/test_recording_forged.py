"""Files whose checksums fit and whose content is none: each has a clear outcome."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.cli.check import check
from ksim.cli.diff import diff
from ksim.cli.lift import lift_command
from ksim.cli.replay import replay
from ksim.core.errors import ConfigError, DamagedRecordingError, KsimError
from ksim.recording import PAYLOAD_AT, read_recording
from ksim.replay import ReplayOutcome, ReplayVerdict, replay_file
from tests.cli.commands import ROOT, ksim
from tests.recordings_here import CORPUS, forge
from tests.test_recording_damage import JSON, forged

STATIC = CORPUS / "1.0" / "static.ksim"
Change = Callable[[list[str]], None]


def first(texts: list[str], part: str) -> int:
    return next(at for at, text in enumerate(texts) if part in text and at > 1)


def back(texts: list[str]) -> None:
    texts[40] = re.sub(r'^\{"t":\d+', '{"t":0', texts[40])


def zeros_first(texts: list[str]) -> None:
    texts[40] = texts[40].replace('{"t":', '{"t":0')


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


def closed(texts: list[str], at: int) -> None:
    """This entry decides what no machine does."""
    texts[at] = texts[at].partition('"orders":')[0] + '"orders":[{"_":"Closed"}]}'


def with_payload(texts: list[str], payload: str) -> None:
    texts[40] = f"{texts[40].partition(PAYLOAD_AT)[0].removesuffix('}')}{PAYLOAD_AT}{payload}}}"


def key_twice_in_a_payload(texts: list[str]) -> None:
    with_payload(texts, '[{"topic":"a","topic":"b"}]')


def key_twice_before_a_divergence(texts: list[str]) -> None:
    key_twice_in_a_payload(texts)
    closed(texts, 42)


def deep_payload_before_a_divergence(texts: list[str]) -> None:
    with_payload(texts, "[" * 150 + "]" * 150)
    closed(texts, 42)


def nothing(texts: list[str]) -> None:
    at = next(at for at, text in enumerate(texts) if at > 2 and text.endswith('"orders":[]}'))
    texts[at] = texts[at].replace('"orders":[]}', '"orders":["nothing"]}')


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
        (zeros_first, "line 41: not an entry"),
        (twice, "line 41: "),
        (no_payload, "line 41: "),
        (no_payload_before_a_divergence, "line 41: "),
        (key_twice_in_a_payload, "line 41: payload: 'topic' stands twice in an object"),
        (key_twice_before_a_divergence, "line 41: payload: 'topic' stands twice in an object"),
        (deep_payload_before_a_divergence, "line 41: payload: nested more than 100 deep"),
        (nothing, '"nothing" is no order'),
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


def test_a_file_that_goes_away_after_its_verdict_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, true_for_one)

    def replayed(each: Path) -> ReplayOutcome:
        outcome = replay_file(each)
        path.write_bytes(b"garbage\n")
        return outcome

    monkeypatch.setattr("ksim.cli.replay.replay_file", replayed)
    assert replay.main([str(path), str(STATIC)], standalone_mode=False) == 4
    told = capsys.readouterr()
    assert told.out.splitlines()[1].startswith(f"SAME        {STATIC}")
    assert f"state before: not known, as it is another file by now: {path}: line 1: " in told.err


def deep_state(texts: list[str]) -> None:
    texts[1] = texts[1].replace('"tickets":[]', '"tickets":' + "[" * 400 + "]" * 400)


def half_a_character(texts: list[str]) -> None:
    texts[0] = texts[0].replace('"member":"g-1"', '"member":"g-1\\ud800"')


def no_watermark(texts: list[str]) -> None:
    at = first(texts, '"high_watermark":')
    texts[at] = re.sub(r'"high_watermark":\d+', '"high_watermark":null', texts[at])


def code_of_text(texts: list[str]) -> None:
    at = first(texts, '"_":"HeartbeatResponse"')
    texts[at] = texts[at].replace('"error_code":0', '"error_code":"x"')


def order_of_facts(texts: list[str]) -> None:
    texts[40] = texts[40].partition('"orders":')[0] + '"orders":[{"_":"TimerFired"}]}'


def no_time(texts: list[str]) -> None:
    texts[0] = re.sub(r'"metadata_max_age_ms":\d+', '"metadata_max_age_ms":null', texts[0])


def twice_in_a_fact(texts: list[str]) -> None:
    at = first(texts, '"high_watermark":')
    texts[at] = texts[at].replace('"high_watermark":', '"high_watermark":1,"high_watermark":', 1)


def beyond_64_bits(texts: list[str]) -> None:
    at = first(texts, '"high_watermark":')
    texts[at] = re.sub(r'"high_watermark":\d+', f'"high_watermark":{-(2**63) - 1}', texts[at])


def payload_of(**changes: Any) -> Change:
    """A payload of which these are otherwise; None: not there."""
    part: dict[str, Any] = dict.fromkeys(("partition", "first", "last", "count"), 1)
    part |= {"topic": "t", "digest": "00ff"} | changes
    found = {name: value for name, value in part.items() if value is not None}
    return lambda texts: with_payload(texts, json.dumps([found]))


RECORD = [4, 10, None, "aw==", [["h", None]]]
WRONG = [
    (deep, "line 41: [[["),
    (deep_order, "line 41: nested more than 100 deep"),
    (deep_state, "line 2: nested more than 100 deep"),
    (half_a_character, "line 1: member: "),
    (no_watermark, "FetchedPartition.high_watermark: None is not a whole number"),
    (code_of_text, "HeartbeatResponse.error_code: 'x' is not a whole number"),
    (order_of_facts, "line 41: {'_': 'TimerFired'} is not one of 13 kinds: SendRequest, "),
    (twice_in_a_fact, "'high_watermark' stands twice in an object"),
    (beyond_64_bits, "-9223372036854775809 is not a whole number of up to 64 bits"),
    (payload_of(count="many"), "line 41: payload: count: 'many' is not a whole number"),
    (payload_of(xcount=[1.5]), "line 41: payload: 'xcount' is not one of topic, partition, "),
    (payload_of(first=None), "line 41: payload: "),
    (payload_of(digest="of anna"), "line 41: payload: digest: 'of anna' is not a digest"),
    (payload_of(records=[RECORD, [5]]), "line 41: payload: records: [5] is not a list of 5"),
    (lambda texts: with_payload(texts, "[[]]"), "line 41: payload: [] is not an object"),
    (no_time, "line 1: config.metadata_max_age_ms: None is not a whole number"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_read_is_of_the_types_of_the_format(
    tmp_path: Path, change: Change, words: str
) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, change)
    with pytest.raises(DamagedRecordingError, match=re.escape(words)):
        read_recording(path)


def test_a_payload_of_the_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.ksim"
    for change in (payload_of(), payload_of(bytes=9, records=[RECORD]), payload_of(digest=None)):
        forge(STATIC, path, change)
        assert read_recording(path).entries[38].payload
        assert replay_file(path).verdict == ReplayVerdict.SAME


def test_a_copy_has_nothing_of_a_payload_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.ksim"
    forge(STATIC, path, payload_of(digest="of anna"))
    found = ksim("mask", str(path), "-o", str(tmp_path / "out.ksim"))
    assert found.returncode == 5
    assert "line 41: payload: digest: 'of anna' is not a digest" in found.stderr


COMMANDS = [
    (check, ["{}"]),
    (replay, ["{}"]),
    (diff, ["--all", "{}", str(STATIC)]),
    (lift_command, ["{}", "-o", "{}.toml", "--runs", "1"]),
]


def no_end(texts: list[str]) -> None:
    at = first(texts, '"high_watermark":')
    texts[at] = re.sub(r'"high_watermark":\d+', '"high_watermark":1000000000000', texts[at])


def another_age(texts: list[str]) -> None:
    at = len(texts) - 2
    texts[at] = re.sub(r'^\{"t":\d+', '{"t":1000000000000', texts[at])


@pytest.mark.parametrize(("change", "code"), [(no_end, 4), (another_age, ConfigError)])
def test_what_takes_for_ever_is_not_lifted(
    tmp_path: Path, change: Change, code: int | type[KsimError]
) -> None:
    """No more is simulated than so many entries can stand for."""
    path = tmp_path / "x.ksim"
    forge(STATIC, path, change)
    out = tmp_path / "x.toml"
    told = CliRunner().invoke(
        lift_command, [str(path), "-o", str(out), "--runs", "1"], standalone_mode=False
    )
    assert (type(told.exception) if told.exception else told.return_value) == code


@settings(max_examples=40)
@given(at=st.integers(0, 200), steps=st.lists(st.integers(0, 50), max_size=6), value=JSON)
def test_no_altered_value_breaks_a_command(at: int, steps: list[int], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ksim"
        path.write_bytes(forged(STATIC.read_bytes(), at, [*steps, 0], value))
        for command, arguments in COMMANDS:
            told = CliRunner().invoke(
                command, [each.format(path) for each in arguments], standalone_mode=False
            )
            assert told.exception is None or isinstance(told.exception, KsimError), told.exc_info
            assert isinstance(told.exception, KsimError) or told.return_value in (0, 1, 4, 5)
