"""Files of configuration: what Java's .properties and TOML say, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksim.consumer.config import Config
from ksim.consumer.config_files import properties
from ksim.core.errors import ConfigError


# Source: the documentation of java.util.Properties.load.
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=b", {"a": "b"}),
        ("a = b \n", {"a": "b "}),
        ("a:b\na2 : b", {"a": "b", "a2": "b"}),
        ("a b c", {"a": "b c"}),
        ("  \t a=b", {"a": "b"}),
        ("# no\n! no\n\n  # no\na=#yes", {"a": "#yes"}),
        ("a=1,\\\n   2,\\\r\n   3\nb=4", {"a": "1,2,3", "b": "4"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a\\ b\\=c\\:d=e", {"a b=c:d": "e"}),
        ("a=\\u00fc\\t\\n\\x", {"a": "ü\t\nx"}),
        ("a==b", {"a": "=b"}),
        ("a", {"a": ""}),
        ("a=1\na=2", {"a": "2"}),
        ("a=\\\n# no comment\nb=1", {"a": "# no comment", "b": "1"}),
        ("a=b\\", {"a": "b"}),
        ("a=1\\\n\nb=2", {"a": "1", "b": "2"}),
        ("=b", {"": "b"}),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, found: dict[str, str]) -> None:
    assert properties(text) == found


def test_a_broken_escape_names_its_line() -> None:
    with pytest.raises(ValueError, match=r"line 2: \\u needs four hexadecimal digits"):
        properties("a=1\nb=\\u00g0")


FILES = {
    "c.properties": "group.id=g\ntopics=a,b\nsession.timeout.ms=10s\nauto.offset.reset=smallest\n",
    "c.toml": (
        'group_id = "g"\ntopics = ["a", "b"]\nsession.timeout.ms = 10_000\n'
        '"auto.offset.reset" = "earliest"\n'
    ),
}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_is_a_configuration(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(FILES[name], "utf-8")
    expected = Config(
        group_id="g", topics=("a", "b"), session_timeout_ms=10_000, auto_offset_reset="earliest"
    )
    assert Config.from_file(path) == Config.from_file(str(path)) == expected
    assert Config.from_file(path, group_id="h").group_id == "h"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.toml", b"group_id = \n", "at line 1"),
        ("c.toml", b"group_id = 'g'\ntopics = ['t']\nsession_timeout_ms = 1.5", "= 1.5: a whole"),
        (
            "c.toml",
            b"group_id = 'g'\n[session]\ntimeout.mss = 1",
            "session.timeout.mss = 1: unknown",
        ),
        ("c.toml", b"topics = " + b"[" * 5_000 + b"]" * 5_000, "nested too deeply"),
        ("c.toml", b"a." * 5_000 + b"a = 1", "nested too deeply"),
        ("c.properties", b"a=\\u1", "line 1:"),
        ("c.properties", b"\xff", "no UTF-8 at byte 0"),
        ("c.yaml", b"", "'.yaml': .toml or .properties"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Config.from_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Config.from_file(tmp_path / "c.toml")
