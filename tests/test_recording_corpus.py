"""Recordings of earlier releases are read and replayed for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.core.errors import UnsupportedRecordingError
from ksim.recording import READ_VERSIONS, read_recording
from ksim.replay import ReplayVerdict, replay, replay_file
from tests.recordings_here import CORPUS, FILES, verdict_of


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def test_there_are_files_of_every_version_that_is_read() -> None:
    assert sorted(each.name for each in CORPUS.iterdir()) == sorted(READ_VERSIONS)
    assert {path.parent.name for path in FILES} == set(READ_VERSIONS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_of_the_corpus_is_read_and_replayed(path: Path) -> None:
    found = read_recording(path)
    assert found.header["version"] == path.parent.name
    assert len(found.entries) > 10
    outcome = replay_file(path)
    assert outcome.verdict == verdict_of(path)
    if outcome.verdict == ReplayVerdict.UNSUPPORTED:
        with pytest.raises(UnsupportedRecordingError):
            replay(found)
        return
    assert outcome.problem == ""
    assert outcome.entries == len(found.entries)
    assert replay(found) == outcome
