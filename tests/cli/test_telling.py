"""What a terminal is sent: text, and nothing that would move its cursor or change its title."""

from __future__ import annotations

import pytest

from ksim.cli.telling import say
from tests.cli.commands import ksim

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
