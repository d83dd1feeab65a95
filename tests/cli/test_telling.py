"""What a terminal is sent: text, and nothing that would move its cursor or change its title."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ksim.cli.telling import say
from tests.cli.commands import ksim
from tests.recordings_here import CORPUS, forge

STATIC = CORPUS / "1.0" / "static.ksim"

MEAN = "a\x1b]0;title\x07b\x9b2J\rc"


def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{MEAN}\n\tnext \N{SNOWMAN}")
    assert capsys.readouterr().out == ("a\\x1b]0;title\\x07b\\x9b2J\\x0dc\n\tnext \N{SNOWMAN}\n")


@pytest.mark.parametrize("command", ["replay", "check"])
def test_a_name_from_elsewhere_is_text(command: str) -> None:
    found = ksim(command, f"no-such-{MEAN}.ksim")
    assert found.returncode != 0
    said = found.stdout + found.stderr
    assert "\\x1b]0;title\\x07b" in said
    assert not [char for char in said if char in "\x1b\x07\x9b\r"]


HALF = "half \ud800 of it"


def test_half_a_character_is_shown_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    say(HALF)
    say(HALF, err=True)
    assert capsys.readouterr() == ("half \\ud800 of it\n", "half \\ud800 of it\n")


def test_what_an_output_has_no_bytes_for_is_shown_by_its_number() -> None:
    found = ksim("replay", "no-such-\N{SNOWMAN}.ksim", PYTHONIOENCODING="ascii")
    assert found.returncode == 5
    assert found.stdout == "DAMAGED     no-such-\\u2603.ksim\n"


@pytest.mark.parametrize(
    "arguments",
    [("replay", "{}"), ("diff", "{}", str(STATIC)), ("lift", "{}", "--runs", "1", "-o", "{}.toml")],
    ids=lambda each: each[0],
)
def test_files_whose_name_and_configuration_are_no_text_are_read(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / os.fsdecode(b"x\xff.ksim")

    def half(texts: list[str]) -> None:
        texts[0] = texts[0].replace('"read_uncommitted"', '"\\ud800"')

    forge(STATIC, path, half)
    found = ksim(*(each.format(path) for each in arguments))
    assert found.returncode in (0, 4), found.stderr
    assert found.stderr == ""


def test_an_argument_that_is_no_text_is_a_mistake() -> None:
    found = ksim(os.fsdecode(b"x\xff"))
    assert found.returncode == 2
    assert "No such command 'x\\udcff'" in found.stderr
